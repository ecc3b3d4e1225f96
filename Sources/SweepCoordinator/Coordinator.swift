import Foundation
import Logging
import SweepCore
import SweepLedger
import SweepRPC

/// Runs one sweep: feeds the scheduler with what workers say, remembers what it decides, and only
/// then answers.
///
/// All waiting messages are decided in one batch and recorded in one durable transaction, because
/// the commit costs the same for one event as for hundreds. If the commit fails, nothing of the
/// batch is answered and the coordinator ends; the ledger alone says what holds.
package actor Coordinator {
  package let spec: SweepSpec
  package let policy: ExecutionPolicy
  package let version: String
  /// Nil where none are kept.
  package nonisolated let checkpoints: CheckpointStore?
  nonisolated let workerSpace: WorkerSpace
  private let ledger: Ledger
  private let logger: Logger
  private let now: @Sendable () -> Duration
  private var scheduler: Scheduler
  private var preparedWelcome: CoordinatorMessage?
  private var sessions: [UInt64: Session] = [:]
  /// The session of each worker whose `Ready` was accepted; only it gets assignments.
  private var readyConnections: [String: UInt64] = [:]
  private var lastConnection: UInt64 = 0
  private var waiting: [Request] = []
  private var processing = false
  private var ended = false
  private var reportLog: ReportLog
  /// Events since the scheduler's state was saved last, and how many a restart may have to replay.
  private var unsavedEvents: Int
  private let unsavedEventsMax: Int
  /// How late a deadline may be noticed.
  private static let tickInterval = Duration.milliseconds(50)
  private let outcome: AsyncThrowingStream<SweepSummary, any Error>
  private let outcomeContinuation: AsyncThrowingStream<SweepSummary, any Error>.Continuation
  /// Runs commits, so that waiting for the disk does not block a thread of the async runtime.
  private let commits = DispatchQueue(label: "biassweep.ledger")
  /// Encodes states to be saved, one after the other.
  private let snapshots = DispatchQueue(label: "biassweep.snapshot")

  /// Messages to one worker that were not sent yet; more than this and its connection is given up.
  private static let outgoingMax = 100_000

  private struct Session {
    let worker: WorkerInfo
    let outgoing: Outbox<CoordinatorMessage>
  }

  private struct Request {
    let command: Scheduler.Command
    /// Who waits for an acknowledgement: connection and request number.
    let origin: (connection: UInt64, request: UInt64)?
    /// The operator who waits for the answer.
    let answer: CheckedContinuation<Scheduler.Reply, any Error>?
  }

  /// Recovers the sweep's state from the ledger.
  ///
  /// - Parameters:
  ///   - checkpoints: those of shards that cannot be leased any more are removed.
  ///   - workerBytesMax: that one worker may fill with artifacts of shards that are not completed.
  ///   - keepLeases: whether workers of an earlier coordinator process may still be at work.
  ///   - revive: whether to go on with a sweep that was cancelled.
  ///   - unsavedEventsMin: events between two saved states at least. To replay ten thousand takes a
  ///     tenth of a second; to save a state takes a large sweep as long, while workers wait.
  ///   - now: monotonic time since any fixed point.
  package init(
    definition: SweepDefinition, plan: ShardPlan, ledger: Ledger,
    checkpoints: CheckpointStore? = nil, workerBytesMax: Int = 16 << 30, version: String,
    keepLeases: Bool, revive: Bool = false, unsavedEventsMin: Int = 10_000, logger: Logger,
    now: @escaping @Sendable () -> Duration = Coordinator.uptime()
  ) throws {
    spec = definition.spec
    policy = definition.policy
    self.version = version
    self.ledger = ledger
    self.checkpoints = checkpoints
    workerSpace = WorkerSpace(bytesMax: workerBytesMax)
    self.logger = logger
    self.now = now
    var (scheduler, events, unsaved) = try Self.recover(
      plan: plan, policy: definition.policy, ledger: ledger, now: now())
    reportLog = ReportLog(logger: logger, leases: scheduler.leases)
    let recovery = scheduler.finishRecovery(
      keepLeases: keepLeases, revive: revive, now: now())
    try ledger.append(recovery, now: Date().timeIntervalSince1970)
    self.scheduler = scheduler
    checkpoints?.retain(scheduler.unfinishedShards)
    unsavedEvents = unsaved + recovery.count
    unsavedEventsMax = max(unsavedEventsMin, plan.shards.count / 10)
    (outcome, outcomeContinuation) = AsyncThrowingStream.makeStream()
    if events > 0 {
      logger.info(
        "sweep resumed",
        metadata: [
          "sweep.events": "\(events)", "sweep.events.replayed": "\(unsaved)",
          "sweep.trials.completed": "\(scheduler.summary.trialsCompleted)",
        ])
    }
    if let reason = scheduler.pauseReason {
      logger.warning(
        "leasing was paused before this start, `biassweep resume` ends that",
        metadata: ["reason": "\(reason)"])
    }
  }

  /// Time since the first call, by a clock that stands still while the machine sleeps.
  package static func uptime() -> @Sendable () -> Duration {
    let start = SuspendingClock.now
    return { start.duration(to: .now) }
  }

  /// Where the sweep stands now.
  package func summary() -> SweepSummary { scheduler.summary }

  package func trialsCompleted() -> Int { scheduler.trialsCompleted }

  /// Returns when nothing more can happen: all trials have results, or what has none is
  /// quarantined, or the sweep was stopped.
  ///
  /// - Throws: `LedgerError` when the ledger cannot be written.
  package func run() async throws -> SweepSummary {
    submit(.tick, origin: nil)
    let ticker = Task { [weak self] in
      while !Task.isCancelled {
        try await Task.sleep(for: Self.tickInterval)
        guard let self else { return }
        await self.submit(.tick, origin: nil)
      }
    }
    defer { ticker.cancel() }
    var ended: SweepSummary?
    for try await summary in outcome {
      ended = summary
      break
    }
    // The caller closes the ledger next.
    await settleSnapshots()
    return ended ?? scheduler.summary
  }

  /// Carries out what an operator asks for.
  ///
  /// - Returns: once it is durable; `refused` with the reason if it makes no sense.
  /// - Throws: `LedgerError` when the ledger cannot be written, `SessionRefusal.unavailable` when
  ///   the sweep is over.
  package func control(_ control: Scheduler.Control) async throws -> Scheduler.Reply {
    guard !ended else { throw SessionRefusal.unavailable("the sweep is over") }
    return try await withCheckedThrowingContinuation { continuation in
      submit(.control(control), origin: nil, answer: continuation)
    }
  }

  /// No further shard is leased; `run` returns when the last lease has ended.
  package func stop(reason: String) {
    submit(.stop(reason: reason), origin: nil)
  }

  /// Who takes part in the sweep now.
  package func presences() -> [String: Scheduler.Presence] { scheduler.presences }

  package nonisolated var ledgerPath: String { ledger.path }

  /// Leases nothing further; `run` returns once nothing runs any more. `suspend` cuts that short.
  package func drain() {
    scheduler.isEnding = true
    submit(.tick, origin: nil)
  }

  /// Ends this process's part without ending any lease: `run` returns, workers go on and report to
  /// the coordinator that is started next.
  package func suspend() {
    guard !ended else { return }
    ended = true
    reportLog.settle(now: nil)
    dismissWaiting()
    for session in sessions.values { session.outgoing.finish() }
    outcomeContinuation.yield(scheduler.summary)
    outcomeContinuation.finish()
  }

  package var isFinished: Bool { scheduler.isFinished }

  // MARK: Sessions

  /// What every session begins with. Encoding the spec of a large sweep takes milliseconds, and
  /// after a restart all workers come at once; so it is made once, when the first one asks.
  package func welcome() throws -> CoordinatorMessage {
    if let preparedWelcome { return preparedWelcome }
    let welcome = try CoordinatorMessage.welcome(spec: spec, policy: policy)
    preparedWelcome = welcome
    return welcome
  }

  /// Opens a worker's session.
  ///
  /// - Returns: the connection's number and the messages to send to the worker.
  package func open(
    _ worker: WorkerInfo
  ) -> (connection: UInt64, outgoing: Outbox<CoordinatorMessage>) {
    lastConnection += 1
    let outgoing = Outbox<CoordinatorMessage>(capacity: Self.outgoingMax)
    sessions[lastConnection] = Session(worker: worker, outgoing: outgoing)
    if ended { outgoing.add([.goodbye("the sweep is over")]) }
    return (lastConnection, outgoing)
  }

  /// Takes messages of an open session.
  ///
  /// - Throws: `SessionRefusal` at the first that breaks the protocol.
  package func receive(_ messages: [WorkerMessage], connection: UInt64) throws {
    guard let session = sessions[connection] else {
      throw SessionRefusal.unavailable("the session is closed")
    }
    for message in messages {
      guard
        let command = Scheduler.Command(
          message, worker: session.worker.id, connection: connection, info: session.worker)
      else {
        throw SessionRefusal.protocolViolation("a message without or with an invalid body")
      }
      submit(command, origin: (connection, message.request))
    }
  }

  func close(connection: UInt64, reason: String) {
    guard let session = sessions.removeValue(forKey: connection) else { return }
    session.outgoing.finish()
    if readyConnections[session.worker.id] == connection {
      readyConnections[session.worker.id] = nil
    }
    submit(
      .disconnect(worker: session.worker.id, connection: connection, reason: reason), origin: nil)
  }

  // MARK: Checkpoints

  /// The shard that a worker holds under a lease, if that is alive.
  func shard(heldBy worker: String, under token: LeaseToken) -> ShardID? {
    scheduler.shard(heldBy: worker, under: token)
  }

  /// Makes an upload the newest checkpoint of the shard that its lease is on.
  ///
  /// - Throws: `SessionRefusal.leaseOver` when the lease has ended: what was computed since may be
  ///   right, but another worker decides now.
  func acceptCheckpoint(
    _ upload: IncomingFile, bytes: Int, worker: String, token: LeaseToken
  ) throws {
    guard let checkpoints, let shard = shard(heldBy: worker, under: token) else {
      throw SessionRefusal.leaseOver(token.value)
    }
    try checkpoints.accept(upload, of: shard, bytes: bytes)
    logger.debug(
      "checkpoint stored",
      metadata: [
        "shard.id": "\(shard)", "worker.id": "\(worker)", "lease.token": "\(token)",
        "bytes": "\(bytes)",
      ])
  }

  /// Artifacts that completed shards account for.
  var artifactsInUse: Set<ContentDigest> { scheduler.artifacts }

  // MARK: Batches

  private func submit(
    _ command: Scheduler.Command, origin: (connection: UInt64, request: UInt64)?,
    answer: CheckedContinuation<Scheduler.Reply, any Error>? = nil
  ) {
    guard !ended else { return }
    waiting.append(Request(command: command, origin: origin, answer: answer))
    guard !processing else { return }
    processing = true
    Task { await process() }
  }

  private func process() async {
    while !waiting.isEmpty && !ended {
      let batch = waiting
      waiting = []
      let time = now()
      reportLog.settle(now: time)
      var events: [SweepEvent] = []
      var directives: [Scheduler.Directive] = []
      var replies: [(connection: UInt64, message: CoordinatorMessage)] = []
      var answers: [(CheckedContinuation<Scheduler.Reply, any Error>, Scheduler.Reply)] = []
      var declined: [(reply: Scheduler.Reply, command: Scheduler.Command)] = []
      for request in batch {
        let step = scheduler.handle(request.command, now: time)
        if case .connect(let info, let connection, _, _, _) = request.command,
          step.reply == .accepted
        {
          replaceConnection(of: info.id, with: connection)
        }
        events += step.events
        directives += step.directives
        if step.reply != .accepted { declined.append((step.reply, request.command)) }
        if let answer = request.answer { answers.append((answer, step.reply)) }
        if let origin = request.origin, origin.request != 0 {
          replies.append(
            (origin.connection, .acknowledgement(of: origin.request, step.reply)))
        }
      }
      do {
        try await commit(events)
      } catch {
        logger.error("the ledger cannot be written", metadata: ["error": "\(error)"])
        for (answer, _) in answers { answer.resume(throwing: error) }
        end(throwing: error)
        return
      }
      for event in events {
        log(event)
        switch event {
        case .shardLeased(_, let worker, let token, _):
          reportLog.leased(token, to: worker)
        case .shardCompleted(let shard, _, let artifact, _, _):
          checkpoints?.remove(shard)
          if let artifact { workerSpace.release(artifact) }
        case .shardCancelled(let shard, _):
          checkpoints?.remove(shard)
        default: break
        }
      }
      for (reply, command) in declined { reportLog.note(reply, to: command, now: time) }
      for (answer, reply) in answers { answer.resume(returning: reply) }
      send(replies + directives.compactMap { message(of: $0) })
      if scheduler.isFinished {
        end(throwing: nil)
        return
      }
      if scheduler.isEnding && scheduler.leases.isEmpty {
        suspend()
        return
      }
    }
    processing = false
  }

  private func commit(_ events: [SweepEvent]) async throws {
    guard !events.isEmpty else { return }
    let ledger = self.ledger
    unsavedEvents += events.count
    var state: Scheduler.Snapshot?
    if unsavedEvents >= unsavedEventsMax {
      state = scheduler.takeSnapshot(now: now())
      unsavedEvents = 0
    }
    let last = try await withCheckedThrowingContinuation {
      (continuation: CheckedContinuation<Int64, any Error>) in
      commits.async {
        continuation.resume(
          with: Result { try ledger.append(events, now: Date().timeIntervalSince1970) })
      }
    }
    if let state { save(state, after: last) }
  }

  /// Saves a state while the loop goes on: nobody waits for it, and until it is there the one that
  /// was saved before serves as well.
  private func save(_ state: Scheduler.Snapshot, after sequence: Int64) {
    let (ledger, commits, logger) = (self.ledger, self.commits, self.logger)
    snapshots.async {
      do {
        let snapshot = LedgerSnapshot(sequence: sequence, state: try state.encoded())
        // Its turn among the commits.
        try commits.sync { try ledger.save(snapshot) }
      } catch {
        logger.warning("the state was not saved", metadata: ["error": "\(error)"])
      }
    }
  }

  /// Returns when every state that was to be saved is.
  private func settleSnapshots() async {
    await withCheckedContinuation { continuation in
      snapshots.async { continuation.resume() }
    }
  }

  /// Sends messages in order, those of one connection together.
  private func send(_ messages: [(connection: UInt64, message: CoordinatorMessage)]) {
    let ofConnection = Dictionary(grouping: messages, by: \.connection)
    for (connection, messages) in ofConnection {
      guard let session = sessions[connection] else { continue }
      if !session.outgoing.add(messages.map(\.message)) {
        // The worker does not read; it will reconnect and be told where it stands.
        close(connection: connection, reason: "\(Self.outgoingMax) messages wait unread")
      }
    }
  }

  /// What a directive says to whom; nil without a session, as the worker then learns at its next
  /// `Ready` what it holds.
  private func message(
    of directive: Scheduler.Directive
  ) -> (connection: UInt64, message: CoordinatorMessage)? {
    let (worker, message): (String, CoordinatorMessage) =
      switch directive {
      case .assign(let worker, let assignment):
        (
          worker,
          .assignment(assignment, checkpoint: checkpoints?.newest(of: assignment.shard.id))
        )
      case .revoke(let worker, let token): (worker, .revocation(token))
      }
    return readyConnections[worker].map { ($0, message) }
  }

  /// A worker has one session; an earlier one is a leftover of a connection that broke.
  private func replaceConnection(of worker: String, with connection: UInt64) {
    let replaced = readyConnections.updateValue(connection, forKey: worker)
    if let replaced, replaced != connection {
      sessions.removeValue(forKey: replaced)?.outgoing.finish()
    }
  }

  /// Tells operators who still wait that nothing is done for them any more.
  private func dismissWaiting() {
    for request in waiting {
      request.answer?.resume(throwing: SessionRefusal.unavailable("the sweep is over"))
    }
    waiting = []
  }

  private func end(throwing error: (any Error)?) {
    ended = true
    reportLog.settle(now: nil)
    dismissWaiting()
    for (_, session) in sessions {
      if error == nil { session.outgoing.add([.goodbye("the sweep is over")]) }
      session.outgoing.finish()
    }
    if let error {
      outcomeContinuation.finish(throwing: error)
    } else {
      outcomeContinuation.yield(scheduler.summary)
      outcomeContinuation.finish()
    }
  }

  /// One line for each event, from the event itself.
  private func log(_ event: SweepEvent) {
    switch event {
    case .inputsFixed(let inputs):
      logger.info("inputs fixed", metadata: inputs.mapValues { "\($0)" })
    case .workerJoined(let info):
      logger.info(
        "worker joined",
        metadata: [
          "worker.id": "\(info.id)", "worker.host": "\(info.host)",
          "worker.slots": "\(info.slots)",
        ])
    case .workerLeft(let worker, let reason):
      logger.info("worker left", metadata: ["worker.id": "\(worker)", "reason": "\(reason)"])
    case .shardLeased(let shard, let worker, let token, let attempt):
      logger.info(
        "shard leased",
        metadata: [
          "shard.id": "\(shard)", "worker.id": "\(worker)", "lease.token": "\(token)",
          "attempt": "\(attempt)",
        ])
    case .trialCompleted(let trial, let token, _, _, _):
      logger.info(
        "trial completed", metadata: ["trial.id": "\(trial)", "lease.token": "\(token)"])
    case .shardCompleted(let shard, let token, _, _, _):
      logger.info(
        "shard completed", metadata: ["shard.id": "\(shard)", "lease.token": "\(token)"])
    case .attemptEnded(let shard, let token, let ending, let evidence, let retryAfter):
      logger.warning(
        "attempt ended",
        metadata: [
          "shard.id": "\(shard)", "lease.token": "\(token)", "ending": "\(ending.rawValue)",
          "evidence": "\(evidence)", "retry.seconds": "\(retryAfter)",
        ])
    case .shardQuarantined(let shard, let reason):
      logger.error(
        "shard quarantined", metadata: ["shard.id": "\(shard)", "reason": "\(reason)"])
    case .sweepResumed:
      logger.info("sweep resumed, quarantined shards get new attempts")
    case .sweepStopped(let reason):
      logger.warning("sweep stopped", metadata: ["reason": "\(reason)"])
    case .sweepCancelled(let reason):
      logger.warning("sweep cancelled", metadata: ["reason": "\(reason)"])
    case .leasingPaused(let reason):
      logger.warning("leasing paused", metadata: ["reason": "\(reason)"])
    case .leasingContinued:
      logger.info("leasing continued")
    case .shardCancelled(let shard, let reason):
      logger.warning(
        "shard cancelled", metadata: ["shard.id": "\(shard)", "reason": "\(reason)"])
    case .shardRetried(let shard):
      logger.info("shard gets new attempts", metadata: ["shard.id": "\(shard)"])
    case .shardPrioritised(let shard, let priority):
      logger.info(
        "shard prioritised", metadata: ["shard.id": "\(shard)", "priority": "\(priority)"])
    case .hostSuspended(let host, let seconds, let evidence):
      logger.warning(
        "host suspended",
        metadata: [
          "worker.host": "\(host)", "seconds": "\(seconds)", "evidence": "\(evidence)",
        ])
    case .workerDrained(let worker, let reason):
      logger.info("worker drained", metadata: ["worker.id": "\(worker)", "reason": "\(reason)"])
    }
  }
}
