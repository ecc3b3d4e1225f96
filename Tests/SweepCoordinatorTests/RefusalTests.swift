import Foundation
import GRPCCore
import GRPCNIOTransportHTTP2Posix
import SweepCoordinator
import SweepCore
import SweepLedger
import SweepRPC
import SweepWorker
import Testing

@Suite(.timeLimit(.minutes(2)))
struct RefusalTests {
  private typealias Service = Biassweep_V1_Coordination.Client<HTTP2ClientTransport.Posix>

  /// Runs `body` beside a coordinator, then lets a good worker finish the sweep: whatever `body`
  /// did must have been harmless.
  private func besideCoordinator(_ body: (Int, Deployment) async throws -> Void) async throws {
    let deployment = try Deployment(seeds: 1)
    let listening = Signal<Int>()
    async let summary = deployment.serve { port, _ in listening.send(port) }
    let port = try #require(await listening.next())
    try await body(port, deployment)
    try await Deployment.worker("good", port: port).run()
    #expect(try await summary.trialsCompleted == deployment.plan.grid.trials.count)
  }

  @Test func otherVersionIsRefused() async throws {
    try await besideCoordinator { port, _ in
      let error = await #expect(throws: WorkerError.self) {
        try await Deployment.worker("old", port: port, version: "0.0.1").run()
      }
      #expect("\(String(describing: error))".contains("0.0.1"))
    }
  }

  /// A worker that comes back says which sweep it works for. All who belong get the same welcome.
  @Test func otherSweepIsRefused() async throws {
    try await besideCoordinator { port, deployment in
      func greeting(_ digest: ContentDigest) -> WorkerMessage {
        .with {
          $0.hello = Biassweep_V1_Hello(
            worker: WorkerInfo(id: "returned", host: "h", processID: 1, slots: 1, threads: 1),
            version: "test", specDigest: digest)
        }
      }
      let error = await #expect(throws: RPCError.self) {
        try await session(port: port, [greeting(ContentDigest(of: [1]))])
      }
      #expect(error?.code == .failedPrecondition)
      #expect("\(String(describing: error))".contains("another sweep"))

      let spec = deployment.definition.spec
      let digest = try spec.digest()
      for _ in 1...2 {
        let answers = try await session(port: port, [greeting(digest)]) { _ in true }
        #expect(answers.first?.welcome.specDigest == digest.description)
        #expect(try answers.first?.welcome.spec == spec.canonicalJSON())
      }
    }
  }

  @Test func otherInputsAreRefused() async throws {
    let deployment = try Deployment(seeds: 1)
    let listening = Signal<Int>()
    let started = Signal<Bool>()
    let gate = Gate()
    let recorder = LogRecorder()
    async let summary = deployment.serve(logger: recorder.logger) { port, _ in
      listening.send(port)
    }
    let port = try #require(await listening.next())
    let good = Task {
      try await Deployment.worker("good", port: port) { assignment, control in
        started.send(true)
        gate.wait()
        return try Deployment.compute(assignment, control)
      }.run()
    }
    _ = await started.next()
    let error = await #expect(throws: WorkerError.self) {
      try await Deployment.worker("other", port: port, inputs: ["model": "another"]).run()
    }
    #expect("\(String(describing: error))".contains("another"))
    #expect(
      recorder.lines.contains {
        $0.hasPrefix("report refused command=ready reason=worker other on other has other inputs")
          && $0.hasSuffix("worker.id=other")
      }, "\(recorder.lines)")
    gate.open(100)
    try await good.value
    #expect(try await summary.trialsCompleted == deployment.plan.grid.trials.count)
  }

  @Test func garbageBytesAreHarmless() async throws {
    try await besideCoordinator { port, _ in
      for seed in 0..<8 {
        let socket = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(socket) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        let connected = withUnsafePointer(to: &address) {
          $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            connect(socket, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
          }
        }
        #expect(connected == 0)
        let bytes = (0..<4096).map { UInt8(truncatingIfNeeded: ($0 &* 31 &+ seed) ^ ($0 >> 3)) }
        _ = send(socket, bytes, bytes.count, Int32(MSG_NOSIGNAL))
      }
    }
  }

  @Test func sessionWithoutHelloIsRefused() async throws {
    try await besideCoordinator { port, _ in
      let error = await #expect(throws: RPCError.self) {
        try await session(port: port, [.with { $0.workRequest = .with { $0.slots = 4 } }])
      }
      #expect(error?.code == .invalidArgument)
    }
  }

  @Test func reportUnderAnotherWorkersLeaseIsStale() async throws {
    let deployment = try Deployment(seeds: 1)
    let listening = Signal<Int>()
    let started = Signal<UInt64>()
    let gate = Gate()
    let recorder = LogRecorder()
    async let summary = deployment.serve(logger: recorder.logger) { port, _ in
      listening.send(port)
    }
    let port = try #require(await listening.next())
    let good = Task {
      try await Deployment.worker("good", port: port) { assignment, control in
        started.send(assignment.token.value)
        gate.wait()
        return try Deployment.compute(assignment, control)
      }.run()
    }
    let token = try #require(await started.next())
    let forged = deployment.plan.grid.trials[0].id.description
    let answers = try await session(
      port: port,
      [
        hello("forger"), .with { $0.ready = .with { $0.inputs = ["model": "m"] } },
        .with {
          $0.request = 7
          $0.trial = .with {
            $0.token = token
            $0.trial = forged
            $0.metrics = ["accuracy": 1e9]
          }
        },
      ], until: { $0.acknowledgement.request == 7 })
    #expect(answers.last?.acknowledgement.outcome == .stale)
    #expect(
      recorder.lines == [
        "report stale command=trial lease.token=\(token) reason=the lease was given to good "
          + "worker.id=forger"
      ])
    gate.open(100)
    try await good.value
    #expect(try await summary.trialsCompleted == deployment.plan.grid.trials.count)
    #expect(try deployment.reader.trialResults().allSatisfy { $0.value <= 1 })
  }

  @Test func artifactsAreCheckedAndStayInTheirDirectory() async throws {
    try await besideCoordinator { port, deployment in
      let digest = ContentDigest(of: "right".utf8)
      for (name, bytes, code) in [
        (digest.description, "wrong", RPCError.Code.dataLoss),
        ("../../escape", "x", .invalidArgument), ("", "x", .invalidArgument),
      ] {
        let error = await #expect(throws: RPCError.self) {
          try await upload(port: port, name: name, bytes: bytes)
        }
        #expect(error?.code == code)
      }
      try await upload(port: port, name: digest.description, bytes: "right")
      #expect(try deployment.artifacts.read(digest) == Data("right".utf8))
      let files = try FileManager.default.contentsOfDirectory(
        atPath: deployment.artifacts.directory.path)
      #expect(files == [digest.description])
    }
  }

  @Test func damagedArtifactIsNotHandedOut() throws {
    let deployment = try Deployment(seeds: 1)
    let store = try deployment.artifacts
    let digest = ContentDigest(of: "good".utf8)
    let upload = try store.upload(digest)
    try upload.append(Data("good".utf8))
    #expect(try upload.finish() == 4)
    try Data("evil".utf8).write(to: store.url(for: digest))
    #expect(throws: SessionRefusal.self) { try store.read(digest) }
  }

  // MARK: Raw clients

  private func hello(_ name: String) -> WorkerMessage {
    .with {
      $0.hello = Biassweep_V1_Hello(
        worker: WorkerInfo(id: name, host: name, processID: 1, slots: 1, threads: 1),
        version: "test", specDigest: nil)
    }
  }

  private func withService<Value: Sendable>(
    port: Int, _ body: (Service) async throws -> Value
  ) async throws -> Value {
    try await withGRPCClient(
      transport: .http2NIOPosix(
        target: .ipv4(address: "127.0.0.1", port: port), transportSecurity: .plaintext)
    ) { try await body(Service(wrapping: $0)) }
  }

  /// Sends messages and returns the answers up to the one that `until` accepts.
  @discardableResult
  private func session(
    port: Int, _ messages: [WorkerMessage],
    until: @escaping @Sendable (CoordinatorMessage) -> Bool = { _ in false }
  ) async throws -> [CoordinatorMessage] {
    try await withService(port: port) { service in
      let done = Signal<Bool>()
      return try await service.session(
        requestProducer: { writer in
          for message in messages { try await writer.write(message) }
          _ = await done.next()
        },
        onResponse: { response in
          defer { done.send(true) }
          var answers: [CoordinatorMessage] = []
          for try await message in response.messages {
            for answer in message.batch {
              answers.append(answer)
              if until(answer) { return answers }
            }
          }
          return answers
        })
    }
  }

  private func upload(port: Int, name: String, bytes: String) async throws {
    _ = try await withService(port: port) { service in
      try await service.upload(requestProducer: { writer in
        try await writer.write(
          .with {
            $0.digest = name
            $0.data = Data(bytes.utf8)
          })
      })
    }
  }
}
