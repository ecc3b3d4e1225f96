import Foundation
import SweepCore
import SweepTestKit
import Testing

/// A ledger that contradicts itself must stop the coordinator rather than be worked with.
@Suite struct IllegalEventTests {
  /// How a failed precondition ends a process.
  #if arch(x86_64)
    static let trap = ExitTest.Condition.signal(SIGILL)
  #else
    static let trap = ExitTest.Condition.signal(SIGTRAP)
  #endif

  @Test func aTokenIsGivenOutOnce() async {
    await #expect(processExitsWith: Self.trap) {
      var bench = try SchedulerBench()
      bench.join("w", slots: 2)
      let shard = bench.plan.shards[3].id
      bench.scheduler.apply(
        .shardLeased(shard: shard, worker: "w", token: LeaseToken(1), attempt: 1), now: .zero)
    }
  }

  @Test func aTrialHasOneResult() async {
    await #expect(processExitsWith: Self.trap) {
      var bench = try SchedulerBench()
      let trial = bench.plan.grid.trials[0].id
      for _ in 0..<2 {
        bench.scheduler.apply(
          .trialCompleted(trial: trial, token: LeaseToken(1), metrics: [:], notes: [:]),
          now: .zero)
      }
    }
  }

  @Test func aShardIsCompletedUnderItsLease() async {
    await #expect(processExitsWith: Self.trap) {
      var bench = try SchedulerBench()
      bench.join("w")
      bench.scheduler.apply(
        .shardCompleted(
          shard: bench.plan.shards[0].id, token: LeaseToken(2), artifact: nil, facts: [:]),
        now: .zero)
    }
  }

  @Test func anAttemptEndsUnderItsLease() async {
    await #expect(processExitsWith: Self.trap) {
      var bench = try SchedulerBench()
      bench.scheduler.apply(
        .attemptEnded(
          shard: bench.plan.shards[0].id, token: LeaseToken(1), ending: .lost, evidence: "none",
          retryAfterSeconds: 0), now: .zero)
    }
  }

  @Test func aShardIsPartOfThePlan() async {
    await #expect(processExitsWith: Self.trap) {
      var bench = try SchedulerBench()
      bench.scheduler.apply(
        .shardQuarantined(shard: ShardID("tune/nothing"), reason: "none"), now: .zero)
    }
  }
}
