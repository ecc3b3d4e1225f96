import SweepCore

extension SimulatedCluster {
  /// A coordinator process. All of it is lost in a crash; the ledger is not.
  final class Coordinator {
    enum Input {
      case message(Connection, WorkerMessage)
      case ended(Connection)
      case command(Scheduler.Command)
    }

    /// What a handled batch leads to once it is durable.
    enum Effect {
      case event(SweepEvent)
      case welcome(Connection, Scheduler.Reply)
      case workRefused(Connection)
      case answer(Connection, Report, Scheduler.Reply)
      case directive(Scheduler.Directive)

      var event: SweepEvent? {
        if case .event(let event) = self { event } else { nil }
      }
    }

    let incarnation: Int
    /// The scheduler's time starts with the process.
    let startedAt: Duration
    var scheduler: Scheduler
    var inbox: [Input] = []
    /// The batch that is being appended.
    var pending: [Effect] = []
    var isBusy = false
    var ticks = 0
    var sessions: [String: Connection] = [:]
    var suspendedUntil: Duration = .zero
    var nextCommitTakes: Duration?
    /// The next append is the last thing that the process does, done or half done.
    var crashesInCommit = false

    init(incarnation: Int, startedAt: Duration, scheduler: Scheduler) {
      self.incarnation = incarnation
      self.startedAt = startedAt
      self.scheduler = scheduler
    }
  }

  // MARK: Start and crash

  mutating func startCoordinator(keepLeases: Bool, revive: Bool) {
    incarnations += 1
    counts.coordinatorStarts += 1
    if faultsAreOver { restartsSinceFaults += 1 }
    var policy = definition.policy
    if defect == .allowsMoreAttempts {
      policy.attempts += 2
      policy.losses += 2
    }
    var scheduler = recovered(policy: policy, seed: random.next())
    history.restart(recovered: scheduler)
    if scheduler.durableState != replayed.durableState {
      history.violate(.replayEqualsLive, "at start \(incarnations)")
    }
    let now = random.seconds(0, 1)
    let recovery = scheduler.finishRecovery(keepLeases: keepLeases, revive: revive, now: now)
    note("coordinator \(incarnations) starts after \(ledger.count) events, then \(recovery)")
    let coordinator = Coordinator(
      incarnation: incarnations, startedAt: timeline.now - now, scheduler: scheduler)
    self.coordinator = coordinator
    coordinator.pending = recovery.map { .event($0) }
    coordinator.isBusy = true
    commit(incarnation: incarnations)
  }

  /// The state that was saved last, if any was, and the events after it.
  private mutating func recovered(policy: ExecutionPolicy, seed: UInt64) -> Scheduler {
    var scheduler = Scheduler(plan: plan, policy: policy, seed: seed)
    if let saved {
      let restored = (try? saved.scheduler.snapshot(now: saved.at)).flatMap {
        Scheduler(plan: plan, policy: policy, seed: seed, snapshot: $0, now: .zero)
      }
      if let restored {
        scheduler = restored
      } else {
        history.violate(.replayEqualsLive, "the state saved at \(saved.events) cannot be read")
      }
    }
    for event in ledger.dropFirst(saved?.events ?? 0) { scheduler.apply(event, now: .zero) }
    return scheduler
  }

  mutating func crashCoordinator(takingWorkers: Bool) {
    guard let coordinator else { return }
    note("coordinator crashes\(takingWorkers ? " and its workers with it" : "")")
    if coordinator.pending.contains(where: { $0.event != nil }) {
      // Either the transaction was durable and nobody was told, or it is gone.
      if random.chance(0.5) {
        counts.silentCommits += 1
        makeDurable(coordinator.pending)
      } else {
        counts.uncommittedBatches += 1
      }
    }
    endCoordinator(takingWorkers: takingWorkers)
  }

  private mutating func endCoordinator(takingWorkers: Bool, revive: Bool = false) {
    coordinator = nil
    let isSilent = random.chance(0.2)
    for host in hosts.indices {
      if let connection = hosts[host].worker?.connection {
        cut(connection, noticedWithin: isSilent ? 60 : 0.5)
      }
      // Now and then an orphan survives.
      if takingWorkers, random.chance(0.9) { crashWorker(host: host) }
    }
    timeline.schedule(
      .startCoordinator(keepLeases: !takingWorkers, revive: revive), after: random.seconds(0.3, 20))
  }

