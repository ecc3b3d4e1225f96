import SweepCore
import SweepSimulation
import Testing

@Suite struct DispatchTests {
  @Test func generationIsLeasedFirstThenTheLongest() throws {
    var bench = try SchedulerBench(smokeSketch)
    bench.join("w")
    let order = bench.drainQueue(by: "w")
    #expect(Set(order) == Set(bench.plan.shards.map(\.id)))
    #expect(order.prefix(4) == bench.plan.shards.map(\.id).prefix(4))
    let shards = Dictionary(uniqueKeysWithValues: bench.plan.shards.map { ($0.id, $0) })
    let costs = order.dropFirst(4).compactMap { shards[$0]?.cost }
    // Shared data count for half of a shard's length, and not for more.
    for (index, cost) in costs.enumerated() {
      #expect((costs.dropFirst(index + 1).max() ?? 0) <= 1.5 * cost)
    }
  }

  @Test func workersWithFewerLeasesComeFirst() throws {
    var bench = try SchedulerBench(smokeSketch)
    for id in ["a", "b", "c"] { bench.join(id, slots: 2, asking: 0) }
    for _ in 0..<2 {
      for id in ["a", "b", "c"] { bench.tell(.requestWork(worker: id, slots: 1)) }
    }
    #expect(bench.assignments.map(\.worker) == ["a", "b", "c", "a", "b", "c"])
  }

  @Test func freedWorkGoesToTheIdlestWorkerInTheOrderOfJoining() throws {
    // Ratio 0.5 only: two generation shards, and everything else waits for them.
    var bench = try SchedulerBench(smokeSketch.replacing("[0, 0.5]", with: "[0.5]"))
    bench.join("busy", slots: 4, asking: 4)
    #expect(bench.assignments.count == 4)
    for id in ["z", "a"] { bench.join(id, slots: 2) }
    bench.tell(.requestWork(worker: "busy", slots: 4))
    let first = try #require(bench.assignments.first).assignment
    bench.finish(first, by: "busy")
    // Four fine-tunes are free: the idle workers get two each, "busy" none yet.
    #expect(bench.assignments.dropFirst(4).map(\.worker) == ["z", "a", "z", "a"])
  }

  @Test func aRequestThatCrossedAnAssignmentDoesNotOvercommit() throws {
    var bench = try SchedulerBench(smokeSketch)
    bench.join("w", slots: 2)
    bench.tell(.requestWork(worker: "w", slots: 2))
    #expect(bench.assignments.count == 2)
    bench.finish(try #require(bench.assignments.first).assignment, by: "w")
    bench.tell(.requestWork(worker: "w", slots: 100))
    #expect(bench.assignments.count == 3)
  }

  @Test func requestsAddUp() throws {
    var bench = try SchedulerBench(smokeSketch.replacing("[0, 0.5]", with: "[0.5]"))
    bench.join("busy", slots: 4)
    bench.join("w", slots: 3, asking: 1)
    bench.tell(.requestWork(worker: "w", slots: 1))
    bench.finish(try #require(bench.assignments.first).assignment, by: "busy")
    #expect(bench.assignments.dropFirst(4).map(\.worker) == ["w", "w"])
  }

  @Test(arguments: [0, -1])
  func whoAsksForNothingGetsNothing(slots: Int) throws {
    var bench = try SchedulerBench()
    bench.join("w", slots: 2, asking: slots)
    #expect(bench.assignments.isEmpty)
  }

  @Test func aDrainedWorkerGetsNothingEvenAfterItReconnects() throws {
    var bench = try SchedulerBench()
    bench.join("w", slots: 2, asking: 1)
    bench.tell(.control(.drain(worker: "w", reason: "maintenance")))
    bench.tell(.requestWork(worker: "w", slots: 1))
    bench.finish(try #require(bench.assignments.first).assignment, by: "w")
    bench.tell(.disconnect(worker: "w", connection: 1, reason: "reset"))
    bench.join("w", slots: 2, connection: 2)
    #expect(bench.assignments.count == 1)
    bench.join("v")
    #expect(bench.assignments.last?.worker == "v")
  }

  @Test func anAbsentWorkerGetsNothing() throws {
    var bench = try SchedulerBench()
    bench.join("w", slots: 2, asking: 0)
    bench.tell(.disconnect(worker: "w", connection: 1, reason: "reset"))
    let step = bench.tell(.requestWork(worker: "w", slots: 2))
    #expect(step.reply != .accepted && bench.assignments.isEmpty)
  }

  @Test func equalCommandsGiveEqualDecisions() throws {
    func decisions() throws -> [Scheduler.Directive] {
      var bench = try SchedulerBench(smokeSketch)
      for number in 0..<7 { bench.join("w\(number)", slots: 3) }
      for lease in bench.scheduler.leases {
        bench.tell(
          .failShard(worker: lease.lease.worker, token: lease.lease.token, evidence: "broken"))
      }
      for number in 0..<7 { bench.tell(.requestWork(worker: "w\(number)", slots: 3)) }
      bench.wait(seconds: 10)
      return bench.directives
    }
    #expect(try decisions() == decisions())
  }

  /// A scheduler that looks at every shard, lease or worker for each command would need 10^10
  /// looks here and never come to the end.
  @Test(.timeLimit(.minutes(2)))
  func aHundredThousandShardsCostNoMoreThanTheirCommands() throws {
    let seeds = (0..<5000).map(String.init).joined(separator: ", ")
    let definition = try definition(
      """
      name: large
      tasks: [occupation]
      biases: [contextual-single-explicit, contrastive-single-explicit]
      ratios: [0.1, 0.2, 0.3, 0.4, 0.5]
      mitigations: [none, mask]
      seeds: [\(seeds)]
      """)
    let plan = definition.plan
    #expect(plan.shards.count == 100_002)
    var policy = definition.policy
    policy.stragglerFactor = nil
    var scheduler = Scheduler(plan: plan, policy: policy, seed: 1)
    let workers = (0..<200).map { "w\($0)" }
    var counts: [String: Int] = [:]
    var outstanding: [(worker: String, assignment: Scheduler.Assignment)] = []
    var commands = 0
    func tell(_ command: Scheduler.Command) {
      commands += 1
      let step = scheduler.handle(command, now: .milliseconds(commands / 100))
      for event in step.events { counts[event.kind, default: 0] += 1 }
      for case .assign(let worker, let assignment) in step.directives {
        outstanding.append((worker, assignment))
      }
    }
    for worker in workers {
      tell(
        .connect(
          SchedulerBench.worker(worker, slots: 8), connection: 1, holding: [],
          inputs: ["model": "m"]))
      tell(.requestWork(worker: worker, slots: 8))
    }
    while let (worker, assignment) = outstanding.popLast() {
      for trial in assignment.remainingTrials {
        tell(
          .completeTrial(
            worker: worker, token: assignment.token, trial: trial.id, metrics: ["accuracy": 0.5],
            notes: [:]))
      }
      tell(
        .completeShard(
          worker: worker, token: assignment.token, artifact: ContentDigest(of: [1]), facts: [:]))
      tell(.requestWork(worker: worker, slots: 1))
    }
    #expect(scheduler.isFinished)
    #expect(counts["shard_leased"] == 100_002)
    #expect(counts["trial_completed"] == 100_000)
    #expect(counts["shard_completed"] == 100_002)
    #expect(commands == 400 + 100_000 + 2 * 100_002)
    #expect(scheduler.summary.trialsCompleted == 100_000)
  }
}
