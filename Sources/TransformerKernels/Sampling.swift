import CTransformerKernels

extension ThreadPool {
  /// Draws a token for each row of `logits` (rows, vocabulary), which is overwritten.
  ///
  /// The `topK` largest logits (all if 0), the lower token first among equals, divided by
  /// `temperature`, are probabilities; the token is where their running sum in Double, in falling
  /// order (in order of tokens if all take part), passes the row's draw. Temperature 0 takes the
  /// largest.
  ///
  /// - Parameter draws: one number in [0, 1) for each row.
  package func sampleTokens(
    _ logits: MutableMatrix, temperature: Float, topK: Int, draws: [Double]
  ) -> [Int32] {
    precondition(draws.count == logits.rows, "\(draws.count) draws for \(logits.rows) rows")
    var tokens = [Int32](repeating: 0, count: logits.rows)
    tokens.withUnsafeMutableBufferPointer { tokens in
      draws.withUnsafeBufferPointer { draws in
        run(
          SamplingWork(
            logits: logits, temperature: temperature, topK: topK, draws: draws, tokens: tokens),
          count: logits.rows)
      }
    }
    return tokens
  }
}

private struct SamplingWork: ParallelWork {
  let logits: MutableMatrix
  let temperature: Float
  let topK: Int
  let draws: UnsafeBufferPointer<Double>
  let tokens: UnsafeMutableBufferPointer<Int32>

  func run(_ index: Int, scratch: UnsafeMutablePointer<Float>) {
    let count = logits.columns
    let row = UnsafeMutableBufferPointer(start: logits.base + index * logits.stride, count: count)
    guard let base = row.baseAddress, count > 0 else { return }
    if temperature == 0 {
      tokens[index] = Int32(tk_argmax(count, base))
    } else if topK == 0 || topK >= count {
      tk_scale(count, 1 / temperature, base)
      tk_exp(count, base, Float(tk_log_sum_exp(count, base)))
      tokens[index] = Int32(position(of: draws[index], in: UnsafeBufferPointer(row)))
    } else {
      let candidates = largest(of: UnsafeBufferPointer(row))
      let shift = row[candidates[0]]
      // Kept apart from the logits: candidates lie anywhere in the row.
      var weights = candidates.map { (row[$0] - shift) / temperature }
      let chosen = weights.withUnsafeMutableBufferPointer { weights -> Int in
        guard let base = weights.baseAddress else { return 0 }
        tk_exp(weights.count, base, 0)
        return position(of: draws[index], in: UnsafeBufferPointer(weights))
      }
      tokens[index] = Int32(candidates[chosen])
    }
  }

  /// First position at which the running sum of `weights` exceeds `draw` of their total.
  private func position(of draw: Double, in weights: UnsafeBufferPointer<Float>) -> Int {
    let threshold = draw * weights.reduce(0.0) { $0 + Double($1) }
    var sum = 0.0
    for (position, weight) in weights.enumerated() {
      sum += Double(weight)
      if sum > threshold { return position }
    }
    // Only rounding leads here: the last token with any probability.
    return weights.lastIndex { $0 > 0 } ?? 0
  }

  /// Indices of the `topK` largest elements, falling; among equals the lower index first.
  private func largest(of row: UnsafeBufferPointer<Float>) -> [Int] {
    // A heap whose root is the candidate to give up first.
    var heap: [Int] = []
    heap.reserveCapacity(topK)
    func isWorse(_ a: Int, _ b: Int) -> Bool { row[a] < row[b] || (row[a] == row[b] && a > b) }
    func siftDown() {
      var parent = 0
      while true {
        var worst = parent
        for child in [2 * parent + 1, 2 * parent + 2]
        where child < heap.count && isWorse(heap[child], heap[worst]) {
          worst = child
        }
        if worst == parent { return }
        heap.swapAt(parent, worst)
        parent = worst
      }
    }
    var index = 0
    while index < row.count {
      if heap.count == topK {
        // Hardly any is large enough: many at a time are passed over.
        let least = SIMD16(repeating: row[heap[0]])
        let raw = UnsafeRawBufferPointer(row)
        while index + 16 <= row.count,
          !any(raw.loadUnaligned(fromByteOffset: 4 * index, as: SIMD16<Float>.self) .> least)
        { index += 16 }
        if index == row.count { break }
      }
      if heap.count < topK {
        heap.append(index)
        var child = heap.count - 1
        while child > 0, isWorse(heap[child], heap[(child - 1) / 2]) {
          heap.swapAt(child, (child - 1) / 2)
          child = (child - 1) / 2
        }
      } else if row[index] > row[heap[0]] {
        heap[0] = index
        siftDown()
      }
      index += 1
    }
    return heap.sorted { isWorse($1, $0) }
  }
}
