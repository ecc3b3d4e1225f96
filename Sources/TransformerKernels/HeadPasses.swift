import CTransformerKernels

/// Passes over rows of queries, keys and values (see `AttentionHeads`) before their rotation.
extension ThreadPool {
  /// Adds `vector` (columns) to every row of `x`.
  package func add(_ vector: UnsafePointer<Float>, toRowsOf x: MutableMatrix) {
    run(RowShift(x: x, vector: vector), count: pieces(of: x.rows))
  }

  /// `out` (columns) = (or +=) the sum of the rows of `x`, added in their order.
  package func sumRows(
    of x: MutableMatrix, into out: UnsafeMutablePointer<Float>, accumulating: Bool
  ) {
    run(
      RowSum(x: x, out: out, accumulating: accumulating),
      count: (x.columns + RowSum.block - 1) / RowSum.block)
  }

  /// RMSNorm of each head of queries and keys in place, with one weight (head width) for all query
  /// heads and one for all key heads. `original`, if given, receives what queries and keys were:
  /// (rows, query and key heads).
  package func normalizeHeads(
    _ x: MutableMatrix, heads: AttentionHeads, queryWeight: UnsafePointer<Float>,
    keyWeight: UnsafePointer<Float>, epsilon: Float,
    keeping original: UnsafeMutablePointer<Float>?
  ) {
    run(
      HeadNorm(
        x: x, heads: heads, queryWeight: queryWeight, keyWeight: keyWeight, epsilon: epsilon,
        original: original), count: pieces(of: x.rows))
  }

  /// Replaces the gradient of `normalizeHeads`' result by that of its argument, in place.
  ///
  /// - Parameter original: as `normalizeHeads` kept it.
  package func normalizeHeadsBackward(
    _ original: UnsafePointer<Float>, heads: AttentionHeads, queryWeight: UnsafePointer<Float>,
    keyWeight: UnsafePointer<Float>, epsilon: Float, gradient: MutableMatrix
  ) {
    reserveScratch(heads.normalizedWidth)
    run(
      HeadNormBackward(
        gradient: gradient, heads: heads, queryWeight: queryWeight, keyWeight: keyWeight,
        epsilon: epsilon, original: original), count: pieces(of: gradient.rows))
  }

  /// Gradients (head width) of the two weights of `normalizeHeads`, given the gradient `dy` of its
  /// result. Rows are added in their order, by one thread.
  package func normalizeHeadsWeightGradient(
    _ original: UnsafePointer<Float>, heads: AttentionHeads, epsilon: Float, dy: MutableMatrix,
    queryWeight: UnsafeMutablePointer<Float>, keyWeight: UnsafeMutablePointer<Float>,
    accumulating: Bool
  ) {
    reserveScratch(heads.normalizedWidth + heads.queryCount)
    run(
      HeadNormWeight(
        dy: dy, heads: heads, epsilon: epsilon, original: original, queryWeight: queryWeight,
        keyWeight: keyWeight, accumulating: accumulating), count: 2)
  }

  private func pieces(of rows: Int) -> Int { (rows + rowsPerPiece - 1) / rowsPerPiece }
}

private let rowsPerPiece = 16

private func rows(ofPiece index: Int, of count: Int) -> Range<Int> {
  index * rowsPerPiece..<min((index + 1) * rowsPerPiece, count)
}

extension AttentionHeads {
  /// Elements of the queries and keys of a row.
  fileprivate var normalizedWidth: Int { (queryCount + keyValueCount) * width }
}

private struct RowShift: ParallelWork {
  let x: MutableMatrix
  let vector: UnsafePointer<Float>

  func run(_ index: Int, scratch: UnsafeMutablePointer<Float>) {
    for row in rows(ofPiece: index, of: x.rows) {
      let values = x.base + row * x.stride
      for column in 0..<x.columns { values[column] += vector[column] }
    }
  }
}

private struct RowSum: ParallelWork {
  static let block = 64
  let x: MutableMatrix
  let out: UnsafeMutablePointer<Float>
  let accumulating: Bool

  func run(_ index: Int, scratch: UnsafeMutablePointer<Float>) {
    let columns = index * Self.block..<min((index + 1) * Self.block, x.columns)
    if !accumulating {
      (out + columns.lowerBound).update(repeating: 0, count: columns.count)
    }
    for row in 0..<x.rows {
      let values = x.base + row * x.stride
      for column in columns { out[column] += values[column] }
    }
  }
}

private struct HeadNorm: ParallelWork {
  let x: MutableMatrix
  let heads: AttentionHeads
  let queryWeight: UnsafePointer<Float>
  let keyWeight: UnsafePointer<Float>
  let epsilon: Float
  let original: UnsafeMutablePointer<Float>?

  func run(_ index: Int, scratch: UnsafeMutablePointer<Float>) {
    let (width, queries) = (heads.width, heads.queryCount)
    for row in rows(ofPiece: index, of: x.rows) {
      let values = x.base + row * x.stride
      if let original {
        (original + row * heads.normalizedWidth).update(
          from: values, count: heads.normalizedWidth)
      }
      tk_rms_norm(queries, width, values, queryWeight, epsilon, values, nil)
      let keys = values + queries * width
      tk_rms_norm(heads.keyValueCount, width, keys, keyWeight, epsilon, keys, nil)
    }
  }
}

private struct HeadNormBackward: ParallelWork {
  let gradient: MutableMatrix
  let heads: AttentionHeads
  let queryWeight: UnsafePointer<Float>
  let keyWeight: UnsafePointer<Float>
  let epsilon: Float
  let original: UnsafePointer<Float>

  func run(_ index: Int, scratch: UnsafeMutablePointer<Float>) {
    let keyOffset = heads.queryCount * heads.width
    for row in rows(ofPiece: index, of: gradient.rows) {
      let dy = gradient.base + row * gradient.stride
      let x = original + row * heads.normalizedWidth
      scratch.update(repeating: 0, count: heads.normalizedWidth)
      tk_rms_norm_backward(
        heads.queryCount, heads.width, x, queryWeight, epsilon, dy, scratch)
      tk_rms_norm_backward(
        heads.keyValueCount, heads.width, x + keyOffset, keyWeight, epsilon, dy + keyOffset,
        scratch + keyOffset)
      dy.update(from: scratch, count: heads.normalizedWidth)
    }
  }
}

/// Piece 0 is the weight of queries, piece 1 that of keys.
private struct HeadNormWeight: ParallelWork {
  let dy: MutableMatrix
  let heads: AttentionHeads
  let epsilon: Float
  let original: UnsafePointer<Float>
  let queryWeight: UnsafeMutablePointer<Float>
  let keyWeight: UnsafeMutablePointer<Float>
  let accumulating: Bool

  func run(_ index: Int, scratch: UnsafeMutablePointer<Float>) {
    let width = heads.width
    let offset = index == 0 ? 0 : heads.queryCount * width
    let count = index == 0 ? heads.queryCount : heads.keyValueCount
    let out = index == 0 ? queryWeight : keyWeight
    if !accumulating { out.update(repeating: 0, count: width) }
    let scales = scratch + heads.normalizedWidth
    for row in 0..<dy.rows {
      let x = original + row * heads.normalizedWidth + offset
      // Only the factors are wanted; any weight does.
      tk_rms_norm(count, width, x, x, epsilon, scratch, scales)
      tk_rms_norm_weight_gradient(
        count, width, 0, width, x, scales, dy.base + row * dy.stride + offset, out, 1)
    }
  }
}
