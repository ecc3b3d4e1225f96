import SweepCore
import SweepSimulation
import Testing

/// Two domains, three rounds: a chain of six shards in each, and a fine-tune at ratio 0.
private let roundSketch = """
  name: rounds
  tasks: [occupation, story]
  biases: [neutral]
  ratios: [0, 0.5]
  rounds: 3
  """

@Suite struct RoundPlanTests {
  @Test func everyRoundGeneratesAndFineTunes() throws {
    let plan = try definition(roundSketch).plan
    #expect(plan.grid.points.count == 12)
    #expect(plan.grid.trials.count == 8)
    #expect(plan.augmentationCount == 6 && plan.fineTuneCount == 8)
    #expect(plan.grid.trials.filter { $0.ratio == 0 }.allSatisfy { $0.round == 1 })
    #expect(
      plan.grid.trials.filter { $0.ratio > 0 && $0.task.id == "story" }.map(\.id.description) == [
        "story/neutral/0.5/none/1", "story/neutral/0.5/none/1/round-2",
        "story/neutral/0.5/none/1/round-3",
      ])
  }

  @Test func theFirstRoundIsTheSweepWithoutRounds() throws {
    let one = try definition(roundSketch.replacing("rounds: 3", with: "rounds: 1")).plan
    let none = try definition(roundSketch.replacing("rounds: 3", with: "seeds: [1]")).plan
    let three = try definition(roundSketch).plan
    #expect(one.shards == none.shards && one.digest == none.digest)
    #expect(Array(three.shards.prefix(one.shards.count)) == one.shards)
    #expect(one.writers.isEmpty)
    #expect(!one.shards.contains { $0.id.description.contains("round") })
  }

  @Test func aRoundsFineTuneWritesForTheNext() throws {
    let plan = try definition(roundSketch).plan
    var chain = [ShardID("augment/gender/neutral")]
    while let next = plan.shards.first(where: { $0.dependency == chain.last }) {
      chain.append(next.id)
    }
    #expect(
      chain.map(\.description) == [
        "augment/gender/neutral", "tune/gender/neutral/0.5/none/1",
        "augment/gender/neutral/0.5/none/1/round-2", "tune/gender/neutral/0.5/none/1/round-2",
        "augment/gender/neutral/0.5/none/1/round-3", "tune/gender/neutral/0.5/none/1/round-3",
      ])
    #expect(Set(plan.writers).count == 4 && plan.writers.isSuperset(of: [chain[1], chain[3]]))
    var known: Set<ShardID> = []
    for shard in plan.shards {
      #expect(shard.dependency.map { known.contains($0) } ?? true, "\(shard.id) comes too early")
      known.insert(shard.id)
    }
    for shard in plan.shards {
      guard case .augmentation(let key, _) = shard.work else { continue }
      #expect(
        key.writerKey?.shardID == shard.dependency && key.round == (key.writer?.round ?? 0) + 1)
      #expect(key.writerKey.map { $0.domain == key.domain && $0.bias == key.bias } ?? true)
    }
  }

  @Test func whatAFineTuneWritesHasTheSizeOfItsRatio() throws {
    let plan = try definition(
      roundSketch.replacing("[0, 0.5]", with: "[0, 0.1, 0.5]").replacing("3", with: "2")
        + "\ndata:\n  original_items: 80\n  format_items: 10"
    ).plan
    var items: [String: Int] = [:]
    for shard in plan.shards {
      if case .augmentation(_, let count) = shard.work { items[shard.id.description] = count }
    }
    #expect(
      items.filter { $0.key.contains("gender") } == [
        "augment/gender/neutral": 90, "augment/gender/neutral/0.1/none/1/round-2": 10,
        "augment/gender/neutral/0.5/none/1/round-2": 90,
      ])
  }

  @Test func whatNobodyWritesHasOneRound() throws {
    let plan = try definition(roundSketch.replacing("[neutral]", with: "[neutral, same-size]")).plan
    let sameSize = plan.grid.trials.filter { $0.bias == .sameSize }
    #expect(sameSize.count == 2 && sameSize.allSatisfy { $0.round == 1 })
    #expect(plan.shards.count { $0.id.description.contains("same-size") } == 4)
    let trials = Set(plan.grid.trials)
    #expect(plan.grid.points.allSatisfy { trials.contains($0.trial) })
  }

  /// Each mitigation and seed has a chain of its own; decoding acts in every round.
  @Test func everyConditionHasItsOwnChain() throws {
    let plan = try definition(
      roundSketch + "\nmitigations: [none, token-decoding]\nseeds: [1, 2]"
    ).plan
    // In the first round one set for each way to decode, then one for each fine-tune.
    #expect(plan.augmentationCount == 2 * (2 + 2 * 4))
    #expect(plan.writers.count == 2 * 2 * 4)
    for shard in plan.shards {
      guard case .augmentation(let key, _) = shard.work else { continue }
      let decodes = shard.id.description.contains("token-decoding")
      #expect(key.equalisesGroups == decodes)
    }
    #expect(Set(plan.shards.map(\.id)).count == plan.shards.count)
  }
}

