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
    let cases: [(name: String, security: ConnectionSecurity, logged: String)] = [
      ("plaintext", .plaintext, "WRONG_VERSION_NUMBER"),
      (
        // It does not know the coordinator's authority either, and is the first to say so.
        "of another authority", .mutualTLS(try credentials(.worker, "node2", by: stranger)),
        "UNKNOWN_CA"
      ),
      (
        "expired", .mutualTLS(try credentials(.worker, "node2", made: lastWeek)),
        "CERTIFICATE_VERIFY_FAILED"
      ),
      (
        "an operator", .mutualTLS(try credentials(.operator, "alice")),
        "needs worker credentials, and those of alice are for the role operator"
      ),
      (
        "the coordinator", .mutualTLS(try credentials(.coordinator, "head")),
        "CERTIFICATE_VERIFY_FAILED"
      ),
    ]
    for (name, security, logged) in cases {
      let lines = try await besideCoordinator { siege in
        await #expect(throws: RPCError.self, "\(name)") {
          try await siege.session([Siege.hello("node2/1"), Siege.ready], security: security)
        }
      }
      #expect(lines.contains { $0.contains(logged) }, "\(name): \(lines)")
      #expect(lines.allSatisfy { $0.hasPrefix("connection refused") }, "\(name): \(lines)")
    }
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

  /// An upload names the lease that it belongs to, and the caller must be its holder.
  @Test func aWorkerCannotUploadForAnother() async throws {
    let lines = try await besideCoordinator { siege in
      for worker in ["node1/good", "node1", "node22", ""] {
        let holder = Biassweep_V1_LeaseHolder.with {
          $0.worker = worker
          $0.token = 1
        }
        let digest = ContentDigest(of: "false".utf8).description
        try await siege.withClient(.mutualTLS(credentials(.worker, "node2"))) { client in
          let service = Siege.Coordination(wrapping: client)
          let upload = await #expect(throws: RPCError.self) {
            _ = try await service.upload(requestProducer: { writer in
              try await writer.write(
                .with {
                  $0.digest = digest
                  $0.bytes = 5
                  $0.checkpointOf = holder
                  $0.data = Data("false".utf8)
                })
            })
          }
          #expect(upload?.code == .permissionDenied, "\(worker)")
          let position = await #expect(throws: RPCError.self) {
            _ = try await service.uploadPosition(
              .with {
                $0.digest = digest
                $0.checkpointOf = holder
              })
          }
          #expect(position?.code == .permissionDenied, "\(worker)")
        }
      }
    }
    #expect(lines.count == 8 && lines.allSatisfy { $0.contains("does not allow to speak for") })
  }

  /// A coordinator whose certificate is renewed shows the new one, and asks for those of the new
  /// authority, without being started again; who is connected stays so.
  @Test func credentialsAreRenewedWhileItRuns() async throws {
    let successor = try CertificateAuthority(days: 2, now: Date())
    let deployment = try Deployment(seeds: 1)
    let listening = Signal<Int>()
    let serving = Signal<CoordinatorServer>()
    let started = Signal<Bool>()
    let gate = Gate()
    async let summary = deployment.serve(
      security: .mutualTLS(credentials(.coordinator, "head")), onServing: { serving.send($0) }
    ) { port, _ in listening.send(port) }
    let port = try #require(await listening.next())
    let server = try #require(await serving.next())
    let before = Task {
      try await Deployment.worker(
        "node1/1", port: port, security: .mutualTLS(credentials(.worker, "node1"))
      ) { assignment, control in
        started.send(true)
        gate.wait()
        return try Deployment.compute(assignment, control)
      }.run()
    }
    _ = await started.next()
    #expect(throws: CredentialError.otherSecurity) { try server.renew(.plaintext) }
    try server.renew(.mutualTLS(credentials(.coordinator, "head", by: successor)))
    let late = await #expect(throws: WorkerError.self) {
      try await Deployment.worker(
        "node2/1", port: port, security: .mutualTLS(credentials(.worker, "node2"))
      ).run()
    }
    #expect("\(String(describing: late))".contains("No trust"))
    let renewed = Deployment.worker(
      "node3/1", port: port, security: .mutualTLS(try credentials(.worker, "node3")))
    await renewed.renew(.mutualTLS(try credentials(.worker, "node3", by: successor)))
    gate.open(1000)
    try await renewed.run()
    try await before.value
    #expect(try await summary.trialsCompleted == deployment.plan.grid.trials.count)
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

  /// Nobody can talk a worker down to an older version either.
  @Test func aCoordinatorWithOlderTLSIsRefused() async throws {
    let directory = try TemporaryDirectory()
    let file = directory.file("head.pem")
    try credentials(.coordinator, "head").write(to: file)
    var configuration = TLSConfiguration.makeServerConfiguration(
      certificateChain: try NIOSSLCertificate.fromPEMFile(file).prefix(1)
        .map { .certificate($0) },
      privateKey: .privateKey(try NIOSSLPrivateKey(file: file, format: .pem)))
    configuration.maximumTLSVersion = .tlsv12
    configuration.applicationProtocols = ["h2"]
    let context = try NIOSSLContext(configuration: configuration)
    let outcome = Signal<String>()
    let server = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
      .childChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: context))
          try channel.pipeline.syncOperations.addHandler(HandshakeOutcome(outcome))
        }
      }.bind(host: "127.0.0.1", port: 0).get()
    let siege = Siege(
      deployment: try Deployment(seeds: 1), port: try #require(server.localAddress?.port),
      recorder: LogRecorder())
    await #expect(throws: RPCError.self) {
      try await siege.session(
        [Siege.hello("node1/1")], security: .mutualTLS(try credentials(.worker, "node1")))
    }
    let ended = try #require(await outcome.next())
    #expect(ended.contains("UNSUPPORTED_PROTOCOL"))
    try await server.close()
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
