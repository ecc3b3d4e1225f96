import LanguageModel
import RandomStreams
import Testing
import TransformerKernels

@Suite struct GradientTests {
  /// Compares the gradient of each tensor, in a random direction, with central differences.
  private func check(
    _ adapter: Adapter, accumulationSteps: Int = 1, alignmentWeight: Float = 0,
    weights: ModelWeights = oddWeights, recomputes: Bool = false
  ) throws {
    let sequences = randomSequences([5, 19, 2, 33, 8, 11])
    let tuner = try FineTuner(
      weights: weights,
      options: options(
        adapter, accumulationSteps: accumulationSteps, alignmentWeight: alignmentWeight,
        recomputes: recomputes),
      pool: ThreadPool(threadCount: 2))
    var random = RandomStream(seed: 4, purpose: "directions")
    // Fills the running means and moves every tensor away from its start, B from zero above all.
    _ = tuner.accumulateGradients(sequences)
    for name in tuner.tensorNames {
      let value = try #require(tuner.value(name))
      #expect(tuner.set(name, to: value.map { $0 + Float(random.uniform() - 0.5) * 0.3 }))
    }
    for name in tuner.tensorNames {
      _ = tuner.accumulateGradients(sequences, updatingRunningMeans: false)
      let gradient = try #require(tuner.gradient(name)).map(Double.init)
      let value = try #require(tuner.value(name))
      // Half along the gradient: a random direction alone is nearly orthogonal to it.
      let norm = gradient.reduce(0) { $0 + $1 * $1 }.squareRoot()
      #expect(norm > 0, "\(name)")
      let direction = gradient.map {
        $0 / norm + (random.uniform() - 0.5) / Double(gradient.count).squareRoot()
      }
      let step = 4e-3
      func loss(_ factor: Double) -> Double {
        let moved = zip(value, direction).map { Float(Double($0) + factor * $1) }
        guard tuner.set(name, to: moved) else { return .nan }
        return tuner.accumulateGradients(sequences, updatingRunningMeans: false)
      }
      // Fourth order, so that the step can be large against the rounding of Float32.
      let near = (loss(step) - loss(-step)) / (2 * step)
      let far = (loss(2 * step) - loss(-2 * step)) / (4 * step)
      let numeric = (4 * near - far) / 3
      let ours = zip(gradient, direction).reduce(0) { $0 + $1.0 * $1.1 }
      #expect(abs(ours - numeric) < 0.01 * abs(ours) + 2e-4, "\(name): \(ours) \(numeric)")
      #expect(tuner.set(name, to: value))
    }
  }

  @Test func everyWeight() throws { try check(.full) }

  @Test(arguments: [0, 2]) func everyWeightOfUpperLayers(lowest: Int) throws {
    try check(.upperLayers(from: lowest), accumulationSteps: 2, alignmentWeight: 0.3)
    try check(.upperLayers(from: lowest), weights: oddVariants[0], recomputes: true)
  }

  /// What upper layers learn is a part of what all weights would learn.
  @Test func upperLayersHaveTheGradientsOfAllWeights() throws {
    let sequences = randomSequences([5, 19, 2, 33])
    func gradients(_ adapter: Adapter) throws -> FineTuner {
      let tuner = try FineTuner(
        weights: oddWeights, options: options(adapter), pool: ThreadPool(threadCount: 2))
      _ = tuner.accumulateGradients(sequences)
      return tuner
    }
    let all = try gradients(.full)
    let upper = try gradients(.upperLayers(from: 3))
    #expect(upper.tensorNames.count == 10)
    #expect(upper.tensorNames.contains("model.norm.weight"))
    for name in upper.tensorNames {
      #expect(bits(try #require(upper.gradient(name))) == bits(try #require(all.gradient(name))))
    }
  }

  @Test(arguments: oddVariants.indices) func everyWeightOfVariants(index: Int) throws {
    for recomputes in [false, true] {
      try check(
        .full, accumulationSteps: 2, weights: oddVariants[index], recomputes: recomputes)
      try check(upperAdapter, weights: oddVariants[index], recomputes: recomputes)
    }
  }

  @Test func everyAdapterMatrix() throws { try check(upperAdapter) }

  @Test(arguments: LoRATarget.allCases) func aSingleTarget(target: LoRATarget) throws {
    try check(
      .lora(LoRAConfiguration(rank: 3, alpha: 6, targets: [target], layers: 1..<3)))
  }

  @Test func rankStabilisedAdapter() throws {
    let lora = LoRAConfiguration(
      rank: 4, alpha: 6, targets: [.query, .down], layers: 0..<4, rankStabilised: true)
    #expect(lora.scale == 3)
    try check(.lora(lora))
  }

  @Test func alignmentTerm() throws { try check(upperAdapter, alignmentWeight: 0.3) }

  @Test func accumulatedGradients() throws {
    try check(upperAdapter, accumulationSteps: 3, alignmentWeight: 0.3)
  }

  /// Items with common beginnings, one the beginning of another, one twice, some of them predicting
  /// different tokens after the same ones.
  private var branchingSequences: [TrainingSequence] {
    let stem = randomTokens(20, seed: 1)
    return [
      stem + [3, 4], stem + [3, 9] + randomTokens(70, seed: 2), Array(stem[..<7]), stem + [3, 4],
      randomTokens(12, seed: 3), Array(stem[..<11]) + randomTokens(30, seed: 4),
    ].enumerated().map { index, tokens in
      TrainingSequence(
        tokens: tokens, supervised: tokens.indices.map { $0 % 2 == 0 || $0 > 18 },
        group: index % 2 == 0 ? .augmented : .original)
    }
  }

  @Test(arguments: [Adapter.full, .upperLayers(from: 2), upperAdapter])
  func commonBeginningsAreComputedOnceWithTheSameGradient(adapter: Adapter) throws {
    let results = try [true, false].map { shares in
      var options = options(adapter, accumulationSteps: 2, alignmentWeight: 0.3)
      options.sharesPrefixes = shares
      let tuner = try FineTuner(
        weights: oddWeights, options: options, pool: ThreadPool(threadCount: 2))
      for name in tuner.tensorNames {
        let value = try #require(tuner.value(name))
        #expect(tuner.set(name, to: value.enumerated().map { $1 + Float($0 % 7 - 3) * 0.02 }))
      }
      let loss = tuner.accumulateGradients(branchingSequences)
      return (loss, tuner.tensorNames.map { tuner.gradient($0) ?? [] })
    }
    if MultiplicationBackend.selected == .own { #expect(results[0].0 == results[1].0) }
    for (shared, apart) in zip(results[0].1, results[1].1) {
      let largest = apart.lazy.map(abs).max() ?? 0
      #expect(maximumDifference(shared, apart) <= 1e-5 * largest + 1e-7)
    }
  }

  @Test func accumulationDoesNotChangeTheMean() throws {
    let sequences = randomSequences([5, 19, 2, 33])
    let gradients = try [1, 2, 4].map { parts in
      let tuner = try FineTuner(
        weights: oddWeights, options: options(.full, accumulationSteps: parts),
        pool: ThreadPool(threadCount: 2))
      _ = tuner.accumulateGradients(sequences)
      return tuner.tensorNames.flatMap { tuner.gradient($0) ?? [] }
    }
    #expect(maximumDifference(gradients[0], gradients[1]) < 1e-6)
    #expect(maximumDifference(gradients[0], gradients[2]) < 1e-6)
  }
}
