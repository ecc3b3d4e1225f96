import TransformerKernels

/// What the backward pass of one layer needs from its forward pass. All row-major, one row for each
/// token of the batch.
struct LayerActivations {
  /// (rows, hidden): the residual stream before the layer.
  var input: UnsafeMutablePointer<Float>
  /// (rows, queryWidth + 2 · keyValueWidth), positions rotated.
  var queryKeyValue: UnsafeMutablePointer<Float>
  /// (rows, queryWidth + keyValueWidth): queries and keys before the normalisation of their heads;
  /// empty for models without it, and for inference.
  var unnormalizedHeads: UnsafeMutablePointer<Float>
  /// (rows, queryWidth): output of attention before its projection.
  var attention: UnsafeMutablePointer<Float>
  /// (rows, hidden): the residual stream between attention and feed-forward.
  var middle: UnsafeMutablePointer<Float>
  /// (rows, 2 · feedForward), rows `DecoderWorkspace.gateUpStride` apart.
  var gateUp: UnsafeMutablePointer<Float>
  /// (rows, members · rank) for each adapted group: scale · A x.
  var lowRank: LowRankActivations
}

/// A pointer for each group of adapted matrices.
struct LowRankActivations {
  var queryKeyValue: UnsafeMutablePointer<Float>
  var output: UnsafeMutablePointer<Float>
  var gateUp: UnsafeMutablePointer<Float>
  var down: UnsafeMutablePointer<Float>
}

/// All memory of a decoder's forward and backward pass over at most `capacity` rows, cut from one
/// region.
struct DecoderWorkspace {
  /// What the memory must suffice for.
  struct Plan: Sendable, Hashable {
    var configuration: LlamaConfiguration
    /// Layers whose activations are kept for a backward pass; empty for inference.
    var keptLayers: Range<Int>
    var recomputesActivations: Bool
    var lora: LoRALayout?
    /// Most rows whose logits are computed at a time.
    var headRows: Int
  }

  let plan: Plan
  let capacity: Int
  /// Rows whose logits are computed at a time.
  let headRows: Int
  private let region: FloatBuffer

  /// One for each kept layer.
  private(set) var kept: [LayerActivations] = []
  /// For layers that are not kept; `input`, `middle` and output are the same memory.
  private(set) var passing: LayerActivations
  /// (rows, hidden): output of the last layer computed.
  let output: UnsafeMutablePointer<Float>
  /// (rows, hidden): result of the latest normalisation.
  let normed: UnsafeMutablePointer<Float>
  /// (rows): factors of the latest normalisation.
  let normScales: UnsafeMutablePointer<Float>
  /// (rows, feedForward)
  let activation: UnsafeMutablePointer<Float>

  /// (headRows, hidden)
  let headInput: UnsafeMutablePointer<Float>
  /// (headRows, vocabulary), rows `logitsStride` apart.
  let logits: UnsafeMutablePointer<Float>
  let logitsStride: Int
  /// Floats from one row of `LayerActivations.gateUp` to the next.
  let gateUpStride: Int

  /// Rows whose distance is a multiple of 4,096 bytes all fall into the same few lines of the
  /// first-level cache, and products read and write a dozen of them side by side: such rows are a
  /// line further apart.
  private static func distance(ofRows columns: Int) -> Int {
    columns + (columns % 1024 == 0 ? 16 : 0)
  }

  // Gradients; only when layers are kept.
  /// (rows, hidden): with respect to the residual stream.
  let streamGradient: UnsafeMutablePointer<Float>
  /// (rows, hidden): with respect to a normalised input.
  let normedGradient: UnsafeMutablePointer<Float>
  /// (rows, hidden): with respect to the final hidden states.
  let hiddenGradient: UnsafeMutablePointer<Float>
  /// (rows, queryWidth + 2 · keyValueWidth)
  let queryKeyValueGradient: UnsafeMutablePointer<Float>
  /// (rows, max(queryWidth, feedForward)): with respect to the input of o or down.
  let wideGradient: UnsafeMutablePointer<Float>
  /// (rows, 3 · rank)
  let lowRankGradient: UnsafeMutablePointer<Float>
  /// (rank, widest output of a target)
  let transposedGradient: UnsafeMutablePointer<Float>
  /// (headRows, hidden)
  let headInputGradient: UnsafeMutablePointer<Float>
  /// (headRows): cross-entropy of each row of a chunk.
  let losses: UnsafeMutablePointer<Double>

