import Foundation
import SweepCore
import SweepSimulation
import Testing

/// Who gets what, beyond order and slots: learned costs, data, copies, time, bad hosts.
@Suite struct SchedulingTests {
  private static let sketch = """
    name: scheduling
    tasks: [occupation, group-bias]
    biases: [contextual-single-explicit, contrastive-single-explicit]
    ratios: [0.5]
    mitigations: [none, mask]
    seeds: [1, 2]
    """

  private func worker(
    _ id: String, host: String, slots: Int = 1, memoryBytes: Int? = nil
  ) -> WorkerInfo {
    WorkerInfo(
      id: id, host: host, processID: 1, slots: slots, threads: 1, memoryBytes: memoryBytes)
  }

  @discardableResult
  private func join(
    _ bench: inout SchedulerBench, _ info: WorkerInfo, lifetime: Duration? = nil, asking: Int? = nil
  ) -> Scheduler.Reply {
    let reply = bench.tell(
      .connect(info, connection: 1, holding: [], inputs: ["model": "m"], lifetime: lifetime)
    ).reply
    bench.tell(.requestWork(worker: info.id, slots: asking ?? info.slots))
    return reply
  }

  /// Finishes a lease after some time, with heartbeats on the way.
  private func work(
    _ bench: inout SchedulerBench, _ assignment: Scheduler.Assignment, by worker: String,
    seconds: Int
  ) {
    for _ in 0..<seconds {
      bench.now += .seconds(1)
      let held = bench.scheduler.leases.filter { $0.lease.worker == worker }
      bench.tell(
        .heartbeat(
          worker: worker,
          leases: held.map {
            Scheduler.LeaseProgress(token: $0.lease.token, fraction: 0, tokensPerSecond: 1)
          }))
    }
    bench.finish(assignment, by: worker)
  }

  @Test func timesAreLearnedByClassAndMachineAndReplayed() throws {
    var bench = try SchedulerBench(Self.sketch)
    join(&bench, worker("w", host: "a"))
    let first = try #require(bench.assignments.first).assignment
    #expect(bench.scheduler.costs.seconds(first.shard, machine: "") == nil)
    work(&bench, first, by: "w", seconds: 20)
    let learned = try #require(bench.scheduler.costs.seconds(first.shard, machine: "a 1x1"))
    #expect(abs(learned - 20) < 1e-9)
    #expect(bench.replayed().costs == bench.scheduler.costs)
  }

  @Test func oneOddTimeDoesLittle() {
    let shards = (try? SchedulerBench(Self.sketch))?.plan.shards ?? []
    guard let shard = shards.last else { return }
    var costs = CostModel()
    for _ in 0..<50 { costs.learn(shard, machine: "m", seconds: 10) }
    costs.learn(shard, machine: "m", seconds: 100_000)
    #expect((costs.seconds(shard, machine: "m") ?? 0) < 15)
    for _ in 0..<50 { costs.learn(shard, machine: "slow", seconds: 30) }
    #expect(costs.slowness(of: "slow") > 2 * costs.slowness(of: "m"))
  }

  @Test func workersSpreadOverDataAndStayWithThem() throws {
    var bench = try SchedulerBench(Self.sketch)
    join(&bench, worker("g", host: "h", slots: 4))
    let generations = bench.assignments.map(\.assignment)
    #expect(generations.allSatisfy { $0.shard.trials.isEmpty })
    bench.tell(.control(.pause(reason: "wait")))
    for assignment in generations { bench.finish(assignment, by: "g") }
    for id in ["a", "b"] { join(&bench, worker(id, host: id)) }
    bench.tell(.control(.resume))
    let needs = { (id: String) in
      bench.assignments.filter { $0.worker == id }.compactMap(\.assignment.shard.dependency)
    }
    #expect(needs("a").count == 1 && needs("b").count == 1 && needs("a") != needs("b"))
    for id in ["a", "b"] {
      let held = try #require(bench.assignments.last { $0.worker == id }).assignment
      bench.finish(held, by: id)
      bench.tell(.requestWork(worker: id, slots: 1))
      #expect(Set(needs(id)).count == 1, "\(id) changed its data")
    }
  }

