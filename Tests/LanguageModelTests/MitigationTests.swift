import LanguageModel
import RandomStreams
import Testing
import TransformerKernels

/// What mitigations ask of the training core: equal probability of groups of tokens, and weights of
/// items in the loss.
@Suite struct MitigationTests {
  // MARK: Balance

  private func softmax(_ logits: [Float]) -> [Double] {
    let highest = logits.map(Double.init).max() ?? 0
    let powers = logits.map { exponential(Double($0) - highest) }
    let sum = powers.reduce(0, +)
    return powers.map { $0 / sum }
  }

  /// e^x by its series, so that nothing of the tested code's arithmetic is used.
  private func exponential(_ x: Double) -> Double {
    var term = 1.0
    var sum = 1.0
    let reduced = x / 1024
    for k in 1...30 {
      term *= reduced / Double(k)
      sum += term
    }
    for _ in 0..<10 { sum *= sum }
    return sum
  }

  @Test func sidesGetEqualMassAndNothingElseChanges() throws {
    var random = RandomStream(seed: 3, purpose: "logits")
    for round in 0..<40 {
      let logits = (0..<50).map { _ in Float(random.uniform() * 12 - 6) }
      let sides: [[Int32]] =
        round % 2 == 0 ? [[3, 17, 40], [4, 5]] : [[0], [49, 20], [7, 8, 9], [11, 30]]
      let balance = try #require(TokenBalance(sides: sides))
      var changed = logits
      changed.withUnsafeMutableBufferPointer { buffer in
        if let base = buffer.baseAddress { balance.apply(to: base) }
      }
      let before = softmax(logits)
      let after = softmax(changed)
      let members = Set(sides.joined().map(Int.init))
      let mass = members.reduce(0) { $0 + before[$1] }
      for side in sides {
        let own = side.reduce(0) { $0 + after[Int($1)] }
        #expect(abs(own - mass / Double(sides.count)) < 1e-6)
        // Proportions within a side stay.
        for token in side {
          let ratio = after[Int(token)] / after[Int(side[0])]
          let expected = before[Int(token)] / before[Int(side[0])]
          #expect(abs(ratio - expected) < 1e-5 * expected)
        }
      }
      for token in logits.indices where !members.contains(token) {
        #expect(changed[token] == logits[token])
        #expect(abs(after[token] - before[token]) < 1e-6)
      }
    }
  }

  @Test func aSideThatCannotOccurStaysSo() throws {
    let balance = try #require(TokenBalance(sides: [[0], [1]]))
    var logits: [Float] = [2, -.infinity, 1]
    logits.withUnsafeMutableBufferPointer { buffer in
      if let base = buffer.baseAddress { balance.apply(to: base) }
    }
    #expect(logits[1] == -.infinity && logits[0].isFinite && logits[2] == 1)
    #expect(TokenBalance(sides: [[1, 2], []]) == nil)
  }

  @Test func generatedTokensFollowTheBalance() throws {
    let model = AdaptedModel(weights: oddWeights, pool: ThreadPool(threadCount: 2))
    let prompt = randomTokens(6, seed: 2)
    func counts(_ balances: [TokenBalance]) throws -> [Int32: Int] {
      let count = 4000
      let texts = try model.generate(
        Array(repeating: prompt, count: count), seeds: (0..<count).map(UInt64.init),
        options: AdaptedModel.SamplingOptions(
          temperature: 1, maximumTokens: 1, balances: balances))
      return texts.joined().reduce(into: [:]) { $0[$1, default: 0] += 1 }
    }
    // Some of the likeliest tokens against some of the least likely.
    let plain = try counts([])
    let order = (Int32(0)..<101).sorted { plain[$0, default: 0] > plain[$1, default: 0] }
    let (first, second) = (Array(order[0..<4]), Array(order[94..<99]))
    let balance = try #require(TokenBalance(sides: [first, second]))
    let balanced = try counts([balance])
    func mass(_ counts: [Int32: Int], _ tokens: [Int32]) -> Double {
      tokens.reduce(0) { $0 + Double(counts[$1, default: 0]) }
    }
    #expect(mass(plain, first) > 1.5 * mass(plain, second))
    let (left, right) = (mass(balanced, first), mass(balanced, second))
    #expect(abs(left - right) < 5 * (left + right).squareRoot())
    let whole = mass(plain, first + second)
    #expect(abs(left + right - whole) < 5 * (2 * whole).squareRoot())
  }

