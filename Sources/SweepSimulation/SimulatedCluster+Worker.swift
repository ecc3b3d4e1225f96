import SweepCore

extension SimulatedCluster {
  /// A worker process. While it has no contact it goes on computing and keeps its reports.
  final class Worker {
    struct Run {
      let assignment: Scheduler.Assignment
      var remaining: [Trial]
      let began: Duration
      /// How long the fine-tune or generation takes from the beginning.
      let seconds: Double
      /// What of it a checkpoint of an earlier attempt spared.
      let spared: Double
      /// Work steps until the attempt fails; nil for a sound one.
      var stepsUntilFailure: Int?
      var isTuned = false
      /// Whether the outcome is reported; the slot is free again.
      var isOver = false
    }

    let info: WorkerInfo
    let host: Int
    /// When the worker's time is up.
    let endsAt: Duration?
    var isAlive = true
    var connection: Connection?
    /// When the answer that the worker waits for was asked.
    var waitsSince: Duration?
    var runs: [LeaseToken: Run] = [:]
    /// Reports without an answer, oldest first.
    var unanswered: [Report] = []
    var answered: [Report] = []
    var reports = 0
    /// Tokens of all assignments so far, because a message may come twice.
    var begun: Set<LeaseToken> = []

    init(info: WorkerInfo, host: Int, endsAt: Duration?) {
      self.info = info
      self.host = host
      self.endsAt = endsAt
    }

    var freeSlots: Int { max(0, info.slots - runs.values.count { !$0.isOver }) }
  }

  mutating func startWorker(host: Int) {
    guard hosts[host].worker == nil else { return }
    hosts[host].started += 1
    counts.workerStarts += 1
    let info = WorkerInfo(
      id: "h\(host).\(hosts[host].started)", host: "h\(host)", processID: hosts[host].started,
      slots: hosts[host].slots, threads: 1, memoryBytes: hosts[host].memoryBytes)
    let endsAt = hosts[host].lifetime.map { timeline.now + random.seconds(0.5 * $0, 1.5 * $0) }
    let worker = Worker(info: info, host: host, endsAt: endsAt)
    hosts[host].worker = worker
    history.expect(worker: info, hasLimitedTime: endsAt != nil)
    if let endsAt { timeline.schedule(.timeIsUp(worker), at: endsAt) }
    note("\(info.id) starts with \(info.slots) slots")
    timeline.schedule(.reconnect(worker), after: random.seconds(0, 1))
    timeline.schedule(.heartbeat(worker), after: random.seconds(0, 1))
  }

  mutating func crashWorker(host: Int) {
    guard let worker = hosts[host].worker else { return }
    note("\(worker.info.id) crashes")
    for token in worker.runs.keys.sorted() { abandon(token, on: worker) }
    worker.isAlive = false
    if let connection = worker.connection {
      cut(connection, noticedWithin: random.chance(0.8) ? 0.1 : 90)
    }
    hosts[host].worker = nil
    timeline.schedule(.startWorker(host: host), after: random.seconds(0.5, faults.restartMax))
  }

  /// The process ends as asked: it gives its shards back. Another one starts soon.
  mutating func exitWorker(host: Int) {
    guard let worker = hosts[host].worker else { return }
    note("\(worker.info.id) exits")
    for (token, run) in worker.runs.sorted(by: { $0.key < $1.key }) where !run.isOver {
      abandon(token, on: worker)
      report(.release, under: token, from: worker)
    }
    worker.isAlive = false
    if let connection = worker.connection { closeAtWorker(connection) }
    hosts[host].worker = nil
    timeline.schedule(
      .startWorker(host: host), after: random.seconds(0.1, min(3, faults.restartMax)))
  }

  // MARK: Contact

  mutating func workerNoticesEnd(of connection: Connection) {
    let worker = connection.worker
    guard worker.isAlive, worker.connection === connection else { return }
    note("\(worker.info.id) loses connection \(connection.number)")
    closeAtWorker(connection)
    worker.connection = nil
    timeline.schedule(.reconnect(worker), after: random.seconds(0.05, 3))
  }

