import SweepCore
import SweepTestKit
import Testing

/// What operators ask for, live and after a restart.
@Suite struct ControlTests {
  /// The same sweep after its coordinator was started again; its workers are still there.
  private func restarted(
    _ bench: SchedulerBench, keepLeases: Bool = true, revive: Bool = false
  ) -> SchedulerBench {
    var again = bench
    again.scheduler = bench.replayed()
    #expect(again.scheduler.durableState == bench.scheduler.durableState)
    again.now = .zero
    _ = again.scheduler.finishRecovery(keepLeases: keepLeases, revive: revive, now: .zero)
    #expect(again.scheduler.contradictions().isEmpty)
    return again
  }

  private func reason(_ reply: Scheduler.Reply) -> String {
    if case .refused(let reason) = reply { reason } else { "\(reply)" }
  }

  @Test func aPausedSweepLeasesNothingUntilItIsResumedAlsoAfterARestart() throws {
    var bench = try SchedulerBench()
    bench.join("w", slots: 2, asking: 1)
    let running = try #require(bench.assignments.first).assignment
    #expect(bench.control(.pause(reason: "disk is full")) == .accepted)
    #expect(bench.control(.pause(reason: "again")) == .accepted)
    #expect(bench.kinds["leasing_paused"] == 1)
    bench.tell(.requestWork(worker: "w", slots: 1))
    bench.finish(running, by: "w")
    #expect(bench.scheduler.summary.shardsCompleted == 1, "what runs goes on")
    #expect(bench.assignments.count == 1 && !bench.scheduler.isFinished)
    var again = restarted(bench)
    #expect(again.scheduler.pauseReason == "disk is full")
    again.join("w", slots: 2, connection: 2)
    #expect(again.assignments.count == 1)
    #expect(again.control(.resume) == .accepted)
    #expect(again.assignments.count == 3)
    #expect(again.control(.resume) == .accepted)
    #expect(again.kinds["leasing_continued"] == 1)
  }

  @Test func aLocalRunEndsAPauseThatWasLeftBehind() throws {
    var bench = try SchedulerBench()
    bench.join("w")
    #expect(bench.control(.pause(reason: "noon")) == .accepted)
    var again = restarted(bench, keepLeases: false)
    #expect(again.scheduler.pauseReason == nil)
    again.join("w", connection: 2)
    #expect(again.assignments.count == bench.assignments.count + 1)
  }

  @Test func aCancelledShardIsRevokedAndStaysCancelled() throws {
    var bench = try SchedulerBench()
    bench.join("w")
    let cancelled = try #require(bench.assignments.first).assignment
    #expect(bench.control(.cancelShard(cancelled.shard.id, reason: "too slow")) == .accepted)
    #expect(bench.revocations == [cancelled.token])
    #expect(bench.complete(cancelled.token, by: "w", artifact: "late") == .stale)
    #expect(bench.scheduler.state(of: cancelled.shard.id) == .cancelled(reason: "too slow"))
    let stuck = bench.plan.shards.filter { $0.dependency == cancelled.shard.id }.flatMap(\.trials)
    #expect(!stuck.isEmpty && bench.scheduler.summary.trialsFailed == stuck.count)
    #expect(bench.control(.cancelShard(cancelled.shard.id, reason: "again")) == .accepted)
    #expect(bench.kinds["shard_cancelled"] == 1 && bench.scheduler.contradictions().isEmpty)

    var again = restarted(bench)
    again.join("w", connection: 2)
    let order = again.drainQueue(by: "w")
    #expect(!order.dropFirst().contains(cancelled.shard.id))
    #expect(again.scheduler.isFinished)
    #expect(again.scheduler.summary.trialsCompleted == 6 - stuck.count)
  }

  @Test func aRetryBringsACancelledShardBackWithWhatWaitsForIt() throws {
    var bench = try SchedulerBench()
    let generation = bench.plan.shards[0].id
    let dependent = try #require(bench.plan.shards.first { $0.dependency == generation }).id
    #expect(bench.control(.cancelShard(dependent, reason: "a")) == .accepted)
    #expect(bench.control(.cancelShard(generation, reason: "b")) == .accepted)
    #expect(bench.scheduler.contradictions().isEmpty)
    #expect(bench.control(.retry(dependent)) == .accepted)
    #expect(bench.scheduler.contradictions().isEmpty)
    #expect(reason(bench.control(.retry(dependent))).contains("retry that"))
    #expect(bench.control(.retry(generation)) == .accepted)
    #expect(bench.scheduler.contradictions().isEmpty)
    bench = restarted(bench)
    bench.join("w")
    #expect(bench.drainQueue(by: "w").count == 6)
    #expect(bench.scheduler.isFinished && bench.scheduler.summary.trialsCompleted == 6)
  }

