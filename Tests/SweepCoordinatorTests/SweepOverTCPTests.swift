import Foundation
import SweepCoordinator
import SweepCore
import SweepLedger
import SweepWorker
import Synchronization
import Testing

@Suite(.timeLimit(.minutes(2)))
struct SweepOverTCPTests {
  /// A worker whose time is up gets nothing, whatever it asks for.
  @Test func aWorkerWithoutTimeGetsNothing() async throws {
    let deployment = try Deployment(seeds: 1)
    let listening = Signal<Int>()
    async let summary = deployment.serve { port, _ in listening.send(port) }
    let port = try #require(await listening.next())
    let ending = Deployment.worker("ending", port: port, lifetime: .zero)
    let idle = Task { try await ending.run() }
    let lasting = Deployment.worker("lasting", port: port, lifetime: .seconds(3600))
    try await lasting.run()
    try await idle.value
    #expect(try await summary.trialsCompleted == deployment.plan.grid.trials.count)
    let attempts = try deployment.reader.attempts(at: nil)
    #expect(attempts.allSatisfy { $0.worker == "lasting" } && !attempts.isEmpty)
  }

  /// The last shard hangs; an idle worker gets a copy of it, whose result counts, and the sweep ends.
  @Test func anIdleWorkerTakesOverAStraggler() async throws {
    let deployment = try Deployment(seeds: 2, stragglerFactor: "2")
    let listening = Signal<Int>()
    let gate = Gate()
    let count = Counter()
    let last = deployment.plan.shards.count
    async let summary = deployment.serve { port, _ in listening.send(port) }
    let port = try #require(await listening.next())
    // Whoever begins the last shard first never ends it by itself.
    let execute: @Sendable (ShardAssignment, ShardControl) throws -> ShardProduct = {
      if count.increment() == last {
        while !$1.isCancelled { gate.wait(atMost: 0.01) }
        throw CancellationError()
      }
      return try Deployment.compute($0, $1)
    }
    let workers = ["a", "b"].map { name in
      Task { try await Deployment.worker(name, port: port, execute: execute).run() }
    }
    for worker in workers { try await worker.value }
    #expect(try await summary.trialsCompleted == deployment.plan.grid.trials.count)
    let endings = try deployment.reader.attempts(at: nil).map(\.ending)
    #expect(endings.count == last + 1 && endings.count { $0 == "superseded" } == 1)
  }

  /// Runs the whole sweep with `workers` undisturbed workers.
  private func undisturbed(_ deployment: Deployment, workers: Int, slots: Int) async throws
    -> SweepSummary
  {
    try await withThrowingTaskGroup(of: Void.self) { group in
      let listening = Signal<Int>()
      async let summary = deployment.serve { port, _ in listening.send(port) }
      let port = try #require(await listening.next())
      for index in 0..<workers {
        group.addTask {
          try await Deployment.worker("w\(index)", port: port, slots: slots).run()
        }
      }
      try await group.waitForAll()
      return try await summary
    }
  }

  @Test func sweepEndsWithOneResultForEachTrial() async throws {
    let deployment = try Deployment()
    let summary = try await undisturbed(deployment, workers: 2, slots: 2)
    let plan = deployment.plan
    #expect(summary.trialsCompleted == plan.grid.trials.count)
    #expect(summary.shardsCompleted == plan.shards.count)
    #expect(summary.attempts == plan.shards.count)
    let reader = try deployment.reader
    #expect(try reader.trialResults().map(\.trial) == plan.grid.trials.map(\.id.description))
    #expect(try reader.gridResults().count == plan.grid.points.count)
    #expect(try reader.notes().count == plan.grid.trials.count)
    #expect(try reader.sweep().inputs == ["model": "m"])
  }

  @Test func resultsDoNotDependOnWorkersAndSlots() async throws {
    let one = try Deployment()
    let many = try Deployment()
    _ = try await undisturbed(one, workers: 1, slots: 1)
    _ = try await undisturbed(many, workers: 3, slots: 4)
    #expect(try one.reader.resultDigest() == many.reader.resultDigest())
  }

