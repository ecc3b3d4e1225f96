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
    environment: [String: String] = [:], failed: @escaping @Sendable (FailedTry) -> Void = { _ in }
  ) throws -> ChatEndpoint {
    var settings = SweepSpec.Augmentation.Endpoint(url: server.url, model: "m")
    change(&settings)
    return try ChatEndpoint(
      settings: settings, environment: environment, firstDelay: 0.001, failed: failed)
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
    // As a file with a line break leaves it.
    #expect(throws: ChatEndpointError.unusableKey(variable: "THE_KEY")) {
      try endpoint(
        server, { $0.apiKeyVariable = "THE_KEY" }, environment: ["THE_KEY": "k-1\r\n"])
    }
  }

  @Test func failedTriesAreToldWithoutTheKey() async throws {
    let tries = Mutex<[FailedTry]>([])
    // A server that repeats what it was sent.
    let server = try FaultyServer { request in
      let sent = request.authorization ?? ""
      switch request.number {
      case 0: return .answer(status: 500, body: "the database is gone \(sent)\u{301} \(sent)")
      // Half of it is within the excerpt.
      case 1: return .answer(body: String(repeating: "x", count: 185) + sent)
      default: return .answer(status: 401, body: "not allowed: \(sent)")
      }
    }
    let keyed = try endpoint(
      server, { $0.apiKeyVariable = "THE_KEY" }, environment: ["THE_KEY": "sk-0123456789abcdef"],
      failed: { failed in tries.withLock { $0.append(failed) } })
    let error = await failure { _ = try await complete(keyed, prompts(1)) }
    let found = tries.withLock { $0 }
    #expect(server.requests.allSatisfy { $0.authorization == "Bearer sk-0123456789abcdef" })
    #expect(found.map(\.number) == [1, 2, 3])
    #expect(found.map { $0.delaySeconds == nil } == [false, false, true])
    let said = found.map { "\($0.failure)" } + [error.map { "\($0)" } ?? ""]
    for (text, part) in zip(said, ["500: the database is gone", "xxxxx", "401: not", "401: not"]) {
      #expect(text.contains(part) && !text.contains("sk-") && text.count < 600)
    }
    let long = ChatWire.excerpt("e" + String(repeating: "\u{301}", count: 10_000))
    #expect(long.unicodeScalars.count == 200)
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

  // MARK: Several calls at once

  @Test func callsShareTheConcurrency() async throws {
    let server = try FaultyServer(Self.echo)
    let shared = try endpoint(server) { $0.concurrency = 3 }
    async let first = complete(shared, prompts(30))
    async let second = complete(shared, prompts(30))
    let found = try await [first, second]
    #expect(found.allSatisfy { $0.count == 30 } && server.requests.count == 60)
    #expect(server.mostOpen <= 3 && server.mostOpen > 1)
  }

  @Test func callsShareTheRate() async throws {
    let times = Mutex<[ContinuousClock.Instant]>([])
    let server = try FaultyServer { request in
      times.withLock { $0.append(.now) }
      return Self.echo(request)
    }
    let start = ContinuousClock.now
    let shared = try endpoint(server) { $0.requestsPerMinute = 1200 }
    // Two shards of several rounds each.
    try await withThrowingTaskGroup(of: Void.self) { group in
      for _ in 0..<2 {
        group.addTask { for _ in 0..<5 { _ = try await self.complete(shared, self.prompts(1)) } }
      }
      try await group.waitForAll()
    }
    let instants = times.withLock { $0 }
    // Nine gaps of 50 ms before the last one.
    #expect(instants.count == 10)
    #expect((instants.max() ?? start) - start >= .milliseconds(450))
  }

  @Test(.timeLimit(.minutes(1))) func retryAfterOfOneCallHoldsBackOthers() async throws {
    let times = Mutex<[ContinuousClock.Instant]>([])
    let server = try FaultyServer { request in
      times.withLock { $0.append(.now) }
      return request.number == 0
        ? .answer(status: 429, headers: ["Retry-After": "1"], body: "") : Self.echo(request)
    }
    let (refusals, refusal) = AsyncStream.makeStream(of: FailedTry.self)
    let shared = try endpoint(server, failed: { refusal.yield($0) })
    async let first = complete(shared, prompts(1))
    for await _ in refusals { break }
    async let second = complete(shared, prompts(1))
    let found = try await [first, second]
    let instants = times.withLock { $0 }
    #expect(found == [[0: "echo 0"], [0: "echo 0"]] && instants.count == 3)
    #expect(instants.dropFirst().allSatisfy { $0 - instants[0] >= .seconds(1) })
  }

  @Test func aRequestThatIsGivenUpHoldsBackOthersToo() async throws {
    let times = Mutex<[ContinuousClock.Instant]>([])
    let server = try FaultyServer { request in
      times.withLock { $0.append(.now) }
      return request.number == 0
        ? .answer(status: 503, headers: ["Retry-After": "0.3"], body: "") : Self.echo(request)
    }
    let shared = try endpoint(server) { $0.attempts = 1 }
    let error = await failure { _ = try await complete(shared, prompts(1)) }
    #expect(error != nil)
    _ = try await complete(shared, prompts(1))
    let instants = times.withLock { $0 }
    #expect(instants.count == 2)
    #expect(instants[0].duration(to: instants[1]) >= .milliseconds(300))
  }

  @Test(.timeLimit(.minutes(1))) func callsThatEndGiveTheirPlacesBack() async throws {
    let (arrivals, arrival) = AsyncStream.makeStream(of: Int.self)
    let server = try FaultyServer { request in
      arrival.yield(request.number)
      switch request.number {
      case 0: return .silent
      case 1: return .answer(status: 404, body: "")
      default: return Self.echo(request)
      }
    }
    let shared = try endpoint(server) { $0.concurrency = 1 }
    let isOver = Mutex(false)
    let over: @Sendable () -> Bool = { isOver.withLock { $0 } }
    let holder = Task { try await complete(shared, prompts(1), shouldStop: over) }
    for await _ in arrivals { break }
    // Stopped while it waits for the place.
    let asked = Mutex(0)
    let later: @Sendable () -> Bool = {
      asked.withLock {
        $0 += 1
        return $0 > 1
      }
    }
    await #expect(throws: StudyError.cancelled) {
      _ = try await complete(shared, prompts(1), shouldStop: later)
    }
    #expect(server.requests.count == 1)
    // Stopped while it has the place.
    isOver.withLock { $0 = true }
    await #expect(throws: StudyError.cancelled) { _ = try await holder.value }
    let error = await failure { _ = try await complete(shared, prompts(1)) }
    #expect(error != nil && server.requests.count == 2)
    let found = try await complete(shared, prompts(2))
    #expect(found == [0: "echo 0", 1: "echo 1"])
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