  // MARK: Input

  mutating func arriveAtCoordinator(_ connection: Connection, _ message: WorkerMessage) {
    guard let coordinator, coordinator.incarnation == connection.incarnation,
      connection.coordinatorIsOpen, !connection.isCut
    else { return }
    take(.message(connection, message), coordinator)
  }

  mutating func coordinatorNoticesEnd(of connection: Connection) {
    guard let coordinator, coordinator.incarnation == connection.incarnation,
      connection.coordinatorIsOpen
    else { return }
    connection.coordinatorIsOpen = false
    take(.ended(connection), coordinator)
  }

  mutating func tell(_ command: Scheduler.Command) {
    if let coordinator { take(.command(command), coordinator) }
  }

  mutating func tick(incarnation: Int, number: Int) {
    guard let coordinator, coordinator.incarnation == incarnation, coordinator.ticks == number
    else { return }
    take(.command(.tick), coordinator)
  }

  private mutating func take(_ input: Coordinator.Input, _ coordinator: Coordinator) {
    coordinator.inbox.append(input)
    if !coordinator.isBusy { scheduleBatch(coordinator) }
  }

  private mutating func scheduleBatch(_ coordinator: Coordinator) {
    coordinator.isBusy = true
    timeline.schedule(
      .handleBatch(incarnation: coordinator.incarnation), after: random.seconds(0, 0.002))
  }

  // MARK: Decide, append, answer

  mutating func handleBatch(incarnation: Int) {
    guard let coordinator, coordinator.incarnation == incarnation else { return }
    if coordinator.suspendedUntil > timeline.now {
      timeline.schedule(.handleBatch(incarnation: incarnation), at: coordinator.suspendedUntil)
      return
    }
    let inputs = coordinator.inbox
    coordinator.inbox = []
    for input in inputs { coordinator.pending += handle(input, coordinator) }
    let appends = coordinator.pending.contains { $0.event != nil }
    let delay: Duration =
      appends ? coordinator.nextCommitTakes ?? random.seconds(0, faults.commitMax) : .zero
    if appends { coordinator.nextCommitTakes = nil }
    if defect == .acknowledgesBeforeCommit {
      answer(coordinator.pending, coordinator)
      coordinator.pending = coordinator.pending.filter { $0.event != nil }
    }
    if appends, coordinator.crashesInCommit {
      crashCoordinator(takingWorkers: random.chance(0.25))
      return
    }
    timeline.schedule(.commit(incarnation: incarnation), after: delay)
  }

  private mutating func handle(
    _ input: Coordinator.Input, _ coordinator: Coordinator
  ) -> [Coordinator.Effect] {
    let now = timeline.now - coordinator.startedAt
    var command: Scheduler.Command
    var answer: ((Scheduler.Reply) -> Coordinator.Effect?) = { _ in nil }
    switch input {
    case .command(let told): command = told
    case .ended(let connection):
      let worker = connection.worker.info.id
      if coordinator.sessions[worker] === connection { coordinator.sessions[worker] = nil }
      command = .disconnect(
        worker: worker, connection: connection.number, reason: "the connection ended")
    case .message(let connection, let message):
      let worker = connection.worker.info.id
      switch message {
      case .hello(let info, let holding):
        command = .connect(
          info, connection: connection.number, holding: holding, inputs: ["model": "simulated"])
        answer = { .welcome(connection, $0) }
      case .workRequest(let slots):
        command = .requestWork(worker: worker, slots: slots)
        answer = { $0 == .accepted ? nil : .workRefused(connection) }
      case .heartbeat(let leases): command = .heartbeat(worker: worker, leases: leases)
      case .report(let report):
        command = Self.command(report, worker: worker)
        answer = { .answer(connection, report, $0) }
      }
    }

    defect?.distort(&command, plan: plan)
    var step = coordinator.scheduler.handle(command, now: now)
    defect?.distort(&step, of: command, plan: plan, scheduler: &coordinator.scheduler, now: now)

    if case .connect(let info, _, _, _) = command, step.reply == .accepted,
      case .message(let connection, _) = input
    {
      if let older = coordinator.sessions[info.id], older !== connection {
        closeAtCoordinator(older)
      }
      coordinator.sessions[info.id] = connection
    }
    var effects: [Coordinator.Effect] = []
    effects += step.events.map { .event($0) }
    if let effect = answer(step.reply) { effects.append(effect) }
    effects += step.directives.map { .directive($0) }
    return effects
  }

