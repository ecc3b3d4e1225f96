import TransformerKernels

/// The forward and backward pass of a Llama-family decoder over packed rows.
///
/// Holds no weights of its own: it reads those of the base model, or others in their place, and,
/// beside them, those of an adapter (in `LoRALayout`). Every value of a row depends only on the tokens before it
/// in its sequence, to the last bit: not on the other rows of the batch, nor on threads.
final class LlamaDecoder {
  /// Adapter matrices beside the weights.
  struct LowRank {
    let layout: LoRALayout
    let base: UnsafePointer<Float>
  }

  let configuration: LlamaConfiguration
  let layout: ParameterLayout
  private let base: ModelWeights
  private let changed: ChangedWeights?
  let lowRank: LowRank?
  let heads: AttentionHeads
  let pool: ThreadPool
  private let recomputesActivations: Bool
  /// Layers whose activations a keeping forward pass keeps.
  let keptLayers: Range<Int>
  private(set) var workspace: DecoderWorkspace
  private(set) var table: RotaryTable
  /// Memory of a product's addends, used again by the next one.
  private var addends: [ProductAddend] = []

  /// Rows of logits computed at a time unless asked otherwise.
  static let defaultHeadRows = 256

  /// - Parameters:
  ///   - changed: weights in place of the base model's.
  ///   - keptLayers: the layers that a backward pass will visit; empty for inference.
  ///   - headRows: rows whose logits are computed at a time.
  init(
    weights: ModelWeights, changed: ChangedWeights? = nil, lowRank: LowRank?, pool: ThreadPool,
    keptLayers: Range<Int> = 0..<0,
    recomputesActivations: Bool = false, headRows: Int = LlamaDecoder.defaultHeadRows
  ) {
    let configuration = weights.configuration
    self.configuration = configuration
    layout = weights.layout
    base = weights
    self.changed = changed
    self.lowRank = lowRank
    heads = AttentionHeads(
      queryCount: configuration.headCount, keyValueCount: configuration.keyValueHeadCount,
      width: configuration.headDimension)
    self.pool = pool
    self.keptLayers = keptLayers
    self.recomputesActivations = recomputesActivations
    workspace = DecoderWorkspace(
      plan: .init(
        configuration: configuration, keptLayers: keptLayers,
        recomputesActivations: recomputesActivations, lora: lowRank?.layout, headRows: headRows),
      capacity: 16)
    table = RotaryTable(
      width: configuration.headDimension, positions: min(64, configuration.maximumPositions),
      theta: configuration.ropeTheta, scaling: configuration.rotaryScaling)
  }

  /// The weights at an offset of `ParameterLayout`.
  func weights(_ offset: Int) -> UnsafePointer<Float> {
    if let changed, changed.range.contains(offset) {
      return changed.base + (offset - changed.range.lowerBound)
    }
    return base.base + offset
  }

  /// The compressed matrices of `layer`; nil where there are none, or its weights are not the base
  /// model's.
  private func compressed(_ layer: Int) -> CompressedWeights.Layer? {
    isChanged(layout.layers[layer].attentionNorm) ? nil : base.compressed?.layers[layer]
  }

  /// The compressed head, likewise.
  var compressedHead: CompressedMatrix? { isChanged(layout.head) ? nil : base.compressed?.head }

  private func isChanged(_ offset: Int) -> Bool { changed?.range.contains(offset) == true }

  /// Makes room for `rows` rows and `positions` positions. Allocates only when it grows; contents
  /// are lost then.
  func reserve(rows: Int, positions: Int) {
    if rows > workspace.capacity {
      let plan = workspace.plan
      // The old region goes first, so that both are never held at once.
      workspace = DecoderWorkspace(plan: plan, capacity: 0)
      workspace = DecoderWorkspace(plan: plan, capacity: (rows + 15) / 16 * 16)
    }
    if positions > table.positions {
      table = RotaryTable(
        width: configuration.headDimension,
        positions: min(configuration.maximumPositions, max(positions, 2 * table.positions)),
        theta: configuration.ropeTheta, scaling: configuration.rotaryScaling)
    }
  }

