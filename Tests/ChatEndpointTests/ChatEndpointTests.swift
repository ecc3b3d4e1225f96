import BiasStudy
import ChatEndpoint
import Foundation
import SweepCore
import Synchronization
import Testing

struct ChatEndpointTests {
  private func prompts(_ count: Int) -> [ChatPrompt] {
    (0..<count).map {
      ChatPrompt(
        system: "s", user: "prompt \($0)", temperature: 0.5, maximumTokens: 9, seed: 1 << 40)
    }
  }

  private func endpoint(
    _ server: FaultyServer, _ change: (inout SweepSpec.Augmentation.Endpoint) -> Void = { _ in },
    environment: [String: String] = [:]
  ) throws -> ChatEndpoint {
    var settings = SweepSpec.Augmentation.Endpoint(url: server.url, model: "m")
    change(&settings)
    return try ChatEndpoint(settings: settings, environment: environment, firstDelay: 0.001)
  }

  /// Off the cooperative pool, as in a worker.
  private func complete(
    _ endpoint: ChatEndpoint, _ prompts: [ChatPrompt],
    shouldStop: @escaping @Sendable () -> Bool = { false }
  ) async throws -> [Int: String] {
    try await withCheckedThrowingContinuation { continuation in
      Thread.detachNewThread {
        var found: [Int: String] = [:]
        do {
          try endpoint.complete(prompts, shouldStop: shouldStop) { found[$0] = $1.text }
          continuation.resume(returning: found)
        } catch {
          continuation.resume(throwing: error)
        }
      }
    }
  }

  private func failure(_ body: () async throws -> Void) async -> ChatEndpointError? {
    do {
      try await body()
      return nil
    } catch {
      return error as? ChatEndpointError
    }
  }

  /// The prompt that a request carries, echoed.
  @Sendable private static func echo(_ request: FaultyServer.Request) -> FaultyServer.Action {
    let text = String(decoding: request.body, as: UTF8.self)
    let number = text.firstMatch(of: #/prompt (\d+)/#).map { String($0.1) } ?? "?"
    return .answer(body: FaultyServer.completion("echo \(number)"))
  }

  @Test func everyPromptGetsItsAnswer() async throws {
    let server = try FaultyServer(Self.echo)
    let found = try await complete(endpoint(server) { $0.concurrency = 5 }, prompts(40))
    #expect(found == Dictionary(uniqueKeysWithValues: (0..<40).map { ($0, "echo \($0)") }))
    #expect(server.requests.count == 40 && server.mostOpen <= 5 && server.mostOpen > 1)
    let request = try #require(server.requests.first)
    #expect(request.path == "/v1/chat/completions" && request.authorization == nil)
    let json = try request.json()
    #expect(json["model"] as? String == "m" && json["max_tokens"] as? Double == 9)
    #expect(json["temperature"] as? Double == 0.5 && json["seed"] as? Double == 128)
    #expect(json["logprobs"] == nil)
  }

  @Test func keyComesFromTheEnvironmentOnly() async throws {
    let server = try FaultyServer(Self.echo)
    let keyed = try endpoint(
      server, { $0.apiKeyVariable = "THE_KEY" }, environment: ["THE_KEY": "k-1"])
    _ = try await complete(keyed, prompts(1))
    #expect(server.requests.first?.authorization == "Bearer k-1")
    for environment in [[:], ["THE_KEY": ""]] {
      #expect(throws: ChatEndpointError.noKey(variable: "THE_KEY")) {
        try endpoint(server, { $0.apiKeyVariable = "THE_KEY" }, environment: environment)
      }
    }
  }

