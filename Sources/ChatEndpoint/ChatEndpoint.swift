import AsyncHTTPClient
import BiasStudy
import Foundation
import NIOCore
import NIOHTTP1
import SweepCore
import Synchronization

/// A server that speaks OpenAI's chat completions protocol.
///
/// Requests go out side by side, as many at once and a minute as the settings allow. A request that
/// fails for a passing reason (429, 5xx, no answer in time, a body that is no completion) is sent
/// again after a growing delay, or after what `Retry-After` asks for, which holds back all others
/// as well.
///
/// The limits hold for all calls of `complete` together, at the same time and one after the other.
/// A worker makes one endpoint for all its shards, since the settings are each worker's.
package final class ChatEndpoint: ChatCompletions {
  private let settings: SweepSpec.Augmentation.Endpoint
  private let apiKey: String?
  private let schedule: RetrySchedule
  private let places: RequestPlaces
  private let pace: Pace
  private let failed: @Sendable (FailedTry) -> Void

  /// - Parameters:
  ///   - environment: of this process; the settings name the variable that holds the key.
  ///   - firstDelay: see `RetrySchedule`.
  ///   - failed: told of every try that brought no answer, on any thread.
  /// - Throws: `ChatEndpointError.noKey` if the variable is not set, `.unusableKey` if what it
  ///   holds cannot be sent.
  package init(
    settings: SweepSpec.Augmentation.Endpoint, environment: [String: String],
    firstDelay: Double = 1, failed: @escaping @Sendable (FailedTry) -> Void = { _ in }
  ) throws(ChatEndpointError) {
    self.settings = settings
    self.failed = failed
    schedule = RetrySchedule(attempts: settings.attempts, firstDelay: firstDelay)
    places = RequestPlaces(settings.concurrency)
    pace = Pace(requestsPerMinute: settings.requestsPerMinute)
    guard let variable = settings.apiKeyVariable else {
      apiKey = nil
      return
    }
    guard let key = environment[variable], !key.isEmpty else {
      throw .noKey(variable: variable)
    }
    // The HTTP client would refuse the header in words that contain the key.
    guard !key.utf8.contains(where: { $0 < 0x20 || $0 == 0x7F }) else {
      throw .unusableKey(variable: variable)
    }
    apiKey = key
  }

  /// Blocks the calling thread, which must not be one of a cooperative pool.
  package func complete(
    _ prompts: [ChatPrompt], shouldStop: () -> Bool, answered: (Int, ChatAnswer) -> Void
  ) throws {
    guard !prompts.isEmpty else { return }
    let inbox = Inbox()
    let work = Task {
      do {
        try await self.ask(prompts) { inbox.put(.answer($0, $1)) }
        inbox.put(.finished(nil))
      } catch {
        inbox.put(.finished(error))
      }
    }
    var isStopped = false
    while true {
      if !isStopped, shouldStop() {
        isStopped = true
        work.cancel()
      }
      switch inbox.take() {
      case .answer(let index, let answer): answered(index, answer)
      case .finished(let error):
        if isStopped { throw StudyError.cancelled }
        if let error { throw error }
        return
      case nil: continue
      }
    }
  }

  package func answer(recorded body: String) throws -> ChatAnswer {
    try ChatWire.decode(Array(body.utf8))
  }

  private func ask(
    _ prompts: [ChatPrompt], answered: @escaping @Sendable (Int, ChatAnswer) -> Void
  ) async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
      var waiting = prompts.indices.makeIterator()
      func start() {
        guard let index = waiting.next() else { return }
        group.addTask { answered(index, try await self.ask(prompts[index])) }
      }
      // More tasks than there are places would only wait.
      for _ in 0..<settings.concurrency { start() }
      while try await group.next() != nil { start() }
    }
  }

  /// One answer. Its place is held between tries as well, so that a server in trouble is asked
  /// less.
  private func ask(_ prompt: ChatPrompt) async throws -> ChatAnswer {
    let body = try ChatWire.encode(prompt, model: settings.model)
    try await places.take()
    do {
      let answer = try await ask(body)
      await places.giveBack()
      return answer
    } catch {
      await places.giveBack()
      throw error
    }
  }

  /// The answer to a request, however many tries it takes.
  private func ask(_ body: [UInt8]) async throws -> ChatAnswer {
    var attempt = 1
    while true {
      try await pace.turn()
      do {
        return try await exchange(body)
      } catch let failure as ChatFailure {
        // Others keep to it also if this request is given up.
        if let asked = schedule.pause(after: failure) { await pace.pause(seconds: asked) }
        let delay = schedule.delay(after: attempt, failure, jitter: Double.random(in: 0...1))
        failed(FailedTry(number: attempt, failure: failure, delaySeconds: delay))
        try Task.checkCancellation()
        guard let delay else {
          throw ChatEndpointError.noAnswer(
            url: settings.url, attempts: attempt, failure: failure.description)
        }
        try await Task.sleep(for: .seconds(delay))
        attempt += 1
      }
    }
  }

  /// One request and its whole answer, within the time limit.
  private func exchange(_ body: [UInt8]) async throws -> ChatAnswer {
    try await withThrowingTaskGroup(of: ChatAnswer.self) { group in
      group.addTask { try await self.send(body) }
      group.addTask {
        try await Task.sleep(for: .seconds(self.settings.timeoutSeconds))
        throw ChatFailure.transport("no whole answer within \(self.settings.timeoutSeconds) s")
      }
      defer { group.cancelAll() }
      guard let answer = try await group.next() else { throw CancellationError() }
      return answer
    }
  }

  private func send(_ body: [UInt8]) async throws -> ChatAnswer {
    var request = HTTPClientRequest(url: settings.url + "/chat/completions")
    request.method = .POST
    request.headers.add(name: "Content-Type", value: "application/json")
    request.headers.add(name: "Accept", value: "application/json")
    if let apiKey { request.headers.add(name: "Authorization", value: "Bearer \(apiKey)") }
    request.body = .bytes(body)
    let status: Int
    let retryAfter: Double?
    var received: [UInt8] = []
    do {
      let response = try await HTTPClient.shared.execute(
        request, timeout: .milliseconds(Int64(settings.timeoutSeconds * 1000)))
      status = Int(response.status.code)
      retryAfter = response.headers.first(name: "Retry-After").flatMap {
        RetrySchedule.retryAfter($0, now: Date().timeIntervalSince1970)
      }
      for try await part in response.body {
        received.append(contentsOf: part.readableBytesView)
        // Said of below; no more is held in memory.
        if received.count > ChatWire.answerBytesMax { break }
      }
    } catch let error as CancellationError {
      throw error
    } catch {
      try Task.checkCancellation()
      throw ChatFailure.transport(ChatWire.excerpt("\(error)", hiding: apiKey))
    }
    guard status == 200 else {
      throw ChatFailure.status(
        status, retryAfter: retryAfter,
        message: ChatWire.excerpt(String(decoding: received, as: UTF8.self), hiding: apiKey))
    }
    return try ChatWire.decode(received, hiding: apiKey)
  }
}

