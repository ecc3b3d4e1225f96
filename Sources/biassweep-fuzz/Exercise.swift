import Foundation
import LanguageModel
import RandomStreams
import TransformerKernels

/// Uses the training core the way workers do, on tiny random models and several threads, so that a
/// sanitizer can watch. Fails if the threads change a result.
enum Exercise {
  private static let configurations = [
    LlamaConfiguration(
      vocabularySize: 101, hiddenSize: 54, layerCount: 3, headCount: 9, keyValueHeadCount: 3,
      headDimension: 6, feedForwardSize: 77, ropeTheta: 10_000, normEpsilon: 1e-5,
      maximumPositions: 96, tiesEmbeddings: true),
    LlamaConfiguration(
      vocabularySize: 67, hiddenSize: 32, layerCount: 2, headCount: 4, keyValueHeadCount: 2,
      headDimension: 10, feedForwardSize: 41, ropeTheta: 10_000, normEpsilon: 1e-5,
      maximumPositions: 96, tiesEmbeddings: false, normalizesHeads: true),
    LlamaConfiguration(
      vocabularySize: 67, hiddenSize: 24, layerCount: 2, headCount: 4, keyValueHeadCount: 1,
      headDimension: 6, feedForwardSize: 33, ropeTheta: 10_000, normEpsilon: 1e-5,
      maximumPositions: 96, tiesEmbeddings: true, hasQueryKeyValueBias: true),
  ]

  /// - Throws: `FuzzDefect` when threads changed a result; what the training core throws.
  static func run(threads: Int) throws {
    for (index, configuration) in configurations.enumerated() {
      let weights = ModelWeights.random(configuration: configuration, seed: UInt64(index))
      let alone = try outcome(weights, pool: ThreadPool(threadCount: 1), cache: nil)
      // Several fine-tunes at once, as in a worker with several slots, share weights and cache.
      let cache = TrunkCache(byteLimit: 1 << 18)
      let outcomes = try concurrently(2) {
        try outcome(weights, pool: ThreadPool(threadCount: threads), cache: cache)
      }
      guard outcomes.allSatisfy({ $0 == alone }) else {
        throw FuzzDefect(description: "model \(index): \(threads) threads changed a result")
      }
      print("model \(index): the same results with 1 and \(threads) threads")
    }
  }

  /// Everything that a fine-tune and its evaluation yield, as bits.
  private static func outcome(
    _ weights: ModelWeights, pool: ThreadPool, cache: TrunkCache?
  ) throws -> [UInt32] {
    let vocabulary = weights.configuration.vocabularySize
    var random = RandomStream(seed: 7, purpose: "exercise")
    func tokens(_ count: Int) -> [Int32] {
      (0..<count).map { _ in Int32(random.index(below: vocabulary)) }
    }
    let sequences = [9, 31, 4, 17, 22, 12, 5].enumerated().map { index, length in
      TrainingSequence(
        tokens: tokens(length), supervised: (0..<length).map { $0 % 3 != 0 || $0 == length - 1 },
        group: index % 2 == 0 ? .original : .augmented)
    }
    let prompts = [tokens(7), tokens(11), tokens(3)]
    let layers = weights.configuration.layerCount
    let adapters: [Adapter] = [
      .full,
      .lora(
        LoRAConfiguration(
          rank: 3, alpha: 6, targets: Set(LoRATarget.allCases), layers: layers - 1..<layers)),
    ]
    var bits: [UInt32] = []
    for adapter in adapters {
      let tuner = try FineTuner(
        weights: weights,
        options: FineTuningOptions(
          adapter: adapter, epochs: 2, batchSize: 3, accumulationSteps: 2, learningRate: 3e-3,
          warmupFraction: 0.2, alignmentWeight: 0.1, seed: 11, recomputesActivations: true),
        pool: pool, trunkCache: cache)
      try tuner.train(sequences, progress: { bits.append($0.loss.bitPattern) })
      let model = tuner.adapted
      let texts = try model.generate(
        prompts, seeds: [1, 2, 3], options: .init(temperature: 0.8, topK: 9, maximumTokens: 6))
      bits += texts.joined().map { UInt32(bitPattern: $0) }
      let scores = try model.score(
        prompts.map { .init(prompt: $0, continuations: [tokens(2), tokens(4)]) })
      bits += scores.joined().map { Float($0.logProbability).bitPattern }
      for state in try model.hiddenStates(prompts) { bits += state.map(\.bitPattern) }
    }
    return bits
  }

  /// Runs `body` on `count` threads of their own.
  private static func concurrently<Result: Sendable>(
    _ count: Int, _ body: @escaping @Sendable () throws -> Result
  ) throws -> [Result] {
    let results = Results<Result>()
    let threads = (0..<count).map { _ in
      Thread { results.add(Swift.Result { try body() }) }
    }
    for thread in threads {
      thread.stackSize = 8 << 20
      thread.start()
    }
    return try results.wait(for: count).map { try $0.get() }
  }

  private final class Results<Value: Sendable>: @unchecked Sendable {
    private let condition = NSCondition()
    private var values: [Result<Value, any Error>] = []

    func add(_ value: Result<Value, any Error>) {
      condition.lock()
      values.append(value)
      condition.broadcast()
      condition.unlock()
    }

    func wait(for count: Int) -> [Result<Value, any Error>] {
      condition.lock()
      defer { condition.unlock() }
      while values.count < count { condition.wait() }
      return values
    }
  }
}
