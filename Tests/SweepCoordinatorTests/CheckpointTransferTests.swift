import Foundation
import GRPCCore
import GRPCNIOTransportHTTP2Posix
import SweepCoordinator
import SweepCore
import SweepRPC
import SweepWorker
import Synchronization
import Testing

/// Checkpoints, artifacts and input files between real workers and a real coordinator, on loopback.
@Suite(.timeLimit(.minutes(2)))
struct CheckpointTransferTests {
  private typealias Service = Biassweep_V1_Coordination.Client<HTTP2ClientTransport.Posix>

  /// A shard of `steps` steps whose result is a function of all of them in order, with a checkpoint
  /// after each.
  private final class SteppedWork: Sendable {
    static let steps = 12
    /// Makes a checkpoint big enough for several pieces.
    private static let padding = Data(repeating: UInt8(ascii: "x"), count: 3 << 19)
    /// Steps that were computed, by shard.
    private let computed = Mutex<[ShardID: Int]>([:])
    private let resumed = Mutex<[Int]>([])
    /// Called before each step, with the number of steps done.
    private let before: @Sendable (ShardAssignment, Int, ShardControl) throws -> Void

    init(
      before: @escaping @Sendable (ShardAssignment, Int, ShardControl) throws -> Void = {
        _, _, _ in
      }
    ) {
      self.before = before
    }

    func computed(_ shard: ShardID) -> Int { computed.withLock { $0[shard] ?? 0 } }
    var resumedFrom: [Int] { resumed.withLock { $0 } }

    func run(_ assignment: ShardAssignment, _ control: ShardControl) throws -> ShardProduct {
      if case .augmentation = assignment.shard.work {
        return try Deployment.compute(assignment, control)
      }
      let files = try #require(assignment.checkpoint)
      var state = (done: 0, digest: ContentDigest(of: assignment.shard.id.description.utf8))
      for path in [files.path] + files.alternatives {
        guard let data = FileManager.default.contents(atPath: path) else { continue }
        let parts = String(decoding: data.prefix(100), as: UTF8.self).split(separator: " ")
        if parts.count == 3, let done = Int(parts[0]), done > state.done,
          let digest = ContentDigest(hex: String(parts[1]))
        {
          state = (done, digest)
        }
      }
      if state.done > 0 { resumed.withLock { $0.append(state.done) } }
      while state.done < Self.steps {
        try before(assignment, state.done, control)
        if control.isCancelled { throw CancellationError() }
        state = (
          state.done + 1, ContentDigest(of: "\(state.digest) \(state.done)".utf8)
        )
        computed.withLock { $0[assignment.shard.id, default: 0] += 1 }
        try (Data("\(state.done) \(state.digest) ".utf8) + Self.padding)
          .write(to: URL(fileURLWithPath: files.path), options: .atomic)
        control.checkpointed(files.path)
      }
      let value = Double(UInt64(state.digest.description.prefix(12), radix: 16) ?? 0) / 0x1p48
      for trial in assignment.trials {
        control.complete(trial.id, metrics: ["accuracy": value], notes: [:])
      }
      return ShardProduct(facts: ["steps": Double(state.done)])
    }
  }

  private func place(_ deployment: Deployment, _ name: String, uploads: Bool = true)
    -> CheckpointPlace
  {
    CheckpointPlace(
      directory: deployment.directory.appending(path: "cache-\(name)").path, uploads: uploads)
  }

  /// The results of a sweep that nothing disturbed.
  private func undisturbedDigest(_ deployment: Deployment) async throws -> ContentDigest {
    let work = SteppedWork()
    let listening = Signal<Int>()
    async let summary = deployment.serve { port, _ in listening.send(port) }
    let port = try #require(await listening.next())
    try await Deployment.worker(
      "w", port: port, checkpoints: place(deployment, "w"), execute: work.run
    ).run()
    #expect(try await summary.trialsCompleted == deployment.plan.grid.trials.count)
    for shard in deployment.plan.shards where !shard.trials.isEmpty {
      #expect(work.computed(shard.id) == SteppedWork.steps)
    }
    return try deployment.reader.resultDigest()
  }