  @Test func shardOfADeadWorkerRunsElsewhere() async throws {
    let deployment = try Deployment(seeds: 1)
    let listening = Signal<Int>()
    let started = Signal<Bool>()
    let gate = Gate()
    async let summary = deployment.serve { port, _ in listening.send(port) }
    let port = try #require(await listening.next())
    // The first worker reports one trial and then hangs until its connection is cut.
    let doomed = Task {
      try await Deployment.worker("doomed", port: port) { assignment, control in
        started.send(true)
        gate.wait()
        return try Deployment.compute(assignment, control)
      }.run()
    }
    _ = await started.next()
    doomed.cancel()
    try await Deployment.worker("heir", port: port).run()
    gate.open(100)
    let result = try await summary
    _ = await doomed.result
    #expect(result.trialsCompleted == deployment.plan.grid.trials.count)
    #expect(result.attempts == deployment.plan.shards.count + 1)
    #expect(result.trialsFailed == 0)
  }

  /// A worker that holds something has all the patience in the world.
  @Test(arguments: [Duration.seconds(20), .zero])
  func workersOutliveTheirCoordinator(patience: Duration) async throws {
    let deployment = try Deployment(seeds: 2)
    let listening = Signal<(port: Int, coordinator: Coordinator)>()
    let started = Signal<Bool>()
    let gate = Gate()
    let executions = Counter()
    async let first = deployment.serve { port, coordinator in
      listening.send((port, coordinator))
    }
    let (port, coordinator) = try #require(await listening.next())
    let worker = Task {
      try await Deployment.worker("w", port: port, patience: patience) { assignment, control in
        if executions.increment() == 3 {
          started.send(true)
          gate.wait()
        }
        return try Deployment.compute(assignment, control)
      }.run()
    }
    _ = await started.next()
    await coordinator.suspend()
    _ = try await first
    // The shard ends while nobody listens; its reports wait for the next coordinator.
    gate.open()
    let second = try await deployment.serve(port: port) { _, _ in }
    try await worker.value
    #expect(second.trialsCompleted == deployment.plan.grid.trials.count)
    #expect(second.attempts == deployment.plan.shards.count)
    #expect(executions.value == deployment.plan.shards.count)
  }

  /// Hours without a word are no hours without a coordinator: patience begins when the session ends.
  @Test func anIdleWorkerOutlivesItsCoordinatorToo() async throws {
    let deployment = try Deployment(seeds: 1)
    let listening = Signal<(port: Int, coordinator: Coordinator)>()
    let passed = Mutex(Duration.zero)
    let start = SuspendingClock.now
    async let first = deployment.serve { port, coordinator in
      _ = try await coordinator.control(.pause(reason: "nothing to do"))
      listening.send((port, coordinator))
    }
    let (port, coordinator) = try #require(await listening.next())
    let worker = Task {
      try await Deployment.worker(
        "w", port: port, patience: .seconds(60), now: { start + passed.withLock { $0 } }
      ).run()
    }
    while await coordinator.presences().isEmpty { await Task.yield() }
    passed.withLock { $0 = .seconds(3600) }
    await coordinator.suspend()
    _ = try await first
    let second = try await deployment.serve(port: port) { _, coordinator in
      _ = try await coordinator.control(.resume)
    }
    try await worker.value
    #expect(second.trialsCompleted == deployment.plan.grid.trials.count)
  }

