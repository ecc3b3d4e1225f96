import Synchronization

/// Messages that wait to be sent over one session. Whoever sends takes what has come together
/// meanwhile, so that a burst costs the transport one message.
package final class Outbox<Message: Sendable>: Sendable {
  private struct State {
    var waiting: [Message] = []
    var isFinished = false
  }
  private let state = Mutex(State())
  private let capacity: Int
  private let signals: AsyncStream<Void>
  private let signal: AsyncStream<Void>.Continuation

  /// Messages of one batch; keeps it far below the transport's limit on the size of a message.
  private static var batchMax: Int { 64 }

  /// - Parameter capacity: messages that may wait.
  package init(capacity: Int = .max) {
    self.capacity = capacity
    (signals, signal) = AsyncStream.makeStream(
      of: Void.self, bufferingPolicy: .bufferingNewest(1))
  }

  /// Messages after `finish` are dropped.
  ///
  /// - Returns: whether there was room; then all wait, otherwise none.
  @discardableResult
  package func add(_ messages: [Message]) -> Bool {
    let hasRoom = state.withLock { state in
      guard !state.isFinished else { return true }
      guard state.waiting.count + messages.count <= capacity else { return false }
      state.waiting += messages
      return true
    }
    signal.yield()
    return hasRoom
  }

  /// What waits is still sent.
  package func finish() {
    state.withLock { $0.isFinished = true }
    signal.finish()
  }

  /// Hands batches to `send` in order, until the outbox is finished and empty or `send` throws. For
  /// one task only.
  package func drain(_ send: ([Message]) async throws -> Void) async throws {
    for await _ in signals { try await sendWaiting(send) }
    try await sendWaiting(send)
  }

  private func sendWaiting(_ send: ([Message]) async throws -> Void) async throws {
    while true {
      let batch = state.withLock { state in
        let batch = Array(state.waiting.prefix(Self.batchMax))
        state.waiting.removeFirst(batch.count)
        return batch
      }
      if batch.isEmpty { return }
      try await send(batch)
    }
  }
}

extension WorkerMessage {
  /// Several messages as one of the transport's. `messages` must not be empty.
  package init(batch messages: [WorkerMessage]) {
    precondition(!messages.isEmpty, "a batch without messages")
    self = messages[0]
    more = Array(messages.dropFirst())
  }

  /// This message and those that follow it, in order.
  package var batch: [WorkerMessage] {
    if more.isEmpty { return [self] }
    var first = self
    first.more = []
    return [first] + more
  }
}

extension CoordinatorMessage {
  /// Several messages as one of the transport's. `messages` must not be empty.
  package init(batch messages: [CoordinatorMessage]) {
    precondition(!messages.isEmpty, "a batch without messages")
    self = messages[0]
    more = Array(messages.dropFirst())
  }

  /// This message and those that follow it, in order.
  package var batch: [CoordinatorMessage] {
    if more.isEmpty { return [self] }
    var first = self
    first.more = []
    return [first] + more
  }
}
