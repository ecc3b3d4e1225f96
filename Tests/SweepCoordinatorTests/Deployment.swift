import Foundation
import Logging
import SweepCoordinator
import SweepCore
import SweepLedger
import SweepSecurity
import SweepSimulation
import SweepWorker
import Synchronization

/// A coordinator and workers of one test: real TCP on loopback, a real ledger in a temporary
/// directory, shards that compute something small.
final class Deployment: Sendable {
  let directory: URL
  let definition: SweepDefinition
  let ledgerPath: String
  private let checkpointBytesMax: Int
  private let workerBytesMax: Int
  private let checkpoints = Mutex<CheckpointStore?>(nil)

  init(
    seeds: Int = 4, biases: [BiasType] = [.contextualSingleExplicit],
    checkpointBytesMax: Int = 1 << 30, workerBytesMax: Int = 1 << 30, stragglerFactor: String = "0"
  ) throws {
    self.checkpointBytesMax = checkpointBytesMax
    self.workerBytesMax = workerBytesMax
    directory = FileManager.default.temporaryDirectory
      .appendingPathComponent("biassweep-test-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    ledgerPath = directory.appendingPathComponent("sweep.ledger").path
    let nowhere = SpecPosition(line: 0, column: 0)
    func scalar(_ text: String) -> SpecNode { .scalar(text, nowhere) }
    func entry(_ key: String, _ value: SpecNode) -> SpecEntry {
      SpecEntry(key: key, keyPosition: nowhere, value: value)
    }
    func list(_ key: String, _ values: [String]) -> SpecEntry {
      entry(key, .sequence(values.map(scalar), nowhere))
    }
    definition = try SweepDefinition(
      document: .mapping(
        [
          entry("name", scalar("test")), list("tasks", ["occupation", "story"]),
          list("biases", biases.map(\.rawValue)), list("ratios", ["0", "0.5"]),
          list("mitigations", ["none", "mask"]), list("seeds", (1...seeds).map(String.init)),
          entry(
            "execution",
            .mapping(
              [
                entry("disconnect_grace_seconds", scalar("0.05")),
                entry("heartbeat_seconds", scalar("0.1")), entry("lease_seconds", scalar("20")),
                entry("retry_backoff_seconds", scalar("0.05")),
                entry("straggler_factor", scalar(stragglerFactor)),
              ], nowhere)),
        ], nowhere), catalogue: .sample)
  }

  deinit {
    // A left-over directory harms nobody.
    try? FileManager.default.removeItem(at: directory)
  }

  var plan: ShardPlan { definition.plan }
  var reader: LedgerReader { get throws { try LedgerReader(path: ledgerPath) } }
  var artifacts: ArtifactStore {
    get throws { try ArtifactStore(directory: directory.appendingPathComponent("artifacts")) }
  }

  var checkpointDirectory: String { directory.appendingPathComponent("checkpoints").path }
  /// The checkpoints of the coordinator that serves, or did.
  var openCheckpoints: CheckpointStore? { checkpoints.withLock { $0 } }

  /// Serves the sweep. `onListening` gets the port, `logger` what coordinator and server log.
  func serve(
    host: String = "127.0.0.1", port: Int = 0, keepLeases: Bool = true,
    inputs: InputCatalogue = .empty, security: ConnectionSecurity = .plaintext,
    connectionLimits: ConnectionLimits = ConnectionLimits(), callLimits: CallLimits = CallLimits(),
    unsavedEventsMin: Int = 10_000,
    logger: Logger = Deployment.logger,
    onServing: @Sendable (CoordinatorServer) -> Void = { _ in },
    onListening: @escaping @Sendable (Int, Coordinator) async throws -> Void
  ) async throws -> SweepSummary {
    let ledger = try Ledger(
      path: ledgerPath, spec: definition.spec, plan: plan, version: "test", now: 0)
    let store = try CheckpointStore(
      directory: URL(fileURLWithPath: checkpointDirectory), bytesMax: checkpointBytesMax)
    checkpoints.withLock { $0 = store }
    let coordinator = try Coordinator(
      definition: definition, plan: plan, ledger: ledger, checkpoints: store,
      workerBytesMax: workerBytesMax, version: "test", keepLeases: keepLeases,
      unsavedEventsMin: unsavedEventsMin, logger: logger)
    let server = try CoordinatorServer(
      coordinator: coordinator, artifacts: try artifacts, inputs: inputs, host: host, port: port,
      security: security, connectionLimits: connectionLimits, callLimits: callLimits,
      logger: logger)
    onServing(server)
    let summary = try await server.run { try await onListening($0, coordinator) }
    try ledger.close()
    return summary
  }

  static var logger: Logger {
    var logger = Logger(label: "test") { StreamLogHandler.standardError(label: $0) }
    logger.logLevel = .critical
    return logger
  }

  /// A worker that computes its metrics from the trial alone, so that any run of the sweep must
  /// give the same results.
  static func worker(
    _ name: String, port: Int, slots: Int = 1, security: ConnectionSecurity = .plaintext,
    version: String = "test", inputs: [String: String] = ["model": "m"],
    checkpoints: CheckpointPlace? = nil, patience: Duration = .seconds(20),
    lifetime: Duration? = nil,
    execute: (@Sendable (ShardAssignment, ShardControl) throws -> ShardProduct)? = nil,
    prepare: (@Sendable (SweepSpec, InputSource) throws -> [String: String])? = nil,
    now: @escaping @Sendable () -> SuspendingClock.Instant = { .now }
  ) -> Worker {
    Worker(
      info: WorkerInfo(id: name, host: name, processID: 1, slots: slots, threads: 1),
      host: "127.0.0.1", port: port, security: security, version: version,
      executor: ShardExecutor(
        prepare: prepare ?? { _, _ in inputs }, execute: execute ?? compute),
      checkpoints: checkpoints, patience: patience, lifetime: lifetime, logger: logger,
      now: now)
  }

  /// What an undisturbed shard does.
  @Sendable static func compute(
    _ assignment: ShardAssignment, _ control: ShardControl
  ) throws -> ShardProduct {
    switch assignment.shard.work {
    case .augmentation(let key, let items):
      return ShardProduct(
        artifact: Array("\(key.domain) \(key.bias) \(items)".utf8), facts: ["items": Double(items)])
    case .fineTune(let key, _):
      // The product of the dependency must have arrived whole.
      if let augmentation = key.augmentation {
        let text = String(decoding: assignment.input ?? [], as: UTF8.self)
        guard text.hasPrefix("\(augmentation.domain) \(augmentation.bias) ") else {
          throw WrongInput(found: text)
        }
      }
      for (index, trial) in assignment.trials.enumerated() {
        if control.isCancelled { throw CancellationError() }
        let digest = ContentDigest(of: trial.id.description.utf8).description
        let value = Double(UInt64(digest.prefix(12), radix: 16) ?? 0) / 0x1p48
        control.complete(trial.id, metrics: ["accuracy": value], notes: ["gap": "too few items"])
        control.report(fraction: Double(index + 1) / Double(assignment.trials.count), tokens: 10)
      }
      return ShardProduct(facts: ["loss": 0.5])
    }
  }

  struct WrongInput: Error {
    let found: String
  }
}

/// A door that shards of a test wait at.
final class Gate: Sendable {
  private let condition = DispatchSemaphore(value: 0)
  /// Lets `count` shards pass.
  func open(_ count: Int = 1) { for _ in 0..<count { condition.signal() } }
  func wait() { condition.wait() }
  func wait(atMost seconds: Double) { _ = condition.wait(timeout: .now() + seconds) }
}

/// Counts, from any thread.
final class Counter: Sendable {
  private let count = Mutex(0)
  var value: Int { count.withLock { $0 } }
  /// - Returns: the count after it grew.
  @discardableResult
  func increment() -> Int {
    count.withLock {
      $0 += 1
      return $0
    }
  }
}

/// Waits for something that another task will say once.
final class Signal<Value: Sendable>: Sendable {
  private let (stream, continuation) = AsyncStream.makeStream(of: Value.self)
  func send(_ value: Value) { continuation.yield(value) }
  func next() async -> Value? {
    for await value in stream { return value }
    return nil
  }
}