  // MARK: - Forward

  /// Where the residual stream enters `layer` (or leaves the last one).
  func stream(at layer: Int, keeping: Bool) -> UnsafeMutablePointer<Float> {
    activations(of: layer, keeping: keeping).input
  }

  /// Writes the embedding of each token to the stream that enters layer 0.
  func embed(_ tokens: [Int32], keeping: Bool = false) {
    let hidden = configuration.hiddenSize
    let embedding = weights(layout.embedding)
    let stream = stream(at: 0, keeping: keeping)
    for (row, token) in tokens.enumerated() {
      (stream + row * hidden).update(
        from: embedding + Int(token) * hidden, count: hidden)
    }
  }

  /// Computes `layers` for the rows of `batch`, whose stream has been written before.
  ///
  /// - Parameter outputs: rising rows of the last layer's output that will be read, which then lie one
  ///   after the other; nil for all. The last layer mixes no rows after its attention.
  func forward(
    _ batch: TokenBatch, layers: Range<Int>, keeping: Bool = false, outputs: [Int]? = nil
  ) {
    forward(
      positions: batch.positions, layers: layers, keeping: keeping, outputs: outputs
    ) { _, queryKeyValue, out in
      pool.attention(
        queryKeyValue, heads: heads, segments: batch.segments, contexts: batch.contexts, into: out)
    }
  }

  /// Computes `layers`; `attend` maps a layer's queries, keys and values to its attention output.
  func forward(
    positions: [Int32], layers: Range<Int>, keeping: Bool, outputs: [Int]? = nil,
    attend: (Int, UnsafeMutablePointer<Float>, UnsafeMutablePointer<Float>) -> Void
  ) {
    for layer in layers {
      forward(
        layer, positions: positions,
        outputs: layer == configuration.layerCount - 1 ? outputs : nil,
        activations(of: layer, keeping: keeping),
        into: stream(at: layer + 1, keeping: keeping), attend: attend)
    }
  }

  /// Writes the final hidden states, normalised, to `workspace.normed`.
  func finish(rows: Int) {
    pool.rmsNorm(
      workspace.output, rows: rows, width: configuration.hiddenSize,
      weight: weights(layout.finalNorm), epsilon: configuration.normEpsilon,
      into: workspace.normed, scale: workspace.normScales)
  }

  private func activations(of layer: Int, keeping: Bool) -> LayerActivations {
    keeping && keptLayers.contains(layer)
      ? workspace.kept[layer - keptLayers.lowerBound] : workspace.passing
  }

  private func forward(
    _ layer: Int, positions: [Int32], outputs: [Int]?, _ own: LayerActivations,
    into output: UnsafeMutablePointer<Float>,
    attend: (Int, UnsafeMutablePointer<Float>, UnsafeMutablePointer<Float>) -> Void
  ) {
    var rows = positions.count
    let hidden = configuration.hiddenSize
    let offsets = layout.layers[layer]
    let groups = lowRank?.layout.layer(layer)
    let compressed = compressed(layer)

    pool.rmsNorm(
      own.input, rows: rows, width: hidden, weight: weights(offsets.attentionNorm),
      epsilon: configuration.normEpsilon, into: workspace.normed)
    project(
      Projection(
        self, offsets.queryKeyValue, heads.rowWidth, hidden, groups?.queryKeyValue,
        compressed?.queryKeyValue),
      workspace.normed, rows: rows,
      lowRank: own.lowRank.queryKeyValue, into: own.queryKeyValue, addingTo: nil)
    shiftAndNormalizeHeads(offsets, own, rows: rows)
    rotate(own.queryKeyValue, positions: positions)
    attend(layer, own.queryKeyValue, own.attention)
    var residual = own.input
    if let outputs {
      rows = outputs.count
      gather(outputs, of: own.attention, width: heads.outputWidth, into: own.attention)
      gather(outputs, of: own.input, width: hidden, into: own.middle)
      residual = own.middle
    }
    project(
      Projection(
        self, offsets.attentionOutput, hidden, heads.outputWidth, groups?.output,
        compressed?.attentionOutput),
      own.attention, rows: rows, lowRank: own.lowRank.output,
      into: own.middle, addingTo: residual)

    pool.rmsNorm(
      own.middle, rows: rows, width: hidden, weight: weights(offsets.feedForwardNorm),
      epsilon: configuration.normEpsilon, into: workspace.normed)
    project(
      Projection(
        self, offsets.gateUp, 2 * configuration.feedForwardSize, hidden, groups?.gateUp,
        compressed?.gateUp, outputStride: workspace.gateUpStride),
      workspace.normed, rows: rows, lowRank: own.lowRank.gateUp,
      into: own.gateUp, addingTo: nil)
    pool.swiGLU(
      own.gateUp, rows: rows, width: configuration.feedForwardSize,
      stride: workspace.gateUpStride, into: workspace.activation)
    project(
      Projection(
        self, offsets.down, hidden, configuration.feedForwardSize, groups?.down, compressed?.down),
      workspace.activation, rows: rows, lowRank: own.lowRank.down,
      into: output, addingTo: own.middle)
  }

