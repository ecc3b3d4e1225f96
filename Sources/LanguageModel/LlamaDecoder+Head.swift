import TransformerKernels

/// Rows whose next token is scored.
struct PredictionTargets {
  /// Row of the batch that predicts; sequences that share it may go on differently.
  var rows: [Int] = []
  /// The token that follows it.
  var tokens: [Int32] = []

  mutating func removeAll() {
    rows.removeAll(keepingCapacity: true)
    tokens.removeAll(keepingCapacity: true)
  }
}

extension LlamaDecoder {
  /// Logits of chosen rows of `workspace.normed`, chunk by chunk: `body` gets the positions in `rows`
  /// that a chunk covers, and their logits (chunk, vocabulary) in `workspace.logits`.
  ///
  /// - Parameter reusing: whether the logits of just these rows, in one chunk, are there already.
  func logits(of rows: [Int], reusing: Bool = false, _ body: (Range<Int>, MutableMatrix) -> Void) {
    let hidden = configuration.hiddenSize
    let chunk = workspace.headRows
    for first in stride(from: 0, to: rows.count, by: chunk) {
      let range = first..<min(first + chunk, rows.count)
      for (position, row) in rows[range].enumerated() {
        (workspace.headInput + position * hidden).update(
          from: workspace.normed + row * hidden, count: hidden)
      }
      let input = Matrix(workspace.headInput, rows: range.count, columns: hidden)
      let logits = MutableMatrix(
        workspace.logits, rows: range.count, columns: configuration.vocabularySize,
        stride: workspace.logitsStride)
      if reusing {
        precondition(rows.count <= chunk, "\(rows.count) rows of logits are more than a chunk")
      } else if let head = compressedHead {
        pool.multiply(input, head, into: logits)
      } else {
        pool.multiply(input, headWeights, transposingB: true, into: logits)
      }
      body(range, logits)
    }
  }

  private var headWeights: Matrix {
    Matrix(
      weights(layout.head), rows: configuration.vocabularySize,
      columns: configuration.hiddenSize)
  }

  /// Cross-entropy of each of `targets`, in nats, into memory that is used again.
  ///
  /// - Returns: whether the targets were one chunk, so that `crossEntropy` can use their logits again.
  func tokenLosses(_ targets: PredictionTargets, into losses: inout [Double]) -> Bool {
    losses.removeAll(keepingCapacity: true)
    targets.tokens.withUnsafeBufferPointer { tokens in
      logits(of: targets.rows) { range, logits in
        guard let tokenBase = tokens.baseAddress else { return }
        pool.crossEntropy(
          logits, targets: tokenBase + range.lowerBound, losses: workspace.losses,
          gradientScale: nil)
        for position in 0..<range.count { losses.append(workspace.losses[position]) }
      }
    }
    return targets.rows.count <= workspace.headRows
  }

  /// Sum of the cross-entropies of `targets`, in nats. Unless `gradientScale` is nil, writes the
  /// gradient of this sum times the scale with respect to the final hidden states to
  /// `workspace.hiddenGradient`, and that of the head to `sink` if it is trained.
  ///
  /// - Parameters:
  ///   - weights: of each target in the sum, constants in the gradient; empty for 1.
  ///   - reusingLogits: what `tokenLosses` of the same targets returned just before.
  func crossEntropy(
    _ targets: PredictionTargets, rows: Int, weights: [Float] = [], reusingLogits: Bool = false,
    gradientScale: Float? = nil, into sink: GradientSink? = nil
  ) -> Double {
    let hidden = configuration.hiddenSize
    if gradientScale != nil {
      workspace.hiddenGradient.update(repeating: 0, count: rows * hidden)
    }
    var sum = 0.0
    withTokensAndWeights(targets, weights) { tokens, weights in
      logits(of: targets.rows, reusing: reusingLogits) { range, logits in
        let weights = weights.map { $0 + range.lowerBound }
        pool.crossEntropy(
          logits, targets: tokens + range.lowerBound, losses: workspace.losses,
          gradientScale: gradientScale, weights: weights)
        for position in 0..<range.count {
          sum +=
            weights.map { Double($0[position]) * workspace.losses[position] }
            ?? workspace.losses[position]
        }
        guard gradientScale != nil else { return }
        let gradient = Matrix(
          logits.base, rows: logits.rows, columns: logits.columns, stride: logits.stride)
        let inputGradient = MutableMatrix(
          workspace.headInputGradient, rows: range.count, columns: hidden)
        if let head = compressedHead {
          pool.multiplyTransposed(gradient, head, into: inputGradient)
        } else {
          pool.multiply(gradient, headWeights, into: inputGradient)
        }
        for (position, row) in targets.rows[range].enumerated() {
          let to = workspace.hiddenGradient + row * hidden
          let from = workspace.headInputGradient + position * hidden
          for column in 0..<hidden { to[column] += from[column] }
        }
        if let sink, sink.covers(layout.head) {
          pool.multiply(
            gradient, transposingA: true,
            Matrix(workspace.headInput, rows: range.count, columns: hidden),
            into: MutableMatrix(
              sink.gradient(layout.head), rows: configuration.vocabularySize, columns: hidden),
            accumulating: sink.accumulating || range.lowerBound > 0)
        }
      }
    }
    return sum
  }

  /// Calls `body` with the tokens of `targets`, unless there are none, and their weights, if any.
  private func withTokensAndWeights(
    _ targets: PredictionTargets, _ weights: [Float],
    _ body: (UnsafePointer<Int32>, UnsafePointer<Float>?) -> Void
  ) {
    precondition(
      weights.isEmpty || weights.count == targets.tokens.count,
      "\(weights.count) weights for \(targets.tokens.count) targets")
    targets.tokens.withUnsafeBufferPointer { tokens in
      weights.withUnsafeBufferPointer { weights in
        guard let base = tokens.baseAddress else { return }
        body(base, weights.isEmpty ? nil : weights.baseAddress)
      }
    }
  }

  /// From `workspace.hiddenGradient` to `workspace.streamGradient`: backwards through the final
  /// normalisation, whose forward pass was the latest normalisation.
  func finishBackward(rows: Int, into sink: GradientSink) {
    let hidden = configuration.hiddenSize
    if sink.covers(layout.finalNorm) {
      pool.rmsNormWeightGradient(
        workspace.output, rows: rows, width: hidden, scale: workspace.normScales,
        dy: workspace.hiddenGradient, into: sink.gradient(layout.finalNorm),
        accumulating: sink.accumulating)
    }
    workspace.streamGradient.update(repeating: 0, count: rows * hidden)
    pool.rmsNormBackward(
      workspace.output, rows: rows, width: hidden, weight: weights(layout.finalNorm),
      epsilon: configuration.normEpsilon, dy: workspace.hiddenGradient,
      addingTo: workspace.streamGradient)
  }

  /// Adds `workspace.streamGradient`, now that of the embeddings, to the embedding's gradient.
  /// With a tied head, that of the head must be there already. Rows of `skipped` are left out.
  func embeddingBackward(_ tokens: [Int32], skipping skipped: Int32?, into sink: GradientSink) {
    let hidden = configuration.hiddenSize
    let embedding = sink.gradient(layout.embedding)
    if !sink.accumulating && !configuration.tiesEmbeddings {
      pool.fill(embedding, with: 0, count: configuration.vocabularySize * hidden)
    }
    for (row, token) in tokens.enumerated() where token != skipped {
      let to = embedding + Int(token) * hidden
      let from = workspace.streamGradient + row * hidden
      for column in 0..<hidden { to[column] += from[column] }
    }
  }
}
