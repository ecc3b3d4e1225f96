import Foundation
import GRPCCore
import SweepCoordinator
import SweepCore
import SweepRPC
import SweepSecurity
import SweepSimulation
import SweepTestKit
import SweepWorker
import Testing

/// What strangers and broken or lying workers can do: nothing.
@Suite(.timeLimit(.minutes(3)))
struct HostileClientTests {
  @Test func garbageIsRefusedAtOnce() async throws {
    let lines = try await Siege.run { siege in
      for seed in 0..<20 {
        var random = SeededGenerator(seed: UInt64(seed))
        let connection = try RawConnection(port: siege.port)
        // Half of them begin well.
        if seed % 2 == 0 { connection.send(RawConnection.preface) }
        connection.send((0..<4096).map { _ in UInt8(random.integer(0...255)) })
        _ = await connection.readToEnd()
      }
    }
    #expect(lines.contains { $0.contains("does not speak HTTP/2") })
  }

  @Test func whoSaysNothingInTimeIsDisconnected() async throws {
    var limits = ConnectionLimits()
    limits.proofTime = .milliseconds(200)
    let lines = try await Siege.run(connectionLimits: limits) { siege in
      let silent = try RawConnection(port: siege.port)
      let slow = try RawConnection(port: siege.port)
      slow.send(Array(RawConnection.preface.prefix(20)))
      _ = await silent.readToEnd()
      _ = await slow.readToEnd()
    }
    #expect(lines.count { $0.contains("too slow") } >= 2)
  }

  @Test func aSessionThatNeverSaysHelloEnds() async throws {
    var limits = CallLimits()
    limits.firstMessage = .milliseconds(200)
    try await Siege.run(callLimits: limits) { siege in
      let error = await #expect(throws: RPCError.self) { try await siege.session([]) }
      #expect(error?.code == .deadlineExceeded)
    }
  }