  /// Puts rows of `x` (rows, width) one after the other. They rise, so `out` may be `x`.
  private func gather(
    _ rows: [Int], of x: UnsafeMutablePointer<Float>, width: Int,
    into out: UnsafeMutablePointer<Float>
  ) {
    for (place, row) in rows.enumerated() where x + row * width != out + place * width {
      (out + place * width).update(from: x + row * width, count: width)
    }
  }

  /// The reverse of `gather` in place, to `count` rows: the others become zero.
  private func scatter(
    _ rows: [Int], count: Int, in x: UnsafeMutablePointer<Float>, width: Int
  ) {
    var end = count
    for (place, row) in rows.enumerated().reversed() {
      (x + (row + 1) * width).update(repeating: 0, count: (end - row - 1) * width)
      if place != row { (x + row * width).update(from: x + place * width, count: width) }
      end = row
    }
    x.update(repeating: 0, count: end * width)
  }

  private func rotate(
    _ queryKeyValue: UnsafeMutablePointer<Float>, positions: [Int32], inverse: Bool = false
  ) {
    positions.withUnsafeBufferPointer {
      guard let base = $0.baseAddress else { return }
      pool.rotate(
        MutableMatrix(queryKeyValue, rows: positions.count, columns: heads.rowWidth),
        heads: heads.queryCount + heads.keyValueCount, positions: base, table: table,
        inverse: inverse)
    }
  }

  /// A weight matrix (outputs, inputs) and the adapter group beside it.
  private struct Projection {
    let weight: Matrix
    let offset: Int
    let group: LoRALayout.Group?
    /// Expands to `weight`; nil if there is no such form.
    let compressed: CompressedMatrix?
    /// Floats from one row of the outputs to the next.
    let outputStride: Int

    init(
      _ decoder: LlamaDecoder, _ offset: Int, _ outputs: Int, _ inputs: Int,
      _ group: LoRALayout.Group?, _ compressed: CompressedMatrix?, outputStride: Int? = nil
    ) {
      self.outputStride = outputStride ?? outputs
      weight = Matrix(decoder.weights(offset), rows: outputs, columns: inputs)
      self.offset = offset
      self.group = group
      self.compressed = compressed
    }
  }