  @Test func priorityComesBeforeLength() throws {
    var bench = try SchedulerBench(Self.sketch)
    let last = try #require(bench.plan.shards.last)
    #expect(bench.control(.prioritise(last.id, priority: 3)) == .accepted)
    join(&bench, worker("w", host: "a"))
    let order = bench.drainQueue(by: "w")
    // First what it waits for, then itself.
    #expect(Array(order.prefix(2)) == [try #require(last.dependency), last.id])
    #expect(bench.replayed().durableState == bench.scheduler.durableState)
  }

  /// Everything but one shard is done; its worker makes no progress.
  private func straggling(factor: Double?) throws -> (SchedulerBench, Scheduler.Assignment) {
    var bench = try SchedulerBench(Self.sketch) { $0.stragglerFactor = factor }
    join(&bench, worker("fast", host: "a"))
    while bench.scheduler.summary.shardsCompleted < bench.plan.shards.count - 1 {
      let held = try #require(bench.assignments.last).assignment
      work(&bench, held, by: "fast", seconds: 5)
      if bench.scheduler.summary.shardsCompleted == bench.plan.shards.count - 1 { break }
      bench.tell(.requestWork(worker: "fast", slots: 1))
    }
    join(&bench, worker("slow", host: "b"))
    let stuck = try #require(bench.assignments.last)
    #expect(stuck.worker == "slow")
    bench.tell(.requestWork(worker: "fast", slots: 1))
    for _ in 0..<60 {
      bench.now += .seconds(1)
      bench.tell(
        .heartbeat(
          worker: "slow",
          leases: [
            Scheduler.LeaseProgress(token: stuck.assignment.token, fraction: 0, tokensPerSecond: 0)
          ]))
      if bench.assignments.last?.worker == "fast" { break }
    }
    return (bench, stuck.assignment)
  }

  @Test func anIdleWorkerGetsACopyOfAStragglerAndTheFirstResultWins() throws {
    let (made, stuck) = try straggling(factor: 2)
    var bench = made
    let copy = try #require(bench.assignments.last)
    #expect(copy.worker == "fast" && copy.assignment.shard == stuck.shard)
    #expect(copy.assignment.attempt == 2 && bench.scheduler.leases.count == 2)
    #expect(bench.scheduler.contradictions().isEmpty)
    #expect(bench.replayed().durableState == bench.scheduler.durableState)
    bench.finish(copy.assignment, by: "fast")
    #expect(bench.scheduler.isFinished && bench.revocations == [stuck.token])
    #expect(bench.complete(stuck.token, by: "slow") == .stale)
    #expect(bench.kinds["shard_completed"] == bench.plan.shards.count)
    #expect(bench.replayed().durableState == bench.scheduler.durableState)
  }

  @Test func theStragglerMayStillWinAndALostCopyChangesNothing() throws {
    let (made, stuck) = try straggling(factor: 2)
    var bench = made
    let copy = try #require(bench.assignments.last).assignment
    bench.tell(.failShard(worker: "fast", token: copy.token, evidence: "broken"))
    #expect(bench.scheduler.leases.map(\.lease.token) == [stuck.token])
    bench.finish(stuck, by: "slow")
    #expect(bench.scheduler.isFinished && bench.scheduler.contradictions().isEmpty)
  }

  @Test func withoutAFactorThereAreNoCopies() throws {
    let (bench, stuck) = try straggling(factor: nil)
    #expect(bench.scheduler.leases.map(\.lease.token) == [stuck.token])
  }

