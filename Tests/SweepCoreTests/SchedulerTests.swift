import SweepCore
import SweepTestKit
import Testing

/// One worker's way through a sweep: leases, reports, answers.
@Suite struct SchedulerTests {
  @Test func aSweepRunsFromTheFirstLeaseToTheLastResult() throws {
    var bench = try SchedulerBench()
    bench.join("w")
    let order = bench.drainQueue(by: "w")
    #expect(order.prefix(2) == bench.plan.shards.map(\.id).prefix(2))
    #expect(Set(order) == Set(bench.plan.shards.map(\.id)) && order.count == 6)
    #expect(bench.scheduler.isFinished)
    let summary = bench.scheduler.summary
    #expect(summary.trials == 6 && summary.trialsCompleted == 6)
    #expect(summary.shardsCompleted == 6 && summary.fineTunesCompleted == 4)
    #expect(summary.workDone == summary.work && summary.attempts == 6)
    #expect(
      bench.kinds == [
        "inputs_fixed": 1, "worker_joined": 1, "shard_leased": 6, "trial_completed": 6,
        "shard_completed": 6,
      ])
    #expect(bench.replayed().durableState == bench.scheduler.durableState)
  }

  @Test func aBlockedShardWaitsForItsDependencyAndGetsItsArtifact() throws {
    var bench = try SchedulerBench()
    bench.join("w", slots: 4)
    let assigned = bench.assignments.map(\.assignment)
    #expect(assigned.count == 4)
    #expect(assigned.allSatisfy { $0.shard.dependency == nil && $0.input == nil })
    let generation = try #require(assigned.first)
    let dependent = try #require(
      bench.plan.shards.first { $0.dependency == generation.shard.id })
    #expect(bench.scheduler.state(of: dependent.id) == .blocked)
    bench.complete(generation.token, by: "w", artifact: "data")
    bench.tell(.requestWork(worker: "w", slots: 1))
    let next = try #require(bench.assignments.last?.assignment)
    #expect(next.shard == dependent)
    #expect(next.input == ContentDigest(of: "data".utf8))
  }

  @Test func repeatedReportsChangeNothing() throws {
    var bench = try SchedulerBench()
    bench.join("w", slots: 6)
    let tune = try #require(bench.assignments.first { !$0.assignment.shard.trials.isEmpty })
      .assignment
    let trial = try #require(tune.remainingTrials.first)
    #expect(bench.report(trial.id, under: tune.token, by: "w") == .accepted)
    let before = bench.events
    #expect(bench.report(trial.id, under: tune.token, by: "w", value: 0.75) == .accepted)
    #expect(bench.events == before)
    for other in tune.remainingTrials.dropFirst() {
      bench.report(other.id, under: tune.token, by: "w")
    }
    #expect(bench.complete(tune.token, by: "w") == .accepted)
    let after = bench.events
    #expect(bench.complete(tune.token, by: "w") == .accepted)
    #expect(bench.events == after)
  }

  @Test func reportsUnderAForeignOrDeadLeaseAreStale() throws {
    var bench = try SchedulerBench()
    bench.join("w", slots: 6)
    bench.join("v", slots: 6)
    let tune = try #require(bench.assignments.first { !$0.assignment.shard.trials.isEmpty })
      .assignment
    let trial = try #require(tune.remainingTrials.first)
    #expect(bench.report(trial.id, under: tune.token, by: "v") == .stale)
    #expect(bench.report(trial.id, under: LeaseToken(999), by: "w") == .stale)
    bench.tell(.failShard(worker: "w", token: tune.token, evidence: "broken"))
    let events = bench.events
    #expect(bench.report(trial.id, under: tune.token, by: "w") == .stale)
    #expect(bench.complete(tune.token, by: "w") == .stale)
    for command in [
      Scheduler.Command.failShard(worker: "w", token: tune.token, evidence: "again"),
      .releaseShard(worker: "w", token: tune.token),
    ] {
      let step = bench.tell(command)
      #expect(step.reply == .stale)
    }
    #expect(bench.events == events)
  }

  @Test func wrongReportsAreRefusedWithTheirReason() throws {
    var bench = try SchedulerBench()
    bench.join("w", slots: 6)
    let assigned = bench.assignments.map(\.assignment)
    let generation = try #require(assigned.first { $0.shard.trials.isEmpty })
    let tune = try #require(assigned.first { !$0.shard.trials.isEmpty })
    let trial = try #require(tune.remainingTrials.first)
    let events = bench.events

    func refusal(_ reply: Scheduler.Reply) -> String {
      if case .refused(let reason) = reply { reason } else { "\(reply)" }
    }
    let foreign = bench.report(TrialID("other"), under: tune.token, by: "w")
    #expect(refusal(foreign).contains("does not belong"))
    for value in [Double.nan, .infinity] {
      let reply = bench.report(trial.id, under: tune.token, by: "w", value: value)
      #expect(refusal(reply).contains("not a finite number"))
    }
    let early = bench.complete(tune.token, by: "w")
    #expect(refusal(early).contains("no result for"))
    let bare = bench.complete(generation.token, by: "w")
    #expect(refusal(bare).contains("artifact is missing"))
    let odd = bench.tell(
      .completeShard(
        worker: "w", token: generation.token, artifact: ContentDigest(of: [1]),
        facts: ["seconds": .nan])
    ).reply
    #expect(refusal(odd).contains("fact seconds"))
    let stranger = bench.tell(.requestWork(worker: "x", slots: 1)).reply
    #expect(refusal(stranger).contains("not registered"))
    #expect(bench.events == events)
  }

  @Test func aWorkerWithOtherInputsIsRefused() throws {
    var bench = try SchedulerBench()
    bench.join("w")
    let step = bench.tell(
      .connect(
        SchedulerBench.worker("v"), connection: 2, holding: [], inputs: ["model": "n"]))
    guard case .refused(let reason) = step.reply else {
      Issue.record("answered with \(step.reply)")
      return
    }
    #expect(reason.contains("model: m in the ledger, n here"))
    #expect(step.events.isEmpty)
    #expect(bench.scheduler.summary.workers == 1)
  }

  @Test func aFailedShardRunsAgainWithItsRemainingTrialsOnly() throws {
    var bench = try SchedulerBench(
      SchedulerBench.smallSketch.replacing("[0, 0.5]", with: "[0]")
        .replacing("[occupation, group-bias, story]", with: "[group-bias, story]"))
    bench.join("w")
    let first = try #require(bench.assignments.first).assignment
    #expect(first.remainingTrials.count == 2)
    bench.report(first.remainingTrials[0].id, under: first.token, by: "w")
    bench.tell(.failShard(worker: "w", token: first.token, evidence: "broken"))
    bench.tell(.requestWork(worker: "w", slots: 1))
    #expect(bench.assignments.count == 1, "the retry did not wait")
    bench.wait(seconds: 2)
    let second = try #require(bench.assignments.dropFirst().first).assignment
    #expect(second.attempt == 2 && second.token > first.token)
    #expect(second.remainingTrials == Array(first.remainingTrials.dropFirst()))
  }

  @Test func retriesWaitLongerAndLongerWithinTheirBounds() throws {
    var bench = try SchedulerBench(SchedulerBench.smallSketch) { policy in
      policy.attempts = 12
      policy.retryBackoffSeconds = 2
    }
    bench.join("w")
    var waits: [Double] = []
    for _ in 0..<11 {
      let token = try #require(bench.scheduler.leases.first).lease.token
      let step = bench.tell(.failShard(worker: "w", token: token, evidence: "broken"))
      for case .attemptEnded(_, _, .failed, _, let seconds) in step.events { waits.append(seconds) }
      bench.wait(seconds: 200)
      bench.tell(.requestWork(worker: "w", slots: 1))
    }
    // Another shard may be leased in between, so the failures are counted shard by shard.
    var failures: [ShardID: Int] = [:]
    for case .attemptEnded(let shard, _, _, _, let seconds) in bench.events {
      failures[shard, default: 0] += 1
      let longest = 2 * Double(1 << min(failures[shard, default: 1] - 1, 6))
      #expect((longest / 2...longest).contains(seconds))
    }
    #expect(waits.count == 11)
    #expect(Set(waits).count == waits.count, "no jitter")
  }

  @Test func attemptsEndInQuarantineWithEvidence() throws {
    var bench = try SchedulerBench { $0.attempts = 2 }
    bench.join("w")
    let shard = try #require(bench.assignments.first).assignment.shard
    bench.failEverything(by: "w", evidence: "no memory") { $0.kinds["shard_quarantined"] != nil }
    let reason = "2 failed and 0 lost attempts; the last one: no memory"
    #expect(bench.scheduler.state(of: shard.id) == .quarantined(reason: reason))
    let summary = bench.scheduler.summary
    #expect(summary.shardsQuarantined == 1)
    // The trials that wait for the shard's artifact will never have a result.
    let stuck = bench.plan.shards.filter { $0.dependency == shard.id }.flatMap(\.trials)
    #expect(!stuck.isEmpty && summary.trialsFailed == stuck.count)
    #expect(bench.scheduler.contradictions().isEmpty)
  }

  @Test func aSweepOfFailuresEnds() throws {
    var bench = try SchedulerBench { $0.attempts = 2 }
    bench.join("w")
    bench.failEverything(by: "w", evidence: "broken") { $0.scheduler.isFinished }
    #expect(bench.scheduler.isFinished)
    // Two generation shards and two fine-tunes fail; the two that wait for data never run.
    #expect(bench.kinds["shard_quarantined"] == 4)
    #expect(bench.kinds["attempt_ended"] == 8)
    #expect(bench.scheduler.summary.trialsFailed == 6)
  }

  @Test func manyQuarantinesStopTheSweep() throws {
    var bench = try SchedulerBench { policy in
      policy.attempts = 1
      policy.maximumFailures = 2
    }
    bench.join("w", slots: 3)
    bench.failEverything(by: "w", evidence: "broken") { $0.scheduler.stopReason != nil }
    #expect(bench.scheduler.stopReason == "2 shards are quarantined (max_failures)")
    #expect(!bench.scheduler.isFinished, "a lease is still out")
    let leases = bench.kinds["shard_leased"]
    let last = try #require(bench.scheduler.leases.first)
    bench.tell(.releaseShard(worker: "w", token: last.lease.token))
    bench.tell(.requestWork(worker: "w", slots: 3))
    #expect(bench.kinds["shard_leased"] == leases)
    #expect(bench.scheduler.isFinished)
  }

  @Test func aStoppedSweepFinishesWhatRunsAndLeasesNoMore() throws {
    var bench = try SchedulerBench()
    bench.join("w", slots: 2, asking: 1)
    bench.tell(.stop(reason: "enough"))
    bench.tell(.stop(reason: "really"))
    bench.tell(.requestWork(worker: "w", slots: 1))
    #expect(bench.scheduler.stopReason == "enough")
    #expect(bench.assignments.count == 1 && !bench.scheduler.isFinished)
    let running = try #require(bench.assignments.first).assignment
    bench.finish(running, by: "w")
    #expect(bench.scheduler.isFinished && bench.assignments.count == 1)
    #expect(bench.kinds["shard_completed"] == 1)
  }

  @Test func givenBackShardsCostNoAttempt() throws {
    var bench = try SchedulerBench {
      $0.attempts = 1; $0.losses = 1
    }
    bench.join("w")
    for _ in 0..<5 {
      let token = try #require(bench.scheduler.leases.first).lease.token
      bench.tell(.releaseShard(worker: "w", token: token))
      bench.tell(.requestWork(worker: "w", slots: 1))
    }
    #expect(bench.kinds["shard_quarantined"] == nil)
    #expect(Set(bench.assignments.map(\.assignment.shard.id)).count == 1)
  }
}