  @Test func aTokenOutsideTheVocabularyIsNamed() throws {
    let model = AdaptedModel(weights: oddWeights, pool: ThreadPool(threadCount: 1))
    let balance = try #require(TokenBalance(sides: [[1], [101]]))
    #expect(throws: EvaluationError.self) {
      try model.generate(
        [[1]], seeds: [1],
        options: AdaptedModel.SamplingOptions(
          temperature: 1, maximumTokens: 1, balances: [balance]))
    }
  }

  // MARK: Reweighting

  private func tuner(_ adapter: Adapter, exponent: Float, parts: Int = 1) throws -> FineTuner {
    var options = options(adapter, accumulationSteps: parts)
    options.batchSize = 6
    options.reweightingExponent = exponent
    let tuner = try FineTuner(
      weights: oddWeights, options: options, pool: ThreadPool(threadCount: 2))
    var random = RandomStream(seed: 4, purpose: "start")
    for name in tuner.tensorNames {
      let value = try #require(tuner.value(name))
      #expect(tuner.set(name, to: value.map { $0 + Float(random.uniform() - 0.5) * 0.3 }))
    }
    return tuner
  }

  @Test func weightsFallWithTheLossOfAnItem() {
    #expect(LossReweighting.weight(meanLoss: 0, exponent: 1) == 0)
    #expect(abs(LossReweighting.weight(meanLoss: 0.693_147_180_559_945, exponent: 2) - 0.25) < 1e-6)
    #expect(LossReweighting.weight(meanLoss: 50, exponent: 3) == 1)
    let weights = stride(from: 0, to: 5, by: 0.1).map {
      LossReweighting.weight(meanLoss: $0, exponent: 1.5)
    }
    #expect(weights == weights.sorted())
  }

  /// The gradient is the sum of the items' own gradients, each measured apart and without weights,
  /// times weights computed here; its value along itself agrees with central differences of the
  /// loss in which these weights are held fixed.
  @Test(arguments: [upperAdapter, Adapter.full])
  func gradientIsThatOfTheWeightedItems(adapter: Adapter) throws {
    let sequences = randomSequences([9, 14, 20, 11, 8, 17])
    let exponent: Float = 2
    let targets = sequences.map(\.targetCount)
    let total = Double(targets.reduce(0, +))
    for parts in [1, 2] {
      let weighted = try tuner(adapter, exponent: exponent, parts: parts)
      let plain = try tuner(adapter, exponent: 0)
      func losses() -> [Double] { sequences.map { plain.accumulateGradients([$0]) } }
      let weights = zip(losses(), sequences).map { loss, sequence in
        let power = 1 - exponential(-loss)
        return sequence.group == .original ? 1 : power * power
      }
      #expect(weights.contains { $0 < 0.999 })
      func fixedLoss() -> Double {
        zip(zip(losses(), weights), targets).reduce(0) {
          $0 + $1.0.0 * $1.0.1 * Double($1.1) / total
        }
      }
      let loss = weighted.accumulateGradients(sequences)
      #expect(abs(loss - fixedLoss()) < 1e-4 * loss)
      var expected: [String: [Double]] = [:]
      for (index, sequence) in sequences.enumerated() {
        _ = plain.accumulateGradients([sequence])
        let factor = weights[index] * Double(targets[index]) / total
        for name in plain.tensorNames {
          let gradient = try #require(plain.gradient(name)).map { Double($0) * factor }
          expected[name] = expected[name].map { zip($0, gradient).map(+) } ?? gradient
        }
      }
      for name in weighted.tensorNames {
        let found = try #require(weighted.gradient(name)).map(Double.init)
        let wanted = try #require(expected[name])
        let norm = wanted.reduce(0) { $0 + $1 * $1 }.squareRoot()
        let apart = zip(found, wanted).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
          .squareRoot()
        #expect(apart < 1e-3 * norm + 1e-7, "\(name): \(apart) of \(norm)")
      }
      let name = try #require(weighted.tensorNames.last)
      let value = try #require(plain.value(name))
      let gradient = try #require(weighted.gradient(name)).map(Double.init)
      let norm = gradient.reduce(0) { $0 + $1 * $1 }.squareRoot()
      func moved(_ step: Double) -> Double {
        let there = zip(value, gradient).map { Float(Double($0) + step * $1 / norm) }
        guard plain.set(name, to: there) else { return .nan }
        return fixedLoss()
      }
      let step = 4e-3
      let numeric =
        (4 * (moved(step) - moved(-step)) / (2 * step)
          - (moved(2 * step) - moved(-2 * step)) / (4 * step)) / 3
      #expect(abs(numeric - norm) < 0.01 * norm + 2e-4, "\(numeric) \(norm)")
    }
  }

  /// What the mitigation is for: of augmented items, those that the model predicts already are trained
  /// on less, in a step's gradient and in what further steps make of them. Original items are not,
  /// however well they are predicted.
  @Test func whatIsPredictedAlreadyIsTrainedOnLess() throws {
    func grouped(_ sequences: [TrainingSequence], _ group: Group) -> [TrainingSequence] {
      sequences.map {
        TrainingSequence(tokens: $0.tokens, supervised: $0.supervised, group: group)
      }
    }
    let known = randomSequences([9, 14], seed: 1)
    let unknown = randomSequences([20, 11], seed: 2)
    let start = try tuner(.full, exponent: 0)
    // Learned by heart: twice as many steps as it takes.
    for _ in 0..<80 { try start.takeStep(known, learningRate: 3e-3) }
    func copy(_ exponent: Float) throws -> FineTuner {
      let other = try tuner(.full, exponent: exponent)
      for name in start.tensorNames {
        #expect(other.set(name, to: try #require(start.value(name))))
      }
      return other
    }
    let (plain, weighted) = (try copy(0), try copy(2))
    #expect(plain.accumulateGradients(known) < 0.2)
    #expect(plain.accumulateGradients(unknown) > 3)

    /// How much of a batch's gradient the weights leave.
    func left(_ sequences: [TrainingSequence]) -> Double {
      _ = plain.accumulateGradients(sequences)
      let whole = plain.gradientNorm()
      _ = weighted.accumulateGradients(sequences)
      return weighted.gradientNorm() / whole
    }
    #expect(left(grouped(known, .augmented)) < 0.1)
    #expect(left(grouped(unknown, .augmented)) > 0.9)
    #expect(abs(left(grouped(known, .original)) - 1) < 1e-6)

    /// Mean loss of the known items after steps on all of them.
    func after(_ tuner: FineTuner, _ group: Group) throws -> Double {
      let all = grouped(known, group) + grouped(unknown, .augmented)
      for _ in 0..<10 { try tuner.takeStep(all, learningRate: 3e-3) }
      // As original items, so that the loss is not weighted.
      return tuner.accumulateGradients(grouped(known, .original))
    }
    let kept = try after(plain, .augmented)
    let forgotten = try after(weighted, .augmented)
    let defended = try after(try copy(2), .original)
    #expect(forgotten > 1.5 * kept && forgotten > 1.5 * defended)
  }

  /// The alignment term's own value, the cross-entropy taken off, falls when it is trained on.
  @Test func theAlignmentTermFalls() throws {
    let sequences = randomSequences([9, 14, 20, 11, 8, 17])
    var options = options(upperAdapter, alignmentWeight: 1)
    options.batchSize = 6
    let tuner = try FineTuner(
      weights: oddWeights, options: options, pool: ThreadPool(threadCount: 2))
    func term() throws -> Double {
      var plain = options
      plain.alignmentWeight = 0
      let other = try FineTuner(
        weights: oddWeights, options: plain, pool: ThreadPool(threadCount: 2))
      for name in tuner.tensorNames {
        #expect(other.set(name, to: try #require(tuner.value(name))))
      }
      return tuner.accumulateGradients(sequences, updatingRunningMeans: false)
        - other.accumulateGradients(sequences)
    }
    let before = try term()
    for _ in 0..<30 { try tuner.takeStep(sequences, learningRate: 1e-2) }
    let after = try term()
    #expect(before > 0 && after < 0.5 * before, "\(before) \(after)")
  }
}
