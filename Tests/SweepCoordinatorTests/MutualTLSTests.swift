import Foundation
import GRPCCore
import NIOCore
import NIOPosix
import NIOSSL
import SweepCoordinator
import SweepCore
import SweepRPC
import SweepSecurity
import SweepTestKit
import SweepWorker
import Testing

@Suite(.timeLimit(.minutes(3)))
struct MutualTLSTests {
  private let authority: CertificateAuthority

  init() throws { authority = try CertificateAuthority(days: 2, now: Date()) }

  private func credentials(
    _ role: PeerRole, _ name: String, hosts: [String] = ["127.0.0.1"], made: Date = Date(),
    by other: CertificateAuthority? = nil
  ) throws -> Credentials {
    try (other ?? authority).issue(
      PeerIdentity(role: role, name: name), hosts: role == .coordinator ? hosts : [], days: 1,
      now: made)
  }

  /// Attacks a coordinator that asks for certificates.
  @discardableResult
  private func besideCoordinator(_ attack: (Siege) async throws -> Void) async throws -> [String] {
    try await Siege.run(
      security: .mutualTLS(credentials(.coordinator, "head")),
      worker: .mutualTLS(credentials(.worker, "node1")), workerName: "node1/good", attack)
  }

  @Test func aSweepOverTLSHasTheSameResults() async throws {
    let lines = try await besideCoordinator { _ in }
    #expect(lines.isEmpty)
  }

  @Test func workersThatAreNotTrustedAreTurnedAway() async throws {
    let stranger = try CertificateAuthority(days: 2, now: Date())
    let lastWeek = Date(timeIntervalSinceNow: -7 * 86_400)
    let oldAuthority = try CertificateAuthority(days: 30, now: lastWeek)
    let lines = try await besideCoordinator { siege in
      for (name, security) in [
        ("plaintext", ConnectionSecurity.plaintext),
        ("of another authority", .mutualTLS(try credentials(.worker, "node2", by: stranger))),
        (
          "expired",
          .mutualTLS(try credentials(.worker, "node2", made: lastWeek, by: oldAuthority))
        ),
        ("an operator", .mutualTLS(try credentials(.operator, "alice"))),
        ("the coordinator", .mutualTLS(try credentials(.coordinator, "head"))),
      ] {
        await #expect(throws: RPCError.self, "\(name)") {
          try await siege.session([Siege.hello("node2/1"), Siege.ready], security: security)
        }
      }
    }
    #expect(!lines.isEmpty)
    #expect(lines.allSatisfy { $0.hasPrefix("connection refused") })
  }

  /// Waiting does not mend a certificate, so the worker ends and says what is wrong.
  @Test func aWorkerWithAWrongCertificateSaysSo() async throws {
    let stranger = try CertificateAuthority(days: 2, now: Date())
    try await besideCoordinator { siege in
      let error = await #expect(throws: WorkerError.self) {
        try await Deployment.worker(
          "node2/1", port: siege.port,
          security: .mutualTLS(try credentials(.worker, "node2", by: stranger))
        ).run()
      }
      #expect("\(String(describing: error))".contains("No trust"))
    }
  }

  /// A worker's certificate cannot pose as the coordinator's, nor a coordinator's as another host's.
  @Test func workersDoNotTrustAFalseCoordinator() async throws {
    for (role, hosts) in [(PeerRole.worker, []), (.coordinator, ["head.example.org"])] {
      let deployment = try Deployment(seeds: 1)
      let listening = Signal<(Int, Coordinator)>()
      async let summary = deployment.serve(
        security: .mutualTLS(credentials(role, "mallory", hosts: hosts))
      ) { port, coordinator in listening.send((port, coordinator)) }
      let (port, coordinator) = try #require(await listening.next())
      let error = await #expect(throws: WorkerError.self) {
        try await Deployment.worker(
          "node1/1", port: port, security: .mutualTLS(try credentials(.worker, "node1"))
        ).run()
      }
      #expect("\(String(describing: error))".contains("No trust"))
      await coordinator.suspend()
      #expect(try await summary.attempts == 0)
    }
  }

  @Test func aWorkerCannotSpeakForAnother() async throws {
    let lines = try await besideCoordinator { siege in
      let error = await #expect(throws: RPCError.self) {
        try await siege.session(
          [Siege.hello("node1/good"), Siege.ready],
          security: .mutualTLS(try credentials(.worker, "node2")))
      }
      #expect(error?.code == .permissionDenied)
    }
    #expect(lines.contains { $0.contains("node2") && $0.contains("node1/good") })
  }

  @Test func rolesDoNotMix() async throws {
    try await besideCoordinator { siege in
      let steering = await #expect(throws: RPCError.self) {
        try await siege.withClient(.mutualTLS(try credentials(.worker, "node2"))) {
          _ = try await Siege.Control(wrapping: $0).steer(.with { $0.cancelSweep = .init() })
        }
      }
      #expect(steering?.code == .permissionDenied)
      let working = await #expect(throws: RPCError.self) {
        try await siege.session(
          [Siege.hello("alice"), Siege.ready],
          security: .mutualTLS(try credentials(.operator, "alice")))
      }
      #expect(working?.code == .permissionDenied)
    }
  }

  @Test func olderTLSIsRefused() async throws {
    try await besideCoordinator { siege in
      let directory = try TemporaryDirectory()
      let file = directory.file("node1.pem")
      try credentials(.worker, "node1").write(to: file)
      var configuration = TLSConfiguration.makeClientConfiguration()
      configuration.maximumTLSVersion = .tlsv12
      configuration.certificateVerification = .none
      configuration.applicationProtocols = ["h2"]
      configuration.certificateChain = try NIOSSLCertificate.fromPEMFile(file).prefix(1)
        .map { .certificate($0) }
      configuration.privateKey = .privateKey(try NIOSSLPrivateKey(file: file, format: .pem))
      let context = try NIOSSLContext(configuration: configuration)
      let outcome = Signal<String>()
      let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
        .channelInitializer { channel in
          channel.eventLoop.makeCompletedFuture {
            try channel.pipeline.syncOperations.addHandler(
              NIOSSLClientHandler(context: context, serverHostname: nil))
            try channel.pipeline.syncOperations.addHandler(HandshakeOutcome(outcome))
          }
        }.connect(host: "127.0.0.1", port: siege.port).get()
      let ended = try #require(await outcome.next())
      #expect(ended.contains("PROTOCOL_VERSION"))
      try await channel.closeFuture.get()
    }
  }

  @Test func plaintextStaysOnThisMachine() async throws {
    let deployment = try Deployment(seeds: 1)
    let error = await #expect(throws: ServerError.self) {
      try await deployment.serve(host: "0.0.0.0") { _, _ in }
    }
    #expect("\(String(describing: error))".contains("biassweep certs init"))
  }
}

/// Says how a TLS handshake ended.
private final class HandshakeOutcome: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer
  private let outcome: Signal<String>

  init(_ outcome: Signal<String>) { self.outcome = outcome }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    outcome.send("\(event)")
    context.fireUserInboundEventTriggered(event)
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    outcome.send("\(error)")
    context.close(promise: nil)
  }

  func channelInactive(context: ChannelHandlerContext) { outcome.send("closed") }
}
