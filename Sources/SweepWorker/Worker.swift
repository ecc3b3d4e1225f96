import Foundation
import GRPCCore
import GRPCNIOTransportHTTP2Posix
import Logging
import SweepCore
import SweepRPC
import SweepSecurity
import Synchronization

/// A worker process: holds a session with the coordinator, runs the shards that it is given, and
/// keeps every report until the coordinator has acknowledged it.
///
/// A broken connection does not stop the shards: they go on, their reports wait, and the next
/// session says which leases the worker still holds. The coordinator decides what still counts.
package actor Worker {
  package typealias Client = GRPCClient<HTTP2ClientTransport.Posix>
  typealias Service = Biassweep_V1_Coordination.Client<HTTP2ClientTransport.Posix>

  let info: WorkerInfo
  private let host: String
  private let port: Int
  private var security: ConnectionSecurity
  private let version: String
  private let executor: ShardExecutor
  let logger: Logger
  /// Nil where shards keep none.
  let checkpoints: CheckpointPlace?
  /// How long a stopping worker tries to tell an absent coordinator.
  private static let farewell = Duration.seconds(5)
  /// How long a result waits for others to be reported with it.
  private static let resultsGather = Duration.milliseconds(5)
  let threads = BlockingThreads()
  /// Whether results are being gathered: one alarm serves the shards of all slots.
  private let isGathering = Atomic(false)
  /// A worker that holds nothing gives up when it has had no session for this long.
  let patience: Duration
  /// When the worker must have ended; nil if it may go on for ever.
  private let endsAt: SuspendingClock.Instant?

  struct Sweep {
    let digest: ContentDigest
    let shards: [ShardID: Shard]
    let inputs: [String: String]
    let heartbeat: Duration
    let checkpointInterval: Duration
  }

  private enum Report: Sendable {
    case trial(LeaseToken, WorkerMessage)
    /// The last word on a lease.
    case final(LeaseToken, WorkerMessage)

    var token: LeaseToken {
      switch self {
      case .trial(let token, _), .final(let token, _): token
      }
    }
    var message: WorkerMessage {
      switch self {
      case .trial(_, let message), .final(_, let message): message
      }
    }
  }

  private(set) var sweep: Sweep?
  private(set) var running: [LeaseToken: ShardControl] = [:]
  /// Shards of leases that this worker still says something about.
  private var shardOfLease: [LeaseToken: ShardID] = [:]
  /// Reports without acknowledgement by request number; sent again in each new session.
  private var unacknowledged: [UInt64: Report] = [:]
  private var lastRequest: UInt64 = 0
  /// Messages to the coordinator; nil between sessions.
  private var outgoing: Outbox<WorkerMessage>?
  private(set) var currentService: Service?
  /// Uploads of checkpoints under way.
  var uploads: [LeaseToken: CheckpointUpload] = [:]
  private var readyRequest: UInt64?
  private var isReady = false
  private var stoppingSince: SuspendingClock.Instant?
  var isStopping: Bool { stoppingSince != nil }
  /// What runs is finished, nothing further is taken.
  private var draining = false
  private var takesWork: Bool { !isStopping && !draining }
  /// Whether a coordinator has ever accepted this worker's credentials.
  private var wasConnected = false
  private let now: @Sendable () -> SuspendingClock.Instant
  /// When there was a session last: an idle one may be silent for hours, and is there all the same.
  private var lastContact: SuspendingClock.Instant
  private var reconnection = Backoff()
  private var isOver = false
  private var refusal: String?
  /// Why the coordinator refused a report on a shard that still runs; it fails once it has stopped.
  private var refused: [LeaseToken: String] = [:]

  /// - Parameters:
  ///   - info: this process; the identifier must be new.
  ///   - security: how to talk to the coordinator.
  ///   - checkpoints: where shards keep their progress; nil for not at all.
  ///   - patience: how long to look for a coordinator before giving up.
  ///   - lifetime: how much time the worker has, from now; nil if it may go on for ever. It gets
  ///     only shards that it can finish in time. Ending then is the caller's part.
  package init(
    info: WorkerInfo, host: String, port: Int, security: ConnectionSecurity = .plaintext,
    version: String, executor: ShardExecutor, checkpoints: CheckpointPlace? = nil,
    patience: Duration, lifetime: Duration? = nil, logger: Logger,
    now: @escaping @Sendable () -> SuspendingClock.Instant = { .now }
  ) {
    self.info = info
    self.host = host
    self.port = port
    self.security = security
    self.version = version
    self.executor = executor
    self.checkpoints = checkpoints
    self.patience = patience
    endsAt = lifetime.map { .now + $0 }
    self.logger = logger
    self.now = now
    lastContact = now()
  }

  var address: String { "\(host):\(port)" }

  /// Works until the sweep is over or `stop` was called.
  ///
  /// - Throws: `WorkerError`.
  package func run() async throws {
    var generator = SystemRandomNumberGenerator()
    lastContact = now()
    while !isOver {
      do {
        try await connectOnce()
      } catch let error as RPCError where SessionRefusal.isWorthRetrying(error) {
        logger.warning(
          "session lost, will reconnect",
          metadata: ["coordinator": "\(address)", "error": "\(error.message)"])
        // Waiting does not mend a certificate. But a worker that has results keeps them for a
        // coordinator that comes back with the right one.
        if !wasConnected, let problem = certificateProblem(in: error) {
          throw WorkerError.untrusted(address: address, detail: problem)
        }
        if holdsNothing && lastContact.duration(to: now()) > patience {
          throw WorkerError.unreachable(address: address, detail: error.message)
        }
      } catch let error as RPCError {
        throw WorkerError.refused(address: address, reason: error.message)
      }
      if let refusal { throw WorkerError.refused(address: address, reason: refusal) }
      if isOver || (!takesWork && holdsNothing) { return }
      // What could not be said by then, the coordinator learns from the end of the leases.
      if let stoppingSince, stoppingSince.duration(to: .now) > Self.farewell { return }
      try await Task.sleep(for: reconnection.delay(using: &generator))
    }
  }

  /// Whether nothing would be lost with this worker: no shard runs, and no report waits.
  private var holdsNothing: Bool { running.isEmpty && unacknowledged.isEmpty }

  /// Takes no further shard; `run` returns when those that run have been reported.
  package func drain() {
    draining = true
    endIfDone()
  }

  /// Gives all shards back and ends; `run` returns when the coordinator knows.
  package func stop() {
    guard !isStopping else { return }
    stoppingSince = .now
    for control in running.values { control.cancel() }
    endIfDone()
  }

  /// Shows other credentials in sessions from now on.
  package func renew(_ security: ConnectionSecurity) { self.security = security }

  // MARK: Session

  private func connectOnce() async throws {
    let transport = try security.clientTransport(host: host, port: port)
    try await withGRPCClient(transport: transport) { client in
      try await self.session(Service(wrapping: client))
    }
  }

  private func session(_ service: Service) async throws {
    let outbox = Outbox<WorkerMessage>()
    outgoing = outbox
    currentService = service
    isReady = false
    defer {
      if isReady { lastContact = now() }
      outgoing = nil
      currentService = nil
      isReady = false
      outbox.finish()
    }
    send(
      .with {
        $0.hello = Biassweep_V1_Hello(
          worker: info, version: version, specDigest: sweep?.digest)
      })
    var options = CallOptions.defaults
    options.waitForReady = false
    let heartbeat = Task { try await self.sendHeartbeats() }
    defer { heartbeat.cancel() }
    try await service.session(
      options: options,
      requestProducer: { writer in
        try await outbox.drain { try await writer.write(WorkerMessage(batch: $0)) }
      },
      onResponse: { response in
        for try await message in response.messages { try await self.handle(message.batch) }
      })
  }

  private func handle(_ messages: [CoordinatorMessage]) async throws {
    for message in messages { try await handle(message) }
  }

  private func handle(_ message: CoordinatorMessage) async throws {
    switch message.body {
    case .welcome(let welcome):
      wasConnected = true
      try await prepare(welcome)
      sendReady()
    case .assignment(let assignment):
      start(assignment)
    case .acknowledgement(let acknowledgement):
      acknowledged(acknowledgement)
    case .revocation(let revocation):
      revoke(LeaseToken(revocation.token), reason: "the coordinator ended the lease")
    case .goodbye(let goodbye):
      logger.info("sweep over", metadata: ["reason": "\(goodbye.reason)"])
      for control in running.values { control.cancel() }
      isOver = true
      outgoing?.finish()
    case nil:
      break
    }
  }

  /// Loads model and data on the first welcome; later ones must be of the same sweep.
  private func prepare(_ welcome: Biassweep_V1_Welcome) async throws {
    guard sweep == nil else { return }
    let spec: SweepSpec
    do {
      spec = try SweepSpec(canonicalJSON: welcome.spec)
      guard try spec.digest().description == welcome.specDigest else {
        throw WorkerError.cannotPrepare(
          "The coordinator's spec does not have the digest that it states; its version may differ.")
      }
    } catch let error as DecodingError {
      throw WorkerError.cannotPrepare("The coordinator's spec cannot be read: \(error)")
    }
    let tasks = spec.definedTasks.map(\.task)
    guard tasks.count == spec.tasks.count else {
      throw WorkerError.cannotPrepare("The sweep names tasks without their definitions.")
    }
    let executor = self.executor
    let source = InputSource(of: self)
    let checkpoints = self.checkpoints
    let inputs: [String: String]
    do {
      inputs = try await threads.run(named: "prepare") {
        checkpoints?.removeStale()
        return try executor.prepare(spec, source)
      }
    } catch {
      throw WorkerError.cannotPrepare("\(error)")
    }
    let plan = ShardPlan(spec: spec, tasks: tasks)
    sweep = Sweep(
      digest: try spec.digest(),
      shards: Dictionary(uniqueKeysWithValues: plan.shards.map { ($0.id, $0) }), inputs: inputs,
      heartbeat: .seconds(max(0.05, welcome.heartbeatSeconds)),
      checkpointInterval: .seconds(welcome.checkpointSeconds))
  }

  private func sendReady() {
    guard let sweep else { return }
    // Leases whose last report waits for its acknowledgement are held too: the report follows.
    let holding = Set(running.keys).union(unacknowledged.values.map(\.token)).sorted()
    readyRequest = nextRequest()
    send(
      .with {
        $0.request = readyRequest ?? 0
        $0.ready = .with {
          $0.inputs = sweep.inputs
          $0.holding = holding.map(\.value)
          // At its end there is a moment left, as 0 would mean for ever.
          if let endsAt {
            $0.lifetimeSeconds = max(SuspendingClock.now.duration(to: endsAt) / .seconds(1), 0.001)
          }
        }
      })
    isReady = true
    for (_, report) in unacknowledged.sorted(by: { $0.key < $1.key }) { send(report.message) }
    if takesWork { requestWork(info.slots - running.count) }
  }

  private func requestWork(_ slots: Int) {
    guard slots > 0 else { return }
    send(Self.workRequest(slots))
  }

  private static func workRequest(_ slots: Int) -> WorkerMessage {
    .with { $0.workRequest = .with { $0.slots = UInt32(slots) } }
  }

  private func send(_ message: WorkerMessage) { outgoing?.add([message]) }

  private func nextRequest() -> UInt64 {
    lastRequest += 1
    return lastRequest
  }

  private func sendHeartbeats() async throws {
    while !Task.isCancelled {
      try await Task.sleep(for: sweep?.heartbeat ?? .seconds(1))
      guard isReady else { continue }
      send(
        .with { message in
          message.heartbeat = .with { heartbeat in
            heartbeat.leases = running.sorted { $0.key < $1.key }.map { token, control in
              let progress = control.progress
              return .with {
                $0.token = token.value
                $0.fraction = progress.fraction
                $0.tokensPerSecond = progress.tokensPerSecond
              }
            }
          }
        })
    }
  }

  // MARK: Shards

  private func start(_ message: Biassweep_V1_Assignment) {
    let token = LeaseToken(message.token)
    guard takesWork else {
      return report([.final(token, .with { $0.release = .with { $0.token = token.value } })])
    }
    guard running[token] == nil else { return }
    guard let shard = sweep?.shards[ShardID(message.shard)] else {
      return fail(token, "this worker's plan has no shard \(message.shard)")
    }
    let wanted = Set(message.trials)
    let trials = shard.trials.filter { wanted.contains($0.id.description) }
    let control = ShardControl(
      resultsWait: { self.gatherResults() },
      checkpointWritten: { Task { await self.checkpointWritten(token) } },
      note: { [logger] note in
        logger.info(
          "\(note.message)",
          metadata: note.details.merging(
            ["shard.id": "\(shard.id)", "lease.token": "\(token)"], uniquingKeysWith: { $1 }
          ).mapValues { "\($0)" })
      })
    running[token] = control
    shardOfLease[token] = shard.id
    let executor = self.executor
    let name = shard.id.description
    Task {
      do {
        let input = try await self.input(message.input, for: control)
        let checkpoint = await self.checkpointFiles(
          for: shard.id, newest: message.checkpoint, control: control)
        let known = self.reportKept(wanted, of: shard.id, under: token)
        let assignment = ShardAssignment(
          shard: shard, token: token, attempt: Int(message.attempt),
          trials: trials.filter { !known.contains($0.id.description) }, input: input,
          checkpoint: checkpoint)
        let wasResumed = checkpoint?.exist == true || !known.isEmpty
        let product = try await self.threads.run(named: name) {
          let started = SuspendingClock.now
          var product = try executor.execute(assignment, control)
          product.facts[Shard.secondsFact] = started.duration(to: .now) / .seconds(1)
          return product
        }
        try await self.finish(token, product, wasResumed: wasResumed, control)
      } catch is CancellationError {
        await self.cancelled(token)
      } catch {
        self.fail(token, "\(error)")
      }
    }
  }

  /// Reports in a moment what waits then: the results of a short shard leave together with its end.
  private nonisolated func gatherResults() {
    guard !isGathering.exchange(true, ordering: .acquiringAndReleasing) else { return }
    Task {
      try await Task.sleep(for: Self.resultsGather)
      await reportGathered()
    }
  }

  private func reportGathered() {
    // What comes from here on is the next one's.
    _ = isGathering.exchange(false, ordering: .acquiringAndReleasing)
    report(running.keys.sorted().flatMap(waitingResults))
  }

  /// The results of a shard that were not reported yet; they are kept until it is complete.
  private func waitingResults(of token: LeaseToken) -> [Report] {
    guard let control = running[token] else { return [] }
    let reports = control.takeResults().map { result in
      Biassweep_V1_TrialReport.with {
        $0.token = token.value
        $0.trial = result.trial.description
        $0.metrics = result.metrics
        $0.notes = result.notes
        $0.items = result.items.sorted { $0.key < $1.key }.map { name, values in
          .with {
            $0.name = name
            $0.values = values
          }
        }
      }
    }
    if let shard = shardOfLease[token] { keptResults(of: shard)?.add(reports) }
    return reports.map { report in .trial(token, .with { $0.trial = report }) }
  }

  /// Reports what an earlier attempt on this machine found out and could not report.
  ///
  /// - Returns: the trials.
  private func reportKept(
    _ wanted: Set<String>, of shard: ShardID, under token: LeaseToken
  ) -> Set<String> {
    guard running[token] != nil, let kept = keptResults(of: shard)?.reports(of: wanted) else {
      return []
    }
    report(
      kept.map { report in
        var report = report
        report.token = token.value
        return .trial(token, .with { $0.trial = report })
      })
    return Set(kept.map(\.trial))
  }

  private func keptResults(of shard: ShardID) -> KeptResults? {
    guard let sweep, let checkpoints else { return nil }
    return KeptResults(
      beside: checkpoints.path(sweep: sweep.digest, shard: shard), version: version,
      inputs: sweep.inputs)
  }

  private func finish(
    _ token: LeaseToken, _ product: ShardProduct, wasResumed: Bool, _ control: ShardControl
  ) async throws {
    uploads[token]?.task?.cancel()
    var digest: ContentDigest?
    if let artifact = product.artifact {
      let name = ContentDigest(of: artifact)
      try await upload(artifact, as: name, for: control)
      digest = name
    }
    let results = waitingResults(of: token)
    refused[token] = nil
    guard running.removeValue(forKey: token) != nil else { return }
    report(
      results + [
        .final(
          token,
          .with {
            $0.shard = .with {
              $0.token = token.value
              $0.artifact = digest?.description ?? ""
              $0.facts = product.facts
              $0.resumed = wasResumed
            }
          })
      ], requestingWork: 1)
  }

  private func fail(_ token: LeaseToken, _ evidence: String) {
    let results = waitingResults(of: token)
    refused[token] = nil
    running[token] = nil
    shardOfLease[token] = nil
    uploads[token]?.task?.cancel()
    logger.error(
      "shard failed", metadata: ["lease.token": "\(token)", "error": "\(evidence)"])
    report(
      results + [
        .final(
          token,
          .with {
            $0.failure = .with {
              $0.token = token.value
              $0.evidence = evidence
            }
          })
      ], requestingWork: 1)
  }

  /// A shard ended because its lease did, or because the worker stops.
  private func cancelled(_ token: LeaseToken) async {
    if let reason = refused.removeValue(forKey: token) { return fail(token, reason) }
    // Whoever gets the shard next goes on where this worker stopped.
    if isStopping { await finishUpload(token, within: Self.farewell) }
    let results = isStopping ? waitingResults(of: token) : []
    shardOfLease[token] = nil
    guard running.removeValue(forKey: token) != nil else { return }
    if isStopping {
      report(
        results + [.final(token, .with { $0.release = .with { $0.token = token.value } })])
    } else if !isOver && takesWork {
      requestWork(1)
    }
    endIfDone()
  }

  private func revoke(_ token: LeaseToken, reason: String) {
    unacknowledged = unacknowledged.filter { $0.value.token != token }
    guard let control = running[token] else {
      // Once for each lease, however many of its reports come back.
      if shardOfLease.removeValue(forKey: token) != nil {
        logger.warning(
          "lease over, reports dropped",
          metadata: ["lease.token": "\(token)", "reason": "\(reason)"])
      }
      return endIfDone()
    }
    logger.warning(
      "lease over, shard cancelled", metadata: ["lease.token": "\(token)", "reason": "\(reason)"])
    control.revoke()
  }

  // MARK: Reports

  /// Reports, and asks for work for the slots that became free, all in one message. Between sessions
  /// nothing is sent: the next one begins with what is unacknowledged, and asks for all free slots.
  private func report(_ reports: [Report], requestingWork slots: Int = 0) {
    var messages: [WorkerMessage] = []
    for report in reports {
      var message = report.message
      message.request = nextRequest()
      messages.append(message)
      switch report {
      case .trial(let token, _): unacknowledged[message.request] = .trial(token, message)
      case .final(let token, _): unacknowledged[message.request] = .final(token, message)
      }
    }
    guard isReady else { return }
    if slots > 0 && takesWork { messages.append(Self.workRequest(slots)) }
    outgoing?.add(messages)
  }

  private func acknowledged(_ acknowledgement: Biassweep_V1_Acknowledgement) {
    if acknowledgement.request == readyRequest {
      reconnection.reset()
      if acknowledgement.outcome == .refused {
        refusal = acknowledgement.message
        isOver = true
        outgoing?.finish()
      }
      return
    }
    guard let report = unacknowledged.removeValue(forKey: acknowledgement.request) else { return }
    switch acknowledgement.outcome {
    case .stale:
      revoke(report.token, reason: "a report came after the lease had ended")
    case .refused:
      logger.error(
        "report refused",
        metadata: ["lease.token": "\(report.token)", "reason": "\(acknowledgement.message)"])
      // The next attempt computes it anew.
      if let shard = shardOfLease[report.token] { keptResults(of: shard)?.remove() }
      let reason = "the coordinator refused a report: \(acknowledgement.message)"
      if let control = running[report.token] {
        refused[report.token] = reason
        control.cancel()
      } else if case .final(let token, let message) = report, case .shard = message.body {
        fail(token, reason)
      }
    case .accepted:
      if case .final(let token, let message) = report, case .shard = message.body,
        let shard = shardOfLease.removeValue(forKey: token), let sweep
      {
        checkpoints?.remove(sweep: sweep.digest, shard: shard)
      }
    case .unspecified, .UNRECOGNIZED: break
    }
    endIfDone()
  }

  private func endIfDone() {
    if !takesWork && holdsNothing {
      isOver = true
      outgoing?.finish()
    }
  }
}
