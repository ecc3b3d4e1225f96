/// Whether a training item belongs to the original data or to the generated, augmented ones.
package enum Group: String, Sendable, Hashable, Codable {
  case original
  case augmented
}

/// One item to train on.
package struct TrainingSequence: Sendable, Hashable {
  /// Token ids, at least two.
  package var tokens: [Int32]
  /// As long as `tokens`: whether token t is a target of prediction from the tokens before it. The
  /// first is ignored, since nothing precedes it.
  package var supervised: [Bool]
  package var group: Group

  package init(tokens: [Int32], supervised: [Bool], group: Group) {
    self.tokens = tokens
    self.supervised = supervised
    self.group = group
  }
}

/// What fine-tuning changes.
package enum Adapter: Sendable, Hashable {
  /// Low-rank matrices beside frozen weights.
  case lora(LoRAConfiguration)
  /// Every weight.
  case full
  /// Every weight of the layers from this one on, and the final normalisation.
  case upperLayers(from: Int)
}

/// How to fine-tune.
package struct FineTuningOptions: Sendable, Hashable {
  package var adapter: Adapter
  package var epochs: Int
  /// Sequences of one optimizer step.
  package var batchSize: Int
  /// Number of parts that the sequences of a step are computed in, to save memory. The gradient of
  /// the cross-entropy is that of the whole step; the alignment term is the mean of the terms of the
  /// parts, each with the means of its own items, since a mean over the step would need the hidden
  /// states of all parts at once.
  package var accumulationSteps: Int
  /// Highest learning rate, reached after warm-up; from there it falls linearly to zero.
  package var learningRate: Float
  /// Share of all steps in which the learning rate rises linearly from zero.
  package var warmupFraction: Float
  /// Decoupled decay of every trained parameter.
  package var weightDecay: Float
  /// Largest norm of the whole gradient; nil for no clipping.
  package var gradientClip: Float?
  /// λ of the alignment term λ·‖m_original − m_augmented‖²; 0 leaves it out.
  package var alignmentWeight: Float
  /// τ of the weights (1 − e^−ℓ)^τ of augmented items in the loss, ℓ being an item's mean
  /// cross-entropy before the step: items that the model predicts well count less. 0 leaves all
  /// weights at 1.
  package var reweightingExponent: Float = 0
  /// Decides the start of the adapter and the order of the data.
  package var seed: UInt64
  package var beta1: Double
  package var beta2: Double
  package var epsilon: Double
  /// Computes the activations of each layer again in the backward pass instead of keeping them:
  /// a third more work for a fraction of the memory, with the same result to the bit.
  package var recomputesActivations: Bool
  /// In full fine-tuning, a token whose embedding gets no gradient from where the token is read, as
  /// with `padding_idx` in torch (transformers sets it to the model's pad token); nil for none.
  package var paddingToken: Int32?
  /// Computes the common beginnings of a step's sequences once. Gradients of such rows are summed
  /// before they go down rather than after, so that the last bits of a step differ.
  package var sharesPrefixes: Bool

  package init(
    adapter: Adapter, epochs: Int, batchSize: Int, accumulationSteps: Int = 1,
    learningRate: Float, warmupFraction: Float = 0, weightDecay: Float = 0.01,
    gradientClip: Float? = 1, alignmentWeight: Float = 0, seed: UInt64, beta1: Double = 0.9,
    beta2: Double = 0.999, epsilon: Double = 1e-8, recomputesActivations: Bool = false,
    paddingToken: Int32? = nil, sharesPrefixes: Bool = true
  ) {
    self.adapter = adapter
    self.epochs = epochs
    self.batchSize = batchSize
    self.accumulationSteps = accumulationSteps
    self.learningRate = learningRate
    self.warmupFraction = warmupFraction
    self.weightDecay = weightDecay
    self.gradientClip = gradientClip
    self.alignmentWeight = alignmentWeight
    self.seed = seed
    self.beta1 = beta1
    self.beta2 = beta2
    self.epsilon = epsilon
    self.recomputesActivations = recomputesActivations
    self.paddingToken = paddingToken
    self.sharesPrefixes = sharesPrefixes
  }

  /// - Throws: `FineTuningError.invalidOption` for the first option that makes no sense for
  ///   `configuration`.
  package func validate(for configuration: LlamaConfiguration) throws {
    func check(_ fits: Bool, _ name: String, _ value: some Any, _ allowed: String) throws {
      if !fits {
        throw FineTuningError.invalidOption(name: name, value: "\(value)", allowed: allowed)
      }
    }
    switch adapter {
    case .lora(let lora): try lora.validate(for: configuration)
    case .full: break
    case .upperLayers(let lowest):
      try check(
        (0..<configuration.layerCount).contains(lowest), "lowest trained layer", lowest,
        "0 to \(configuration.layerCount - 1)")
    }
    try check(epochs >= 1, "epochs", epochs, "at least 1")
    try check(batchSize >= 1, "batch size", batchSize, "at least 1")
    try check(
      (1...batchSize).contains(accumulationSteps), "accumulation steps", accumulationSteps,
      "1 to the batch size, \(batchSize)")
    try check(
      learningRate >= 0 && learningRate.isFinite, "learning rate", learningRate, "0 or more")
    try check(
      (0...1).contains(warmupFraction), "warm-up fraction", warmupFraction, "0 to 1")
    try check(weightDecay >= 0 && weightDecay.isFinite, "weight decay", weightDecay, "0 or more")
    if let gradientClip {
      try check(gradientClip > 0, "gradient clip", gradientClip, "more than 0")
    }
    try check(
      alignmentWeight >= 0 && alignmentWeight.isFinite, "alignment weight", alignmentWeight,
      "0 or more")
    try check(
      reweightingExponent >= 0 && reweightingExponent.isFinite, "reweighting exponent",
      reweightingExponent, "0 or more")
    try check((0..<1).contains(beta1), "beta1", beta1, "0 up to, not including, 1")
    try check((0..<1).contains(beta2), "beta2", beta2, "0 up to, not including, 1")
    try check(epsilon > 0, "epsilon", epsilon, "more than 0")
  }

  /// Learning rate of step `step` (from 0) of `stepCount`: up linearly during warm-up, then down
  /// linearly to zero, as transformers' `get_linear_schedule_with_warmup`.
  package func learningRate(step: Int, stepCount: Int) -> Double {
    let peak = Double(learningRate)
    let warmup = Int((Double(warmupFraction) * Double(stepCount)).rounded(.up))
    if step < warmup { return peak * Double(step) / Double(warmup) }
    return peak * Double(stepCount - step) / Double(max(1, stepCount - warmup))
  }
}

