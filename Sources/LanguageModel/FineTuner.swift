import RandomStreams
import TransformerKernels

/// Fine-tunes a model on sequences of tokens.
///
/// The result is a function of the weights, the options and the sequences in their order; the number
/// of threads and the trunk cache change nothing but the time. All that the course of training
/// depends on is explicit state: the trainable parameters, their moments, the number of steps done
/// and the running means of the alignment term. The order of the data is a function of seed and
/// epoch.
package final class FineTuner {
  package let options: FineTuningOptions
  let base: ModelWeights
  private let pool: ThreadPool
  private let trunkCache: TrunkCache?
  private let decoder: LlamaDecoder
  let trainable: TrainableParameters
  private let loraLayout: LoRALayout?
  /// The weights that are trained; nil with an adapter beside them.
  private let changed: ChangedWeights?
  /// The layers that carry no adapter.
  private let trunk: FrozenTrunk
  /// Positions whose logits are computed at a time.
  let headRows: Int

  /// Steps done so far.
  package internal(set) var step = 0
  /// Tokens processed so far.
  package internal(set) var tokens = 0
  /// Loss of each step that `train` took, from the first on.
  package internal(set) var losses: [Float] = []
  var alignment: GroupAlignment

  // Memory of a step, reused.
  private var tree = PrefixTree()
  private var targets = PredictionTargets()
  private var items: [GroupAlignment.Item] = []
  private var alignmentMemory = GroupAlignment.Memory()
  private var trunkItems: [Range<Int>] = []
  private var trunkLookup = TrunkLookup()
  private var targetLosses: [Double] = []
  private var targetWeights: [Float] = []
  private var outputs: [Int] = []
  private var placeOfRow: [Int] = []

  /// - Parameters:
  ///   - headRows: positions whose logits are computed at a time; more of them take more memory and
  ///     may be faster.
  /// - Throws: `FineTuningError.invalidOption`.
  package init(
    weights: ModelWeights, options: FineTuningOptions, pool: ThreadPool,
    trunkCache: TrunkCache? = nil, headRows: Int = LlamaDecoder.defaultHeadRows
  ) throws {
    let configuration = weights.configuration
    try options.validate(for: configuration)
    self.options = options
    base = weights
    self.headRows = headRows
    self.pool = pool
    self.trunkCache = trunkCache
    alignment = GroupAlignment(weight: options.alignmentWeight)
    let lowRank: LlamaDecoder.LowRank?
    var changed: ChangedWeights?
    let trunkDepth: Int
    switch options.adapter {
    case .lora(let lora):
      let layout = LoRALayout(lora, model: configuration)
      loraLayout = layout
      trainable = TrainableParameters(layout, seed: options.seed)
      lowRank = LlamaDecoder.LowRank(layout: layout, base: trainable.values.base)
      trunkDepth = lora.layers.lowerBound
    case .full, .upperLayers:
      loraLayout = nil
      let range: Range<Int>
      if case .upperLayers(let lowest) = options.adapter {
        range = weights.layout.upperLayers(from: lowest)
        trunkDepth = lowest
      } else {
        range = 0..<weights.layout.elementCount
        trunkDepth = 0
      }
      trainable = TrainableParameters(copying: weights, range)
      lowRank = nil
      changed = ChangedWeights(range: range, base: UnsafePointer(trainable.values.base))
      weights.releasePages(of: range)
    }
    self.changed = changed
    trunk = FrozenTrunk(depth: trunkDepth, weightsDigest: weights.digest, cache: trunkCache)
    decoder = LlamaDecoder(
      weights: weights, changed: changed, lowRank: lowRank, pool: pool,
      keptLayers: trunkDepth..<configuration.layerCount,
      recomputesActivations: options.recomputesActivations, headRows: headRows)
  }

  /// - Throws: `FineTuningError.invalidOption`.
  package convenience init(
    model: LanguageModel, options: FineTuningOptions, pool: ThreadPool, trunkCache: TrunkCache?
  ) throws {
    try self.init(
      weights: model.weights, options: options, pool: pool, trunkCache: trunkCache,
      headRows: options.adapter == .full ? LlamaDecoder.defaultHeadRows : Self.frozenHeadRows)
  }

  /// Positions whose logits are computed at a time where the head is not trained, so that their number
  /// changes no bit. The targets of a step are then mostly one chunk, for which the head is read and
  /// expanded once forwards and once backwards.
  private static let frozenHeadRows = 512

  /// Trains for all epochs that the options ask for.
  ///
  /// - Parameters:
  ///   - shouldStop: asked before each step.
  ///   - progress: called after each step.
  /// - Throws: `FineTuningError`: `cancelled` when `shouldStop` said so; the state then is that after
  ///   the last whole step.
  package func train(
    _ sequences: [TrainingSequence], shouldStop: () -> Bool = { false },
    progress: (FineTuningProgress) -> Void = { _ in }
  ) throws {
    try validate(sequences)
    let stepsPerEpoch = (sequences.count + options.batchSize - 1) / options.batchSize
    let stepCount = stepsPerEpoch * options.epochs
    reserve(for: sequences)
    losses.reserveCapacity(stepCount)
    // Reused: a warm step allocates nothing.
    var chosen: [TrainingSequence] = []
    chosen.reserveCapacity(options.batchSize)
    while step < stepCount {
      if shouldStop() { throw FineTuningError.cancelled }
      let order = order(ofEpoch: step / stepsPerEpoch, count: sequences.count)
      while step < stepCount {
        let first = step % stepsPerEpoch * options.batchSize
        chosen.removeAll(keepingCapacity: true)
        for index in order[first..<min(first + options.batchSize, order.count)] {
          chosen.append(sequences[index])
        }
        let loss = try takeStep(
          chosen,
          learningRate: options.learningRate(step: step, stepCount: stepCount))
        losses.append(loss)
        progress(
          FineTuningProgress(step: step, stepCount: stepCount, loss: loss, tokens: tokens))
        if step % stepsPerEpoch == 0 { break }
        if shouldStop() { throw FineTuningError.cancelled }
      }
    }
  }

  /// One optimizer step on `sequences`.
  ///
  /// - Returns: the loss before the step.
  /// - Throws: `FineTuningError.diverged`; the parameters are then those before the step.
  @discardableResult
  package func takeStep(_ sequences: [TrainingSequence], learningRate: Double) throws -> Float {
    let loss = accumulateGradients(sequences)
    let norm = gradientNorm()
    guard loss.isFinite, norm.isFinite else {
      throw FineTuningError.diverged(step: step, loss: Float(loss))
    }
    var scale = 1.0
    if let clip = options.gradientClip { scale = min(1, Double(clip) / (norm + 1e-6)) }
    pool.adamW(
      AdamWStep(
        learningRate: learningRate, beta1: options.beta1, beta2: options.beta2,
        epsilon: options.epsilon, weightDecay: Double(options.weightDecay), gradientScale: scale,
        number: step + 1),
      count: trainable.values.count, parameters: trainable.values.base,
      gradients: trainable.gradients.base, firstMoment: trainable.firstMoments.base,
      secondMoment: trainable.secondMoments.base)
    step += 1
    tokens += sequences.reduce(0) { $0 + $1.tokens.count }
    return Float(loss)
  }

  /// Loss of `sequences` as one batch, and its gradient, without a step.
  ///
  /// - Returns: mean cross-entropy over the supervised tokens, plus the alignment term.
  package func accumulateGradients(
    _ sequences: [TrainingSequence], updatingRunningMeans: Bool = true
  ) -> Double {
    let supervised = sequences.reduce(0) { $0 + $1.targetCount }
    let parts = min(options.accumulationSteps, sequences.count)
    var loss = 0.0
    for part in 0..<parts {
      let range = sequences.count * part / parts..<sequences.count * (part + 1) / parts
      loss += accumulateGradients(
        sequences[range], crossEntropyScale: 1 / Float(max(1, supervised)),
        alignmentScale: 1 / Float(parts), updatingRunningMeans: updatingRunningMeans,
        accumulating: part > 0)
    }
    return loss
  }

  /// Digest of the model that is fine-tuned.
  var weightsDigest: String { base.digest }

  /// The model with its present adapter or weights. It stays as it is when training goes on.
  package var adapted: AdaptedModel {
    let values = FloatBuffer(copying: trainable.values.base, count: trainable.values.count)
    return AdaptedModel(
      base: base,
      change: loraLayout.map { .lowRank($0, values) }
        ?? .weights(changed?.range ?? 0..<values.count, values), pool: pool, trunkCache: trunkCache)
  }

  /// Names of the trainable tensors, as in Hugging Face and PEFT files.
  package var tensorNames: [String] { trainable.tensors.map(\.name) }

  /// A trainable tensor, row-major; nil if there is none of that name.
  package func value(_ name: String) -> [Float]? { trainable.read(name, from: trainable.values) }

  /// The gradient of a trainable tensor from the latest batch; nil if there is none of that name.
  package func gradient(_ name: String) -> [Float]? {
    trainable.read(name, from: trainable.gradients)
  }

  /// Replaces a trainable tensor. - Returns: false if there is none of that name and size.
  package func set(_ name: String, to value: [Float]) -> Bool {
    guard let tensor = trainable.tensors.first(where: { $0.name == name }),
      tensor.count == value.count
    else { return false }
    (trainable.values.base + tensor.offset).update(from: value, count: value.count)
    return true
  }

  /// Threads that a step is computed with.
  package var threadCount: Int { pool.threadCount }

  /// Norm of the whole gradient.
  package func gradientNorm() -> Double {
    pool.sumOfSquares(trainable.gradients.base, count: trainable.gradients.count).squareRoot()
  }

  /// Indices of the sequences in the order of an epoch.
  package func order(ofEpoch epoch: Int, count: Int) -> [Int] {
    var order = Array(0..<count)
    var stream = RandomStream(seed: options.seed, purpose: "order of epoch \(epoch)")
    stream.shuffle(&order)
    return order
  }

  private func validate(_ sequences: [TrainingSequence]) throws {
    if sequences.isEmpty { throw FineTuningError.noSequences }
    for (index, sequence) in sequences.enumerated() {
      if sequence.tokens.count != sequence.supervised.count {
        throw FineTuningError.lengthMismatch(
          index: index, tokens: sequence.tokens.count, supervised: sequence.supervised.count)
      }
      if let problem = TokenProblem.first(in: sequence.tokens, base.configuration) {
        throw FineTuningError.invalidTokens(index: index, problem: problem)
      }
      if sequence.targetCount == 0 { throw FineTuningError.nothingSupervised(index: index) }
    }
  }

  /// Room for any batch of `sequences`, so that no step allocates.
  private func reserve(for sequences: [TrainingSequence]) {
    let lengths = sequences.map(\.tokens.count).sorted(by: >)
    let perPart =
      (options.batchSize + options.accumulationSteps - 1) / options.accumulationSteps
    decoder.reserve(rows: lengths.prefix(perPart).reduce(0, +), positions: lengths.first ?? 0)
    if trunk.cache != nil {
      for sequence in sequences { trunkLookup.key(of: sequence.tokens, in: trunk) }
    }
  }

  private func accumulateGradients(
    _ sequences: ArraySlice<TrainingSequence>, crossEntropyScale: Float, alignmentScale: Float,
    updatingRunningMeans: Bool, accumulating: Bool
  ) -> Double {
    pack(sequences)
    let batch = tree.batch
    decoder.reserve(rows: batch.rowCount, positions: batch.longestPath)
    let sink = LlamaDecoder.GradientSink(
      kind: changed.map { .weights($0.range) } ?? .lowRank, base: trainable.gradients.base,
      accumulating: accumulating)
    trunkItems.removeAll(keepingCapacity: true)
    for index in 0..<sequences.count { trunkItems.append(index..<index + 1) }
    decoder.forwardTrunk(
      tree, of: sequences.lazy.map(\.tokens), items: trunkItems, sharing: options.sharesPrefixes,
      keeping: true, trunk: trunk, lookup: &trunkLookup)
    // The alignment term reads every row, the cross-entropy only those that predict.
    let outputs = options.alignmentWeight > 0 ? nil : predictingRows(of: batch.rowCount)
    let outputCount = outputs?.count ?? batch.rowCount
    decoder.forward(
      batch, layers: trunk.depth..<base.configuration.layerCount, keeping: true, outputs: outputs)
    decoder.finish(rows: outputCount)
    let hasLogits = weighTargets(of: sequences)
    var loss =
      decoder.crossEntropy(
        targets, rows: outputCount, weights: targetWeights, reusingLogits: hasLogits,
        gradientScale: crossEntropyScale, into: sink)
      * Double(crossEntropyScale)
    if options.alignmentWeight > 0 {
      loss +=
        alignment.apply(
          items: items, hidden: decoder.workspace.normed, width: base.configuration.hiddenSize,
          gradient: decoder.workspace.hiddenGradient, gradientScale: alignmentScale,
          updating: updatingRunningMeans, memory: &alignmentMemory) * Double(alignmentScale)
    }
    decoder.finishBackward(rows: outputCount, into: sink)
    decoder.backward(batch, outputs: outputs, into: sink)
    if sink.covers(base.layout.embedding) {
      decoder.embeddingBackward(batch.tokens, skipping: options.paddingToken, into: sink)
    }
    return loss
  }

  /// The rows of `targets` among `count`, each once and rising; the targets then count among these.
  private func predictingRows(of count: Int) -> [Int] {
    placeOfRow.removeAll(keepingCapacity: true)
    outputs.removeAll(keepingCapacity: true)
    for _ in 0..<count { placeOfRow.append(-1) }
    for row in targets.rows { placeOfRow[row] = 0 }
    for row in 0..<count where placeOfRow[row] == 0 {
      placeOfRow[row] = outputs.count
      outputs.append(row)
    }
    for index in targets.rows.indices { targets.rows[index] = placeOfRow[targets.rows[index]] }
    return outputs
  }

  /// Works out the weight of each of `targets`, now that the final hidden states are there; none if
  /// all are 1.
  ///
  /// - Returns: whether the logits of the targets stand in the decoder's workspace.
  private func weighTargets(of sequences: ArraySlice<TrainingSequence>) -> Bool {
    targetWeights.removeAll(keepingCapacity: true)
    guard options.reweightingExponent > 0 else { return false }
    let hasLogits = decoder.tokenLosses(targets, into: &targetLosses)
    for sequence in sequences {
      let first = targetWeights.count
      let count = sequence.targetCount
      var weight: Float = 1
      if sequence.group == .augmented {
        var sum = 0.0
        for index in first..<first + count { sum += targetLosses[index] }
        weight = LossReweighting.weight(
          meanLoss: sum / Double(max(1, count)), exponent: options.reweightingExponent)
      }
      for _ in 0..<count { targetWeights.append(weight) }
    }
    return hasLogits
  }

  private func pack(_ sequences: ArraySlice<TrainingSequence>) {
    targets.removeAll()
    // Items refer to the tree's memory.
    items.removeAll(keepingCapacity: true)
    // The last token of a sequence predicts nothing and nobody attends to it: its row would only be
    // read by the alignment term.
    tree.pack(
      sequences.lazy.map(\.tokens), sharing: options.sharesPrefixes,
      omittingLast: options.alignmentWeight == 0)
    for (index, sequence) in sequences.enumerated() {
      let rows = tree.rows(of: index)
      items.append((rows, sequence.group))
      var position = 1
      for row in rows.joined() where position < sequence.tokens.count {
        if sequence.supervised[position] {
          targets.rows.append(row)
          targets.tokens.append(sequence.tokens[position])
        }
        position += 1
      }
    }
  }
}

extension TrainingSequence {
  /// Number of tokens to predict.
  package var targetCount: Int { supervised.dropFirst().reduce(0) { $1 ? $0 + 1 : $0 } }
}