  init(plan: Plan, capacity: Int) {
    // Measures first, then allocates and cuts.
    let measure = DecoderWorkspace(plan: plan, capacity: capacity, region: nil)
    self = DecoderWorkspace(
      plan: plan, capacity: capacity, region: FloatBuffer(count: measure.floatCount))
  }

  private let floatCount: Int

  private init(plan: Plan, capacity rows: Int, region: FloatBuffer?) {
    let shape = plan.configuration
    let hidden = shape.hiddenSize
    let queryKeyValueWidth = shape.queryWidth + 2 * shape.keyValueWidth
    let rank = plan.lora?.configuration.rank ?? 0
    let training = !plan.keptLayers.isEmpty
    let gateUpStride = Self.distance(ofRows: 2 * shape.feedForwardSize)
    self.gateUpStride = gateUpStride
    var cutter = RegionCutter(base: region?.base)

    func layer(
      input: UnsafeMutablePointer<Float>, separateMiddle: Bool, groups: LoRALayout.Layer?
    ) -> LayerActivations {
      func lowRank(_ group: LoRALayout.Group?) -> UnsafeMutablePointer<Float> {
        cutter.take(rows * rank * (group?.members.count ?? 0))
      }
      return LayerActivations(
        input: input,
        queryKeyValue: cutter.take(rows * queryKeyValueWidth),
        unnormalizedHeads: cutter.take(
          training && shape.normalizesHeads ? rows * (shape.queryWidth + shape.keyValueWidth) : 0),
        attention: cutter.take(rows * shape.queryWidth),
        middle: separateMiddle ? cutter.take(rows * hidden) : input,
        gateUp: cutter.take(rows * gateUpStride),
        lowRank: LowRankActivations(
          queryKeyValue: lowRank(groups?.queryKeyValue), output: lowRank(groups?.output),
          gateUp: lowRank(groups?.gateUp), down: lowRank(groups?.down)))
    }

    self.plan = plan
    capacity = rows
    headRows = min(plan.headRows, rows)
    self.region = region ?? FloatBuffer(count: 0)
    output = cutter.take(rows * hidden)
    let anyGroups = plan.lora?.layers.first
    let keepsAll = training && !plan.recomputesActivations
    passing = layer(input: output, separateMiddle: false, groups: anyGroups)
    if keepsAll {
      kept = plan.keptLayers.map {
        layer(
          input: cutter.take(rows * hidden), separateMiddle: true, groups: plan.lora?.layer($0))
      }
    } else if training {
      var shared = passing
      shared.middle = cutter.take(rows * hidden)
      kept = plan.keptLayers.map { _ in
        var own = shared
        own.input = cutter.take(rows * hidden)
        return own
      }
    }
    normed = cutter.take(rows * hidden)
    normScales = cutter.take(rows)
    activation = cutter.take(rows * shape.feedForwardSize)
    headInput = cutter.take(headRows * hidden)
    logitsStride = Self.distance(ofRows: shape.vocabularySize)
    logits = cutter.take(headRows * logitsStride)
    let gradientRows = training ? rows : 0
    streamGradient = cutter.take(gradientRows * hidden)
    normedGradient = cutter.take(gradientRows * hidden)
    hiddenGradient = cutter.take(gradientRows * hidden)
    queryKeyValueGradient = cutter.take(gradientRows * queryKeyValueWidth)
    wideGradient = cutter.take(gradientRows * max(shape.queryWidth, shape.feedForwardSize))
    lowRankGradient = cutter.take(gradientRows * 3 * rank)
    transposedGradient = cutter.take(
      training
        ? rank * max(hidden, shape.queryWidth, shape.keyValueWidth, shape.feedForwardSize) : 0)
    headInputGradient = cutter.take((training ? headRows : 0) * hidden)
    losses = UnsafeMutableRawPointer(cutter.take(2 * headRows))
      .bindMemory(to: Double.self, capacity: headRows)
    floatCount = cutter.count
  }
}