  @Test(arguments: [
    FaultyServer.Action.answer(status: 429, headers: ["Retry-After": "0"], body: "slow down"),
    .answer(status: 500, body: "oops"), .answer(status: 503, body: ""),
    .truncated(body: FaultyServer.completion("half")), .closed,
    .answer(body: "<html>garbage</html>"), .answer(body: "{\"choices\":[]}"),
    .answer(body: "{\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":null}}]}"),
    .answer(body: String(repeating: "x", count: ChatWire.answerBytesMax + 1)),
  ])
  func passingFaultsAreOutlived(fault: FaultyServer.Action) async throws {
    // Every other request goes wrong.
    let server = try FaultyServer { $0.number % 2 == 0 ? fault : Self.echo($0) }
    let found = try await complete(
      endpoint(server) {
        $0.attempts = 30
        $0.concurrency = 3
      }, prompts(6))
    #expect(found == Dictionary(uniqueKeysWithValues: (0..<6).map { ($0, "echo \($0)") }))
    #expect(server.requests.count > 6)
  }

  @Test func aSilentServerCostsTheTimeLimitOnly() async throws {
    let server = try FaultyServer { $0.number == 0 ? .silent : Self.echo($0) }
    let found = try await complete(endpoint(server) { $0.timeoutSeconds = 0.3 }, prompts(1))
    #expect(found == [0: "echo 0"] && server.requests.count == 2)
  }

  @Test func lastingFaultsEndWithWhatTheServerSaid() async throws {
    let down = try FaultyServer { _ in .answer(status: 500, body: "database is gone") }
    let error = await failure {
      _ = try await complete(endpoint(down) { $0.attempts = 3 }, prompts(1))
    }
    guard case .noAnswer(let url, let attempts, let failure)? = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(url == down.url && attempts == 3 && down.requests.count == 3)
    #expect(failure.contains("500") && failure.contains("database is gone"))
  }

  @Test(arguments: [400, 401, 403, 404, 422])
  func requestsThatAreWrongAreNotRepeated(status: Int) async throws {
    let server = try FaultyServer { _ in .answer(status: status, body: "no such model") }
    let error = await failure { _ = try await complete(endpoint(server), prompts(1)) }
    #expect(server.requests.count == 1)
    #expect(error.map { "\($0)".contains("no such model") } == true)
  }

  @Test func retryAfterHoldsBackAllRequests() async throws {
    let times = Mutex<[ContinuousClock.Instant]>([])
    let server = try FaultyServer { request in
      times.withLock { $0.append(.now) }
      return request.number == 0
        ? .answer(status: 429, headers: ["Retry-After": "1"], body: "") : Self.echo(request)
    }
    _ = try await complete(endpoint(server) { $0.concurrency = 1 }, prompts(2))
    let instants = times.withLock { $0 }
    #expect(instants.count == 3)
    // The timer of the pause begins after the answer was received.
    #expect(instants[0].duration(to: instants[1]) >= .seconds(1))
  }

  @Test func theRateIsKept() async throws {
    let times = Mutex<[ContinuousClock.Instant]>([])
    let server = try FaultyServer { request in
      times.withLock { $0.append(.now) }
      return Self.echo(request)
    }
    _ = try await complete(
      endpoint(server) {
        $0.requestsPerMinute = 1200
        $0.concurrency = 8
      }, prompts(9))
    let instants = times.withLock { $0 }
    // Eight gaps of 50 ms; the first request may arrive late, the last one not early.
    #expect(instants.count == 9)
    #expect((instants.last ?? .now) - (instants.first ?? .now) > .milliseconds(300))
  }

  @Test func aStopRequestEndsIt() async throws {
    let server = try FaultyServer { _ in .silent }
    do {
      _ = try await complete(endpoint(server), prompts(3), shouldStop: { true })
      Issue.record("went on")
    } catch {
      #expect(error as? StudyError == .cancelled)
    }
  }

  // MARK: Wire

  @Test func alternativesOfTheFirstTokenAreRead() throws {
    let body = FaultyServer.completion("B", logprobs: ["A": -2.5, " B": -0.25, "C": -4])
    let answer = try ChatWire.decode(Array(body.utf8))
    #expect(answer.firstToken == ["A": -2.5, " B": -0.25, "C": -4])
    #expect(answer.text == "B" && answer.tokens == 7 && answer.body == body)
    let asked = ChatPrompt(
      system: "", user: "", temperature: 0, maximumTokens: 1, seed: 0, wantsProbabilities: true)
    let request = String(decoding: try ChatWire.encode(asked, model: "m"), as: UTF8.self)
    #expect(request.contains("\"logprobs\":true") && request.contains("\"top_logprobs\":20"))
  }

  @Test func damagedAnswersAreRefusedAndNeverCrash() throws {
    let original = Array(
      FaultyServer.completion("Some text.", logprobs: ["A": -1, "B": -2]).utf8)
    var chance = StudyGenerator(seed: 9)
    var refused = 0
    for _ in 0..<3000 {
      var bytes = original
      if chance.below(3) == 0 { bytes = Array(bytes.prefix(chance.below(bytes.count))) }
      for _ in 0..<(1 + chance.below(4)) where !bytes.isEmpty {
        bytes[chance.below(bytes.count)] = UInt8(chance.below(256))
      }
      do {
        _ = try ChatWire.decode(bytes)
      } catch {
        refused += 1
      }
    }
    #expect(refused > 1000)
  }

  // MARK: Schedule

  @Test func delaysGrowAndEnd() {
    let schedule = RetrySchedule(attempts: 5, firstDelay: 1, longestDelay: 3)
    let failure = ChatFailure.transport("x")
    let longest = (1...5).map { schedule.delay(after: $0, failure, jitter: 1) }
    #expect(longest == [1, 2, 3, 3, nil])
    #expect((1...4).map { schedule.delay(after: $0, failure, jitter: 0) } == [0.5, 1, 1.5, 1.5])
    func status(_ code: Int, _ after: Double? = nil) -> Double? {
      schedule.delay(
        after: 1, .status(code, retryAfter: after, message: ""), jitter: 1)
    }
    #expect(status(429, 7) == 7 && status(503) == 1 && status(404) == nil)
    // Nobody waits for an hour.
    #expect(status(429, 3600) == nil)
  }

  @Test func retryAfterIsSecondsOrADate() {
    #expect(RetrySchedule.retryAfter("12", now: 0) == 12)
    #expect(RetrySchedule.retryAfter(" 0.5 ", now: 0) == 0.5)
    // date -u -d @784111777
    #expect(RetrySchedule.retryAfter("Sun, 06 Nov 1994 08:49:37 GMT", now: 784_111_770) == 7)
    #expect(RetrySchedule.retryAfter("Sun, 06 Nov 1994 08:49:37 GMT", now: 784_111_999) == 0)
    for wrong in ["-1", "soon", "", "inf"] {
      #expect(RetrySchedule.retryAfter(wrong, now: 0) == nil)
    }
  }
}
