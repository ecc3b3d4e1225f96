import LanguageModel
import Testing
import TransformerKernels

/// What sharing work between trials rests on: results do not depend, to the last bit, on threads,
/// on the batch around them, or on caches.
@Suite struct DeterminismTests {
  private let sequences = randomSequences([3, 17, 64, 65, 9, 30, 2, 101, 12])

  /// Losses and final values of a fine-tune.
  private func course(
    _ options: FineTuningOptions, threads: Int = 2, cache: TrunkCache? = nil,
    weights: ModelWeights = oddWeights
  ) throws -> [Float] {
    let tuner = try FineTuner(
      weights: weights, options: options, pool: ThreadPool(threadCount: threads),
      trunkCache: cache)
    var losses: [Float] = []
    try tuner.train(sequences, progress: { losses.append($0.loss) })
    return losses + tuner.allValues
  }

  @Test(arguments: [Adapter.full, .upperLayers(from: 2), upperAdapter])
  func trainingDoesNotDependOnThreads(adapter: Adapter) throws {
    let one = try course(options(adapter), threads: 1)
    for threads in [2, 3, 5] {
      #expect(bits(try course(options(adapter), threads: threads)) == bits(one))
    }
  }

  @Test(arguments: oddVariants.indices)
  func trainingOfVariantsDoesNotDependOnThreads(index: Int) throws {
    for adapter in [Adapter.full, .upperLayers(from: 2), upperAdapter] {
      let one = try course(options(adapter), threads: 1, weights: oddVariants[index])
      let three = try course(options(adapter), threads: 3, weights: oddVariants[index])
      #expect(bits(three) == bits(one))
    }
  }

  @Test(.enabled(if: MultiplicationBackend.selected == .own, "a BLAS promises no bits"))
  func generationOfVariantsFollowsTheLogits() throws {
    let pool = ThreadPool(threadCount: 2)
    for weights in oddVariants {
      let model = AdaptedModel(weights: weights, pool: pool)
      let prompt = randomTokens(9, seed: 6)
      let text = try model.generate(
        [prompt], seeds: [1], options: .init(temperature: 0, maximumTokens: 12))[0]
      #expect(text.count == 12)
      // The keys and values that were kept give the tokens that a pass over everything gives.
      let all = try logits(model, prompt + text)
      let vocabulary = weights.configuration.vocabularySize
      for (index, token) in text.enumerated() {
        let row = all[((prompt.count - 1 + index) * vocabulary)...].prefix(vocabulary)
        #expect(row.max() == row[row.startIndex + Int(token)])
      }
    }
  }

  @Test(.enabled(if: MultiplicationBackend.selected == .own, "a BLAS promises no bits"))
  func logitsDoNotDependOnTheBatch() throws {
    let pool = ThreadPool(threadCount: 2)
    let model = AdaptedModel(weights: oddWeights, pool: pool)
    let tokens = sequences.map(\.tokens)
    let together = try logits(model, batch: tokens)
    let alone = try tokens.flatMap { try logits(model, $0) }
    #expect(bits(together) == bits(alone))
    let reversed = try tokens.reversed().flatMap { try logits(model, batch: [$0]) }
    #expect(bits(try logits(model, batch: tokens.reversed())) == bits(reversed))
  }

  @Test(.enabled(if: MultiplicationBackend.selected == .own, "a BLAS promises no bits"))
  func logitsDoNotDependOnWhatFollows() throws {
    let model = AdaptedModel(weights: oddWeights, pool: ThreadPool(threadCount: 2))
    let tokens = randomTokens(150, seed: 5)
    let whole = try logits(model, tokens)
    for count in [1, 2, 63, 64, 65, 100] {
      let part = try logits(model, Array(tokens[..<count]))
      #expect(bits(part) == bits(Array(whole[..<part.count])))
    }
  }

  /// The alignment term reads rows that the cross-entropy alone leaves out.
  @Test(
    .enabled(if: MultiplicationBackend.selected == .own, "a BLAS promises no bits"),
    arguments: [Adapter.upperLayers(from: 2), upperAdapter], [0, 0.3])
  func aTrunkCacheChangesNothing(adapter: Adapter, alignmentWeight: Float) throws {
    var options = options(adapter, alignmentWeight: alignmentWeight)
    for exponent: Float in [0, 1.5] {
      options.reweightingExponent = exponent
      let plain = try course(options)
      let cache = TrunkCache(byteLimit: 1 << 24)
      #expect(bits(try course(options, cache: cache)) == bits(plain))
      let first = cache.statistics
      #expect(first.hits > 0 && first.misses > 0 && first.evictions == 0)
      // A second fine-tune finds everything.
      #expect(bits(try course(options, cache: cache)) == bits(plain))
      #expect(cache.statistics.misses == first.misses)
      // One that holds almost nothing.
      let tiny = TrunkCache(byteLimit: 30_000)
      #expect(bits(try course(options, cache: tiny)) == bits(plain))
      #expect(tiny.statistics.evictions > 0)
      #expect(tiny.statistics.bytes <= 30_000)
    }
  }

  @Test(arguments: [Adapter.full, .upperLayers(from: 2), upperAdapter])
  func recomputingActivationsChangesNothing(adapter: Adapter) throws {
    #expect(
      bits(try course(options(adapter, recomputes: true))) == bits(try course(options(adapter))))
  }

  @Test func theSeedDecidesTheCourse() throws {
    let first = try course(options(upperAdapter, seed: 1))
    #expect(bits(first) == bits(try course(options(upperAdapter, seed: 1))))
    #expect(bits(first) != bits(try course(options(upperAdapter, seed: 2))))
  }
}