  mutating func reconnect(_ worker: Worker) {
    guard worker.isAlive, worker.connection == nil else { return }
    let host = hosts[worker.host]
    guard let coordinator, max(host.blockedUp, host.blockedDown) <= timeline.now else {
      timeline.schedule(.reconnect(worker), after: random.seconds(0.1, 3))
      return
    }
    connections += 1
    let connection = Connection(
      number: connections, worker: worker, incarnation: coordinator.incarnation)
    worker.connection = connection
    worker.waitsSince = timeline.now
    let holding = worker.runs.keys.sorted()
    note("\(worker.info.id) opens connection \(connection.number), holding \(holding)")
    send(
      .hello(
        worker.info, holding: holding, lifetime: worker.endsAt.map { $0 - timeline.now }),
      over: connection)
    for report in worker.answered where random.chance(faults.repeatedReportShare) {
      counts.repeatedReports += 1
      send(.report(report), over: connection)
    }
    worker.answered = []
    for report in worker.unanswered { send(.report(report), over: connection) }
    send(.workRequest(slots: worker.freeSlots), over: connection)
  }

  mutating func heartbeat(_ worker: Worker) {
    guard worker.isAlive else { return }
    timeline.schedule(.heartbeat(worker), after: .seconds(policy.heartbeatSeconds))
    guard let connection = worker.connection else { return }
    if let since = worker.waitsSince, timeline.now - since > .seconds(6) {
      note("\(worker.info.id) waits too long for an answer")
      workerNoticesEnd(of: connection)
      return
    }
    let progress = worker.runs.keys.sorted().map {
      Scheduler.LeaseProgress(
        token: $0, fraction: fraction(of: worker.runs[$0]), tokensPerSecond: 100)
    }
    send(.heartbeat(progress), over: connection)
  }

  mutating func arriveAtWorker(_ connection: Connection, _ message: CoordinatorMessage) {
    let worker = connection.worker
    guard worker.isAlive, connection.workerIsOpen, !connection.isCut else { return }
    switch message {
    case .welcome(let reply):
      if reply != .accepted {
        history.violate(.honestIsUnderstood, "\(worker.info.id) was not admitted: \(reply)")
      }
      connection.isWelcome = true
      worker.waitsSince = worker.unanswered.isEmpty ? nil : timeline.now
    case .workRefused:
      workerNoticesEnd(of: connection)
    case .assignment(let assignment):
      begin(assignment, on: worker)
    case .revocation(let token):
      forget(token, on: worker)
    case .acknowledgement(let number, let reply):
      guard let index = worker.unanswered.firstIndex(where: { $0.number == number }) else { return }
      let report = worker.unanswered.remove(at: index)
      worker.waitsSince = worker.unanswered.isEmpty ? nil : timeline.now
      worker.answered = worker.answered.suffix(3) + [report]
      switch (reply, report.content) {
      case (.refused, _):
        history.violate(.honestIsUnderstood, "\(report) was answered with \(reply)")
      case (.stale, _): forget(report.token, on: worker)
      case (.accepted, .trial): break
      case (.accepted, _): worker.runs[report.token] = nil
      }
    }
  }

  /// The lease is over; what was done for it is wasted.
  private mutating func forget(_ token: LeaseToken, on worker: Worker) {
    worker.unanswered.removeAll { $0.token == token }
    if worker.unanswered.isEmpty { worker.waitsSince = nil }
    abandon(token, on: worker)
    if let run = worker.runs.removeValue(forKey: token), !run.isOver { askForWork(worker) }
  }

  /// A slot has become free.
  private mutating func askForWork(_ worker: Worker) {
    if let connection = worker.connection {
      send(.workRequest(slots: 1), over: connection)
    }
  }

  // MARK: Work

