import Foundation
import LanguageModel
import Testing
import TransformerKernels

@Suite struct EvaluationTests {
  private let pool = ThreadPool(threadCount: 2)

  /// The odd model with an adapter that does something.
  private func adapted(cache: TrunkCache? = nil) throws -> AdaptedModel {
    let tuner = try FineTuner(
      weights: oddWeights, options: options(upperAdapter), pool: pool, trunkCache: cache)
    try tuner.train(randomSequences([7, 30, 12, 5]))
    return tuner.adapted
  }

  /// Prompts with common beginnings, one the beginning of another, one twice.
  private var requests: [AdaptedModel.ScoringRequest] {
    let prefix = randomTokens(20, seed: 1)
    let prompts = [
      prefix, prefix + randomTokens(50, seed: 2), prefix + randomTokens(3, seed: 3),
      Array(prefix[..<4]), randomTokens(1, seed: 4), randomTokens(90, seed: 5), prefix,
    ]
    return prompts.enumerated().map { index, prompt in
      let first = randomTokens(1 + index % 3, seed: 10 + UInt64(index))
      return AdaptedModel.ScoringRequest(
        prompt: prompt, continuations: [first, first + [7], [3], [3]])
    }
  }

  @Test func scoresAreSumsOfLogProbabilities() throws {
    let model = try adapted()
    let vocabulary = oddWeights.configuration.vocabularySize
    let scores = try model.score(requests)
    for (request, scores) in zip(requests, scores) {
      for (continuation, score) in zip(request.continuations, scores) {
        let all = try logits(model, request.prompt + continuation).map(Double.init)
        let expected = continuation.indices.reduce(0.0) { sum, index in
          let first = (request.prompt.count - 1 + index) * vocabulary
          let row = all[first..<first + vocabulary]
          return sum + row[first + Int(continuation[index])] - log(row.reduce(0) { $0 + exp($1) })
        }
        #expect(abs(score.logProbability - expected) < 2e-6)
        #expect(score.tokenCount == continuation.count)
      }
    }
  }

  @Test(.enabled(if: MultiplicationBackend.selected == .own, "a BLAS promises no bits"))
  func sharedBeginningsAndCachesDoNotChangeScores() throws {
    let model = try adapted()
    let together = try model.score(requests)
    let alone = try requests.map { request in
      try request.continuations.map {
        try model.score([.init(prompt: request.prompt, continuations: [$0])])[0][0]
      }
    }
    #expect(together == alone)

    let cache = TrunkCache(byteLimit: 1 << 24)
    let cached = try adapted(cache: cache)
    #expect(try cached.score(requests) == together)
    let misses = cache.statistics.misses
    #expect(try cached.score(requests) == together)
    #expect(cache.statistics.misses == misses)
    // Other batches find some of it.
    #expect(try cached.score(Array(requests[2...])) == Array(together[2...]))
  }

