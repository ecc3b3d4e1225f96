import Foundation
import GRPCCore
import SweepCore
import SweepRPC

/// The gRPC side of the coordinator: sessions become calls of `Coordinator`, and files go in pieces
/// (`CoordinationService+Transfers.swift`).
struct CoordinationService: Biassweep_V1_Coordination.SimpleServiceProtocol {
  let coordinator: Coordinator
  let artifacts: ArtifactStore
  let inputs: InputCatalogue

  /// How long a worker has to end its side of a session that the coordinator has ended.
  private static let goodbyeGrace = Duration.milliseconds(500)

  func session(
    request: RPCAsyncSequence<WorkerMessage, any Error>,
    response: RPCWriter<CoordinatorMessage>, context: ServerContext
  ) async throws {
    do {
      try await hold(request: request, response: response)
    } catch let refusal as SessionRefusal {
      throw refusal.rpcError
    }
  }

  private func hold(
    request: RPCAsyncSequence<WorkerMessage, any Error>, response: RPCWriter<CoordinatorMessage>
  ) async throws {
    var incoming = request.makeAsyncIterator()
    guard case .hello(let hello)? = try await incoming.next()?.body else {
      throw SessionRefusal.protocolViolation("a session starts with a hello")
    }
    guard hello.version == coordinator.version else {
      throw SessionRefusal.otherVersion(worker: hello.version, coordinator: coordinator.version)
    }
    let digest = try coordinator.spec.digest().description
    guard hello.specDigest.isEmpty || hello.specDigest == digest else {
      throw SessionRefusal.otherSweep
    }
    guard let worker = hello.workerInfo else {
      throw SessionRefusal.protocolViolation("a hello with an invalid worker description")
    }
    try await response.write(
      .welcome(spec: coordinator.spec, policy: coordinator.policy))

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
          while let message = try await iterator.next() {
            try await coordinator.receive(message.batch, connection: connection)
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

  /// The rest of a session's messages, handed from the task that read the hello to the one that
  /// reads on. The iterator is not Sendable, but never in two tasks' hands at once.
  private struct Incoming: @unchecked Sendable {
    let iterator: RPCAsyncSequence<WorkerMessage, any Error>.AsyncIterator
  }
}
