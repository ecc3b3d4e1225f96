import TransformerKernels

/// What some models do between the projection to queries, keys and values and their rotation.
extension LlamaDecoder {
  /// Adds the biases of queries, keys and values, then normalises the heads of queries and keys, as
  /// far as the model has these. Keeps what was normalised where a backward pass will need it.
  func shiftAndNormalizeHeads(
    _ offsets: ParameterLayout.Layer, _ own: LayerActivations, rows: Int
  ) {
    let queryKeyValue = MutableMatrix(own.queryKeyValue, rows: rows, columns: heads.rowWidth)
    if let bias = offsets.queryKeyValueBias { pool.add(weights(bias), toRowsOf: queryKeyValue) }
    if let norms = offsets.headNorms {
      pool.normalizeHeads(
        queryKeyValue, heads: heads, queryWeight: weights(norms.query),
        keyWeight: weights(norms.key), epsilon: configuration.normEpsilon,
        keeping: keptLayers.isEmpty ? nil : own.unnormalizedHeads)
    }
  }

  /// Propagates `workspace.queryKeyValueGradient` back through `shiftAndNormalizeHeads`, in place,
  /// and collects the gradients of its weights.
  func shiftAndNormalizeHeadsBackward(
    _ offsets: ParameterLayout.Layer, _ own: LayerActivations, rows: Int, into sink: GradientSink
  ) {
    let gradient = MutableMatrix(
      workspace.queryKeyValueGradient, rows: rows, columns: heads.rowWidth)
    let isFull = sink.takesWeights
    if let norms = offsets.headNorms {
      if isFull {
        pool.normalizeHeadsWeightGradient(
          own.unnormalizedHeads, heads: heads, epsilon: configuration.normEpsilon,
          dy: gradient, queryWeight: sink.gradient(norms.query),
          keyWeight: sink.gradient(norms.key),
          accumulating: sink.accumulating)
      }
      pool.normalizeHeadsBackward(
        own.unnormalizedHeads, heads: heads, queryWeight: weights(norms.query),
        keyWeight: weights(norms.key), epsilon: configuration.normEpsilon, gradient: gradient)
    }
    if isFull, let bias = offsets.queryKeyValueBias {
      pool.sumRows(of: gradient, into: sink.gradient(bias), accumulating: sink.accumulating)
    }
  }
}