  @Test func aRetryGivesAQuarantinedShardNewAttempts() throws {
    var bench = try SchedulerBench { $0.attempts = 2 }
    bench.join("w")
    let shard = try #require(bench.assignments.first).assignment.shard.id
    bench.failEverything(by: "w", evidence: "no memory") { $0.kinds["shard_quarantined"] != nil }
    #expect(bench.control(.retry(shard)) == .accepted)
    #expect(bench.scheduler.state(of: shard) == .queued(notBefore: bench.now))
    let failures = bench.events.count { $0.kind == "attempt_ended" }
    bench.failEverything(by: "w", evidence: "no memory") { bench in
      bench.events.count {
        if case .shardQuarantined(shard, _) = $0 { true } else { false }
      } == 2
    }
    #expect(bench.events.count { $0.kind == "attempt_ended" } >= failures + 2)
    #expect(bench.control(.cancelShard(shard, reason: "hopeless")) == .accepted)
    #expect(bench.scheduler.contradictions().isEmpty)
    #expect(bench.replayed().durableState == bench.scheduler.durableState)
  }

  @Test func aRetryEndsTheWaitAfterAFailure() throws {
    var bench = try SchedulerBench { $0.retryBackoffSeconds = 100 }
    bench.join("w")
    let first = try #require(bench.assignments.first).assignment
    bench.tell(.failShard(worker: "w", token: first.token, evidence: "broken"))
    #expect(bench.control(.retry(first.shard.id)) == .accepted)
    bench.tell(.requestWork(worker: "w", slots: 1))
    #expect(bench.assignments.last?.assignment.shard == first.shard)
    #expect(bench.assignments.last?.assignment.attempt == 2)
    #expect(reason(bench.control(.retry(first.shard.id))).contains("is running on worker w"))
  }

  @Test func aCancelledSweepEndsAtOnceAndStaysSo() throws {
    var bench = try SchedulerBench()
    bench.join("w", slots: 3)
    let held = bench.assignments.map(\.assignment.token)
    #expect(bench.control(.cancelSweep(reason: "wrong model")) == .accepted)
    #expect(bench.revocations == held && bench.scheduler.isFinished)
    #expect(reason(bench.control(.resume)).contains("wrong model"))
    #expect(reason(bench.control(.pause(reason: "x"))).contains("wrong model"))
    let again = restarted(bench)
    #expect(again.scheduler.isFinished && again.scheduler.isCancelled)
    var revived = restarted(bench, revive: true)
    #expect(!revived.scheduler.isCancelled)
    revived.join("w", slots: 3, connection: 2)
    #expect(revived.assignments.count == 6)
  }

  @Test func aDrainSurvivesARestart() throws {
    var bench = try SchedulerBench()
    #expect(reason(bench.control(.drain(worker: "w", reason: "x"))).contains("no worker w"))
    bench.join("w", slots: 2, asking: 1)
    let running = try #require(bench.assignments.first).assignment
    #expect(bench.control(.drain(worker: "w", reason: "kernel update")) == .accepted)
    var again = restarted(bench)
    again.join("w", slots: 2, connection: 2, holding: [running.token])
    again.finish(running, by: "w")
    again.tell(.requestWork(worker: "w", slots: 2))
    #expect(again.scheduler.summary.shardsCompleted == 1 && again.assignments.count == 1)
    #expect(again.control(.drain(worker: "w", reason: "twice")) == .accepted)
    #expect(again.kinds["worker_drained"] == 1)
  }

  @Test func whatMakesNoSenseIsRefused() throws {
    var bench = try SchedulerBench()
    bench.join("w")
    let done = try #require(bench.assignments.first).assignment
    bench.finish(done, by: "w")
    let events = bench.events
    for control in [
      Scheduler.Control.cancelShard(ShardID("tune/nothing"), reason: "x"),
      .retry(ShardID("tune/nothing")), .cancelShard(done.shard.id, reason: "x"),
      .retry(done.shard.id),
    ] {
      #expect(bench.control(control) != .accepted)
    }
    #expect(bench.events == events)
  }
}