  private mutating func begin(_ assignment: Scheduler.Assignment, on worker: Worker) {
    guard worker.begun.insert(assignment.token).inserted else { return }
    note("\(worker.info.id) begins \(assignment.shard.id) as \(assignment.token)")
    let isOverfull = worker.freeSlots == 0
    let isBad = hosts[worker.host].isBad
    let fails = isBad || random.chance(faultsAreOver ? 0 : faults.failureShare)
    let steps = isBad ? 0 : random.integer(0...assignment.remainingTrials.count)
    let isStraggler = random.chance(faults.stragglerShare)
    let seconds =
      isBad
      ? 0.2
      : pace.seconds(of: assignment.shard, using: &random) * hosts[worker.host].slowness
        * (isStraggler ? 6 : 1)
    let spared = isBad ? 0 : seconds * checkpoints[assignment.shard.id, default: 0]
    worker.runs[assignment.token] = Worker.Run(
      assignment: assignment, remaining: assignment.remainingTrials, began: timeline.now,
      seconds: seconds, spared: spared, stepsUntilFailure: fails ? steps : nil)
    if isOverfull {
      worker.runs[assignment.token]?.isOver = true
      report(.release, under: assignment.token, from: worker)
      return
    }
    timeline.schedule(.work(worker, assignment.token), after: .seconds(seconds - spared))
  }

  /// How much of a run is done.
  private func fraction(of run: Worker.Run?) -> Double {
    guard let run else { return 0 }
    let elapsed = (timeline.now - run.began) / .seconds(1)
    return min(1, (run.spared + elapsed) / max(run.seconds, 0.001))
  }

  /// A run ends before its time: what was done since the last checkpoint is lost.
  private mutating func abandon(_ token: LeaseToken, on worker: Worker) {
    guard let run = worker.runs[token], !run.isOver else { return }
    let elapsed = (timeline.now - run.began) / .seconds(1)
    var kept = 0.0
    if let interval = pace.checkpointSeconds, run.seconds > 0, !run.isTuned {
      kept = min((elapsed / interval).rounded(.down) * interval, run.seconds - run.spared)
      let shard = run.assignment.shard.id
      checkpoints[shard] = max(
        checkpoints[shard, default: 0], (run.spared + kept) / run.seconds)
    }
    usage.busySeconds += elapsed
    usage.lostSeconds += elapsed - kept
  }

  /// A run has come to its end.
  private mutating func account(_ run: Worker.Run) {
    usage.busySeconds += (timeline.now - run.began) / .seconds(1)
  }

  /// Finishes one step of a run: the fine-tune (or generation), then one trial after the other.
  mutating func work(_ worker: Worker, _ token: LeaseToken) {
    guard worker.isAlive, var run = worker.runs[token], !run.isOver else { return }
    if let steps = run.stepsUntilFailure {
      if steps == 0 {
        abandon(token, on: worker)
        run.isOver = true
        worker.runs[token] = run
        report(.failure(evidence: "simulated error"), under: token, from: worker)
        askForWork(worker)
        return
      }
      run.stepsUntilFailure = steps - 1
    }
    let steps = pace.trialSeconds == nil ? run.remaining.count : run.isTuned ? 1 : 0
    for _ in 0..<min(steps, run.remaining.count) {
      let trial = run.remaining.removeFirst()
      report(.trial(trial.id, metrics: Self.metrics(of: trial.id)), under: token, from: worker)
    }
    run.isTuned = true
    run.isOver = run.remaining.isEmpty
    worker.runs[token] = run
    if run.isOver {
      account(run)
      let shard = run.assignment.shard
      let artifact =
        shard.trials.isEmpty || writers.contains(shard.id)
        ? ContentDigest(of: shard.id.description.utf8) : nil
      report(.completion(shard.id, artifact: artifact), under: token, from: worker)
      askForWork(worker)
    } else {
      timeline.schedule(
        .work(worker, token), after: random.seconds(0.1, pace.trialSeconds ?? 0.2))
    }
  }

  /// What every honest worker finds for a trial.
  private static func metrics(of trial: TrialID) -> [String: Double] {
    var random = SeededGenerator(
      seed: trial.description.utf8.reduce(0) { ($0 &+ UInt64($1)) &* 0x100_0000_01B3 })
    return ["accuracy": random.uniform(0, 1), "items": Double(random.integer(1...100))]
  }

  private mutating func report(
    _ content: Report.Content, under token: LeaseToken, from worker: Worker
  ) {
    worker.reports += 1
    let report = Report(number: worker.reports, token: token, content: content)
    worker.unanswered.append(report)
    if let connection = worker.connection {
      worker.waitsSince = worker.waitsSince ?? timeline.now
      send(.report(report), over: connection)
    }
  }
}
