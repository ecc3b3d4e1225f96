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
      /// - decided: by the coordinator's clock.
      case event(SweepEvent, decided: Duration)
      case welcome(Connection, Scheduler.Reply)
      case workRefused(Connection)
      case answer(Connection, Report, Scheduler.Reply)
      case directive(Scheduler.Directive)

      var isEvent: Bool { if case .event = self { true } else { false } }
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
    /// How far its clock has jumped.
    var clockOffset: Duration = .zero
    /// When the workers' time is up, as they said.
    var lifetimes: [String: (machine: String, endsAt: Duration)] = [:]
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
    var policy = self.policy
    if defect == .allowsMoreAttempts {
      policy.attempts += 2
      policy.losses += 2
    }
    var scheduler = recovered(policy: policy, seed: random.next())
    if checks {
      history.restart(recovered: scheduler)
      if scheduler.durableState != replayed.durableState {
        history.violate(.replayEqualsLive, "at start \(incarnations)")
      }
    }
    let now = random.seconds(0, 1)
    let recovery = scheduler.finishRecovery(keepLeases: keepLeases, revive: revive, now: now)
    if isDiskFull && !recovery.isEmpty {
      note("coordinator \(incarnations) finds the disk full")
      timeline.schedule(
        .startCoordinator(keepLeases: keepLeases, revive: revive), after: random.seconds(1, 20))
      return
    }
    note("coordinator \(incarnations) starts after \(ledger.count) events, then \(recovery)")
    let coordinator = Coordinator(
      incarnation: incarnations, startedAt: timeline.now - now, scheduler: scheduler)
    self.coordinator = coordinator
    coordinator.pending = recovery.map { .event($0, decided: now) }
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
    if coordinator.pending.contains(where: \.isEvent), !isDiskFull {
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
    let appends = coordinator.pending.contains(where: \.isEvent)
    if appends, isDiskFull {
      // What cannot be remembered is not answered; only the ledger says what holds.
      note("coordinator \(incarnation) finds the disk full and ends")
      counts.fullDisks += 1
      endCoordinator(takingWorkers: random.chance(0.25))
      return
    }
    let delay: Duration =
      appends ? coordinator.nextCommitTakes ?? random.seconds(0, faults.commitMax) : .zero
    if appends { coordinator.nextCommitTakes = nil }
    if defect == .acknowledgesBeforeCommit {
      answer(coordinator.pending, coordinator)
      coordinator.pending = coordinator.pending.filter(\.isEvent)
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
    let now = max(
      timeline.now - coordinator.startedAt + coordinator.clockOffset,
      coordinator.scheduler.lastHandled)
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
      case .hello(let info, let holding, let lifetime):
        coordinator.lifetimes[worker] = lifetime.map { (info.machine, now + $0) }
        command = .connect(
          info, connection: connection.number, holding: holding, inputs: ["model": "simulated"],
          lifetime: lifetime)
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

    defect?.distort(&command, plan: plan, scheduler: coordinator.scheduler, now: now)
    var step = coordinator.scheduler.handle(command, now: now)
    defect?.distort(&step, of: command, plan: plan, scheduler: &coordinator.scheduler, now: now)

    if case .connect(let info, _, _, _, _) = command, step.reply == .accepted,
      case .message(let connection, _) = input
    {
      if let older = coordinator.sessions[info.id], older !== connection {
        closeAtCoordinator(older)
      }
      coordinator.sessions[info.id] = connection
    }
    var effects: [Coordinator.Effect] = []
    for event in step.events {
      if checks, case .shardLeased(let shard, let worker, _, _) = event {
        judgeLifetime(of: shard, on: worker, coordinator, now)
      }
      effects.append(.event(event, decided: now))
    }
    if let effect = answer(step.reply) { effects.append(effect) }
    effects += step.directives.map { .directive($0) }
    return effects
  }

  /// Whether the worker is expected to finish the shard before its time is up.
  private mutating func judgeLifetime(
    of shard: ShardID, on worker: String, _ coordinator: Coordinator, _ now: Duration
  ) {
    guard let shard = plan.shards.first(where: { $0.id == shard }),
      let told = coordinator.lifetimes[worker],
      let seconds = coordinator.scheduler.costs.seconds(shard, machine: told.machine)
    else { return }
    let left = (told.endsAt - now) / .seconds(1)
    if seconds > left {
      history.violate(
        .lifetimeIsRespected,
        "\(shard.id) takes \(seconds) s and was leased to \(worker), which has \(left) s left")
    }
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
    if checks { history.recount(coordinator.scheduler) }
    if checks, coordinator.scheduler.durableState != replayed.durableState {
      history.violate(
        .replayEqualsLive,
        "live \(coordinator.scheduler.durableState), replayed \(replayed.durableState)")
    }
    // Now and then, and not by chance, so that all else stays as it was without this.
    if checks, ledger.count % 5 == 0 {
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
        at: coordinator.startedAt + deadline - coordinator.clockOffset)
    }
  }

  private mutating func makeDurable(_ effects: [Coordinator.Effect]) {
    for effect in effects {
      switch effect {
      case .event(let event, let decided):
        note("  \(event)")
        history.record(event, decided: decided)
        if history.violation != nil { return }
        counts.add(event)
        if keepsLedger { ledger.append(event) }
        if checks { replayed.apply(event, now: .zero) }
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