  @Test func anUploadThatStopsEnds() async throws {
    var limits = CallLimits()
    limits.nextMessage = .milliseconds(200)
    try await Siege.run(callLimits: limits) { siege in
      let never = Signal<Bool>()
      let error = await #expect(throws: RPCError.self) {
        try await siege.withClient { client in
          _ = try await Siege.Coordination(wrapping: client).upload(requestProducer: { writer in
            try await writer.write(
              .with {
                $0.digest = ContentDigest(of: "x".utf8).description
                $0.data = Data("y".utf8)
              })
            _ = await never.next()
          })
        }
      }
      #expect(error?.code == .deadlineExceeded)
      let directory = try siege.deployment.artifacts.directory.path
      let left = try FileManager.default.contentsOfDirectory(atPath: directory)
      #expect(left.filter { !$0.hasSuffix(".partial") }.isEmpty)
    }
  }

  /// Strangers fill all the places that they can get; the worker gets one none the less.
  @Test func aFloodOfConnectionsLeavesRoomForWorkers() async throws {
    var limits = ConnectionLimits()
    limits.unprovenPerAddressMax = 4
    limits.proofTime = .milliseconds(500)
    let lines = try await Siege.run(connectionLimits: limits) { siege in
      let flood = try (0..<40).map { _ in try RawConnection(port: siege.port) }
      for connection in flood.suffix(8) { _ = await connection.readToEnd() }
    }
    #expect(lines.contains { $0.contains("4 connections from this address") })
  }

  @Test func oversizeMessagesAreRefused() async throws {
    let lines = try await Siege.run { siege in
      let error = await #expect(throws: RPCError.self) {
        try await siege.session([
          Siege.hello("big"), Siege.ready,
          .with {
            $0.request = 3
            $0.failure = .with { $0.evidence = String(repeating: "x", count: 3 << 20) }
          },
        ])
      }
      #expect(error?.code == .resourceExhausted)
      #expect(error?.message.contains("2097152 are allowed") == true)
      // Before any answer too, and for calls with one answer.
      let first = await #expect(throws: RPCError.self) {
        try await siege.session([Siege.hello(String(repeating: "x", count: 3 << 20))])
      }
      #expect(first?.code == .resourceExhausted)
      let unary = await #expect(throws: RPCError.self) {
        try await siege.withClient { client in
          _ = try await Siege.Coordination(wrapping: client).uploadPosition(
            .with { $0.digest = String(repeating: "x", count: 3 << 20) })
        }
      }
      #expect(unary?.code == .resourceExhausted)
    }
    #expect(lines.count { $0.contains("bytes, 2097152 are allowed") } == 3, "\(lines)")
  }

  /// No worker can fill the coordinator's disk with products of shards that are never completed.
  @Test func uploadsThatNothingAccountsForAreLimited() async throws {
    let lines = try await Siege.run(workerBytesMax: 5 << 20) { siege in
      try await siege.withClient { client in
        let service = Siege.Coordination(wrapping: client)
        @Sendable func upload(_ number: UInt8) async throws {
          let data = Data(repeating: number, count: 1 << 20)
          _ = try await service.upload(requestProducer: { writer in
            for part in 0..<2 {
              try await writer.write(
                .with {
                  if part == 0 { $0.digest = ContentDigest(of: data + data).description }
                  $0.data = data
                })
            }
          })
        }
        try await upload(1)
        try await upload(2)
        try await upload(2)
        let error = await #expect(throws: RPCError.self) { try await upload(3) }
        #expect(error?.code == .resourceExhausted)
      }
      let directory = try siege.deployment.artifacts.directory.path
      let names = try FileManager.default.contentsOfDirectory(atPath: directory)
      #expect(names.count { !$0.hasSuffix(".partial") } == 2)
    }
    #expect(lines.contains { $0.contains("has filled the 5242880 bytes") })
  }

  @Test func oldProductsThatNothingAccountsForAreRemoved() throws {
    let deployment = try Deployment(seeds: 1)
    let store = try deployment.artifacts
    func add(_ text: String, hoursOld: Double) throws -> ContentDigest {
      let digest = ContentDigest(of: text.utf8)
      let url = store.url(for: digest)
      try Data(text.utf8).write(to: url)
      try FileManager.default.setAttributes(
        [.modificationDate: Date(timeIntervalSinceNow: -3600 * hoursOld)],
        ofItemAtPath: url.path)
      return digest
    }
    let (used, forgotten) = (try add("used", hoursOld: 50), try add("forgotten", hoursOld: 50))
    let fresh = try add("fresh", hoursOld: 1)
    let note = store.directory.appendingPathComponent("README")
    try Data("mine".utf8).write(to: note)
    let unclaimed = try store.retain([used])
    #expect(unclaimed.count == 1 && unclaimed.bytes == "fresh".utf8.count)
    #expect(store.contains(used) && store.contains(fresh) && !store.contains(forgotten))
    #expect(FileManager.default.fileExists(atPath: note.path))
  }

  @Test(arguments: [
    "", "..", "../../etc/passwd", "/etc/passwd", "a/b", "\0", String(repeating: "a", count: 63),
    String(repeating: "g", count: 64), String(repeating: "A", count: 65), "é", "%2e%2e%2f",
    String(repeating: "a", count: 62) + "/.",
  ])
  func artifactNamesAreDigestsAndNothingElse(name: String) async throws {
    let lines = try await Siege.run { siege in
      let up = await #expect(throws: RPCError.self) {
        try await siege.withClient { client in
          _ = try await Siege.Coordination(wrapping: client).upload(requestProducer: { writer in
            try await writer.write(.with { $0.digest = name })
          })
        }
      }
      #expect(up?.code == .invalidArgument)
      let down = await #expect(throws: RPCError.self) {
        try await siege.withClient { client in
          try await Siege.Coordination(wrapping: client).download(.with { $0.digest = name }) {
            for try await _ in $0.messages {}
          }
        }
      }
      #expect(down?.code == .invalidArgument)
      let directory = try siege.deployment.artifacts.directory.path
      #expect(try FileManager.default.contentsOfDirectory(atPath: directory).isEmpty)
    }
    #expect(lines.count == 2)
  }

  /// Beside a worker that holds a lease, others report under its token, under tokens that nobody
  /// has, and for shards of their own invention.
  @Test func forgedReportsAreStale() async throws {
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
    let siege = Siege(deployment: deployment, port: port, recorder: recorder)
    let trial = deployment.plan.grid.trials[0].id.description
    var forgeries: [WorkerMessage] = []
    for token in [token, token + 1, 0, .max] {
      forgeries += [
        .with {
          $0.trial = .with {
            $0.token = token
            $0.trial = trial
            $0.metrics = ["accuracy": 1e9]
          }
        },
        .with { $0.shard = .with { $0.token = token } },
        .with {
          $0.failure = .with {
            $0.token = token
            $0.evidence = "forged"
          }
        },
        .with { $0.release = .with { $0.token = token } },
      ]
    }
    let last = UInt64(forgeries.count)
    for index in forgeries.indices { forgeries[index].request = UInt64(index + 1) }
    let answers = try await siege.session(
      [Siege.hello("forger"), Siege.ready] + forgeries,
      until: { $0.acknowledgement.request == last })
    let outcomes = answers.map(\.acknowledgement).filter { $0.request != 0 }.map(\.outcome)
    #expect(outcomes == Array(repeating: .stale, count: forgeries.count))
    let lines = recorder.lines.filter { $0.hasPrefix("report stale") }
    #expect(lines.count == forgeries.count, "\(lines)")
    #expect(lines.allSatisfy { $0.contains("worker.id=forger") })
    #expect(lines.count { $0.contains("reason=the lease was given to good") } == 4)
    #expect(lines.count { $0.contains("reason=no such lease") } == 12)
    for kind in ["trial", "shard", "failure", "release"] {
      #expect(lines.count { $0.contains("command=\(kind) lease.token=") } == 4)
    }
    gate.open(100)
    try await good.value
    #expect(try await summary.trialsCompleted == deployment.plan.grid.trials.count)
    #expect(try deployment.reader.trialResults().allSatisfy { $0.value <= 1 })
  }

  /// A report that was accepted is sent again, by its worker and by another, after its lease. The
  /// first lease of a sweep has the token 1.
  @Test func replayedReportsChangeNothing() async throws {
    func release(_ request: UInt64) -> WorkerMessage {
      .with {
        $0.request = request
        $0.release = .with { $0.token = 1 }
      }
    }
    let lines = try await Siege.run { siege in
      let first = try await siege.session(
        [Siege.hello("hand"), Siege.ready, Self.oneShard, release(8), release(9)],
        until: { $0.acknowledgement.request == 9 })
      #expect(Self.outcome(of: 8, in: first) == .accepted)
      #expect(Self.outcome(of: 9, in: first) == .stale)
      for name in ["hand", "other"] {
        let holding = WorkerMessage.with {
          $0.ready = .with {
            $0.inputs = ["model": "m"]
            $0.holding = [1]
          }
        }
        let again = try await siege.session(
          [Siege.hello(name), holding, release(8)], until: { $0.acknowledgement.request == 8 })
        #expect(Self.outcome(of: 8, in: again) == .stale)
        #expect(again.contains { $0.revocation.token == 1 })
      }
      // Its own lease is no reason to warn.
      let stale = siege.recorder.lines(from: .info).filter { $0.hasPrefix("report stale") }
      #expect(stale.count { $0.contains("its lease has ended worker.id=hand") } == 2, "\(stale)")
    }
    let stale = lines.filter { $0.hasPrefix("report stale") }
    #expect(
      stale == [
        "report stale command=release lease.token=1 reason=the lease was given to hand "
          + "worker.id=other"
      ])
  }

  // MARK: Floods

  /// Reports under a lease that nobody has, all in one message.
  private static func batch(_ count: Int) -> WorkerMessage {
    WorkerMessage(
      batch: (1...count).map { number in
        WorkerMessage.with {
          $0.request = UInt64(number)
          $0.release = .with { $0.token = 99 }
        }
      })
  }

  /// What fits into a message may be very many messages.
  @Test func aBatchHasALimitAndSoHasTheLog() async throws {
    let lines = try await Siege.run { siege in
      let error = await #expect(throws: RPCError.self) {
        try await siege.session([Siege.hello("flood"), Self.batch(1025)])
      }
      #expect(error?.code == .invalidArgument)
      let answers = try await siege.session(
        [Siege.hello("flood"), Self.batch(1024)], until: { $0.acknowledgement.request == 1024 })
      #expect(answers.count { $0.acknowledgement.outcome == .stale } == 1024)
    }
    #expect(lines.contains { $0.contains("1025 messages at once, 1024 are allowed") })
    #expect(lines.count { $0.hasPrefix("report stale") } == 20)
    #expect(lines.contains("reports left out of the log count=1004 worker.id=flood"))
  }

  /// Who sends more than the rate allows waits before anything of it is handled; others do not.
  @Test func floodsAreHeldBack() async throws {
    let deployment = try Deployment(seeds: 1)
    let limits = {
      var limits = CallLimits()
      limits.messagesPerSecond = 1e-6
      limits.messagesBurst = 2
      return limits
    }()
    let listening = Signal<(Int, Coordinator)>()
    let welcomed = Signal<Bool>()
    let answered = Counter()
    async let summary = deployment.serve(callLimits: limits) { port, coordinator in
      listening.send((port, coordinator))
    }
    let (port, coordinator) = try #require(await listening.next())
    let siege = Siege(deployment: deployment, port: port, recorder: LogRecorder())
    async let flood = siege.session(
      [Siege.hello("flood"), Self.batch(3)],
      until: {
        if $0.acknowledgement.request == 0 { welcomed.send(true) } else { answered.increment() }
        return false
      })
    _ = await welcomed.next()
    var ready = Siege.ready
    ready.request = 1
    try await siege.session(
      [Siege.hello("calm"), ready], until: { $0.acknowledgement.request == 1 })
    await coordinator.suspend()
    // The server may be gone before it has said how the session ended.
    _ = try? await flood
    #expect(answered.value == 0)
    #expect(try await summary.attempts == 0)
  }

  /// A worker says that a shard is done whose product it never stored.
  @Test func aProductThatIsNotThereFailsTheShard() async throws {
    let missing = ContentDigest(of: "nobody has this".utf8).description
    try await Siege.run { siege in
      try await siege.session(
        [
          Siege.hello("liar"), Siege.ready, Self.oneShard,
          .with {
            $0.request = 5
            $0.shard = .with {
              $0.token = 1
              $0.artifact = missing
            }
          },
        ], until: { $0.acknowledgement.request == 5 })
      let attempt = try #require(try siege.deployment.reader.attempts(at: nil).first)
      #expect(attempt.ending == "failed")
      #expect(attempt.evidence?.contains(missing) == true)
    }
  }

  private static let oneShard = WorkerMessage.with { $0.workRequest = .with { $0.slots = 1 } }

  private static func outcome(
    of request: UInt64, in answers: [CoordinatorMessage]
  ) -> Biassweep_V1_Acknowledgement.Outcome? {
    answers.map(\.acknowledgement).first { $0.request == request }?.outcome
  }
}
