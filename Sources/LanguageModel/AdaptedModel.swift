import TransformerKernels

/// A model ready to be evaluated: the base model, or what a fine-tune made of it.
///
/// One call at a time. Every result for a prompt is a function of that prompt, the options and the
/// weights, to the last bit: neither the other prompts of a call nor the threads nor the trunk cache
/// change it. The adapter is computed beside the weights, never merged into them, as in training.
package final class AdaptedModel {
  /// How the model differs from the base.
  enum Change {
    case lowRank(LoRALayout, FloatBuffer)
    /// Other weights in a part of the region, in `ParameterLayout`.
    case weights(Range<Int>, FloatBuffer)
  }

  let base: ModelWeights
  let pool: ThreadPool
  let decoder: LlamaDecoder
  /// Whether the common beginnings of a batch's sequences are computed once. Changes only the time.
  package var sharesPrefixes = true
  private let change: Change?
  /// The layers below the first that differs from the base model's.
  let trunk: FrozenTrunk
  private var lookup = TrunkLookup()

  /// Rows of activations computed at a time.
  static let rowsPerBatch = 768

  init(
    base: ModelWeights, change: Change?, pool: ThreadPool, trunkCache: TrunkCache?,
    headRows: Int = LlamaDecoder.defaultHeadRows
  ) {
    self.base = base
    self.change = change
    self.pool = pool
    var changed: ChangedWeights?
    var lowRank: LlamaDecoder.LowRank?
    let trunkDepth: Int
    switch change {
    case nil:
      trunkDepth = 0
    case .lowRank(let layout, let values):
      lowRank = LlamaDecoder.LowRank(layout: layout, base: values.base)
      trunkDepth = layout.configuration.layers.lowerBound
    case .weights(let range, let values):
      changed = ChangedWeights(range: range, base: UnsafePointer(values.base))
      trunkDepth =
        range.contains(base.layout.embedding)
        ? 0 : base.layout.layers.firstIndex { range.contains($0.attentionNorm) } ?? 0
    }
    trunk = FrozenTrunk(depth: trunkDepth, weightsDigest: base.digest, cache: trunkCache)
    decoder = LlamaDecoder(
      weights: base, changed: changed, lowRank: lowRank, pool: pool, headRows: headRows)
  }

  /// The base model itself.
  ///
  /// - Parameter headRows: positions whose logits are computed at a time.
  package convenience init(
    weights: ModelWeights, pool: ThreadPool, headRows: Int = LlamaDecoder.defaultHeadRows
  ) {
    self.init(base: weights, change: nil, pool: pool, trunkCache: nil, headRows: headRows)
  }

  /// The base model itself.
  package convenience init(base: LanguageModel, pool: ThreadPool, trunkCache: TrunkCache? = nil) {
    self.init(base: base.weights, change: nil, pool: pool, trunkCache: trunkCache)
  }

  /// Computes the final hidden states of `sequences` to `decoder.workspace.normed`, in the rows of
  /// `tree`.
  ///
  /// - Parameters:
  ///   - tree: made of these sequences and `sharesPrefixes`.
  ///   - items: ranges of sequences that occur together, for the trunk cache.
  ///   - outputs: rising rows that will be read, which then lie one after the other; nil for all.
  func computeHiddenStates(
    _ tree: PrefixTree, of sequences: [[Int32]], items: [Range<Int>], outputs: [Int]? = nil
  ) {
    decoder.reserve(rows: tree.batch.rowCount, positions: tree.batch.longestPath)
    decoder.forwardTrunk(
      tree, of: sequences, items: items, sharing: sharesPrefixes, keeping: false, trunk: trunk,
      lookup: &lookup)
    decoder.forward(
      tree.batch, layers: trunk.depth..<base.configuration.layerCount, outputs: outputs)
    decoder.finish(rows: outputs?.count ?? tree.batch.rowCount)
  }

  /// Mean of the final hidden states over the tokens of each sequence: (hidden size) floats each.
  ///
  /// - Throws: `EvaluationError`.
  package func hiddenStates(
    _ sequences: [[Int32]], progress: (_ tokens: Int) -> Void = { _ in },
    shouldStop: () -> Bool = { false }
  ) throws -> [[Float]] {
    for (index, sequence) in sequences.enumerated() {
      try check(sequence, index: index)
    }
    let width = base.configuration.hiddenSize
    var means: [[Float]] = []
    means.reserveCapacity(sequences.count)
    for range in batches(of: sequences.map(\.count)) {
      if shouldStop() { throw EvaluationError.cancelled }
      let part = Array(sequences[range])
      let tree = PrefixTree(part, sharing: sharesPrefixes)
      computeHiddenStates(tree, of: part, items: part.indices.map { $0..<$0 + 1 })
      for path in tree.paths {
        var mean = [Float](repeating: 0, count: width)
        for row in path {
          for column in 0..<width {
            mean[column] += decoder.workspace.normed[row * width + column]
          }
        }
        means.append(mean.map { $0 / Float(path.count) })
      }
      progress(sequences[range].reduce(0) { $0 + $1.count })
    }
    return means
  }

  /// Logits at every position of the sequences, one sequence after the other, in chunks: `body` gets
  /// the positions, counted over all sequences, and their logits (chunk, vocabulary), whose rows need
  /// not follow each other at once.
  ///
  /// - Throws: `EvaluationError`.
  package func logits(_ sequences: [[Int32]], _ body: (Range<Int>, Matrix) -> Void) throws {
    for (index, sequence) in sequences.enumerated() { try check(sequence, index: index) }
    let tree = PrefixTree(sequences, sharing: sharesPrefixes)
    computeHiddenStates(tree, of: sequences, items: sequences.indices.map { $0..<$0 + 1 })
    decoder.logits(of: tree.paths.flatMap { $0 }) { range, logits in
      body(
        range,
        Matrix(logits.base, rows: logits.rows, columns: logits.columns, stride: logits.stride))
    }
  }

  /// - Throws: `EvaluationError.invalidTokens`.
  func check(_ tokens: [Int32], index: Int) throws {
    if let problem = TokenProblem.first(in: tokens, base.configuration) {
      throw EvaluationError.invalidTokens(index: index, problem: problem)
    }
  }

  /// Cuts a list of items with these numbers of rows into batches of about `rowsPerBatch` rows.
  func batches(of rowCounts: [Int]) -> [Range<Int>] {
    var ranges: [Range<Int>] = []
    var first = 0
    var rows = 0
    for (index, count) in rowCounts.enumerated() {
      if index > first && rows + count > Self.rowsPerBatch {
        ranges.append(first..<index)
        first = index
        rows = 0
      }
      rows += count
    }
    if first < rowCounts.count { ranges.append(first..<rowCounts.count) }
    return ranges
  }
}

/// Why a model could not be evaluated.
package enum EvaluationError: Error, Hashable, CustomStringConvertible {
  case invalidTokens(index: Int, problem: TokenProblem)
  case emptyContinuation(index: Int, continuation: Int)
  case countMismatch(prompts: Int, seeds: Int)
  case invalidSampling(name: String, value: String, allowed: String)
  case cancelled

  package var description: String {
    switch self {
    case .invalidTokens(let index, let problem):
      "the token sequence of item \(index) cannot be used: \(problem)"
    case .emptyContinuation(let index, let continuation):
      "continuation \(continuation) of item \(index) has no tokens; give at least one"
    case .countMismatch(let prompts, let seeds):
      "there are \(prompts) prompts but \(seeds) seeds; give one for each prompt"
    case .invalidSampling(let name, let value, let allowed):
      "sampling option \(name) is \(value); allowed is \(allowed)"
    case .cancelled:
      "the evaluation was cancelled"
    }
  }
}