/// A try of a request that brought no answer. Contains no API key.
package struct FailedTry: Hashable, Sendable {
  /// Of this request, from 1.
  package let number: Int
  package let failure: ChatFailure
  /// Before the next try; nil if there is none.
  package let delaySeconds: Double?
}

/// Hands what tasks find to the thread that waits for it.
private final class Inbox: Sendable {
  enum Message: Sendable {
    case answer(Int, ChatAnswer)
    case finished((any Error)?)
  }

  private let messages = Mutex<[Message]>([])
  private let signal = DispatchSemaphore(value: 0)
  /// How soon a stop is noticed while no answer comes.
  private static let patience = 0.2

  func put(_ message: Message) {
    messages.withLock { $0.append(message) }
    signal.signal()
  }

  /// The next message; nil if none came for a moment.
  func take() -> Message? {
    guard signal.wait(timeout: .now() + Self.patience) == .success else { return nil }
    return messages.withLock { $0.removeFirst() }
  }
}

/// Why a server cannot serve as a generator.
package enum ChatEndpointError: Error, Hashable, CustomStringConvertible {
  case noKey(variable: String)
  /// No header can carry the key.
  case unusableKey(variable: String)
  case noAnswer(url: String, attempts: Int, failure: String)

  package var description: String {
    switch self {
    case .noKey(let variable):
      "The environment variable \(variable), which is to hold the generator's API key "
        + "(augmentation.endpoint.api_key_variable), is not set. Set it for every worker."
    case .unusableKey(let variable):
      "The environment variable \(variable), which is to hold the generator's API key "
        + "(augmentation.endpoint.api_key_variable), contains a line break or another control "
        + "character. Set it to the key alone, for every worker."
    case .noAnswer(let url, let attempts, let failure):
      "The generator at \(url) gave no usable answer in \(attempts) "
        + "\(attempts == 1 ? "try" : "tries"): \(failure). Check that the server runs, that "
        + "augmentation.endpoint names its URL up to /v1 and its model, and its limits."
    }
  }
}