  /// Waits until the coordinator has a checkpoint of a shard; returns false if the sweep ends first.
  private func waitForCheckpoint(_ deployment: Deployment, of shard: ShardID) async throws {
    let store = try #require(deployment.openCheckpoints)
    while store.newest(of: shard) == nil { await Task.yield() }
  }

  @Test func anotherWorkerGoesOnInTheMiddleOfADeadWorkersShard() async throws {
    let expected = try await undisturbedDigest(try Deployment(seeds: 1))
    let deployment = try Deployment(seeds: 1)
    let victim = try #require(deployment.plan.shards.last { !$0.trials.isEmpty }).id
    let reached = Signal<Bool>()
    let gate = Gate()
    // Stands still after seven steps of one shard, until its connection is cut.
    let first = SteppedWork { assignment, done, _ in
      if assignment.shard.id == victim && done == 7 {
        reached.send(true)
        gate.wait()
      }
    }
    let heirs = SteppedWork()
    let listening = Signal<Int>()
    async let summary = deployment.serve { port, _ in listening.send(port) }
    let port = try #require(await listening.next())
    let doomed = Task {
      try await Deployment.worker(
        "doomed", port: port, checkpoints: place(deployment, "doomed"), execute: first.run
      ).run()
    }
    _ = await reached.next()
    try await waitForCheckpoint(deployment, of: victim)
    doomed.cancel()
    // The heir is another machine: its cache is empty.
    try await Deployment.worker(
      "heir", port: port, checkpoints: place(deployment, "heir"), execute: heirs.run
    ).run()
    gate.open(100)
    let result = try await summary
    _ = await doomed.result
    #expect(result.trialsCompleted == deployment.plan.grid.trials.count)
    #expect(try deployment.reader.resultDigest() == expected)
    let resumed = try #require(heirs.resumedFrom.first)
    #expect((1...7).contains(resumed))
    #expect(heirs.computed(victim) == SteppedWork.steps - resumed)
    // Nothing is left of shards that are complete.
    let left = try FileManager.default.contentsOfDirectory(atPath: deployment.checkpointDirectory)
    #expect(left.isEmpty)
  }

  @Test func aStoppingWorkerHandsOverEveryStep() async throws {
    let deployment = try Deployment(seeds: 1)
    let victim = try #require(deployment.plan.shards.first { !$0.trials.isEmpty }).id
    let reached = Signal<Bool>()
    let leavers = SteppedWork { assignment, done, control in
      if assignment.shard.id == victim && done == 5 {
        reached.send(true)
        while !control.isCancelled { sched_yield() }
      }
    }
    let stayers = SteppedWork()
    let listening = Signal<Int>()
    async let summary = deployment.serve { port, _ in listening.send(port) }
    let port = try #require(await listening.next())
    let leaving = Deployment.worker(
      "leaving", port: port, checkpoints: place(deployment, "leaving"), execute: leavers.run)
    let run = Task { try await leaving.run() }
    _ = await reached.next()
    await leaving.stop()
    try await run.value
    try await Deployment.worker(
      "staying", port: port, checkpoints: place(deployment, "staying"), execute: stayers.run
    ).run()
    #expect(try await summary.trialsCompleted == deployment.plan.grid.trials.count)
    #expect(stayers.resumedFrom == [5])
    #expect(leavers.computed(victim) + stayers.computed(victim) == SteppedWork.steps)
  }

  @Test func workersThatShareADirectoryNeedNoUpload() async throws {
    let deployment = try Deployment(seeds: 1)
    let victim = try #require(deployment.plan.shards.first { !$0.trials.isEmpty }).id
    let reached = Signal<Bool>()
    let gate = Gate()
    let first = SteppedWork { assignment, done, _ in
      if assignment.shard.id == victim && done == 9 {
        reached.send(true)
        gate.wait()
      }
    }
    let heirs = SteppedWork()
    let listening = Signal<Int>()
    async let summary = deployment.serve { port, _ in listening.send(port) }
    let port = try #require(await listening.next())
    let shared = place(deployment, "shared", uploads: false)
    let doomed = Task {
      try await Deployment.worker("doomed", port: port, checkpoints: shared, execute: first.run)
        .run()
    }
    _ = await reached.next()
    doomed.cancel()
    try await Deployment.worker("heir", port: port, checkpoints: shared, execute: heirs.run).run()
    gate.open(100)
    _ = try await summary
    _ = await doomed.result
    #expect(heirs.resumedFrom == [9])
    #expect(deployment.openCheckpoints?.newest(of: victim) == nil)
  }

