import Foundation
import GRPCCore
import GRPCNIOTransportHTTP2Posix
import Logging
import SweepCore
import SweepRPC

/// A worker process: holds a session with the coordinator, runs the shards that it is given, and
/// keeps every report until the coordinator has acknowledged it.
///
/// A broken connection does not stop the shards: they go on, their reports wait, and the next
/// session says which leases the worker still holds. The coordinator decides what still counts.
package actor Worker {
  package typealias Client = GRPCClient<HTTP2ClientTransport.Posix>
  private typealias Service = Biassweep_V1_Coordination.Client<HTTP2ClientTransport.Posix>

  private let info: WorkerInfo
  private let host: String
  private let port: Int
  private let version: String
  private let executor: ShardExecutor
  private let logger: Logger
  /// How long a stopping worker tries to tell an absent coordinator.
  private static let farewell = Duration.seconds(5)
  /// How long a result waits for others to be reported with it.
  private static let resultsGather = Duration.milliseconds(5)
  private let threads = BlockingThreads()
  /// Without any answer for this long the worker gives up.
  private let patience: Duration

  private struct Sweep {
    let digest: ContentDigest
    let shards: [ShardID: Shard]
    let inputs: [String: String]
    let heartbeat: Duration
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

  private var sweep: Sweep?
  private var running: [LeaseToken: ShardControl] = [:]
  /// Reports without acknowledgement by request number; sent again in each new session.
  private var unacknowledged: [UInt64: Report] = [:]
  private var lastRequest: UInt64 = 0
  /// Messages to the coordinator; nil between sessions.
  private var outgoing: Outbox<WorkerMessage>?
  private var currentService: Service?
  private var readyRequest: UInt64?
  private var isReady = false
  private var stoppingSince: SuspendingClock.Instant?
  private var stopping: Bool { stoppingSince != nil }
  private var isOver = false
  private var refusal: String?

  /// - Parameters:
  ///   - info: this process; the identifier must be new.
  ///   - patience: how long to look for a coordinator before giving up.
  package init(
    info: WorkerInfo, host: String, port: Int, version: String, executor: ShardExecutor,
    patience: Duration, logger: Logger
  ) {
    self.info = info
    self.host = host
    self.port = port
    self.version = version
    self.executor = executor
    self.patience = patience
    self.logger = logger
  }

  private var address: String { "\(host):\(port)" }

  /// Works until the sweep is over or `stop` was called.
  ///
  /// - Throws: `WorkerError`.
  package func run() async throws {
    var backoff = Backoff()
    var generator = SystemRandomNumberGenerator()
    var lastContact = SuspendingClock.now
    while !isOver {
      do {
        try await connectOnce { lastContact = .now }
        lastContact = .now
        backoff.reset()
      } catch let error as RPCError where SessionRefusal.isWorthRetrying(error) {
        logger.warning(
          "session lost, will reconnect",
          metadata: ["coordinator": "\(address)", "error": "\(error.message)"])
        if lastContact.duration(to: .now) > patience {
          throw WorkerError.unreachable(address: address, detail: error.message)
        }
      } catch let error as RPCError {
        throw WorkerError.refused(address: address, reason: error.message)
      }
      if let refusal { throw WorkerError.refused(address: address, reason: refusal) }
      if isOver || (stopping && unacknowledged.isEmpty) { return }
      // What could not be said by then, the coordinator learns from the end of the leases.
      if let stoppingSince, stoppingSince.duration(to: .now) > Self.farewell { return }
      try await Task.sleep(for: backoff.delay(using: &generator))
    }
  }

  /// Gives all shards back and ends; `run` returns when the coordinator knows.
  package func stop() {
    guard !stopping else { return }
    stoppingSince = .now
    for control in running.values { control.cancel() }
    endIfDone()
  }

  // MARK: Session

  private func connectOnce(contact: () -> Void) async throws {
    var configuration = HTTP2ClientTransport.Posix.Config.defaults
    configuration.connection.keepalive = .init(
      time: .seconds(10), timeout: .seconds(5), allowWithoutCalls: true)
    configuration.backoff.initial = .milliseconds(100)
    configuration.backoff.max = .seconds(1)
    let transport = try HTTP2ClientTransport.Posix(
      target: host.allSatisfy({ $0.isNumber || $0 == "." })
        ? .ipv4(address: host, port: port) : .dns(host: host, port: port),
      transportSecurity: .plaintext, config: configuration)
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
        for try await message in response.messages {
          for part in message.batch { try await self.handle(part) }
        }
      })
  }

  private func handle(_ message: CoordinatorMessage) async throws {
    switch message.body {
    case .welcome(let welcome):
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
    let tasks = spec.tasks.compactMap { TaskCatalogue.builtIn[$0] }
    guard tasks.count == spec.tasks.count else {
      throw WorkerError.cannotPrepare("The sweep names tasks that this worker does not know.")
    }
    let executor = self.executor
    let inputs: [String: String]
    do {
      inputs = try await threads.run(named: "prepare") { try executor.prepare(spec) }
    } catch {
      throw WorkerError.cannotPrepare("\(error)")
    }
    let plan = ShardPlan(spec: spec, tasks: tasks)
    sweep = Sweep(
      digest: try spec.digest(),
      shards: Dictionary(uniqueKeysWithValues: plan.shards.map { ($0.id, $0) }), inputs: inputs,
      heartbeat: .seconds(max(0.05, welcome.heartbeatSeconds)))
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
        }
      })
    isReady = true
    for (_, report) in unacknowledged.sorted(by: { $0.key < $1.key }) { send(report.message) }
    if !stopping { requestWork(info.slots - running.count) }
  }

  private func requestWork(_ slots: Int) {
    guard slots > 0 else { return }
    send(.with { $0.workRequest = .with { $0.slots = UInt32(slots) } })
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
    guard !stopping else {
      return report(.final(token, .with { $0.release = .with { $0.token = token.value } }))
    }
    guard running[token] == nil else { return }
    guard let shard = sweep?.shards[ShardID(message.shard)] else {
      return fail(token, "this worker's plan has no shard \(message.shard)")
    }
    let wanted = Set(message.trials)
    let trials = shard.trials.filter { wanted.contains($0.id.description) }
    let control = ShardControl {
      Task {
        // The results of a short shard leave together with its end.
        try await Task.sleep(for: Self.resultsGather)
        await self.reportResults(token)
      }
    }
    running[token] = control
    let executor = self.executor
    let name = shard.id.description
    Task {
      do {
        let input = try await self.download(message.input, for: control)
        let assignment = ShardAssignment(
          shard: shard, token: token, attempt: Int(message.attempt), trials: trials, input: input)
        let product = try await self.threads.run(named: name) {
          let started = SuspendingClock.now
          var product = try executor.execute(assignment, control)
          product.facts[Shard.secondsFact] = started.duration(to: .now) / .seconds(1)
          return product
        }
        try await self.finish(token, product, control)
      } catch is CancellationError {
        self.cancelled(token)
      } catch {
        self.fail(token, "\(error)")
      }
    }
  }

  private func reportResults(_ token: LeaseToken) {
    guard let control = running[token] else { return }
    for result in control.takeResults() {
      report(
        .trial(
          token,
          .with {
            $0.trial = .with {
              $0.token = token.value
              $0.trial = result.trial.description
              $0.metrics = result.metrics
              $0.notes = result.notes
            }
          }))
    }
  }

  private func finish(
    _ token: LeaseToken, _ product: ShardProduct, _ control: ShardControl
  ) async throws {
    reportResults(token)
    var digest: ContentDigest?
    if let artifact = product.artifact {
      let name = ContentDigest(of: artifact)
      try await upload(artifact, as: name, for: control)
      digest = name
    }
    guard running.removeValue(forKey: token) != nil else { return }
    report(
      .final(
        token,
        .with {
          $0.shard = .with {
            $0.token = token.value
            $0.artifact = digest?.description ?? ""
            $0.facts = product.facts
          }
        }))
    if !stopping { requestWork(1) }
  }

  private func fail(_ token: LeaseToken, _ evidence: String) {
    running[token] = nil
    logger.error(
      "shard failed", metadata: ["lease.token": "\(token)", "error": "\(evidence)"])
    report(
      .final(
        token,
        .with {
          $0.failure = .with {
            $0.token = token.value
            $0.evidence = evidence
          }
        }))
    if !stopping { requestWork(1) }
  }

  /// A shard ended because its lease did, or because the worker stops.
  private func cancelled(_ token: LeaseToken) {
    guard running.removeValue(forKey: token) != nil else { return }
    if stopping {
      report(.final(token, .with { $0.release = .with { $0.token = token.value } }))
    } else if !isOver {
      requestWork(1)
    }
    endIfDone()
  }

  private func revoke(_ token: LeaseToken, reason: String) {
    unacknowledged = unacknowledged.filter { $0.value.token != token }
    guard let control = running[token] else { return }
    logger.warning(
      "lease over, shard cancelled", metadata: ["lease.token": "\(token)", "reason": "\(reason)"])
    control.cancel()
  }

  // MARK: Reports

  private func report(_ report: Report) {
    let request = nextRequest()
    var message = report.message
    message.request = request
    switch report {
    case .trial(let token, _): unacknowledged[request] = .trial(token, message)
    case .final(let token, _): unacknowledged[request] = .final(token, message)
    }
    if isReady { send(message) }
  }

  private func acknowledged(_ acknowledgement: Biassweep_V1_Acknowledgement) {
    if acknowledgement.request == readyRequest {
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
      if let control = running[report.token] { control.cancel() }
      if case .final(let token, let message) = report, case .shard = message.body {
        fail(token, "the coordinator refused the shard's report: \(acknowledgement.message)")
      }
    case .accepted, .unspecified, .UNRECOGNIZED: break
    }
    endIfDone()
  }

  private func endIfDone() {
    if stopping && running.isEmpty && unacknowledged.isEmpty {
      isOver = true
      outgoing?.finish()
    }
  }

  // MARK: Artifacts

  private func download(_ name: String, for control: ShardControl) async throws -> [UInt8]? {
    guard !name.isEmpty else { return nil }
    return try await transferring(for: control) { service in
      let bytes = try await service.download(.with { $0.digest = name }) { response in
        var bytes: [UInt8] = []
        for try await chunk in response.messages { bytes += chunk.data }
        return bytes
      }
      guard ContentDigest(of: bytes).description == name else {
        throw RPCError(code: .dataLoss, message: "artifact \(name) arrived damaged")
      }
      return bytes
    }
  }

  private func upload(
    _ bytes: [UInt8], as digest: ContentDigest, for control: ShardControl
  ) async throws {
    let chunkBytes = 1 << 20
    _ = try await transferring(for: control) { service in
      try await service.upload(requestProducer: { writer in
        var offset = 0
        repeat {
          let end = min(offset + chunkBytes, bytes.count)
          try await writer.write(
            .with {
              if offset == 0 { $0.digest = digest.description }
              $0.data = Data(bytes[offset..<end])
            })
          offset = end
        } while offset < bytes.count
      })
    }
  }

  /// Transfers in the current session, and again in the next one if it breaks, until the shard is
  /// cancelled.
  private func transferring<Value: Sendable>(
    for control: ShardControl, _ transfer: @Sendable (Service) async throws -> Value
  ) async throws -> Value {
    var backoff = Backoff()
    var generator = SystemRandomNumberGenerator()
    while !control.isCancelled {
      if let service = currentService {
        do {
          return try await transfer(service)
        } catch let error as RPCError where SessionRefusal.isWorthRetrying(error) {
          logger.warning("transfer failed, will retry", metadata: ["error": "\(error.message)"])
        }
      }
      try await Task.sleep(for: backoff.delay(using: &generator))
    }
    throw CancellationError()
  }
}
