import GRPCCore
import GRPCNIOTransportHTTP2Posix
import Logging
import SweepCore
import SweepLedger
import SweepSecurity

/// Serves a coordinator over gRPC on TCP until its sweep ends.
package struct CoordinatorServer: Sendable {
  package let coordinator: Coordinator
  private let artifacts: ArtifactStore
  private let inputs: InputCatalogue
  private let host: String
  private let port: Int
  private let security: RenewableSecurity
  private let connectionLimits: ConnectionLimits
  private let callLimits: CallLimits
  private let logger: Logger

  /// - Parameters:
  ///   - inputs: what workers may ask for besides artifacts.
  ///   - host: address to listen on.
  ///   - port: 0 for any free port.
  ///   - security: plaintext is refused on any but the loopback address.
  ///   - logger: hears of connections and calls that are refused.
  /// - Throws: what the TLS library says about the credentials.
  package init(
    coordinator: Coordinator, artifacts: ArtifactStore, inputs: InputCatalogue = .empty,
    host: String, port: Int, security: ConnectionSecurity = .plaintext,
    connectionLimits: ConnectionLimits = ConnectionLimits(), callLimits: CallLimits = CallLimits(),
    logger: Logger = Logger(label: "biassweep.server")
  ) throws {
    self.coordinator = coordinator
    self.artifacts = artifacts
    self.inputs = inputs
    self.host = host
    self.port = port
    self.security = try RenewableSecurity(security)
    self.connectionLimits = connectionLimits
    self.callLimits = callLimits
    self.logger = logger
  }

  /// Shows other credentials of the same kind to peers that connect from now on.
  ///
  /// - Throws: what is wrong with them; then all stays as it was.
  package func renew(_ security: ConnectionSecurity) throws { try self.security.renew(security) }

  /// - Parameter listening: called once with the port.
  /// - Returns: where the sweep stood at its end.
  /// - Throws: `ServerError`, or the `LedgerError` that ended the sweep.
  package func run(
    listening: @escaping @Sendable (_ port: Int) async throws -> Void
  ) async throws -> SweepSummary {
    if !security.isAuthenticated, !ConnectionSecurity.isLoopback(host) {
      throw ServerError.plaintextOffLoopback(host: host)
    }
    let listener = SecureListener(
      host: host, port: port, security: security, limits: connectionLimits, logger: logger)
    let transport = HTTP2ServerTransport.Custom(
      listenerFactory: listener, config: transportConfiguration(of: listener))
    let server = GRPCServer(
      transport: transport,
      services: [
        CoordinationService(
          coordinator: coordinator, artifacts: artifacts, inputs: inputs, peers: listener.peers,
          limits: callLimits),
        ControlService(coordinator: coordinator),
      ],
      interceptors: [CallGuard(peers: listener.peers, logger: logger, limits: callLimits)])

    return try await withThrowingTaskGroup(of: SweepSummary?.self) { group in
      group.addTask {
        do {
          try await server.serve()
        } catch {
          throw ServerError.cannotListen(host: host, port: port, detail: "\(error)")
        }
        return nil
      }
      group.addTask {
        let used = await coordinator.artifactsInUse
        let missing = used.filter { !artifacts.contains($0) }
        if let example = missing.map(\.description).min() {
          // What completed shards made is not made again, and some of it may never be asked for.
          logger.error(
            "artifacts missing, shards that need them will fail",
            metadata: [
              "count": "\(missing.count)", "directory": "\(artifacts.directory.path)",
              "example": "\(example)",
            ])
        }
        let unclaimed = try artifacts.retain(used)
        if unclaimed.count > 0 {
          logger.info(
            "artifacts of no completed shard are kept for a day",
            metadata: ["count": "\(unclaimed.count)", "bytes": "\(unclaimed.bytes)"])
        }
        // Nil if the server could not listen, which the other task reports.
        guard let address = await transport.listeningAddress else { return nil }
        try await listening(address.ipv4?.port ?? address.ipv6?.port ?? port)
        return try await coordinator.run()
      }
      defer { group.cancelAll() }
      var ended: SweepSummary?
      while let result = try await group.next() {
        if let summary = result {
          // Lets the last messages (goodbye) leave before the connections close, but does not wait
          // for workers that are gone.
          ended = summary
          server.beginGracefulShutdown()
          group.addTask {
            try await Task.sleep(for: .seconds(2))
            return nil
          }
        } else if let ended {
          return ended
        }
      }
      throw CancellationError()
    }
  }

  private func transportConfiguration(
    of listener: SecureListener
  ) -> HTTP2ServerTransport.Custom<SecureListener>.Config {
    var configuration = HTTP2ServerTransport.Custom<SecureListener>.Config.defaults
    // A peer that vanished without a word is noticed by unanswered pings.
    configuration.connection.keepalive.time = .seconds(5)
    configuration.connection.keepalive.timeout = .seconds(5)
    configuration.connection.keepalive.clientBehavior.minPingIntervalWithoutCalls = .seconds(1)
    configuration.connection.keepalive.clientBehavior.allowWithoutCalls = true
    // A connection on which nobody calls anything is of no use.
    configuration.connection.maxIdleTime = .seconds(60)
    configuration.connection.maxGraceTime = .seconds(10)
    configuration.http2.maxConcurrentStreams = callLimits.callsMax
    // The transport's own limit is left for what compressed messages become.
    configuration.rpc.maxRequestPayloadSize = callLimits.messageBytesMax
    configuration.channelDebuggingCallbacks = listener.limitingMessages(
      to: callLimits.messageBytesMax)
    return configuration
  }
}

package enum ServerError: Error, Sendable, CustomStringConvertible {
  case cannotListen(host: String, port: Int, detail: String)
  /// Others could read along, and report results.
  case plaintextOffLoopback(host: String)

  package var description: String {
    switch self {
    case .cannotListen(let host, let port, let detail):
      "Cannot listen on \(host):\(port): \(detail). If another program uses the port, choose one "
        + "with --port (0 takes any free one)."
    case .plaintextOffLoopback(let host):
      "Without credentials the coordinator listens on the loopback address alone, because anybody "
        + "who reaches \(host) could read along and report results. Make credentials with "
        + "`biassweep certs init` and name the coordinator's with --credentials."
    }
  }
}
