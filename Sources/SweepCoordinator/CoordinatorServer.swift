import GRPCCore
import GRPCNIOTransportHTTP2Posix
import SweepCore
import SweepLedger

/// Serves a coordinator over gRPC on TCP until its sweep ends.
package struct CoordinatorServer: Sendable {
  package let coordinator: Coordinator
  private let artifacts: ArtifactStore
  private let inputs: InputCatalogue
  private let host: String
  private let port: Int

  /// - Parameters:
  ///   - inputs: what workers may ask for besides artifacts.
  ///   - host: IPv4 address to listen on.
  ///   - port: 0 for any free port.
  package init(
    coordinator: Coordinator, artifacts: ArtifactStore, inputs: InputCatalogue = .empty,
    host: String,
    port: Int
  ) {
    self.coordinator = coordinator
    self.artifacts = artifacts
    self.inputs = inputs
    self.host = host
    self.port = port
  }

  /// - Parameter listening: called once with the port.
  /// - Returns: where the sweep stood at its end.
  /// - Throws: `ServerError.cannotListen`, or the `LedgerError` that ended the sweep.
  package func run(
    listening: @escaping @Sendable (_ port: Int) async throws -> Void
  ) async throws -> SweepSummary {
    var configuration = HTTP2ServerTransport.Posix.Config.defaults
    // A peer that vanished without a word is noticed by unanswered pings.
    configuration.connection.keepalive.time = .seconds(5)
    configuration.connection.keepalive.timeout = .seconds(5)
    configuration.connection.keepalive.clientBehavior.minPingIntervalWithoutCalls = .seconds(1)
    configuration.connection.keepalive.clientBehavior.allowWithoutCalls = true
    let transport = HTTP2ServerTransport.Posix(
      address: .ipv4(host: host, port: port), transportSecurity: .plaintext,
      config: configuration)
    let server = GRPCServer(
      transport: transport,
      services: [
        CoordinationService(coordinator: coordinator, artifacts: artifacts, inputs: inputs)
      ])

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
        let address = try await transport.listeningAddress
        try await listening(address.ipv4?.port ?? port)
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
}

package enum ServerError: Error, Sendable, CustomStringConvertible {
  case cannotListen(host: String, port: Int, detail: String)

  package var description: String {
    switch self {
    case .cannotListen(let host, let port, let detail):
      "Cannot listen on \(host):\(port): \(detail). If another program uses the port, choose one "
        + "with --port (0 takes any free one)."
    }
  }
}