  private static func command(_ report: Report, worker: String) -> Scheduler.Command {
    switch report.content {
    case .trial(let trial, let metrics):
      .completeTrial(
        worker: worker, token: report.token, trial: trial, metrics: metrics, notes: [:])
    case .completion(_, let artifact):
      .completeShard(worker: worker, token: report.token, artifact: artifact, facts: [:])
    case .failure(let evidence):
      .failShard(worker: worker, token: report.token, evidence: evidence)
    case .release: .releaseShard(worker: worker, token: report.token)
    }
  }

  mutating func commit(incarnation: Int) {
    guard let coordinator, coordinator.incarnation == incarnation else { return }
    let effects = coordinator.pending
    coordinator.pending = []
    makeDurable(effects)
    guard history.violation == nil else { return }
    history.recount(coordinator.scheduler)
    if coordinator.scheduler.durableState != replayed.durableState {
      history.violate(
        .replayEqualsLive,
        "live \(coordinator.scheduler.durableState), replayed \(replayed.durableState)")
    }
    // Now and then, and not by chance, so that all else stays as it was without this.
    if ledger.count % 5 == 0 {
      saved = (ledger.count, coordinator.scheduler, timeline.now - coordinator.startedAt)
    }
    answer(effects, coordinator)
    coordinator.isBusy = false
    if coordinator.scheduler.isFinished { return finish(coordinator) }
    if !coordinator.inbox.isEmpty { scheduleBatch(coordinator) }
    coordinator.ticks += 1
    if let deadline = coordinator.scheduler.nextDeadline {
      timeline.schedule(
        .tick(incarnation: incarnation, number: coordinator.ticks),
        at: coordinator.startedAt + deadline)
    }
  }

  private mutating func makeDurable(_ effects: [Coordinator.Effect]) {
    for effect in effects {
      switch effect {
      case .event(let event):
        note("  \(event)")
        history.record(event)
        if history.violation != nil { return }
        ledger.append(event)
        replayed.apply(event, now: .zero)
      case .welcome, .workRefused, .answer, .directive: break
      }
    }
  }

  private mutating func answer(_ effects: [Coordinator.Effect], _ coordinator: Coordinator) {
    for effect in effects {
      switch effect {
      case .event: break
      case .welcome(let connection, let reply): send(.welcome(reply), over: connection)
      case .workRefused(let connection): send(.workRefused, over: connection)
      case .answer(let connection, let report, let reply):
        if reply == .stale { counts.staleReplies += 1 }
        if reply == .accepted {
          switch report.content {
          case .trial(let trial, _): history.acknowledge(trial: trial)
          case .completion(let shard, _): history.acknowledge(shard: shard)
          case .failure, .release: break
          }
        }
        send(.acknowledgement(number: report.number, reply), over: connection)
      case .directive(.assign(let worker, let assignment)):
        if let session = coordinator.sessions[worker] {
          send(.assignment(assignment), over: session)
        }
      case .directive(.revoke(let worker, let token)):
        if let session = coordinator.sessions[worker] { send(.revocation(token), over: session) }
      }
    }
  }

  /// A stopped sweep is started again, at least once after the last fault.
  private mutating func finish(_ coordinator: Coordinator) {
    guard coordinator.scheduler.stopReason != nil, !faultsAreOver || restartsSinceFaults == 0
    else {
      isFinished = true
      return
    }
    endCoordinator(takingWorkers: random.chance(0.5), revive: faultsAreOver || random.chance(0.5))
  }
}