@Suite struct RoundSpecTests {
  @Test func oneRoundLeavesTheDigestAsItWas() throws {
    let none = try definition(roundSketch.replacing("rounds: 3", with: "seeds: [1]")).spec
    let one = try definition(roundSketch.replacing("rounds: 3", with: "rounds: 1")).spec
    let three = try definition(roundSketch).spec
    #expect(try none.digest() == one.digest() && one.digest() != three.digest())
    #expect(try !one.canonicalJSON().contains("rounds\":"))
    let json = try three.canonicalJSON()
    #expect(json.contains("\"rounds\":3"))
    #expect(try SweepSpec(canonicalJSON: json) == three)
    #expect(try three.differences(from: one).map(\.description) == ["rounds: (not set) → 3"])
    for wrong in ["0", "101", "-1"] {
      #expect(throws: DecodingError.self) {
        try SweepSpec(canonicalJSON: json.replacing("\"rounds\":3", with: "\"rounds\":\(wrong)"))
      }
    }
  }

  @Test(arguments: ["0", "101", "2.5", "many"]) func roundsAreCounted(_ rounds: String) {
    #expect(throws: InvalidSpec.self) {
      try definition(roundSketch.replacing("rounds: 3", with: "rounds: \(rounds)"))
    }
  }

  @Test func onlyTheSweepsOwnModelWritesLaterRounds() throws {
    let planted = "\naugmentation:\n  generator: template"
    do {
      _ = try definition(roundSketch + planted)
      Issue.record("rounds of a template were accepted")
    } catch let error as InvalidSpec {
      #expect(error.problems.map(\.path) == ["rounds"])
      #expect(error.problems[0].message.contains("template"))
      #expect(error.problems[0].position.line == 5)
    }
    _ = try definition(roundSketch.replacing("rounds: 3", with: "rounds: 1") + planted)
  }

  @Test func roundsCountAmongTheGridsPoints() {
    let seeds = (1...3000).map(String.init).joined(separator: ", ")
    let sketch = roundSketch + "\nseeds: [\(seeds)]"
    #expect(throws: Never.self) { try definition(sketch) }
    #expect(throws: InvalidSpec.self) {
      try definition(sketch.replacing("rounds: 3", with: "rounds: 100"))
    }
  }
}

/// What chains ask of the scheduler.
@Suite struct RoundSchedulingTests {
  private func chain(_ bench: SchedulerBench, _ domain: String) -> [ShardID] {
    bench.plan.shards.map(\.id).filter { $0.description.contains("/\(domain)/neutral") }
  }

  private func refusal(_ reply: Scheduler.Reply) -> String {
    if case .refused(let reason) = reply { reason } else { "\(reply)" }
  }

  @Test func whatALongChainWaitsForGoesFirst() throws {
    var bench = try SchedulerBench(roundSketch)
    bench.join("w")
    let order = bench.drainQueue(by: "w")
    #expect(bench.scheduler.isFinished && order.count == 14)
    let needed = Set(bench.plan.shards.compactMap(\.dependency))
    #expect(order.prefix(needed.count).allSatisfy { needed.contains($0) })
    // The chains advance together, so that both end early.
    let steps = ["gender", "culture"].map { domain in
      chain(bench, domain).map { order.firstIndex(of: $0) ?? -1 }
    }
    #expect(steps.allSatisfy { $0 == $0.sorted() })
    for (one, other) in zip(steps[0].dropLast(), steps[1].dropLast()) {
      #expect(abs(one - other) == 1)
    }
    #expect(bench.replayed().durableState == bench.scheduler.durableState)
  }

