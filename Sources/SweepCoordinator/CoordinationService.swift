import Foundation
import GRPCCore
import SweepCore
import SweepRPC
import SweepSecurity

/// The gRPC side of the coordinator: sessions become calls of `Coordinator`, and files go in pieces
/// (`CoordinationService+Transfers.swift`).
struct CoordinationService: Biassweep_V1_Coordination.SimpleServiceProtocol {
  let coordinator: Coordinator
  let artifacts: ArtifactStore
  let inputs: InputCatalogue
  let peers: ConnectedPeers
  let limits: CallLimits

  /// How long a worker has to end its side of a session that the coordinator has ended.
  private static let goodbyeGrace = Duration.milliseconds(500)

  func session(
    request: RPCAsyncSequence<WorkerMessage, any Error>,
    response: RPCWriter<CoordinatorMessage>, context: ServerContext
  ) async throws {
    do {
      try await hold(
        request: request, response: response, identity: peers.identity(of: context.remotePeer))
    } catch let refusal as SessionRefusal {
      throw refusal.rpcError
    }
  }

  private func hold(
    request: RPCAsyncSequence<WorkerMessage, any Error>, response: RPCWriter<CoordinatorMessage>,
    identity: PeerIdentity?
  ) async throws {
    var incoming = request.makeAsyncIterator()
    guard case .hello(let hello)? = try await incoming.next()?.body else {
      throw SessionRefusal.protocolViolation("a session starts with a hello")
    }
    guard hello.version == coordinator.version else {
      throw SessionRefusal.otherVersion(worker: hello.version, coordinator: coordinator.version)
    }
    let welcome = try await coordinator.welcome()
    guard hello.specDigest.isEmpty || hello.specDigest == welcome.welcome.specDigest else {
      throw SessionRefusal.otherSweep
    }
    guard let worker = hello.workerInfo else {
      throw SessionRefusal.protocolViolation("a hello with an invalid worker description")
    }
    if let identity, !identity.mayBe(worker: worker.id) {
      throw SessionRefusal.forbidden(
        "the certificate of \(identity.name) does not allow to speak for worker \(worker.id)")
    }
    try await response.write(welcome)

    let (connection, outgoing) = await coordinator.open(worker)
    do {
      let rest = Incoming(iterator: incoming)
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask {
          try await outgoing.drain { try await response.write(CoordinatorMessage(batch: $0)) }
          // The coordinator has ended the session; the worker closes its side on a goodbye.
          try await Task.sleep(for: Self.goodbyeGrace)
        }
        group.addTask {
          var iterator = rest.iterator
          let clock = Coordinator.uptime()
          var rate = RateLimit(rate: limits.messagesPerSecond, burst: limits.messagesBurst)
          while let message = try await iterator.next() {
            guard message.more.count < limits.batchMax else {
              throw SessionRefusal.protocolViolation(
                "\(message.more.count + 1) messages at once, \(limits.batchMax) are allowed")
            }
            let batch = message.batch
            // While this waits, the transport's flow control holds the sender back.
            let wait = rate.take(batch.count, now: clock())
            if wait > .zero { try await Task.sleep(for: wait) }
            try await coordinator.receive(batch.map(checked), connection: connection)
          }
        }
        // Whichever side ends first ends the session.
        try await group.next()
        group.cancelAll()
      }
    } catch {
      await coordinator.close(connection: connection, reason: "\(error)")
      throw error
    }
    await coordinator.close(connection: connection, reason: "the worker ended the session")
  }

  /// A shard whose product nobody stored has failed, whatever its worker says; otherwise the shards
  /// that need the product would fail in its place.
  private func checked(_ message: WorkerMessage) -> WorkerMessage {
    guard case .shard(let report)? = message.body, let digest = ContentDigest(hex: report.artifact),
      !artifacts.contains(digest)
    else { return message }
    var message = message
    message.failure = .with {
      $0.token = report.token
      $0.evidence = "the shard was reported complete, but its artifact \(digest) was not stored"
    }
    return message
  }

  /// The rest of a session's messages, handed from the task that read the hello to the one that
  /// reads on. The iterator is not Sendable, but never in two tasks' hands at once.
  private struct Incoming: @unchecked Sendable {
    let iterator: RPCAsyncSequence<WorkerMessage, any Error>.AsyncIterator
  }
}
