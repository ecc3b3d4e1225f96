import Foundation
import SweepCore
import SweepTestKit
import Testing

/// The scheduler's state as bytes. That any state of a run survives, the simulation shows, whose
/// coordinators restart from saved states.
struct SnapshotTests {
  private let sample: SampleSweep

  init() throws { sample = try SampleSweep() }

  private func restored(
    _ bytes: Data, plan: ShardPlan? = nil, now: Duration = .zero
  ) -> Scheduler? {
    Scheduler(
      plan: plan ?? sample.plan, policy: ExecutionPolicy(), seed: 1, snapshot: bytes, now: now)
  }

  /// Everything that a restart may not forget, in one state.
  private func busy() -> Scheduler {
    var scheduler = Scheduler(plan: sample.plan, policy: ExecutionPolicy(), seed: 1)
    let shards = sample.plan.shards
    let half = sample.completion(of: 6).dropLast()
    let events =
      sample.opening + (0..<5).flatMap { sample.completion(of: $0) } + half
      + sample.failure(of: 7, evidence: "not finite")
      + [
        .shardLeased(
          shard: shards[8].id, worker: "worker-1", token: LeaseToken(300_000), attempt: 1),
        .attemptEnded(
          shard: shards[8].id, token: LeaseToken(300_000), ending: .failed, evidence: "x",
          retryAfterSeconds: 30),
        .shardCancelled(shard: shards[9].id, reason: "not wanted"),
        .workerJoined(WorkerInfo(id: "w2", host: "h", processID: 2, slots: 2, threads: 1)),
        .workerDrained(worker: "w2", reason: "maintenance"),
        .shardPrioritised(shard: shards[10].id, priority: 2),
        .hostSuspended(host: "h", seconds: 10, evidence: "no disk"),
        .leasingPaused(reason: "night"), .sweepStopped(reason: "interrupted"),
      ]
    for event in events { scheduler.apply(event, now: .zero) }
    return scheduler
  }

  @Test func stateComesBack() throws {
    let scheduler = busy()
    let copy = try #require(restored(try scheduler.snapshot(now: .zero)))
    #expect(copy.durableState == scheduler.durableState)
    #expect(copy.contradictions().filter { !$0.contains("neither connected") }.isEmpty)
    #expect(copy.summary.trialsCompleted == scheduler.summary.trialsCompleted)
    #expect(copy.leases.map(\.shard) == scheduler.leases.map(\.shard))
  }

  @Test func waitingTimesGoOnFromTheRestart() throws {
    let scheduler = busy()
    let shard = sample.plan.shards[8].id
    let copy = try #require(
      restored(try scheduler.snapshot(now: .seconds(20)), now: .seconds(1000)))
    #expect(copy.state(of: shard) == .queued(notBefore: .seconds(1010)))
  }

  @Test func otherBytesAreNotASnapshot() throws {
    let bytes = try busy().snapshot(now: .zero)
    #expect(restored(Data()) == nil && restored(Data("{}".utf8)) == nil)
    #expect(restored(bytes.dropLast()) == nil)
    let other = try SampleSweep(
      sketch: SampleSweep.sketch.replacing("seeds: [1, 2]", with: "seeds: [1, 3]"))
    #expect(restored(bytes, plan: other.plan) == nil)
  }

  /// Whoever gives the scheduler a new stored property decides here whether a restart may forget it:
  /// durable state belongs into the snapshot, whose version is raised then.
  @Test func everyPartOfTheStateWasThoughtOf() {
    func parts(_ value: Any) -> Set<String> {
      Set(Mirror(reflecting: value).children.compactMap(\.label))
    }
    let scheduler = busy()
    let inSnapshot: Set = [
      "records", "completedTrials", "live", "workers", "joined", "drained", "hosts", "costs",
      "lastToken", "inputs", "stopReason", "isCancelled", "pauseReason",
    ]
    let derived: Set = [
      "policy", "planDigest", "ordinals", "shardOfTrial", "completedBy", "unsettled",
      "quarantined", "ready", "workersOnData", "delayed",
    ]
    let forgotten: Set = [
      "wanted", "hungry", "nextLook", "nextStragglerLook", "nextExpiry", "randomState",
      "lastHandled", "isEnding",
    ]
    #expect(parts(scheduler) == inSnapshot.union(derived).union(forgotten))

    let children = Dictionary(
      uniqueKeysWithValues: Mirror(reflecting: scheduler).children.map {
        ($0.label ?? "", $0.value)
      }
    )
    func firstParts(_ name: String) -> Set<String> {
      children[name].flatMap { Mirror(reflecting: $0).children.first?.value }.map(parts) ?? []
    }
    #expect(
      firstParts("records") == [
        "shard", "state", "failures", "losses", "attempts", "priority", "failedOn", "dependents",
      ])
    let worker = children["workers"].flatMap { Mirror(reflecting: $0).children.first?.value }
      .flatMap { Mirror(reflecting: $0).children.first { $0.label == "value" }?.value }
    #expect(
      worker.map(parts) == ["info", "order", "leases", "data", "connection", "graceEnds", "endsAt"])
  }
}
