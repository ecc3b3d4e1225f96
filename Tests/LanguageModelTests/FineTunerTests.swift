import LanguageModel
import Testing
import TransformerKernels

@Suite struct FineTunerTests {
  private let pool = ThreadPool(threadCount: 2)

  private func tuner(_ options: FineTuningOptions) throws -> FineTuner {
    try FineTuner(weights: oddWeights, options: options, pool: pool)
  }

  @Test(arguments: [Adapter.full, upperAdapter]) func trainingLowersTheLoss(adapter: Adapter) throws
  {
    var options = options(adapter)
    options.epochs = 30
    options.learningRate = 2e-2
    let tuner = try tuner(options)
    let sequences = randomSequences([9, 14, 20, 11, 8, 17])
    var progress: [FineTuningProgress] = []
    try tuner.train(sequences, progress: { progress.append($0) })
    #expect(progress.map(\.step) == Array(1...60))
    #expect(progress.allSatisfy { $0.stepCount == 60 })
    #expect(progress.last?.tokens == 30 * sequences.reduce(0) { $0 + $1.tokens.count })
    // The tokens are random and the head is small, so an adapter cannot do much: but it must.
    let share = adapter == .full ? 0.6 : 0.97
    #expect(tuner.accumulateGradients(sequences) < share * Double(progress[0].loss))
  }

  @Test func aFreshAdapterChangesNothing() throws {
    let tokens = randomTokens(40, seed: 3)
    let base = AdaptedModel(weights: oddWeights, pool: pool)
    let adapted = try tuner(options(upperAdapter)).adapted
    #expect(bits(try logits(adapted, tokens)) == bits(try logits(base, tokens)))
  }

  @Test func theAdaptedModelIsACopy() throws {
    let tokens = randomTokens(40, seed: 3)
    for adapter in [Adapter.full, upperAdapter] {
      let tuner = try tuner(options(adapter))
      try tuner.takeStep(randomSequences([9, 14]), learningRate: 1e-2)
      let model = tuner.adapted
      let before = try logits(model, tokens)
      try tuner.takeStep(randomSequences([9, 14]), learningRate: 1e-2)
      #expect(bits(try logits(model, tokens)) == bits(before))
      #expect(bits(try logits(tuner.adapted, tokens)) != bits(before))
    }
  }

  @Test func initialAdaptersFollowTheSeedOnly() throws {
    let name = "base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight"
    let first = try #require(try tuner(options(upperAdapter, seed: 5)).value(name))
    let bound = 1 / Float(54).squareRoot()
    #expect(first.count == 5 * 54)
    #expect(first.allSatisfy { abs($0) <= bound })
    #expect(first.contains { abs($0) > 0.9 * bound })
    // Other targets and layers beside it make no difference.
    let narrow = Adapter.lora(
      LoRAConfiguration(rank: 5, alpha: 1, targets: [.query], layers: 3..<4))
    #expect(try tuner(options(narrow, seed: 5)).value(name) == first)
    #expect(try tuner(options(narrow, seed: 6)).value(name) != first)
    let b = name.replacing("lora_A", with: "lora_B")
    #expect(try tuner(options(narrow)).value(b)?.allSatisfy { $0 == 0 } == true)
  }

  @Test func unsupervisedTokensAreNoTargets() throws {
    let tuner = try tuner(options(upperAdapter))
    let tokens = randomTokens(12, seed: 8)
    let only = TrainingSequence(
      tokens: tokens, supervised: tokens.indices.map { $0 == 0 || $0 == 7 }, group: .original)
    let scores = try tuner.adapted.score([
      .init(prompt: Array(tokens[..<7]), continuations: [[tokens[7]]])
    ])
    #expect(abs(tuner.accumulateGradients([only]) + scores[0][0].logProbability) < 1e-6)
  }

  @Test(arguments: [Adapter.full, upperAdapter])
  func logitsInChunksGiveTheSameGradients(adapter: Adapter) throws {
    let sequences = randomSequences([9, 14, 20, 11, 8, 17])
    func gradients(headRows: Int) throws -> [Float] {
      let tuner = try FineTuner(
        weights: oddWeights, options: options(adapter), pool: pool, headRows: headRows)
      let loss = tuner.accumulateGradients(sequences)
      return [Float(loss)] + tuner.tensorNames.flatMap { tuner.gradient($0) ?? [] }
    }
    let whole = try gradients(headRows: 256)
    let chunked = try gradients(headRows: 7)
    // Only the gradient of the head is a sum over chunks.
    if adapter == .full {
      let largest = whole.map(abs).max() ?? 0
      #expect(zip(whole, chunked).allSatisfy { abs($0 - $1) <= 1e-6 * largest })
      #expect(whole[0] == chunked[0])
    } else {
      #expect(MultiplicationBackend.selected != .own || bits(whole) == bits(chunked))
    }
  }

