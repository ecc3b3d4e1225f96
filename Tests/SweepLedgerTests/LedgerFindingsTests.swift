import Foundation
import GRDB
import SweepCore
import SweepLedger
import SweepTestKit
import Testing

/// Values of test items, and what the statistics make of them.
struct LedgerFindingsTests {
  private let directory: TemporaryDirectory
  private let sample: SampleSweep
  private let path: String

  init() throws {
    directory = try TemporaryDirectory()
    sample = try SampleSweep()
    path = directory.file("sweep.sqlite")
  }

  private static let values: [String: [Double]] = ["correct": [1, 0, 1], "gap": [0.5, .nan, -2]]

  /// A run whose trials report values of items.
  private func events() -> [SweepEvent] {
    sample.run.map { event in
      guard case .trialCompleted(let trial, let token, let metrics, let notes, _) = event else {
        return event
      }
      return .trialCompleted(
        trial: trial, token: token, metrics: metrics, notes: notes,
        items: TrialItems(Self.values))
    }
  }

  private func verification() throws -> LedgerVerification {
    try LedgerVerification(path: path, artifacts: nil, version: SweepLedgerTests.version)
  }

  @Test func itemsComeBackWithTheirTrials() throws {
    let ledger = try sample.ledger(path)
    try ledger.append(events(), now: 2_000)
    let results = try ledger.results()
    #expect(results.trials.count == sample.plan.grid.trials.count)
    for trial in results.trials {
      #expect(trial.items["correct"] == [1, 0, 1])
      let gap = try #require(trial.items["gap"])
      #expect(gap[0] == 0.5 && gap[1].isNaN && gap[2] == -2)
      #expect(trial.metrics["accuracy"] != nil && (trial.bias == nil) == (trial.ratio == 0))
    }
    #expect(results.facts.contains { $0.name == "rejection_rate" })
    #expect(try verification().problems == [])
  }

  @Test func itemsAreFinalAndTheirLossIsNoticed() throws {
    let ledger = try sample.ledger(path)
    try ledger.append(events(), now: 2_000)
    try ledger.close()
    let queue = try DatabaseQueue(path: path)
    for change in ["UPDATE trial_items SET count = 0", "DELETE FROM trial_items"] {
      #expect(throws: DatabaseError.self) { try queue.write { try $0.execute(sql: change) } }
    }
    try queue.write { database in
      try database.execute(sql: "DROP TRIGGER trial_items_are_final")
      try database.execute(sql: "DROP TRIGGER trial_items_stay")
      try database.execute(
        sql: """
          UPDATE trial_items SET "values" = zeroblob(24) WHERE measure = 'gap'
            AND trial = (SELECT min(trial) FROM trial_items)
          """)
      try database.execute(
        sql: "DELETE FROM trial_items WHERE trial = (SELECT max(trial) FROM trial_items)")
    }
    let problems = try verification().problems
    #expect(problems.count == 2, "\(problems)")
    #expect(problems.contains { $0.contains("not those that were reported") })
    #expect(problems.contains { $0.contains("has no values of") })
  }

  private func finding(_ task: String, _ estimate: Double?, note: String? = nil) -> Finding {
    var finding = Finding(.inheritance, inputs: ContentDigest(of: "\(task)".utf8))
    finding.task = task
    finding.metric = "accuracy"
    finding.role = .skill
    finding.bias = "neutral"
    finding.ratio = 0.1
    finding.mitigation = "none"
    finding.estimate = estimate
    finding.lower = estimate.map { $0 - 1 }
    finding.upper = estimate.map { $0 + 1 }
    finding.pValue = 0.25
    finding.adjustedPValue = 0.5
    finding.family = "family"
    finding.seeds = 3
    finding.items = 40
    finding.note = note
    return finding
  }

  @Test func findingsAreReplacedAsAWhole() throws {
    let ledger = try sample.ledger(path)
    let first = [
      finding("a", 1), finding("b", 0.1 + 0.2), finding("c", nil, note: "too few items"),
    ]
    try ledger.store(findings: first)
    #expect(try ledger.findings() == first)
    let second = [finding("b", -3), first[2], finding("d", 4)]
    try ledger.store(findings: second)
    #expect(try LedgerReader(path: path).findings() == second)
    // A finding without a number says why.
    #expect(throws: LedgerError.self) { try ledger.store(findings: [finding("e", nil)]) }
    #expect(try ledger.findings() == second)
  }
}
