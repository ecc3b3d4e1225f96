import GRDB
import SweepCore
import SweepLedger
import SweepTestKit
import Testing

/// A sweep of several rounds of inheritance in the ledger.
struct LedgerRoundTests {
  private let directory: TemporaryDirectory
  private let sample: SampleSweep
  private let path: String

  init() throws {
    directory = try TemporaryDirectory()
    sample = try SampleSweep(
      sketch: """
        name: rounds
        tasks: [occupation, story]
        biases: [neutral, same-size]
        ratios: [0, 0.5]
        rounds: 3
        """)
    path = directory.file("sweep.sqlite")
  }

  @Test func resultsAndSetsHaveTheirRound() throws {
    try sample.finishedLedger(path)
    let reader = try LedgerReader(path: path)
    let trials = try reader.trialResults()
    #expect(trials.count == 10)
    #expect(trials.filter { $0.bias == "neutral" }.map(\.round).sorted() == [1, 1, 2, 2, 3, 3])
    #expect(trials.filter { $0.bias != "neutral" }.allSatisfy { $0.round == 1 })
    // Points of every round, also those that share the trial of the first.
    let points = try reader.gridResults()
    #expect(points.count == 24 && points.count { $0.round == 3 } == 8)
    let shared = points.filter { $0.round == 3 && ($0.ratio == 0 || $0.bias == "same-size") }
    #expect(shared.count == 6 && shared.allSatisfy { !$0.trial.contains("round") })

    let results = try reader.recordedResults()
    #expect(results.trials.count { $0.round > 1 } == 4)
    let written = results.facts.filter { $0.round > 1 }
    #expect(Set(written.map(\.round)) == [2, 3])
    #expect(written.allSatisfy { $0.ratio == 0.5 && $0.mitigation == "none" })
    #expect(results.facts.filter { $0.round == 1 }.allSatisfy { $0.ratio == nil })
    let sets = try reader.augmentations()
    #expect(sets.count == 8 && sets.count { $0.writer != nil } == 4)
    for set in sets where set.round > 1 {
      #expect(set.writer?.hasPrefix("tune/\(set.domain)/neutral/0.5/none/1") == true)
    }
    // Fine-tunes that write leave what they learned.
    #expect(try reader.keptFineTunes().map(\.round).sorted() == [1, 1, 2, 2])
    #expect(
      try LedgerVerification(path: path, artifacts: nil, version: version).problems == [])
  }

  @Test func aWholeChainFailsWithItsFirstLink() throws {
    let ledger = try sample.ledger(path)
    let first = try #require(
      sample.plan.shards.firstIndex { $0.id.description == "augment/gender/neutral" })
    try ledger.append(
      sample.opening + sample.failure(of: first, evidence: "broken"), now: 2_000)
    let status = try LedgerReader(path: path).status(now: 2_000)
    #expect(status.failed == 3 && status.trials == 10)
    let blocked = try count(
      "SELECT count(*) FROM shard_status WHERE state = 'blocked' AND domain = 'gender'", in: path)
    #expect(blocked == 6)
    var scheduler = Scheduler(plan: sample.plan, policy: ExecutionPolicy(), seed: 1)
    for event in sample.opening + sample.failure(of: first, evidence: "broken") {
      scheduler.apply(event, now: .zero)
    }
    #expect(scheduler.summary.trialsFailed == status.failed)
    try ledger.close()
  }

  @Test func theSchemaKnowsWhatHasRounds() throws {
    _ = try sample.ledger(path)
    for change in [
      "UPDATE trial SET round = 2 WHERE ratio = 0", "UPDATE trial SET round = 0",
      "UPDATE shard SET round = 0", "UPDATE grid_point SET round = 1",
    ] {
      #expect(throws: DatabaseError.self, "\(change)") {
        try rawDatabase(path).write { try $0.execute(sql: change) }
      }
    }
  }

  @Test func findingsOfEveryRoundAreKept() throws {
    let ledger = try sample.ledger(path)
    let findings = (1...3).map { round in
      var finding = Finding(.inheritance, inputs: ContentDigest(of: [UInt8(round)]))
      finding.task = "story"
      finding.metric = "accuracy"
      finding.round = round
      finding.estimate = Double(round)
      return finding
    }
    try ledger.store(findings: findings)
    #expect(try ledger.findings().sorted { $0.round < $1.round } == findings)
    #expect(
      try LedgerReader(path: path).findings().map(\.id) == [
        "inheritance/story/accuracy/-/-/-/-", "inheritance/story/accuracy/-/-/-/-/round-2",
        "inheritance/story/accuracy/-/-/-/-/round-3",
      ])
  }
}