  /// A worker finishes trials while there is no coordinator, and dies before there is one again.
  @Test func resultsThatNobodyHeardOfAreNotComputedAgain() async throws {
    let expected = try await undisturbedDigest(try Deployment(seeds: 1))
    let deployment = try Deployment(seeds: 1)
    let victim = try #require(deployment.plan.shards.first { !$0.trials.isEmpty })
    let listening = Signal<(port: Int, coordinator: Coordinator)>()
    let reached = Signal<Bool>()
    let gate = Gate()
    let end = Gate()
    let work = SteppedWork { assignment, done, _ in
      if assignment.shard.id == victim.id && done == 0 {
        reached.send(true)
        gate.wait()
      }
    }
    async let first = deployment.serve { port, coordinator in listening.send((port, coordinator)) }
    let (port, coordinator) = try #require(await listening.next())
    let cache = place(deployment, "machine", uploads: false)
    let doomed = Task {
      try await Deployment.worker(
        "doomed", port: port, checkpoints: cache,
        execute: { assignment, control in
          let product = try work.run(assignment, control)
          if assignment.shard.id == victim.id { end.wait() }
          return product
        }
      ).run()
    }
    _ = await reached.next()
    await coordinator.suspend()
    _ = try await first
    gate.open()
    while try !keptResults(in: cache) { await Task.yield() }
    doomed.cancel()
    _ = await doomed.result
    end.open()

    let heirs = SteppedWork()
    let left = Counter()
    let again = Signal<Int>()
    async let second = deployment.serve(keepLeases: false) { port, _ in again.send(port) }
    let nextPort = try #require(await again.next())
    try await Deployment.worker(
      "heir", port: nextPort, checkpoints: cache,
      execute: { assignment, control in
        if assignment.shard.id == victim.id { for _ in assignment.trials { left.increment() } }
        return try heirs.run(assignment, control)
      }
    ).run()
    #expect(try await second.trialsCompleted == deployment.plan.grid.trials.count)
    #expect(left.value == 0)
    #expect(try deployment.reader.resultDigest() == expected)
    #expect(try !keptResults(in: cache), "nothing is left of a shard that is complete")
    // What the shards needed of others was fetched once for the machine.
    let artifacts = try FileManager.default.subpathsOfDirectory(atPath: cache.directory)
      .filter { $0.contains("artifact-") }
    #expect(artifacts.count == deployment.plan.augmentationCount)
  }

  /// What the coordinator refuses is not reported again, but computed again.
  @Test func aRefusedResultIsNotKept() async throws {
    let deployment = try Deployment(seeds: 1)
    let victim = try #require(deployment.plan.shards.first { !$0.trials.isEmpty })
    let listening = Signal<Int>()
    async let summary = deployment.serve { port, _ in listening.send(port) }
    let port = try #require(await listening.next())
    try await Deployment.worker(
      "w", port: port, checkpoints: place(deployment, "w"),
      execute: { assignment, control in
        if assignment.shard.id == victim.id && assignment.attempt == 1 {
          control.complete(assignment.trials[0].id, metrics: ["accuracy": .nan], notes: [:])
          while !control.isCancelled { sched_yield() }
          throw CancellationError()
        }
        return try Deployment.compute(assignment, control)
      }
    ).run()
    let result = try await summary
    #expect(result.trialsCompleted == deployment.plan.grid.trials.count)
    #expect(result.attempts == deployment.plan.shards.count + 1)
  }