  /// `out` = (`addingTo` +) x Wᵀ + scale · x Aᵀ Bᵀ. `lowRank` receives scale · x Aᵀ.
  private func project(
    _ projection: Projection, _ x: UnsafeMutablePointer<Float>, rows: Int,
    lowRank u: UnsafeMutablePointer<Float>, into out: UnsafeMutablePointer<Float>,
    addingTo base: UnsafeMutablePointer<Float>?
  ) {
    let weight = projection.weight
    let input = Matrix(x, rows: rows, columns: weight.columns)
    let output = MutableMatrix(
      out, rows: rows, columns: weight.rows, stride: projection.outputStride)
    addends.removeAll(keepingCapacity: true)
    if let lowRank, let group = projection.group {
      let rank = lowRank.layout.configuration.rank
      let width = group.members.count * rank
      let product = MutableMatrix(u, rows: rows, columns: width)
      pool.multiply(
        input, Matrix(lowRank.base + group.a, rows: width, columns: weight.columns),
        transposingB: true, into: product)
      pool.scale(product, by: lowRank.layout.configuration.scale)
      for (index, member) in group.members.enumerated() {
        addends.append(
          ProductAddend(
            Matrix(u + index * rank, rows: rows, columns: rank, stride: width),
            Matrix(lowRank.base + member.b, rows: member.outputWidth, columns: rank),
            transposingB: true, toColumnsFrom: member.outputColumn))
      }
    }
    let start = base.map { UnsafePointer($0) }
    if let compressed = projection.compressed {
      pool.multiply(input, compressed, into: output, base: start, adding: addends)
    } else {
      pool.multiply(
        input, weight, transposingB: true, into: output, base: start, adding: addends)
    }
  }

  // MARK: - Backward

  /// Where gradients of parameters go.
  struct GradientSink {
    enum Kind {
      /// In `LoRALayout`.
      case lowRank
      /// This part of `ParameterLayout`.
      case weights(Range<Int>)
    }
    let kind: Kind
    let base: UnsafeMutablePointer<Float>
    /// Whether gradients are added to what is there, rather than replacing it.
    let accumulating: Bool

    /// Whether the model's weights themselves are trained.
    var takesWeights: Bool {
      if case .weights = kind { true } else { false }
    }

    /// Whether the weights at an offset of `ParameterLayout` are trained.
    func covers(_ offset: Int) -> Bool {
      if case .weights(let range) = kind { range.contains(offset) } else { false }
    }

    /// Where the gradient of trained weights at an offset of `ParameterLayout` goes.
    func gradient(_ offset: Int) -> UnsafeMutablePointer<Float> {
      guard case .weights(let range) = kind, range.contains(offset) else {
        preconditionFailure("the weights at \(offset) are not trained")
      }
      return base + (offset - range.lowerBound)
    }
  }

  /// Propagates `workspace.streamGradient`, the gradient of the stream that leaves the last layer,
  /// through the kept layers, last first, and collects the gradients of their parameters. Afterwards
  /// `streamGradient` belongs to the stream that enters the lowest kept layer, if that was needed.
  ///
  /// The activations are consumed.
  ///
  /// - Parameter outputs: as in the forward pass: rows of `streamGradient` at the start.
  func backward(_ batch: TokenBatch, outputs: [Int]? = nil, into sink: GradientSink) {
    for layer in keptLayers.reversed() {
      let own = workspace.kept[layer - keptLayers.lowerBound]
      let outputs = layer == configuration.layerCount - 1 ? outputs : nil
      if recomputesActivations {
        // The output goes where nothing is needed any more.
        forward(
          layer, positions: batch.positions, outputs: outputs, own,
          into: workspace.normedGradient
        ) { _, queryKeyValue, out in
          pool.attention(
            queryKeyValue, heads: heads, segments: batch.segments, contexts: batch.contexts,
            into: out)
        }
      }
      backward(
        layer, batch, outputs: outputs, own, into: sink,
        needsInput: sink.takesWeights || layer > keptLayers.lowerBound)
    }
  }