/// State of a running fine-tune, after a step.
package struct FineTuningProgress: Sendable, Hashable {
  /// Steps done.
  package var step: Int
  package var stepCount: Int
  /// Mean cross-entropy over the supervised tokens of the last step, in nats, plus the alignment
  /// term.
  package var loss: Float
  /// Tokens processed so far.
  package var tokens: Int
}

/// Why a fine-tune could not be set up or finished.
package enum FineTuningError: Error, Hashable, CustomStringConvertible {
  case invalidOption(name: String, value: String, allowed: String)
  case noSequences
  /// Nothing to predict in the sequence at `index`.
  case nothingSupervised(index: Int)
  case lengthMismatch(index: Int, tokens: Int, supervised: Int)
  case invalidTokens(index: Int, problem: TokenProblem)
  /// The loss or the gradient stopped being a number at `step`.
  case diverged(step: Int, loss: Float)
  case cancelled

  package var description: String {
    switch self {
    case .invalidOption(let name, let value, let allowed):
      "fine-tuning option \(name) is \(value); allowed is \(allowed)"
    case .noSequences:
      "there is nothing to fine-tune on; give at least one sequence"
    case .nothingSupervised(let index):
      "training sequence \(index) has no supervised token after its first; leave it out"
    case .lengthMismatch(let index, let tokens, let supervised):
      """
      training sequence \(index) has \(tokens) tokens but \(supervised) supervision marks; they \
      must be equally many
      """
    case .invalidTokens(let index, let problem):
      "training sequence \(index) cannot be used: \(problem)"
    case .diverged(let step, let loss):
      """
      the fine-tune diverged in step \(step) (loss \(loss)); lower the learning rate or clip the \
      gradient
      """
    case .cancelled:
      "the fine-tune was cancelled"
    }
  }
}