  @Test func learningRateRisesAndFalls() throws {
    var options = options(upperAdapter)
    options.learningRate = 1
    options.warmupFraction = 0.25
    let rates = (0..<8).map { options.learningRate(step: $0, stepCount: 8) }
    let expected: [Double] = [0, 3, 6, 5, 4, 3, 2, 1].map { (sixths: Int) in Double(sixths) / 6 }
    #expect(zip(rates, expected).allSatisfy { abs($0 - $1) < 1e-12 })
    options.warmupFraction = 0
    #expect(options.learningRate(step: 0, stepCount: 4) == 1)
  }

  @Test func clippingBoundsTheGradientOfAStep() throws {
    // With an epsilon far above the gradient, Adam's first step is the clipped gradient.
    let sequences = randomSequences([9, 14])
    for clip in [Float(1e-3), 1e6] {
      var options = options(.full)
      options.gradientClip = clip
      options.epsilon = 1e3
      options.weightDecay = 0
      let tuner = try tuner(options)
      let before = tuner.allValues
      try tuner.takeStep(sequences, learningRate: 1e3)
      let norm = tuner.gradientNorm()
      #expect(norm > 1e-2 && norm < 1e2)
      let moved = zip(before, tuner.allValues).reduce(0.0) {
        $0 + Double($1.0 - $1.1) * Double($1.0 - $1.1)
      }.squareRoot()
      #expect(abs(moved / min(norm, Double(clip)) - 1) < 0.02)
    }
  }

  @Test func cancellingKeepsWholeSteps() throws {
    let tuner = try tuner(options(upperAdapter))
    let sequences = randomSequences([9, 14, 20, 11, 8, 17])
    var steps = 0
    #expect(throws: FineTuningError.cancelled) {
      try tuner.train(sequences, shouldStop: { steps == 2 }, progress: { steps = $0.step })
    }
    #expect(tuner.step == 2)
    // Going on from there ends where an undisturbed run ends.
    try tuner.train(sequences)
    let whole = try self.tuner(options(upperAdapter))
    try whole.train(sequences)
    #expect(bits(tuner.allValues) == bits(whole.allValues))
  }

  @Test func theAlignmentTermPullsTheGroupsTogether() throws {
    let sequences = randomSequences([9, 14, 20, 11, 8, 17])
    func distance(_ weight: Float) throws -> Float {
      var options = options(upperAdapter, alignmentWeight: weight)
      options.epochs = 10
      options.batchSize = 6
      options.learningRate = 1e-2
      let tuner = try tuner(options)
      try tuner.train(sequences)
      let states = try tuner.adapted.hiddenStates(sequences.map(\.tokens))
      func mean(_ group: Group) -> [Float] {
        let chosen = zip(states, sequences).filter { $0.1.group == group }.map(\.0)
        return (0..<54).map { column in
          chosen.reduce(0) { $0 + $1[column] } / Float(chosen.count)
        }
      }
      return zip(mean(.original), mean(.augmented)).reduce(0) {
        $0 + ($1.0 - $1.1) * ($1.0 - $1.1)
      }
    }
    #expect(try distance(1) < 0.5 * distance(0))
  }

  @Test func badInputIsNamed() throws {
    let tuner = try tuner(options(upperAdapter))
    let good = randomSequences([5])[0]
    #expect(throws: FineTuningError.noSequences) { try tuner.train([]) }
    var bad = good
    bad.supervised.removeLast()
    #expect(throws: FineTuningError.lengthMismatch(index: 1, tokens: 5, supervised: 4)) {
      try tuner.train([good, bad])
    }
    bad = good
    bad.supervised = [true, false, false, false, false]
    #expect(throws: FineTuningError.nothingSupervised(index: 0)) { try tuner.train([bad]) }
    bad = good
    bad.tokens[3] = -1
    #expect(
      throws: FineTuningError.invalidTokens(
        index: 0, problem: .unknownToken(id: -1, position: 3, vocabulary: 101))
    ) { try tuner.train([bad]) }
    for lora in [
      LoRAConfiguration(rank: 0, alpha: 1, targets: [.query], layers: 0..<1),
      LoRAConfiguration(rank: 1, alpha: 1, targets: [], layers: 0..<1),
      LoRAConfiguration(rank: 1, alpha: 1, targets: [.query], layers: 3..<5),
      LoRAConfiguration(rank: 1, alpha: -1, targets: [.query], layers: 0..<1),
    ] {
      #expect(throws: FineTuningError.self) { try self.tuner(options(.lora(lora))) }
    }
    var diverging = options(.full)
    diverging.gradientClip = nil
    let wild = try self.tuner(diverging)
    #expect(throws: FineTuningError.self) {
      for _ in 0..<50 { try wild.takeStep([good], learningRate: 1e30) }
    }
  }
}