  @Test func aWorkerWithLittleTimeGetsOnlyWhatItCanFinish() throws {
    let oneDomain = Self.sketch.replacing("[occupation, group-bias]", with: "[occupation]")
    var bench = try SchedulerBench(oneDomain) { $0.stragglerFactor = nil }
    join(&bench, worker("w", host: "a"))
    for _ in 0..<2 {
      work(&bench, try #require(bench.assignments.last).assignment, by: "w", seconds: 10)
      bench.tell(.requestWork(worker: "w", slots: 1))
    }
    // A fine-tune is known to take 40 s.
    work(&bench, try #require(bench.assignments.last).assignment, by: "w", seconds: 40)
    let before = bench.assignments.count
    join(&bench, worker("short", host: "b"), lifetime: .seconds(30))
    #expect(bench.assignments.count == before)
    join(&bench, worker("long", host: "c"), lifetime: .seconds(60))
    #expect(bench.assignments.last?.worker == "long")
  }

  @Test func aHostWhereEverythingFailsIsLeftAloneForAWhile() throws {
    var bench = try SchedulerBench(Self.sketch) { policy in
      policy.hostFailures = 2
      policy.hostCoolDownSeconds = 40
      policy.attempts = 10
    }
    join(&bench, worker("good", host: "good"), asking: 0)
    join(&bench, worker("bad", host: "bad"))
    for _ in 0..<2 {
      let held = try #require(bench.scheduler.leases.first).lease.token
      bench.tell(.failShard(worker: "bad", token: held, evidence: "no such file"))
      bench.tell(.requestWork(worker: "bad", slots: 1))
    }
    let evidence = bench.events.compactMap {
      if case .hostSuspended("bad", _, let evidence) = $0 { evidence } else { nil }
    }
    #expect(evidence.count == 1 && evidence[0].contains("no such file"))
    #expect(bench.scheduler.leases.isEmpty && bench.scheduler.isSuspended("bad", bench.now))
    bench.tell(.requestWork(worker: "good", slots: 1))
    #expect(bench.scheduler.leases.map(\.lease.worker) == ["good"])
    bench.wait(seconds: 41)
    #expect(bench.scheduler.leases.contains { $0.lease.worker == "bad" })
  }

  @Test func theOnlyHostIsNeverLeftAlone() throws {
    var bench = try SchedulerBench(Self.sketch) { $0.hostFailures = 1 }
    join(&bench, worker("w", host: "a"))
    bench.failEverything(by: "w", evidence: "broken") { $0.scheduler.isFinished }
    #expect(bench.kinds["host_suspended"] == nil && bench.scheduler.isFinished)
  }

  @Test func memoryLimitsSlots() throws {
    var bench = try SchedulerBench(Self.sketch) { $0.shardMemoryBytes = 1000 }
    join(&bench, worker("w", host: "a", slots: 8, memoryBytes: 2500))
    #expect(bench.assignments.count == 2)
    let tooSmall = join(&bench, worker("v", host: "b", memoryBytes: 999))
    guard case .refused(let reason) = tooSmall else {
      Issue.record("\(tooSmall)")
      return
    }
    #expect(reason.contains("shard_memory_mb"))
  }

  /// Snapshots go through JSON and back, in the middle of sweeps with all that can happen.
  @Test func durableStatesSurviveEncoding() throws {
    for seed in UInt64(1)...30 {
      var cluster = SimulatedCluster(seed: seed)
      let outcome = cluster.run()
      for part in 1...4 {
        var scheduler = Scheduler(plan: cluster.plan, policy: cluster.definition.policy, seed: 1)
        for event in outcome.events.prefix(outcome.events.count * part / 4) {
          scheduler.apply(event, now: .zero)
        }
        let restored = Scheduler(
          plan: cluster.plan, policy: cluster.definition.policy, seed: 1,
          snapshot: try scheduler.snapshot(now: .zero), now: .zero)
        #expect(restored?.durableState == scheduler.durableState, "seed \(seed), part \(part)")
      }
    }
  }

  @Test func capacityQuestionsAreAnsweredTheSameWayTwice() throws {
    let definition = try SweepDefinition(
      document: CapacityQuestion.syntheticSweep(trials: 400), catalogue: .sample)
    var question = CapacityQuestion()
    question.workers = 20
    question.workerFailures = 1800
    let answer = question.answer(definition)
    #expect(answer.problem == nil && answer.trialsCompleted == 400)
    #expect(answer == question.answer(definition))
    #expect((0.3...1).contains(answer.utilisation) && answer.lostSeconds > 0)
    question.workerFailures = nil
    let calm = question.answer(definition)
    #expect(calm.makespanSeconds < answer.makespanSeconds && calm.attemptsLost == 0)
  }
}