  private func backward(
    _ layer: Int, _ batch: TokenBatch, outputs: [Int]?, _ own: LayerActivations,
    into sink: GradientSink, needsInput: Bool
  ) {
    var rows = outputs?.count ?? batch.rowCount
    let hidden = configuration.hiddenSize
    let feedForward = configuration.feedForwardSize
    let offsets = layout.layers[layer]
    let groups = lowRank?.layout.layer(layer)
    let compressed = compressed(layer)
    let dx = workspace.streamGradient
    let dNormed = workspace.normedGradient

    // Feed-forward: x_out = middle + down(swiglu(gateUp(norm(middle)))).
    let down = Projection(
      self, offsets.down, hidden, feedForward, groups?.down, compressed?.down)
    inputGradient(down, dx, rows: rows, into: workspace.wideGradient)
    let needsActivation = sink.takesWeights || groups?.down != nil
    pool.swiGLUBackward(
      own.gateUp, rows: rows, width: feedForward, stride: workspace.gateUpStride,
      dout: workspace.wideGradient,
      recomputing: needsActivation ? workspace.activation : nil)
    parameterGradient(
      down, dx, input: workspace.activation, rows: rows, lowRank: own.lowRank.down, into: sink)
    let needsGateUp = sink.takesWeights || groups?.gateUp != nil
    let gateUp = Projection(
      self, offsets.gateUp, 2 * feedForward, hidden, groups?.gateUp, compressed?.gateUp,
      outputStride: workspace.gateUpStride)
    inputGradient(gateUp, own.gateUp, rows: rows, into: dNormed)
    if needsGateUp {
      norm(own.middle, rows: rows, weight: offsets.feedForwardNorm)
      parameterGradient(
        gateUp, own.gateUp, input: workspace.normed, rows: rows, lowRank: own.lowRank.gateUp,
        into: sink)
    }
    normGradient(own.middle, rows: rows, weight: offsets.feedForwardNorm, into: sink)

    // Attention: middle = input + o(attention(qkv(norm(input)))).
    let output = Projection(
      self, offsets.attentionOutput, hidden, heads.outputWidth, groups?.output,
      compressed?.attentionOutput)
    inputGradient(output, dx, rows: rows, into: workspace.wideGradient)
    parameterGradient(
      output, dx, input: own.attention, rows: rows, lowRank: own.lowRank.output, into: sink)
    guard needsInput || groups?.queryKeyValue != nil else { return }
    if let outputs {
      rows = batch.rowCount
      scatter(outputs, count: rows, in: workspace.wideGradient, width: heads.outputWidth)
      scatter(outputs, count: rows, in: dx, width: hidden)
    }
    pool.attentionBackward(
      own.queryKeyValue, heads: heads, segments: batch.segments, contexts: batch.contexts,
      dout: workspace.wideGradient, into: workspace.queryKeyValueGradient)
    rotate(workspace.queryKeyValueGradient, positions: batch.positions, inverse: true)
    shiftAndNormalizeHeadsBackward(offsets, own, rows: rows, into: sink)
    let queryKeyValue = Projection(
      self, offsets.queryKeyValue, heads.rowWidth, hidden, groups?.queryKeyValue,
      compressed?.queryKeyValue)
    inputGradient(
      queryKeyValue, workspace.queryKeyValueGradient, rows: rows, into: needsInput ? dNormed : nil)
    if sink.takesWeights || groups?.queryKeyValue != nil {
      norm(own.input, rows: rows, weight: offsets.attentionNorm)
      parameterGradient(
        queryKeyValue, workspace.queryKeyValueGradient, input: workspace.normed, rows: rows,
        lowRank: own.lowRank.queryKeyValue, into: sink)
    }
    if needsInput {
      normGradient(own.input, rows: rows, weight: offsets.attentionNorm, into: sink)
    }
  }

  /// Computes a normalisation of the forward pass again.
  private func norm(_ x: UnsafeMutablePointer<Float>, rows: Int, weight: Int) {
    pool.rmsNorm(
      x, rows: rows, width: configuration.hiddenSize, weight: weights(weight),
      epsilon: configuration.normEpsilon, into: workspace.normed, scale: workspace.normScales)
  }

  /// Adds the gradient through a normalisation of `x` to `streamGradient`, given `normedGradient`.
  /// For full fine-tuning, `norm` must have been called for the same `x`.
  private func normGradient(
    _ x: UnsafeMutablePointer<Float>, rows: Int, weight: Int, into sink: GradientSink
  ) {
    if sink.takesWeights {
      pool.rmsNormWeightGradient(
        x, rows: rows, width: configuration.hiddenSize, scale: workspace.normScales,
        dy: workspace.normedGradient, into: sink.gradient(weight), accumulating: sink.accumulating)
    }
    pool.rmsNormBackward(
      x, rows: rows, width: configuration.hiddenSize, weight: weights(weight),
      epsilon: configuration.normEpsilon, dy: workspace.normedGradient,
      addingTo: workspace.streamGradient)
  }