  /// Whether results wait in a worker's directory.
  private func keptResults(in place: CheckpointPlace) throws -> Bool {
    let manager = FileManager.default
    guard manager.fileExists(atPath: place.directory) else { return false }
    return try manager.subpathsOfDirectory(atPath: place.directory)
      .contains { $0.hasSuffix(".results") }
  }

  @Test func checkpointsSurviveTheCoordinator() async throws {
    let deployment = try Deployment(seeds: 1)
    let shards = deployment.plan.shards.filter { !$0.trials.isEmpty }
    let unfinished = try #require(shards.last)
    let listening = Signal<(port: Int, coordinator: Coordinator)>()
    let reached = Signal<Bool>()
    let gate = Gate()
    let work = SteppedWork { assignment, done, _ in
      if assignment.shard.id == unfinished.id && done == 4 {
        reached.send(true)
        gate.wait()
      }
    }
    async let first = deployment.serve { port, coordinator in listening.send((port, coordinator)) }
    let (port, coordinator) = try #require(await listening.next())
    let doomed = Task {
      try await Deployment.worker(
        "doomed", port: port, checkpoints: place(deployment, "doomed"), execute: work.run
      ).run()
    }
    _ = await reached.next()
    try await waitForCheckpoint(deployment, of: unfinished.id)
    await coordinator.suspend()
    _ = try await first
    doomed.cancel()
    gate.open(100)
    _ = await doomed.result
    let heirs = SteppedWork()
    let again = Signal<Int>()
    async let second = deployment.serve(keepLeases: false) { port, _ in again.send(port) }
    let nextPort = try #require(await again.next())
    try await Deployment.worker(
      "heir", port: nextPort, checkpoints: place(deployment, "heir"), execute: heirs.run
    ).run()
    #expect(try await second.trialsCompleted == deployment.plan.grid.trials.count)
    #expect(heirs.resumedFrom.count == 1)
  }

  // MARK: Fencing and limits

  /// A worker that holds one lease and waits, and a raw client beside it.
  private func besideLease(
    checkpointBytesMax: Int = 1 << 30,
    _ body: (Service, _ token: UInt64, ShardID, Deployment) async throws -> Void
  ) async throws {
    let deployment = try Deployment(seeds: 1, checkpointBytesMax: checkpointBytesMax)
    let listening = Signal<Int>()
    let started = Signal<(UInt64, ShardID)>()
    let gate = Gate()
    async let summary = deployment.serve { port, _ in listening.send(port) }
    let port = try #require(await listening.next())
    let good = Task {
      try await Deployment.worker("good", port: port) { assignment, control in
        started.send((assignment.token.value, assignment.shard.id))
        gate.wait()
        return try Deployment.compute(assignment, control)
      }.run()
    }
    let (token, shard) = try #require(await started.next())
    try await withGRPCClient(
      transport: .http2NIOPosix(
        target: .ipv4(address: "127.0.0.1", port: port), transportSecurity: .plaintext)
    ) { try await body(Service(wrapping: $0), token, shard, deployment) }
    gate.open(100)
    try await good.value
    #expect(try await summary.trialsCompleted == deployment.plan.grid.trials.count)
  }

  private func chunk(
    _ text: String, of whole: String, from offset: Int = 0, worker: String = "good",
    token: UInt64?
  ) -> Biassweep_V1_ArtifactChunk {
    .with {
      $0.digest = ContentDigest(of: whole.utf8).description
      $0.data = Data(text.utf8)
      $0.offset = UInt64(offset)
      $0.bytes = UInt64(whole.utf8.count)
      if let token {
        $0.checkpointOf = .with {
          $0.worker = worker
          $0.token = token
        }
      }
    }
  }

  private func upload(
    _ service: Service, _ chunks: [Biassweep_V1_ArtifactChunk]
  ) async throws -> Biassweep_V1_UploadReply {
    try await service.upload(requestProducer: { writer in
      for chunk in chunks { try await writer.write(chunk) }
    })
  }

