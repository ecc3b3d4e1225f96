import SweepCore
import SweepTestKit
import Testing

/// Lost contact, lost time and restarts.
@Suite struct LeaseTests {
  @Test func aSilentWorkerLosesItsLeaseAndIsToldSo() throws {
    var bench = try SchedulerBench { $0.leaseSeconds = 10 }
    bench.join("w")
    let lost = try #require(bench.assignments.first).assignment
    bench.wait(seconds: 9)
    #expect(bench.scheduler.leases.count == 1)
    bench.wait(seconds: 2)
    #expect(bench.scheduler.leases.isEmpty)
    #expect(bench.revocations == [lost.token])
    #expect(bench.kinds["attempt_ended"] == 1)
    // The late copy is refused, and the shard runs elsewhere under a newer token.
    #expect(bench.complete(lost.token, by: "w", artifact: "late") == .stale)
    bench.join("v")
    let again = try #require(bench.assignments.last)
    #expect(again.worker == "v" && again.assignment.shard == lost.shard)
    #expect(again.assignment.token > lost.token && again.assignment.attempt == 2)
  }

  /// A silent worker is found even if nothing else ever happens in the cluster.
  @Test func theNextDeadlineNeverHidesASilentWorker() throws {
    var bench = try SchedulerBench { $0.leaseSeconds = 15 }
    bench.join("w")
    var ticks = 0
    while let deadline = bench.scheduler.nextDeadline, ticks < 100 {
      bench.now = deadline
      bench.tell(.tick)
      ticks += 1
    }
    #expect(bench.kinds["attempt_ended"] == 1)
    #expect(bench.now <= .seconds(16))
  }

  @Test func heartbeatsKeepALeaseAndCarryProgress() throws {
    var bench = try SchedulerBench { $0.leaseSeconds = 10 }
    bench.join("w")
    let token = try #require(bench.assignments.first).assignment.token
    for second in 1...60 {
      bench.now = .seconds(second)
      bench.tell(
        .heartbeat(
          worker: "w",
          leases: [
            Scheduler.LeaseProgress(
              token: token, fraction: Double(second) / 100, tokensPerSecond: 250)
          ]))
    }
    #expect(bench.scheduler.leases.first?.lease.fraction == 0.6)
    #expect(bench.scheduler.summary.tokensPerSecond == 250)
    #expect(bench.kinds["attempt_ended"] == nil)
  }

  @Test func nonsenseInAHeartbeatIsIgnored() throws {
    var bench = try SchedulerBench()
    bench.join("w")
    let token = try #require(bench.assignments.first).assignment.token
    for value in [Double.nan, -.infinity, .infinity, 7] {
      bench.tell(
        .heartbeat(
          worker: "w",
          leases: [
            Scheduler.LeaseProgress(token: token, fraction: value, tokensPerSecond: value),
            Scheduler.LeaseProgress(
              token: LeaseToken(77), fraction: value, tokensPerSecond: value),
          ]))
    }
    let summary = bench.scheduler.summary
    #expect(summary.workDone <= summary.work && summary.tokensPerSecond == 7)
    #expect(Set(bench.revocations) == [LeaseToken(77)])
  }

  @Test func aBrokenConnectionHasItsGraceTime() throws {
    var bench = try SchedulerBench { $0.disconnectGraceSeconds = 2 }
    bench.join("w")
    bench.join("v", asking: 0)
    let lost = try #require(bench.assignments.first).assignment
    bench.tell(.disconnect(worker: "w", connection: 1, reason: "reset"))
    #expect(bench.scheduler.summary.workers == 1)
    bench.tell(.requestWork(worker: "v", slots: 1))
    let other = try #require(bench.assignments.last).assignment
    #expect(other.shard != lost.shard)
    bench.finish(other, by: "v")
    bench.wait(seconds: 1.9)
    #expect(bench.scheduler.leases.contains { $0.lease.token == lost.token })
    bench.wait(seconds: 0.2)
    #expect(!bench.scheduler.leases.contains { $0.lease.token == lost.token })
    #expect(bench.kinds["worker_left"] == 1)
    bench.tell(.requestWork(worker: "v", slots: 1))
    #expect(bench.assignments.last?.assignment.shard == lost.shard)
  }

  @Test func whoComesBackInTimeGoesOn() throws {
    var bench = try SchedulerBench { $0.disconnectGraceSeconds = 2 }
    bench.join("w")
    let held = try #require(bench.assignments.first).assignment
    bench.tell(.disconnect(worker: "w", connection: 1, reason: "reset"))
    bench.wait(seconds: 1)
    bench.join("w", connection: 2, holding: [held.token], asking: 0)
    bench.wait(seconds: 5)
    #expect(bench.revocations.isEmpty)
    #expect(bench.complete(held.token, by: "w", artifact: "data") == .accepted)
    #expect(bench.kinds["attempt_ended"] == nil && bench.kinds["worker_joined"] == 1)
  }

  @Test func aReplacedConnectionsEndMeansNothing() throws {
    var bench = try SchedulerBench()
    bench.join("w", connection: 1)
    let held = try #require(bench.assignments.first).assignment
    bench.join("w", connection: 2, holding: [held.token], asking: 0)
    bench.tell(.disconnect(worker: "w", connection: 1, reason: "late news"))
    bench.wait(seconds: 5)
    #expect(bench.scheduler.summary.workers == 1)
    #expect(bench.scheduler.leases.count == 1)
  }

  @Test func anAbandonedConnectionsGreetingMeansNothing() throws {
    var bench = try SchedulerBench()
    bench.join("w", connection: 2)
    let step = bench.tell(
      .connect(
        SchedulerBench.worker("w"), connection: 1, holding: [], inputs: ["model": "m"]))
    #expect(step.reply == .stale && step.events.isEmpty)
    bench.tell(.disconnect(worker: "w", connection: 1, reason: "late news"))
    bench.wait(seconds: 5)
    #expect(bench.scheduler.summary.workers == 1)
    #expect(bench.scheduler.leases.count == 1)
  }

