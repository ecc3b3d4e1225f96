import SweepCore

extension SimulatedCluster {
  /// What a worker sends. Reports carry a number, under which they are answered.
  enum WorkerMessage {
    case hello(WorkerInfo, holding: [LeaseToken], lifetime: Duration?)
    case workRequest(slots: Int)
    case heartbeat([Scheduler.LeaseProgress])
    case report(Report)

    /// Whether it makes no difference if later messages arrive before it.
    var mayOvertake: Bool {
      switch self {
      case .workRequest, .heartbeat: true
      case .hello, .report: false
      }
    }
  }

  enum CoordinatorMessage {
    case welcome(Scheduler.Reply)
    case workRefused
    case assignment(Scheduler.Assignment)
    case revocation(LeaseToken)
    case acknowledgement(number: Int, Scheduler.Reply)
  }

  struct Report {
    enum Content {
      case trial(TrialID, metrics: [String: Double])
      case completion(ShardID, artifact: ContentDigest?)
      case failure(evidence: String)
      case release
    }
    let number: Int
    let token: LeaseToken
    let content: Content
  }

  /// A TCP connection: reports and answers arrive in order. A careless transport is simulated where
  /// that must not matter: messages may come twice, and what is no report may come out of order.
  final class Connection {
    let number: UInt64
    let worker: Worker
    /// The coordinator process at the other end.
    let incarnation: Int
    var workerIsOpen = true
    var isWelcome = false
    var coordinatorIsOpen = true
    /// Nothing arrives any more.
    var isCut = false
    var lastUp: Duration = .zero
    var lastDown: Duration = .zero

    init(number: UInt64, worker: Worker, incarnation: Int) {
      self.number = number
      self.worker = worker
      self.incarnation = incarnation
    }
  }

  mutating func send(_ message: WorkerMessage, over connection: Connection) {
    guard connection.workerIsOpen, !connection.isCut else { return }
    let arrival = max(
      timeline.now + random.seconds(0, faults.delayMax), hosts[connection.worker.host].blockedUp)
    if connection.isWelcome, message.mayOvertake, random.chance(faults.reorderedShare) {
      counts.reordered += 1
      timeline.schedule(.arriveAtCoordinator(connection, message), at: arrival)
      return
    }
    connection.lastUp = max(arrival, connection.lastUp)
    timeline.schedule(.arriveAtCoordinator(connection, message), at: connection.lastUp)
    if connection.isWelcome, random.chance(faults.duplicatedShare) {
      counts.duplicated += 1
      timeline.schedule(
        .arriveAtCoordinator(connection, message),
        at: connection.lastUp + random.seconds(0, faults.delayMax))
    }
  }

  mutating func send(_ message: CoordinatorMessage, over connection: Connection) {
    guard connection.coordinatorIsOpen, !connection.isCut else { return }
    let arrival = timeline.now + random.seconds(0, faults.delayMax)
    connection.lastDown = max(
      arrival, connection.lastDown, hosts[connection.worker.host].blockedDown)
    timeline.schedule(.arriveAtWorker(connection, message), at: connection.lastDown)
    if random.chance(faults.duplicatedShare) {
      counts.duplicated += 1
      timeline.schedule(
        .arriveAtWorker(connection, message),
        at: connection.lastDown + random.seconds(0, faults.delayMax))
    }
  }

  /// Loses everything on its way, and lets each side find out on its own.
  mutating func cut(_ connection: Connection, noticedWithin seconds: Double) {
    connection.isCut = true
    timeline.schedule(.workerNoticesEnd(connection), after: random.seconds(0, seconds))
    timeline.schedule(.coordinatorNoticesEnd(connection), after: random.seconds(0, seconds))
  }

  /// The worker closes its end; what it sent before may still arrive.
  mutating func closeAtWorker(_ connection: Connection) {
    guard connection.workerIsOpen else { return }
    connection.workerIsOpen = false
    if random.chance(0.5) { connection.isCut = true }
    let arrival = timeline.now + random.seconds(0, faults.delayMax)
    timeline.schedule(
      .coordinatorNoticesEnd(connection),
      at: max(arrival, connection.lastUp, hosts[connection.worker.host].blockedUp))
  }

  mutating func closeAtCoordinator(_ connection: Connection) {
    guard connection.coordinatorIsOpen else { return }
    connection.coordinatorIsOpen = false
    timeline.schedule(
      .workerNoticesEnd(connection),
      at: max(timeline.now, connection.lastDown, hosts[connection.worker.host].blockedDown))
  }
}
