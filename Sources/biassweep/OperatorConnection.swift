import ArgumentParser
import Foundation
import GRPCCore
import GRPCNIOTransportHTTP2Posix
import SweepRPC
import SweepSecurity

/// How the commands for operators reach the coordinator.
struct OperatorConnection: ParsableArguments {
  typealias Service = Biassweep_V1_Control.Client<HTTP2ClientTransport.Posix>

  @Option(help: "The coordinator's address, HOST:PORT.")
  var coordinator = Address(host: "127.0.0.1", port: 7077)

  @OptionGroup var credentials: CredentialOptions

  @Flag(help: "Print JSON.")
  var json = false

  private static let timeout = Duration.seconds(30)

  /// - Throws: `InfrastructureError` when the coordinator does not answer, or not this operator.
  func call<Value: Sendable>(
    _ body: @Sendable (Service, CallOptions) async throws -> Value
  ) async throws -> Value {
    let transport = try credentials.security(.operator).clientTransport(
      host: coordinator.host, port: coordinator.port)
    var options = CallOptions.defaults
    options.waitForReady = false
    options.timeout = Self.timeout
    do {
      return try await withGRPCClient(transport: transport) { client in
        try await body(Service(wrapping: client), options)
      }
    } catch let error as RPCError {
      let address = "\(coordinator.host):\(coordinator.port)"
      if let problem = certificateProblem(in: error) {
        throw InfrastructureError(
          description: "No trust between this program and the coordinator at \(address): "
            + "\(problem).")
      }
      guard error.code == .unavailable else {
        throw InfrastructureError(
          description: "The coordinator at \(address) refused: \(error.message).")
      }
      throw InfrastructureError(
        description: "No coordinator answers at \(address) (\(error.message)). `biassweep "
          + "coordinator` prints where it listens; name it with --coordinator.")
    }
  }

  /// Asks for something, and waits until it is durable.
  ///
  /// - Throws: `UsageError` with the coordinator's reason if it makes no sense.
  func steer(_ actions: [Biassweep_V1_SteerRequest]) async throws {
    // A client that is closed before it has connected fails.
    let replies: [Biassweep_V1_SteerReply] =
      actions.isEmpty
      ? []
      : try await call { service, options in
        var replies: [Biassweep_V1_SteerReply] = []
        for action in actions { replies.append(try await service.steer(action, options: options)) }
        return replies
      }
    let refusals = replies.filter { !$0.accepted }.map(\.message)
    if json {
      try Console.output(
        json: SteerOutput(accepted: replies.count - refusals.count, refused: refusals))
    }
    if !refusals.isEmpty {
      throw UsageError(description: "Not done: \(refusals.joined(separator: "; "))")
    }
    if !json { Console.output(actions.isEmpty ? "nothing to do" : "done") }
  }

  private struct SteerOutput: Encodable {
    let accepted: Int
    let refused: [String]
  }
}
