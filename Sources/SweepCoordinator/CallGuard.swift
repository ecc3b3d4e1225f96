import GRPCCore
import Logging
import SweepRPC
import SweepSecurity

/// Stands before every call: lets in who may call it, does not wait for ever for messages, and logs
/// what was refused.
struct CallGuard: ServerInterceptor {
  let peers: ConnectedPeers
  let logger: Logger
  let limits: CallLimits

  func intercept<Input: Sendable, Output: Sendable>(
    request: StreamingServerRequest<Input>, context: ServerContext,
    next:
      @Sendable (StreamingServerRequest<Input>, ServerContext) async throws ->
      StreamingServerResponse<Output>
  ) async throws -> StreamingServerResponse<Output> {
    do {
      try checkRole(context)
      var request = request
      request.messages = RPCAsyncSequence(
        wrapping: TimedMessages(
          base: request.messages, firstWithin: limits.firstMessage,
          restWithin: Self.sendsSteadily(context.descriptor) ? limits.nextMessage : nil))
      var response = try await next(request, context)
      if case .success(var contents) = response.accepted {
        let produce = contents.producer
        contents.producer = { writer in
          do { return try await produce(writer) } catch { throw logged(error, context) }
        }
        response.accepted = .success(contents)
      }
      return response
    } catch {
      throw logged(error, context)
    }
  }

  /// Workers work and operators operate; neither may do the other's part. Without TLS everybody who
  /// reaches the loopback address may do both.
  private func checkRole(_ context: ServerContext) throws {
    guard peers.authenticated else { return }
    let needed: PeerRole =
      context.descriptor.service == Biassweep_V1_Control.descriptor ? .operator : .worker
    guard let identity = peers.identity(of: context.remotePeer) else {
      throw SessionRefusal.forbidden("the connection shows no certificate")
    }
    guard identity.role == needed else {
      throw SessionRefusal.forbidden(
        "\(context.descriptor.method) needs \(needed.rawValue) credentials, and those of "
          + "\(identity.name) are for the role \(identity.role.rawValue)")
    }
  }

  /// Sessions are silent while a worker loads its model; other calls have no reason to pause.
  private static func sendsSteadily(_ method: MethodDescriptor) -> Bool {
    method != Biassweep_V1_Coordination.Method.Session.descriptor
  }

  private func logged(_ error: any Error, _ context: ServerContext) -> any Error {
    let rpcError =
      switch error {
      case let refusal as SessionRefusal: refusal.rpcError
      case let error as RPCError: error
      default: RPCError(code: .unknown, message: "\(error)", cause: error)
      }
    switch rpcError.code {
    case .unavailable, .cancelled: break
    case _ where error is CancellationError: break
    // The log and the caller have been told.
    case _ where error is MessageTooLong || rpcError.cause is MessageTooLong: break
    default:
      peers.logRefusal(
        logger, peer: peers.identity(of: context.remotePeer)?.name ?? context.remotePeer,
        reason: "\(context.descriptor.method): \(rpcError.message)")
    }
    return rpcError
  }
}

/// What a caller may take of the coordinator.
package struct CallLimits: Sendable, Hashable {
  /// From the begin of a call to its first message.
  package var firstMessage = Duration.seconds(10)
  /// From one message to the next, in calls other than sessions.
  package var nextMessage = Duration.seconds(60)
  /// Bytes of one message.
  package var messageBytesMax = 2 << 20
  /// Calls that one connection makes at a time.
  package var callsMax = 256
  /// Messages a second of one session on average; a session that sends more is read more slowly.
  package var messagesPerSecond = 20_000.0
  package var messagesBurst = 40_000.0
  /// Messages that come as one; the senders put 64 into one.
  package var batchMax = 1024

  package init() {}
}

/// The messages of a call, each of which must arrive in time.
private struct TimedMessages<Element: Sendable>: AsyncSequence, Sendable {
  typealias Failure = any Error
  typealias Base = RPCAsyncSequence<Element, any Error>

  let base: Base
  let firstWithin: Duration
  /// Nil for no limit.
  let restWithin: Duration?

  func makeAsyncIterator() -> Iterator {
    Iterator(base: base.makeAsyncIterator(), limit: firstWithin, restWithin: restWithin)
  }

  struct Iterator: AsyncIteratorProtocol {
    fileprivate var base: Base.AsyncIterator
    fileprivate var limit: Duration?
    fileprivate let restWithin: Duration?

    mutating func next() async throws -> Element? {
      guard let limit else { return try await base.next() }
      let handed = Handed(iterator: base)
      let element = try await withThrowingTaskGroup(of: Element?.self) { group in
        group.addTask { try await handed.next() }
        group.addTask {
          try await Task.sleep(for: limit)
          throw SessionRefusal.tooSlow("no message came within \(limit)")
        }
        defer { group.cancelAll() }
        return try await group.next() ?? nil
      }
      base = handed.iterator
      self.limit = restWithin
      return element
    }
  }

  /// An iterator in the hands of one task at a time, which the compiler cannot see.
  private final class Handed: @unchecked Sendable {
    var iterator: Base.AsyncIterator
    init(iterator: Base.AsyncIterator) { self.iterator = iterator }
    func next() async throws -> Element? { try await iterator.next() }
  }
}