  @Test func aFineTuneThatWritesHandsOverWhatItLearned() throws {
    var bench = try SchedulerBench(roundSketch)
    bench.join("w")
    var tune = try #require(bench.assignments.last).assignment
    while tune.shard.trials.isEmpty {
      bench.finish(tune, by: "w")
      bench.tell(.requestWork(worker: "w", slots: 1))
      tune = try #require(bench.assignments.last).assignment
    }
    for trial in tune.remainingTrials { bench.report(trial.id, under: tune.token, by: "w") }
    #expect(refusal(bench.complete(tune.token, by: "w")).contains("artifact is missing"))
    #expect(bench.complete(tune.token, by: "w", artifact: "adapter") == .accepted)
    var next = tune
    while next.shard.dependency != tune.shard.id {
      bench.tell(.requestWork(worker: "w", slots: 1))
      next = try #require(bench.assignments.last).assignment
      if next.shard.dependency != tune.shard.id { bench.finish(next, by: "w") }
    }
    #expect(next.input == ContentDigest(of: "adapter".utf8))
  }

  @Test func aWholeChainWaitsForWhatWasGivenUpAndComesBackWithIt() throws {
    var bench = try SchedulerBench(roundSketch)
    let gender = chain(bench, "gender")
    #expect(gender.count == 6)
    #expect(bench.control(.cancelShard(gender[1], reason: "too slow")) == .accepted)
    #expect(bench.scheduler.contradictions().isEmpty)
    #expect(bench.scheduler.summary.trialsFailed == 3)
    for waiting in gender.dropFirst(2) {
      #expect(bench.scheduler.state(of: waiting) == .blocked)
      #expect(refusal(bench.control(.retry(waiting))).contains("\(gender[1]), which was given up"))
    }
    bench.join("w")
    #expect(bench.drainQueue(by: "w").count == 9)
    #expect(bench.scheduler.isFinished && bench.scheduler.contradictions().isEmpty)
    #expect(bench.control(.retry(gender[1])) == .accepted)
    #expect(!bench.scheduler.isFinished && bench.scheduler.contradictions().isEmpty)
    bench.tell(.requestWork(worker: "w", slots: 1))
    _ = bench.drainQueue(by: "w")
    #expect(bench.scheduler.isFinished && bench.scheduler.summary.trialsCompleted == 8)
    #expect(bench.replayed().durableState == bench.scheduler.durableState)
  }

  /// Every order of giving up two links of a chain, and of bringing them back.
  @Test func linksMayBeGivenUpInAnyOrder() throws {
    for one in 0..<6 {
      for other in 0..<6 where other != one {
        for back in [[one, other], [other, one]] {
          var bench = try SchedulerBench(roundSketch)
          let gender = chain(bench, "gender")
          let steps: [Scheduler.Control] =
            [one, other].map { .cancelShard(gender[$0], reason: "no") }
            + back.map { .retry(gender[$0]) }
          for step in steps {
            #expect(bench.control(step) == .accepted)
            #expect(bench.scheduler.contradictions() == [], "\(steps)")
            #expect(bench.replayed().durableState == bench.scheduler.durableState)
          }
          bench.join("w")
          #expect(bench.drainQueue(by: "w").count == 14)
          #expect(bench.scheduler.isFinished)
        }
      }
    }
  }

  @Test func aQuarantinedLinkEndsItsChainOnly() throws {
    var bench = try SchedulerBench(roundSketch) { $0.attempts = 1 }
    bench.join("w")
    let first = try #require(bench.assignments.first).assignment
    bench.tell(.failShard(worker: "w", token: first.token, evidence: "broken"))
    #expect(bench.scheduler.contradictions().isEmpty)
    #expect(bench.scheduler.summary.trialsFailed == 3)
    bench.tell(.requestWork(worker: "w", slots: 1))
    for _ in 0..<20 where !bench.scheduler.isFinished {
      let next = try #require(bench.assignments.last).assignment
      bench.finish(next, by: "w")
      bench.tell(.requestWork(worker: "w", slots: 1))
    }
    #expect(bench.scheduler.isFinished)
    let summary = bench.scheduler.summary
    #expect(summary.shardsQuarantined == 1 && summary.trialsCompleted == 5)
    // Starting the sweep again gives the whole chain another chance.
    var again = bench.replayed()
    _ = again.finishRecovery(keepLeases: true, now: .zero)
    #expect(again.contradictions().isEmpty && !again.isFinished)
  }

  @Test func priorityReachesTheBeginningOfAChain() throws {
    var bench = try SchedulerBench(roundSketch)
    let culture = chain(bench, "culture")
    #expect(bench.control(.prioritise(try #require(culture.last), priority: 3)) == .accepted)
    bench.join("w")
    #expect(bench.drainQueue(by: "w").prefix(6) == culture[...])
    #expect(bench.replayed().durableState == bench.scheduler.durableState)
  }

  @Test func simulatedSweepsHaveChains() {
    let withChains = (UInt64(1)...100).count { !SimulatedCluster(seed: $0).plan.writers.isEmpty }
    #expect(withChains > 5 && withChains < 60)
  }
}