  @Test func whatAReturningWorkerForgotIsFreeAndWhatItLostIsRevoked() throws {
    var bench = try SchedulerBench()
    bench.join("w", slots: 2)
    let tokens = bench.assignments.map(\.assignment.token)
    #expect(tokens.count == 2)
    let stranger = LeaseToken(50)
    bench.tell(
      .connect(
        SchedulerBench.worker("w", slots: 2), connection: 2, holding: [tokens[1], stranger],
        inputs: ["model": "m"]))
    #expect(bench.scheduler.leases.map(\.lease.token) == [tokens[1]])
    #expect(bench.revocations == [stranger])
  }

  @Test func lostWorkersExhaustAShard() throws {
    var bench = try SchedulerBench { policy in
      policy.losses = 3
      policy.disconnectGraceSeconds = 1
    }
    for number in 1...3 {
      bench.join("w\(number)")
      bench.tell(.disconnect(worker: "w\(number)", connection: 1, reason: "killed"))
      bench.wait(seconds: 2)
    }
    #expect(bench.kinds["shard_quarantined"] == 1)
    #expect(bench.scheduler.contradictions().isEmpty)
  }

  // MARK: Lost time

  @Test func aCoordinatorThatStoodStillForgives() throws {
    var bench = try SchedulerBench { policy in
      policy.leaseSeconds = 10
      policy.disconnectGraceSeconds = 5
    }
    bench.join("w")
    bench.join("v")
    bench.tell(.disconnect(worker: "v", connection: 1, reason: "reset"))
    bench.now = .seconds(3600)
    bench.tell(.tick)
    #expect(bench.scheduler.leases.count == 2, "nobody could be heard meanwhile")
    bench.wait(seconds: 6)
    #expect(bench.scheduler.leases.map(\.lease.worker) == ["w"])
    bench.wait(seconds: 5)
    #expect(bench.scheduler.leases.isEmpty)
  }

  // MARK: Restart

  @Test func afterARestartWorkersGoOn() throws {
    var bench = try SchedulerBench { $0.leaseSeconds = 10 }
    bench.join("w", slots: 2)
    let held = bench.assignments.map(\.assignment)
    var restarted = bench
    restarted.scheduler = bench.replayed()
    #expect(restarted.scheduler.durableState == bench.scheduler.durableState)
    restarted.now = .seconds(1)
    let recovery = restarted.scheduler.finishRecovery(keepLeases: true, now: .seconds(1))
    #expect(recovery.isEmpty)
    #expect(restarted.scheduler.contradictions().isEmpty)
    restarted.wait(seconds: 9)
    restarted.join("w", slots: 2, connection: 2, holding: [held[0].token, held[1].token])
    restarted.wait(seconds: 5)
    #expect(restarted.complete(held[0].token, by: "w", artifact: "data") == .accepted)
    #expect(restarted.kinds["attempt_ended"] == nil)
  }

  @Test func afterARestartWhoStaysAwayIsForgotten() throws {
    var bench = try SchedulerBench { $0.leaseSeconds = 10 }
    bench.join("w")
    bench.join("idle", asking: 0)
    bench.scheduler = bench.replayed()
    bench.now = .zero
    _ = bench.scheduler.finishRecovery(keepLeases: true, now: .zero)
    bench.wait(seconds: 11)
    #expect(bench.scheduler.leases.isEmpty)
    #expect(bench.kinds["worker_left"] == 2)
    #expect(bench.scheduler.nextDeadline == nil)
  }

  @Test func childrenEndWithTheirCoordinator() throws {
    var bench = try SchedulerBench { $0.losses = 1 }
    bench.join("w", slots: 2)
    let orphan = try #require(bench.assignments.first).assignment
    bench.scheduler = bench.replayed()
    let recovery = bench.scheduler.finishRecovery(keepLeases: false, now: .zero)
    #expect(recovery.map(\.kind) == ["attempt_ended", "attempt_ended", "worker_left"])
    #expect(bench.scheduler.leases.isEmpty)
    #expect(bench.scheduler.contradictions().isEmpty)
    #expect(bench.complete(orphan.token, by: "w", artifact: "late") == .stale)
    bench.join("v")
    #expect(bench.assignments.last?.assignment.shard == orphan.shard)
  }

  @Test func resumingGivesQuarantinedShardsNewAttempts() throws {
    var bench = try SchedulerBench { $0.attempts = 1 }
    bench.join("w")
    bench.failEverything(by: "w", evidence: "broken") { $0.scheduler.isFinished }
    bench.tell(.stop(reason: "nothing left"))
    let failed = bench.scheduler.summary.shardsQuarantined
    #expect(failed == 4)
    bench.scheduler = bench.replayed()
    let recovery = bench.scheduler.finishRecovery(keepLeases: false, now: .zero)
    #expect(recovery.first == .sweepResumed)
    #expect(bench.scheduler.summary.shardsQuarantined == 0)
    #expect(bench.scheduler.stopReason == nil && !bench.scheduler.isFinished)
    #expect(bench.scheduler.contradictions().isEmpty)
    let before = bench.assignments.count
    bench.join("v")
    var done = 0
    while let next = bench.assignments.dropFirst(before + done).first {
      bench.finish(next.assignment, by: "v")
      bench.tell(.requestWork(worker: "v", slots: 1))
      done += 1
    }
    #expect(done == 6 && bench.scheduler.isFinished)
    #expect(bench.scheduler.summary.trialsCompleted == 6)
  }
}