  @Test func onlyTheHolderOfALiveLeaseStoresCheckpoints() async throws {
    try await besideLease { service, token, shard, deployment in
      for (worker, token) in [("good", token + 1), ("forger", token), ("good", 0)] {
        let error = await #expect(throws: RPCError.self) {
          try await upload(
            service, [chunk("evil", of: "evil", worker: worker, token: token)])
        }
        #expect(error?.code == .permissionDenied)
      }
      let store = try #require(deployment.openCheckpoints)
      #expect(store.newest(of: shard) == nil)
      _ = try await upload(service, [chunk("good", of: "good", token: token)])
      #expect(store.newest(of: shard) == ContentDigest(of: "good".utf8))
      // Only the newest is kept.
      _ = try await upload(service, [chunk("better", of: "better", token: token)])
      #expect(store.newest(of: shard) == ContentDigest(of: "better".utf8))
      let files = try FileManager.default.contentsOfDirectory(
        atPath: deployment.checkpointDirectory)
      #expect(files.count == 1)
    }
  }

  @Test func brokenOffUploadsGoOnWhereTheyStopped() async throws {
    try await besideLease { service, token, shard, deployment in
      let whole = "the first half and the second half"
      for holder in [nil, token] {
        @Sendable func position() async throws -> Biassweep_V1_UploadReply {
          try await service.uploadPosition(
            .with { request in
              request.digest = ContentDigest(of: whole.utf8).description
              if let holder {
                request.checkpointOf = .with {
                  $0.worker = "good"
                  $0.token = holder
                }
              }
            })
        }
        #expect(try await position().bytes == 0)
        // The call breaks off after its first piece.
        struct Cut: Error {}
        await #expect(throws: (any Error).self) {
          _ = try await service.upload(requestProducer: { writer in
            try await writer.write(chunk("the first half", of: whole, token: holder))
            while try await position().bytes == 0 { await Task.yield() }
            throw Cut()
          })
        }
        #expect(try await position().bytes == 14)
        // Until the coordinator has noticed, the upload is in use.
        var reply: Biassweep_V1_UploadReply?
        while reply == nil {
          do {
            reply = try await upload(
              service, [chunk(" and the second half", of: whole, from: 14, token: holder)])
          } catch let error as RPCError where error.code == .unavailable {
            await Task.yield()
          }
        }
        #expect(reply?.complete == true && reply?.bytes == UInt64(whole.utf8.count))
        #expect(try await position().complete)
      }
      #expect(try deployment.artifacts.read(ContentDigest(of: whole.utf8)) == Data(whole.utf8))
    }
  }

  @Test func gapsWrongBytesAndTooManyAreRefused() async throws {
    try await besideLease(checkpointBytesMax: 100) { service, token, shard, deployment in
      for (chunks, code) in [
        ([chunk("x", of: "xy", from: 1, token: token)], RPCError.Code.dataLoss),
        ([chunk("wrong", of: "right", token: token)], .dataLoss),
        ([chunk("too long", of: "short", token: token)], .resourceExhausted),
        (
          [chunk("", of: String(repeating: "x", count: 101), token: token)], .resourceExhausted
        ),
      ] {
        let error = await #expect(throws: RPCError.self) { try await upload(service, chunks) }
        #expect(error?.code == code)
      }
      let store = try #require(deployment.openCheckpoints)
      #expect(store.newest(of: shard) == nil)
      _ = try await upload(service, [chunk("fits", of: "fits", token: token)])
      #expect(store.newest(of: shard) == ContentDigest(of: "fits".utf8))
    }
  }

  @Test func aDamagedCheckpointStartsTheShardFromTheBeginning() async throws {
    let deployment = try Deployment(seeds: 1)
    let store = try CheckpointStore(
      directory: URL(fileURLWithPath: deployment.checkpointDirectory), bytesMax: 1 << 30)
    // A file that does not hold what its name says, of every shard.
    for shard in deployment.plan.shards {
      let name = shard.id.description.replacing("/", with: "%2F")
      try Data("damaged".utf8).write(
        to: store.directory.appending(path: "\(name)@\(ContentDigest(of: "whole".utf8))"))
    }
    let work = SteppedWork()
    let listening = Signal<Int>()
    async let summary = deployment.serve { port, _ in listening.send(port) }
    let port = try #require(await listening.next())
    try await Deployment.worker(
      "w", port: port, checkpoints: place(deployment, "w"), execute: work.run
    ).run()
    #expect(try await summary.trialsCompleted == deployment.plan.grid.trials.count)
    #expect(work.resumedFrom.isEmpty)
  }

  // MARK: Input files

  @Test func missingInputFilesAreFetchedOnceAndWhole() async throws {
    let deployment = try Deployment(seeds: 1)
    let content = Data((0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31 ^ $0 >> 8) })
    let source = deployment.directory.appending(path: "model.gguf").path
    try content.write(to: URL(fileURLWithPath: source))
    let file = try #require(
      InputFile(
        input: .model, name: "model.gguf", digest: ContentDigest(of: content),
        bytes: content.count))
    let target = deployment.directory.appending(path: "cache/models/model.gguf").path
    // What an earlier process left when it was killed.
    try FileManager.default.createDirectory(
      atPath: deployment.directory.appending(path: "cache/models").path,
      withIntermediateDirectories: true)
    try content.prefix(1_000_000).write(to: URL(fileURLWithPath: target + ".partial"))
    let loads = Counter()
    let catalogue = InputCatalogue(logger: Deployment.logger) {
      loads.increment()
      return [(file, source)]
    }
    let listening = Signal<Int>()
    async let summary = deployment.serve(inputs: catalogue) { port, _ in listening.send(port) }
    let port = try #require(await listening.next())
    try await withThrowingTaskGroup(of: Void.self) { group in
      for index in 0..<3 {
        group.addTask {
          try await Deployment.worker(
            "w\(index)", port: port,
            prepare: { _, source in
              for file in try source.files() { try source.fetch(file, target) }
              return ["model": "\(ContentDigest(of: try Data(contentsOf: URL(filePath: target))))"]
            }
          ).run()
        }
      }
      try await group.waitForAll()
    }
    #expect(try await summary.trialsCompleted == deployment.plan.grid.trials.count)
    #expect(loads.value == 1)
    #expect(try deployment.reader.sweep().inputs == ["model": file.digest.description])
    let names = try FileManager.default.contentsOfDirectory(
      atPath: deployment.directory.appending(path: "cache/models").path)
    #expect(names == ["model.gguf"])
  }

  @Test func aFileThatIsNotWhatItsDigestSaysIsNeverUsed() async throws {
    let deployment = try Deployment(seeds: 1)
    let source = deployment.directory.appending(path: "model.gguf").path
    try Data("changed since".utf8).write(to: URL(fileURLWithPath: source))
    let file = try #require(
      InputFile(
        input: .model, name: "model.gguf", digest: ContentDigest(of: "digested".utf8), bytes: 8))
    let target = deployment.directory.appending(path: "model.copy").path
    let catalogue = InputCatalogue(logger: Deployment.logger) { [(file, source)] }
    let listening = Signal<Int>()
    async let summary = deployment.serve(inputs: catalogue) { port, _ in listening.send(port) }
    let port = try #require(await listening.next())
    await #expect(throws: WorkerError.self) {
      try await Deployment.worker(
        "w", port: port, patience: .milliseconds(200),
        prepare: { _, source in
          for file in try source.files() { try source.fetch(file, target) }
          return [:]
        }
      ).run()
    }
    #expect(!FileManager.default.fileExists(atPath: target))
    try await Deployment.worker("good", port: port).run()
    #expect(try await summary.trialsCompleted == deployment.plan.grid.trials.count)
  }

  @Test func namesThatLeaveTheDirectoryAreNoInputFiles() {
    let digest = ContentDigest(of: "x".utf8)
    for name in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a/", "a\0b"] {
      #expect(InputFile(input: .data, name: name, digest: digest, bytes: 1) == nil)
    }
    #expect(InputFile(input: .data, name: "bug/full_BUG.csv", digest: digest, bytes: 1) != nil)
    #expect(InputFile(input: .data, name: "a", digest: digest, bytes: -1) == nil)
  }
}