  @Test func textsDoNotDependOnOthersOrOnThreads() throws {
    let model = try adapted()
    let prompts =
      requests.map(\.prompt) + (0..<40).map { randomTokens(1 + $0 % 9, seed: 60 + UInt64($0)) }
    let seeds = prompts.indices.map { UInt64($0) * 17 }
    let options = AdaptedModel.SamplingOptions(
      temperature: 0.9, topK: 20, maximumTokens: 14, stopTokens: [5, 6, 7, 8])
    let together = try model.generate(prompts, seeds: seeds, options: options)
    for index in prompts.indices.shuffled().prefix(12) {
      let alone = try model.generate([prompts[index]], seeds: [seeds[index]], options: options)
      #expect(alone[0] == together[index])
    }
    let reversed = try model.generate(
      prompts.reversed(), seeds: seeds.reversed(), options: options)
    #expect(Array(reversed.reversed()) == together)
    #expect(Set(together.map(\.count)).count > 2)
    let serial = AdaptedModel(weights: oddWeights, pool: ThreadPool(threadCount: 1))
    let parallel = AdaptedModel(weights: oddWeights, pool: ThreadPool(threadCount: 4))
    #expect(
      try serial.generate(prompts, seeds: seeds, options: options)
        == parallel.generate(prompts, seeds: seeds, options: options))
  }

  /// More texts than run at a time: later ones use keys and values computed with the first.
  @Test func aSharedBeginningDoesNotChangeTexts() throws {
    let model = try adapted()
    let beginning = randomTokens(25, seed: 300)
    let prompts =
      (0..<70).map { beginning + randomTokens(1 + $0 % 5, seed: 310 + UInt64($0)) }
      + [beginning + [3], beginning + [3]]
    let seeds = prompts.indices.map { UInt64($0) * 13 }
    let options = AdaptedModel.SamplingOptions(
      temperature: 0.8, topK: 0, maximumTokens: 9, stopTokens: [5, 6, 7, 8])
    let together = try model.generate(prompts, seeds: seeds, options: options)
    #expect(Set(together.map(\.count)).count > 2)
    for index in [0, 31, 32, 40, 69, 70, 71] {
      let alone = try model.generate([prompts[index]], seeds: [seeds[index]], options: options)
      #expect(alone[0] == together[index], "text \(index)")
    }
    // What the frozen layers make of the prompts is kept: some of it, then all.
    let cache = TrunkCache(byteLimit: 1 << 26)
    let cached = try adapted(cache: cache)
    let some = [5, 40, 71, 12]
    #expect(
      try cached.generate(some.map { prompts[$0] }, seeds: some.map { seeds[$0] }, options: options)
        == some.map { together[$0] })
    for shares in [true, true, false] {
      cached.sharesPrefixes = shares
      let before = cache.statistics
      #expect(try cached.generate(prompts, seeds: seeds, options: options) == together)
      if before.hits > 4 { #expect(cache.statistics.misses == before.misses) }
    }
    #expect(cache.statistics.hits >= 2 * prompts.count)
  }

  @Test func greedyTextsTakeTheLargestLogit() throws {
    let model = try adapted()
    let vocabulary = oddWeights.configuration.vocabularySize
    let prompts = [randomTokens(3, seed: 70), randomTokens(66, seed: 71)]
    let texts = try model.generate(
      prompts, seeds: [0, 0], options: .init(temperature: 0, maximumTokens: 10))
    for (prompt, text) in zip(prompts, texts) {
      #expect(text.count == 10)
      let all = try logits(model, prompt + text)
      for (index, token) in text.enumerated() {
        let first = (prompt.count - 1 + index) * vocabulary
        let row = all[first..<first + vocabulary]
        #expect(row.firstIndex(of: row.max() ?? 0) == first + Int(token))
      }
    }
  }

  @Test func textsEndAtStopTokensAndAtTheLastPosition() throws {
    let model = try adapted()
    let prompt = randomTokens(5, seed: 80)
    let free = try model.generate(
      [prompt], seeds: [1], options: .init(temperature: 1, maximumTokens: 30))[0]
    let stop = free[12]
    let stopped = try model.generate(
      [prompt], seeds: [1],
      options: .init(temperature: 1, maximumTokens: 30, stopTokens: [stop]))[0]
    #expect(stopped == Array(free.prefix { $0 != stop }))
    let long = try model.generate(
      [randomTokens(155, seed: 81)], seeds: [1],
      options: .init(temperature: 1, maximumTokens: 30))[0]
    // 160 positions, the last text token needs none.
    #expect(long.count == 6)
    #expect(
      try model.generate([prompt], seeds: [1], options: .init(temperature: 1, maximumTokens: 0))
        == [[]])
  }

  @Test func hiddenStatesAreMeansOverTokens() throws {
    let model = AdaptedModel(weights: oddWeights, pool: pool)
    let sequences = [randomTokens(4, seed: 90), randomTokens(30, seed: 91)]
    let means = try model.hiddenStates(sequences)
    #expect(means.map(\.count) == [54, 54])
    // Final states are normalised, with weights of one.
    let single = try model.hiddenStates([[3]])[0]
    let meanSquare = single.reduce(0) { $0 + $1 * $1 } / 54
    #expect(abs(meanSquare - 1) < 1e-2)
    #expect(try model.hiddenStates(sequences.reversed()) == means.reversed())
  }

  @Test func badInputIsNamed() throws {
    let model = AdaptedModel(weights: oddWeights, pool: pool)
    #expect(throws: EvaluationError.invalidTokens(index: 1, problem: .empty)) {
      try model.score([
        .init(prompt: [1], continuations: [[2]]), .init(prompt: [], continuations: [[2]]),
      ])
    }
    #expect(throws: EvaluationError.emptyContinuation(index: 0, continuation: 1)) {
      try model.score([.init(prompt: [1], continuations: [[2], []])])
    }
    #expect(
      throws: EvaluationError.invalidTokens(
        index: 0, problem: .unknownToken(id: 101, position: 2, vocabulary: 101))
    ) {
      try model.hiddenStates([[1, 2, 101]])
    }
    #expect(
      throws: EvaluationError.invalidTokens(index: 0, problem: .tooLong(count: 161, maximum: 160))
    ) {
      try model.generate(
        [randomTokens(161, seed: 1)], seeds: [0], options: .init(temperature: 0, maximumTokens: 1))
    }
    #expect(throws: EvaluationError.countMismatch(prompts: 1, seeds: 2)) {
      try model.generate([[1]], seeds: [0, 1], options: .init(temperature: 0, maximumTokens: 1))
    }
    #expect(throws: EvaluationError.self) {
      try model.generate([[1]], seeds: [0], options: .init(temperature: -1, maximumTokens: 1))
    }
  }

  @Test func evaluationCanBeCancelled() throws {
    let model = AdaptedModel(weights: oddWeights, pool: pool)
    #expect(throws: EvaluationError.cancelled) {
      try model.score(requests, shouldStop: { true })
    }
    var calls = 0
    #expect(throws: EvaluationError.cancelled) {
      try model.generate(
        [[1, 2]], seeds: [0], options: .init(temperature: 1, maximumTokens: 50),
        shouldStop: {
          calls += 1
          return calls > 5
        })
    }
  }
}