  @Test func failingShardIsRetriedThenQuarantinedWithEvidence() async throws {
    struct Broken: Error, CustomStringConvertible { let description = "disk on fire" }
    let deployment = try Deployment(seeds: 1)
    let bad = try #require(deployment.plan.shards.last { !$0.trials.isEmpty }).id
    let listening = Signal<Int>()
    async let summary = deployment.serve { port, _ in listening.send(port) }
    let port = try #require(await listening.next())
    try await Deployment.worker("w", port: port) { assignment, control in
      if assignment.shard.id == bad { throw Broken() }
      return try Deployment.compute(assignment, control)
    }.run()
    let result = try await summary
    #expect(result.shardsQuarantined == 1)
    #expect(result.trialsFailed == 1)
    let failure = try #require(try deployment.reader.failures().first)
    #expect(failure.shard == bad.description)
    #expect(failure.attempts.count == 3)
    #expect(failure.attempts.allSatisfy { $0.contains("disk on fire") })

    // Started again, the shard gets new attempts without any hand work.
    let again = Signal<Int>()
    async let resumed = deployment.serve { port, _ in again.send(port) }
    let nextPort = try #require(await again.next())
    try await Deployment.worker("w2", port: nextPort).run()
    #expect(try await resumed.trialsCompleted == deployment.plan.grid.trials.count)
  }

  @Test func aRefusedReportFailsTheShard() async throws {
    let deployment = try Deployment(seeds: 1)
    let bad = try #require(deployment.plan.shards.last { !$0.trials.isEmpty }).id
    let listening = Signal<Int>()
    async let summary = deployment.serve { port, _ in listening.send(port) }
    let port = try #require(await listening.next())
    try await Deployment.worker("w", port: port) { assignment, control in
      if assignment.shard.id == bad {
        control.complete(TrialID("somebody else's"), metrics: ["accuracy": 1], notes: [:])
        while !control.isCancelled { sched_yield() }
        throw CancellationError()
      }
      return try Deployment.compute(assignment, control)
    }.run()
    #expect(try await summary.shardsQuarantined == 1)
    let failure = try #require(try deployment.reader.failures().first)
    #expect(failure.attempts.count == 3)
    #expect(failure.attempts.allSatisfy { $0.contains("the coordinator refused a report") })
  }

  @Test func aStoppingWorkerStillReportsWhatItFinished() async throws {
    let deployment = try Deployment(seeds: 1)
    let victim = try #require(deployment.plan.shards.first { !$0.trials.isEmpty }).id
    let listening = Signal<Int>()
    let started = Signal<Bool>()
    async let summary = deployment.serve { port, _ in listening.send(port) }
    let port = try #require(await listening.next())
    let leaving = Deployment.worker("leaving", port: port) { assignment, control in
      let product = try Deployment.compute(assignment, control)
      guard assignment.shard.id == victim else { return product }
      started.send(true)
      while !control.isCancelled { sched_yield() }
      throw CancellationError()
    }
    let run = Task { try await leaving.run() }
    _ = await started.next()
    await leaving.stop()
    try await run.value
    let left = Counter()
    try await Deployment.worker("staying", port: port) { assignment, control in
      if assignment.shard.id == victim { for _ in assignment.trials { left.increment() } }
      return try Deployment.compute(assignment, control)
    }.run()
    #expect(try await summary.trialsCompleted == deployment.plan.grid.trials.count)
    #expect(left.value == 0)
  }

  @Test func stoppingWorkerGivesItsShardBack() async throws {
    let deployment = try Deployment(seeds: 1)
    let listening = Signal<Int>()
    let started = Signal<Bool>()
    async let summary = deployment.serve { port, _ in listening.send(port) }
    let port = try #require(await listening.next())
    let leaving = Deployment.worker("leaving", port: port) { _, control in
      started.send(true)
      while !control.isCancelled { sched_yield() }
      throw CancellationError()
    }
    let run = Task { try await leaving.run() }
    _ = await started.next()
    await leaving.stop()
    try await run.value
    try await Deployment.worker("staying", port: port).run()
    let result = try await summary
    #expect(result.trialsCompleted == deployment.plan.grid.trials.count)
    let events = try Ledger(
      path: deployment.ledgerPath, spec: deployment.definition.spec, plan: deployment.plan,
      version: "test", now: 0
    ).events()
    let endings = events.compactMap { event -> AttemptEnding? in
      if case .attemptEnded(_, _, let ending, _, _) = event { ending } else { nil }
    }
    #expect(endings == [.released])
  }
}
