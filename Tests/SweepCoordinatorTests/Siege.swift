import Foundation
import GRPCCore
import GRPCNIOTransportHTTP2Posix
import Logging
import SweepCoordinator
import SweepCore
import SweepRPC
import SweepSecurity
import SweepTestKit
import SweepWorker
import Synchronization
import Testing

/// A coordinator under attack, and a good worker beside it.
struct Siege: Sendable {
  let deployment: Deployment
  let port: Int
  let recorder: LogRecorder

  /// Runs `attack` beside a coordinator, then lets a good worker finish the sweep, whose results
  /// must be those of a sweep that was left in peace: whatever the attack did was harmless.
  ///
  /// - Returns: the warnings that the coordinator logged.
  @discardableResult
  static func run(
    security: ConnectionSecurity = .plaintext, worker: ConnectionSecurity = .plaintext,
    workerName: String = "good", connectionLimits: ConnectionLimits = ConnectionLimits(),
    callLimits: CallLimits = CallLimits(), workerBytesMax: Int = 1 << 30,
    _ attack: (Siege) async throws -> Void
  ) async throws -> [String] {
    let deployment = try Deployment(seeds: 1, workerBytesMax: workerBytesMax)
    let recorder = LogRecorder()
    let listening = Signal<Int>()
    async let summary = deployment.serve(
      security: security, connectionLimits: connectionLimits, callLimits: callLimits,
      logger: recorder.logger
    ) { port, _ in listening.send(port) }
    let port = try #require(await listening.next())
    try await attack(Siege(deployment: deployment, port: port, recorder: recorder))
    try await Deployment.worker(workerName, port: port, security: worker).run()
    #expect(try await summary.trialsCompleted == deployment.plan.grid.trials.count)
    let peaceful = try await peacefulDigest()
    #expect(try deployment.reader.resultDigest() == peaceful)
    return recorder.lines
  }

  private static func peacefulDigest() async throws -> ContentDigest {
    let deployment = try Deployment(seeds: 1)
    let listening = Signal<Int>()
    async let summary = deployment.serve { port, _ in listening.send(port) }
    let port = try #require(await listening.next())
    try await Deployment.worker("peaceful", port: port).run()
    _ = try await summary
    return try deployment.reader.resultDigest()
  }

  // MARK: Clients that say what they want

  typealias Coordination = Biassweep_V1_Coordination.Client<HTTP2ClientTransport.Posix>
  typealias Control = Biassweep_V1_Control.Client<HTTP2ClientTransport.Posix>

  func withClient<Value: Sendable>(
    _ security: ConnectionSecurity = .plaintext,
    _ body: (GRPCClient<HTTP2ClientTransport.Posix>) async throws -> Value
  ) async throws -> Value {
    try await withGRPCClient(
      transport: security.clientTransport(host: "127.0.0.1", port: port)
    ) { try await body($0) }
  }

  static func hello(_ name: String) -> WorkerMessage {
    .with {
      $0.hello = Biassweep_V1_Hello(
        worker: WorkerInfo(id: name, host: name, processID: 1, slots: 1, threads: 1),
        version: "test", specDigest: nil)
    }
  }

  static let ready = WorkerMessage.with { $0.ready = .with { $0.inputs = ["model": "m"] } }

  /// Sends messages and returns the answers up to the one that `until` accepts.
  @discardableResult
  func session(
    _ messages: [WorkerMessage], security: ConnectionSecurity = .plaintext,
    until: @escaping @Sendable (CoordinatorMessage) -> Bool = { _ in false }
  ) async throws -> [CoordinatorMessage] {
    try await withClient(security) { client in
      let done = Signal<Bool>()
      var options = CallOptions.defaults
      options.waitForReady = false
      return try await Coordination(wrapping: client).session(
        options: options,
        requestProducer: { writer in
          for message in messages { try await writer.write(message) }
          _ = await done.next()
        },
        onResponse: { response in
          defer { done.send(true) }
          var answers: [CoordinatorMessage] = []
          for try await message in response.messages {
            answers += message.batch
            if message.batch.contains(where: until) { break }
          }
          return answers
        })
    }
  }
}

/// Remembers what was logged.
final class LogRecorder: Sendable {
  private let recorded = Mutex<[(level: Logger.Level, line: String)]>([])

  /// The warnings, and what is worse.
  var lines: [String] { lines(from: .warning) }

  /// - Parameter level: of the least important ones; not below `info`.
  func lines(from level: Logger.Level) -> [String] {
    recorded.withLock { $0 }.filter { $0.level >= level }.map { $0.line }
  }

  var logger: Logger { Logger(label: "siege") { _ in Handler(recorder: self) } }

  private struct Handler: LogHandler {
    let recorder: LogRecorder
    var logLevel = Logger.Level.info
    var metadata: Logger.Metadata = [:]
    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
      get { metadata[key] }
      set { metadata[key] = newValue }
    }
    func log(event: LogEvent) {
      let fields = (event.metadata ?? [:]).sorted { $0.key < $1.key }.map { "\($0)=\($1)" }
      recorder.recorded.withLock {
        $0.append((event.level, "\(event.message) \(fields.joined(separator: " "))"))
      }
    }
  }
}