  /// `dx` = dy W + dU A, where dU = scale · dy B goes to `lowRankGradient`. With `dx` nil only dU.
  private func inputGradient(
    _ projection: Projection, _ dy: UnsafeMutablePointer<Float>, rows: Int,
    into dx: UnsafeMutablePointer<Float>?
  ) {
    let weight = projection.weight
    let output = Matrix(dy, rows: rows, columns: weight.rows, stride: projection.outputStride)
    addends.removeAll(keepingCapacity: true)
    if let lowRank, let group = projection.group {
      let rank = lowRank.layout.configuration.rank
      let width = group.members.count * rank
      let du = MutableMatrix(workspace.lowRankGradient, rows: rows, columns: width)
      for (index, member) in group.members.enumerated() {
        pool.multiply(
          Matrix(
            dy + member.outputColumn, rows: rows, columns: member.outputWidth,
            stride: projection.outputStride),
          Matrix(lowRank.base + member.b, rows: member.outputWidth, columns: rank),
          into: MutableMatrix(du.base + index * rank, rows: rows, columns: rank, stride: width))
      }
      pool.scale(du, by: lowRank.layout.configuration.scale)
      addends.append(
        ProductAddend(
          Matrix(du.base, rows: rows, columns: width),
          Matrix(lowRank.base + group.a, rows: width, columns: weight.columns)))
    }
    guard let dx else { return }
    let result = MutableMatrix(dx, rows: rows, columns: weight.columns)
    if let compressed = projection.compressed {
      pool.multiplyTransposed(output, compressed, into: result, adding: addends)
    } else {
      pool.multiply(output, weight, into: result, adding: addends)
    }
  }

  /// Gradients of W, or of A and B, of a projection whose `inputGradient` was computed just before.
  private func parameterGradient(
    _ projection: Projection, _ dy: UnsafeMutablePointer<Float>,
    input: UnsafeMutablePointer<Float>, rows: Int, lowRank u: UnsafeMutablePointer<Float>,
    into sink: GradientSink
  ) {
    let weight = projection.weight
    let input = Matrix(input, rows: rows, columns: weight.columns)
    switch sink.kind {
    case .weights:
      pool.multiply(
        Matrix(dy, rows: rows, columns: weight.rows, stride: projection.outputStride),
        transposingA: true, input,
        into: MutableMatrix(
          sink.gradient(projection.offset), rows: weight.rows, columns: weight.columns),
        accumulating: sink.accumulating)
    case .lowRank:
      guard let lowRank, let group = projection.group else { return }
      let rank = lowRank.layout.configuration.rank
      let width = group.members.count * rank
      pool.multiply(
        Matrix(workspace.lowRankGradient, rows: rows, columns: width), transposingA: true, input,
        into: MutableMatrix(sink.base + group.a, rows: width, columns: weight.columns),
        accumulating: sink.accumulating)
      for (index, member) in group.members.enumerated() {
        let gradient = MutableMatrix(
          sink.base + member.b, rows: member.outputWidth, columns: rank)
        // Few rows and many columns suit the product; elements are the same sums.
        let transposed = MutableMatrix(
          workspace.transposedGradient, rows: rank, columns: member.outputWidth)
        if sink.accumulating { pool.transpose(gradient, into: transposed) }
        pool.multiply(
          Matrix(u + index * rank, rows: rows, columns: rank, stride: width), transposingA: true,
          Matrix(
            dy + member.outputColumn, rows: rows, columns: member.outputWidth,
            stride: projection.outputStride), into: transposed, accumulating: sink.accumulating)
        pool.transpose(transposed, into: gradient)
      }
    }
  }
}
