import SweepCore

/// A whole cluster in one thread and in virtual time: a coordinator around the real `Scheduler`,
/// its ledger, workers and the network between them, all of which fail as the fault plan says.
/// Everything random comes from the seed, so a seed is a complete bug report.
///
/// The simulated coordinator is the smallest correct shell: it handles what has arrived, appends
/// the events of the batch at once, and only then answers. A new session of a worker closes the
/// worker's older one.
package struct SimulatedCluster {
  enum Action {
    case arriveAtCoordinator(Connection, WorkerMessage)
    case arriveAtWorker(Connection, CoordinatorMessage)
    case coordinatorNoticesEnd(Connection)
    case workerNoticesEnd(Connection)
    case work(Worker, LeaseToken)
    case heartbeat(Worker)
    case reconnect(Worker)
    case startWorker(host: Int)
    case handleBatch(incarnation: Int)
    case commit(incarnation: Int)
    case tick(incarnation: Int, number: Int)
    case startCoordinator(keepLeases: Bool, revive: Bool)
    case resume
    case timeIsUp(Worker)
    case fault(Fault)
    case faultsEnd
  }

  enum Fault: CaseIterable {
    case brokenConnection, halfOpenConnection, oneWayPartition, twoWayPartition
    case clockJump, fullDisk
    case workerCrash, workerExit, drain, pause, shardCommand, cancellation
    case coordinatorCrash, suspension, interruption, slowCommit
  }

  package struct Host {
    let isBad: Bool
    let slowness: Double
    let slots: Int
    var memoryBytes: Int?
    /// Mean time in seconds that a worker has; nil if it may go on for ever.
    var lifetime: Double?
    var started = 0
    var worker: Worker?
    /// Nothing arrives from or at the host before these times.
    var blockedUp: Duration = .zero
    var blockedDown: Duration = .zero

    /// - Parameters:
    ///   - slowness: time relative to the usual host.
    ///   - lifetime: mean time in seconds that each worker has; nil if it may go on for ever.
    package init(
      isBad: Bool = false, slowness: Double = 1, slots: Int, memoryBytes: Int? = nil,
      lifetime: Double? = nil
    ) {
      self.isBad = isBad
      self.slowness = slowness
      self.slots = slots
      self.memoryBytes = memoryBytes
      self.lifetime = lifetime
    }
  }

  package let seed: UInt64
  package let faults: FaultPlan
  package let definition: SweepDefinition
  package let plan: ShardPlan
  /// Fine-tunes that others wait for.
  let writers: Set<ShardID>
  let policy: ExecutionPolicy
  let defect: PlantedDefect?
  /// Whether every step is judged. Costs time in proportion to the sweep at each.
  let checks: Bool
  /// Whether the coordinator may need the ledger again.
  var keepsLedger: Bool { checks || faults.coordinatorCrashes != nil }
  let pace: Pace
  var random: SeededGenerator
  var timeline = Timeline<Action>()
  var hosts: [Host] = []
  var coordinator: Coordinator?
  var history: SweepHistory
  var ledger: [SweepEvent] = []
  /// A scheduler that sees nothing but the ledger.
  var replayed: Scheduler
  /// The state that a restart begins with, and of how many events and which moment it is.
  var saved: (events: Int, scheduler: Scheduler, at: Duration)?
  /// Share of each shard that checkpoints have saved.
  var checkpoints: [ShardID: Double] = [:]
  var usage = Usage()
  var diskFullUntil: Duration = .zero
  var isDiskFull: Bool { timeline.now < diskFullUntil }
  var connections: UInt64 = 0
  var incarnations = 0
  var faultsAreOver = false
  var restartsSinceFaults = 0
  var isFinished = false
  var counts = Outcome.Counts()
  /// Called with one line for each thing that happens.
  package var log: ((String) -> Void)?

  /// How a simulated sweep went.
  package struct Outcome: Sendable {
    package struct Counts: Sendable {
      package var steps = 0
      package var coordinatorStarts = 0
      package var workerStarts = 0
      package var staleReplies = 0
      package var repeatedReports = 0
      package var uncommittedBatches = 0
      package var silentCommits = 0
      package var duplicated = 0
      package var reordered = 0
      package var clockJumps = 0
      package var fullDisks = 0
      /// Durable events by kind, attempts that did not complete by their ending, and second copies.
      package var events: [String: Int] = [:]

      mutating func add(_ event: SweepEvent) {
        events[event.kind, default: 0] += 1
        if case .attemptEnded(_, _, let ending, _, _) = event {
          events["attempt_\(ending.rawValue)", default: 0] += 1
        }
      }
    }
    package let violation: InvariantViolation?
    package let duration: Duration
    package let counts: Counts
    package let usage: Usage
    package let events: [SweepEvent]
    /// Whether every trial has its result.
    package let isComplete: Bool
    package let resultDigest: ContentDigest
  }

  /// What workers' slots did, in seconds of one slot.
  package struct Usage: Hashable, Sendable {
    package var busySeconds = 0.0
    /// Work that had to be done again.
    package var lostSeconds = 0.0
  }

  /// A small random sweep on a small random cluster, each step of which is judged.
  ///
  /// - Parameters:
  ///   - faults: nil draws them from the seed.
  ///   - defect: a mistake that the simulated coordinator makes, to see that it is noticed.
  package init(seed: UInt64, faults: FaultPlan? = nil, defect: PlantedDefect? = nil) {
    self.seed = seed
    self.defect = defect
    var random = SeededGenerator(seed: seed)
    checks = true
    definition = Self.definition(using: &random)
    plan = definition.plan
    writers = plan.writers
    policy = definition.policy
    let meanCost = plan.shards.map(\.cost).reduce(0, +) / Double(plan.shards.count)
    pace = Pace(
      secondsPerCost: random.uniform(3, 12) / meanCost, spread: 0.3,
      checkpointSeconds: random.chance(0.5) ? random.uniform(1, 5) : nil, trialSeconds: 4)
    var drawing = random
    self.faults = faults ?? FaultPlan(using: &drawing)
    let hostCount = random.integer(1...6)
    for host in 0..<hostCount {
      hosts.append(
        Host(
          isBad: host > 0 && host <= self.faults.badHosts,
          slowness: host >= hostCount - self.faults.slowHosts ? random.uniform(2, 5) : 1,
          slots: random.integer(1...3),
          memoryBytes: random.chance(0.3) ? random.integer(256...2048) << 20 : nil,
          // Somebody has the time for every shard.
          lifetime: host > self.faults.badHosts && random.chance(0.4)
            ? self.faults.lifetimes : nil))
    }
    history = SweepHistory(plan: plan, policy: policy)
    replayed = Scheduler(plan: plan, policy: policy, seed: 0)
    self.random = random
  }

  /// A given sweep on a given cluster, to see how long it takes rather than whether all is right.
  package init(
    seed: UInt64, definition: SweepDefinition, plan: ShardPlan, policy: ExecutionPolicy,
    hosts: [Host], pace: Pace, faults: FaultPlan
  ) {
    self.seed = seed
    self.definition = definition
    self.plan = plan
    writers = plan.writers
    self.policy = policy
    self.hosts = hosts
    self.pace = pace
    self.faults = faults
    defect = nil
    checks = false
    history = SweepHistory(plan: plan, policy: policy)
    replayed = Scheduler(plan: plan, policy: policy, seed: 0)
    random = SeededGenerator(seed: seed)
  }

  private static func definition(using random: inout SeededGenerator) -> SweepDefinition {
    let biases = BiasType.allCases.shuffled(using: &random).prefix(random.integer(1...2))
    let mitigations = Mitigation.allCases.shuffled(using: &random).prefix(random.integer(1...3))
    let catalogue = TaskCatalogue(
      definitions: (1...8).map { .sample("task-\($0)", $0 % 2 == 0 ? .gender : .culture) })
    let tasks = catalogue.tasks.shuffled(using: &random).prefix(random.integer(1...6))
    let lease = random.uniform(4, 15)
    // Some seeds have chains of shards. Drawn aside, so that the others stay what they were.
    var aside = random
    var chains = SeededGenerator(seed: ~aside.next())
    let sketch = """
      name: simulated
      tasks: [\(tasks.map(\.id).joined(separator: ", "))]
      biases: [\(biases.map(\.rawValue).joined(separator: ", "))]
      ratios: [\(random.chance(0.3) ? "0.5" : random.chance(0.5) ? "0, 0.5" : "0, 0.25, 0.5")]
      mitigations: [\(mitigations.map(\.rawValue).joined(separator: ", "))]
      seeds: [\(random.chance(0.5) ? "1" : "1, 2")]
      rounds: \(chains.chance(0.3) ? chains.integer(2...3) : 1)
      execution:
        lease_seconds: \(lease)
        heartbeat_seconds: \(lease / 5)
        disconnect_grace_seconds: \(random.uniform(0.5, 3))
        retry_backoff_seconds: \(random.uniform(0.1, 2))
        attempts: \(random.integer(1...4))
        straggler_factor: \(random.chance(0.3) ? "0" : "1.5")
        host_failures: \(random.integer(1...4))
        host_cool_down_seconds: \(random.uniform(1, 10))
        shard_memory_mb: \(random.chance(0.5) ? "none" : "250")
        losses: \(random.chance(0.3) ? random.integer(1...3) : random.integer(4...20))
        max_failures: \(random.chance(0.85) ? "none" : "\(random.integer(1...3))")
      """
    do {
      return try SweepDefinition(document: SpecNode(sketch: sketch), catalogue: catalogue)
    } catch {
      preconditionFailure("the simulated spec is wrong: \(error)\n\(sketch)")
    }
  }

  // MARK: Running

  /// Runs until the sweep has ended or an invariant is violated.
  package mutating func run() -> Outcome {
    for host in hosts.indices { timeline.schedule(.startWorker(host: host), after: .zero) }
    timeline.schedule(
      .startCoordinator(keepLeases: true, revive: false), after: random.seconds(0, 1))
    timeline.schedule(.faultsEnd, at: .seconds(faults.endsAfter))
    for fault in Fault.allCases { scheduleNext(fault) }
    let patience: Duration = .seconds(faults.endsAfter + 20_000)
    while !isFinished, history.violation == nil, let action = timeline.next() {
      counts.steps += 1
      if timeline.now > patience {
        history.violate(.sweepEnds, "still not finished 20000 s after the last fault")
      }
      perform(action)
    }
    if history.violation == nil { judgeEnd() }
    let rows = history.results.flatMap { trial, metrics in
      metrics.map { ResultRow(trial: trial, metric: $0.key, value: $0.value) }
    }
    return Outcome(
      violation: history.violation, duration: timeline.now, counts: counts, usage: usage,
      events: ledger,
      isComplete: history.results.count == plan.grid.trials.count,
      resultDigest: ContentDigest(results: rows))
  }

  private mutating func judgeEnd() {
    history.finish()
    guard checks else { return }
    var again = Scheduler(plan: plan, policy: policy, seed: 1)
    for event in ledger { again.apply(event, now: .zero) }
    if let live = coordinator?.scheduler, live.durableState != again.durableState {
      history.violate(.replayEqualsLive, "after the end: \(live.durableState)")
    }
  }

  private mutating func perform(_ action: Action) {
    switch action {
    case .arriveAtCoordinator(let connection, let message):
      arriveAtCoordinator(connection, message)
    case .arriveAtWorker(let connection, let message): arriveAtWorker(connection, message)
    case .coordinatorNoticesEnd(let connection): coordinatorNoticesEnd(of: connection)
    case .workerNoticesEnd(let connection): workerNoticesEnd(of: connection)
    case .work(let worker, let token): work(worker, token)
    case .heartbeat(let worker): heartbeat(worker)
    case .reconnect(let worker): reconnect(worker)
    case .startWorker(let host): startWorker(host: host)
    case .handleBatch(let incarnation): handleBatch(incarnation: incarnation)
    case .commit(let incarnation): commit(incarnation: incarnation)
    case .tick(let incarnation, let number): tick(incarnation: incarnation, number: number)
    case .startCoordinator(let keepLeases, let revive):
      startCoordinator(keepLeases: keepLeases, revive: revive)
    case .fault(let fault):
      guard !faultsAreOver else { return }
      inject(fault)
      scheduleNext(fault)
    case .resume: resume()
    case .timeIsUp(let worker):
      if hosts[worker.host].worker === worker { crashWorker(host: worker.host) }
    case .faultsEnd: endFaults()
    }
  }

  func note(_ line: @autoclosure () -> String) {
    if let log {
      let milliseconds = Int(timeline.now / .milliseconds(1))
      log("\(milliseconds / 1000).\(String(milliseconds % 1000 + 1000).dropFirst()) \(line())")
    }
  }

  // MARK: Faults

  private func meanInterval(_ fault: Fault) -> Double? {
    switch fault {
    case .brokenConnection: faults.brokenConnections
    case .halfOpenConnection: faults.halfOpenConnections
    case .oneWayPartition: faults.oneWayPartitions
    case .twoWayPartition: faults.twoWayPartitions
    case .workerCrash: faults.workerCrashes
    case .workerExit: faults.workerExits
    case .drain: faults.drains
    case .pause: faults.pauses
    case .shardCommand: faults.shardCommands
    case .cancellation: faults.cancellations
    case .coordinatorCrash: faults.coordinatorCrashes
    case .suspension: faults.suspensions
    case .interruption: faults.interruptions
    case .slowCommit: faults.slowCommits
    case .clockJump: faults.clockJumps
    case .fullDisk: faults.fullDisks
    }
  }

  private mutating func scheduleNext(_ fault: Fault) {
    guard let mean = meanInterval(fault) else { return }
    timeline.schedule(.fault(fault), after: random.seconds(0, 2 * mean))
  }

  private mutating func inject(_ fault: Fault) {
    note("fault: \(fault)")
    let now = timeline.now
    let host = random.integer(0...hosts.count - 1)
    switch fault {
    case .brokenConnection:
      if let connection = hosts[host].worker?.connection { cut(connection, noticedWithin: 0.5) }
    case .halfOpenConnection:
      if let connection = hosts[host].worker?.connection { cut(connection, noticedWithin: 90) }
    case .oneWayPartition:
      let end = now + random.seconds(0.5, 40)
      if random.chance(0.5) { hosts[host].blockedUp = end } else { hosts[host].blockedDown = end }
    case .twoWayPartition:
      let end = now + random.seconds(0.5, 40)
      hosts[host].blockedUp = end
      hosts[host].blockedDown = end
    case .workerCrash: crashWorker(host: host)
    case .workerExit: exitWorker(host: host)
    case .drain:
      if let worker = hosts[host].worker {
        tell(.control(.drain(worker: worker.info.id, reason: "maintenance")))
      }
    case .pause:
      tell(.control(.pause(reason: "looking at it")))
      timeline.schedule(.resume, after: random.seconds(1, 60))
    case .shardCommand:
      guard let shard = random.pick(plan.shards)?.id else { return }
      tell(
        .control(
          random.chance(0.4)
            ? .cancelShard(shard, reason: "not needed")
            : random.chance(0.5)
              ? .retry(shard) : .prioritise(shard, priority: random.integer(-2...5))))
    case .cancellation:
      tell(.control(.cancelSweep(reason: "wrong spec")))
    case .coordinatorCrash:
      if random.chance(0.5) {
        coordinator?.crashesInCommit = true
      } else {
        crashCoordinator(takingWorkers: random.chance(0.25))
      }
    case .suspension:
      coordinator?.suspendedUntil = now + random.seconds(1, 60)
    case .interruption:
      tell(.stop(reason: "interrupted"))
    case .slowCommit:
      coordinator?.nextCommitTakes = random.seconds(0.5, 8)
    case .clockJump:
      counts.clockJumps += 1
      let jump = random.seconds(-60, 60)
      // Before its start a process has no time.
      if let coordinator, now - coordinator.startedAt + coordinator.clockOffset + jump > .zero {
        coordinator.clockOffset += jump
        tell(.tick)
      }
    case .fullDisk:
      diskFullUntil = now + random.seconds(1, 40)
    }
  }

  /// The operator asks until the sweep goes on.
  private mutating func resume() {
    let goesOn = coordinator.map { $0.inbox.isEmpty && $0.scheduler.pauseReason == nil } ?? false
    tell(.control(.resume))
    if !goesOn { timeline.schedule(.resume, after: .seconds(5)) }
  }

  private mutating func endFaults() {
    note("faults end")
    faultsAreOver = true
    diskFullUntil = timeline.now
    timeline.schedule(.resume, after: .seconds(5))
    coordinator?.suspendedUntil = timeline.now
    for host in hosts.indices {
      hosts[host].blockedUp = timeline.now
      hosts[host].blockedDown = timeline.now
      // Workers that were drained get nothing any more; fresh ones take their places.
      exitWorker(host: host)
    }
  }
}
