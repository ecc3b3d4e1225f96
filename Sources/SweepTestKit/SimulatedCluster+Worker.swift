import SweepCore

extension SimulatedCluster {
  /// A worker process. While it has no contact it goes on computing and keeps its reports.
  final class Worker {
    struct Run {
      let assignment: Scheduler.Assignment
      var remaining: [Trial]
      /// Work steps until the attempt fails; nil for a sound one.
      var stepsUntilFailure: Int?
      var isTuned = false
      /// Whether the outcome is reported; the slot is free again.
      var isOver = false
    }

    let info: WorkerInfo
    let host: Int
    var isAlive = true
    var connection: Connection?
    /// When the answer that the worker waits for was asked.
    var waitsSince: Duration?
    var runs: [LeaseToken: Run] = [:]
    /// Reports without an answer, oldest first.
    var unanswered: [Report] = []
    var answered: [Report] = []
    var reports = 0

    init(info: WorkerInfo, host: Int) {
      self.info = info
      self.host = host
    }

    var freeSlots: Int { max(0, info.slots - runs.values.count { !$0.isOver }) }
  }

  mutating func startWorker(host: Int) {
    guard hosts[host].worker == nil else { return }
    hosts[host].started += 1
    counts.workerStarts += 1
    let info = WorkerInfo(
      id: "h\(host).\(hosts[host].started)", host: "h\(host)", processID: hosts[host].started,
      slots: hosts[host].slots, threads: 1)
    let worker = Worker(info: info, host: host)
    hosts[host].worker = worker
    history.expect(worker: info.id, slots: info.slots)
    note("\(info.id) starts with \(info.slots) slots")
    timeline.schedule(.reconnect(worker), after: random.seconds(0, 1))
    timeline.schedule(.heartbeat(worker), after: random.seconds(0, 1))
  }

  mutating func crashWorker(host: Int) {
    guard let worker = hosts[host].worker else { return }
    note("\(worker.info.id) crashes")
    worker.isAlive = false
    if let connection = worker.connection {
      cut(connection, noticedWithin: random.chance(0.8) ? 0.1 : 90)
    }
    hosts[host].worker = nil
    timeline.schedule(.startWorker(host: host), after: random.seconds(0.5, 20))
  }

  /// The process ends as asked: it gives its shards back. Another one starts soon.
  mutating func exitWorker(host: Int) {
    guard let worker = hosts[host].worker else { return }
    note("\(worker.info.id) exits")
    for (token, run) in worker.runs.sorted(by: { $0.key < $1.key }) where !run.isOver {
      report(.release, under: token, from: worker)
    }
    worker.isAlive = false
    if let connection = worker.connection { closeAtWorker(connection) }
    hosts[host].worker = nil
    timeline.schedule(.startWorker(host: host), after: random.seconds(0.1, 3))
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
    send(.hello(worker.info, holding: holding), over: connection)
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
    timeline.schedule(.heartbeat(worker), after: .seconds(definition.policy.heartbeatSeconds))
    guard let connection = worker.connection else { return }
    if let since = worker.waitsSince, timeline.now - since > .seconds(6) {
      note("\(worker.info.id) waits too long for an answer")
      workerNoticesEnd(of: connection)
      return
    }
    let progress = worker.runs.keys.sorted().map {
      Scheduler.LeaseProgress(token: $0, fraction: random.uniform(0, 1), tokensPerSecond: 100)
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
    guard worker.runs[assignment.token] == nil else { return }
    note("\(worker.info.id) begins \(assignment.shard.id) as \(assignment.token)")
    let isOverfull = worker.freeSlots == 0
    let isBad = hosts[worker.host].isBad
    let fails = isBad || random.chance(faultsAreOver ? 0 : faults.failureShare)
    let steps = isBad ? 0 : random.integer(0...assignment.remainingTrials.count)
    worker.runs[assignment.token] = Worker.Run(
      assignment: assignment, remaining: assignment.remainingTrials,
      stepsUntilFailure: fails ? steps : nil)
    if isOverfull {
      worker.runs[assignment.token]?.isOver = true
      report(.release, under: assignment.token, from: worker)
      return
    }
    let seconds = isBad ? 0.2 : random.uniform(1, 30) * hosts[worker.host].slowness
    timeline.schedule(.work(worker, assignment.token), after: .seconds(seconds))
  }

  /// Finishes one step of a run: the fine-tune (or generation), then one trial after the other.
  mutating func work(_ worker: Worker, _ token: LeaseToken) {
    guard worker.isAlive, var run = worker.runs[token], !run.isOver else { return }
    if let steps = run.stepsUntilFailure {
      if steps == 0 {
        run.isOver = true
        worker.runs[token] = run
        report(.failure(evidence: "simulated error"), under: token, from: worker)
        askForWork(worker)
        return
      }
      run.stepsUntilFailure = steps - 1
    }
    if run.isTuned, !run.remaining.isEmpty {
      let trial = run.remaining.removeFirst()
      report(.trial(trial.id, metrics: Self.metrics(of: trial.id)), under: token, from: worker)
    }
    run.isTuned = true
    run.isOver = run.remaining.isEmpty
    worker.runs[token] = run
    if run.isOver {
      let shard = run.assignment.shard
      let artifact = shard.trials.isEmpty ? ContentDigest(of: shard.id.description.utf8) : nil
      report(.completion(shard.id, artifact: artifact), under: token, from: worker)
      askForWork(worker)
    } else {
      timeline.schedule(.work(worker, token), after: random.seconds(0.1, 4))
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
