import CTransformerKernels

extension ThreadPool {
  /// Cross-entropy of each row of `logits` (rows, vocabulary) against its target, in nats.
  ///
  /// - Parameters:
  ///   - targets: (rows)
  ///   - losses: (rows), written.
  ///   - gradientScale: if not nil, each row of `logits` becomes the gradient of its loss times
  ///     this.
  ///   - weights: (rows), factors of the gradients beyond the scale; nil for 1. Losses are without.
  package func crossEntropy(
    _ logits: MutableMatrix, targets: UnsafePointer<Int32>, losses: UnsafeMutablePointer<Double>,
    gradientScale: Float?, weights: UnsafePointer<Float>? = nil
  ) {
    run(
      CrossEntropyWork(
        logits: logits, targets: targets, losses: losses, gradientScale: gradientScale,
        weights: weights),
      count: logits.rows)
  }

  /// log Σ exp of each row of `logits`, into `out` (rows).
  package func logSumExp(_ logits: Matrix, into out: UnsafeMutablePointer<Double>) {
    run(LogSumExpWork(logits: logits, out: out), count: logits.rows)
  }
}

private struct CrossEntropyWork: ParallelWork {
  let logits: MutableMatrix
  let targets: UnsafePointer<Int32>
  let losses: UnsafeMutablePointer<Double>
  let gradientScale: Float?
  let weights: UnsafePointer<Float>?

  func run(_ index: Int, scratch: UnsafeMutablePointer<Float>) {
    let row = logits.base + index * logits.stride
    let target = Int(targets[index])
    let logSum = tk_log_sum_exp(logits.columns, row)
    losses[index] = logSum - Double(row[target])
    if let gradientScale {
      tk_cross_entropy_gradient(logits.columns, row, logSum, target, gradientScale)
      if let weight = weights?[index], weight != 1 {
        for column in 0..<logits.columns { row[column] *= weight }
      }
    }
  }
}

private struct LogSumExpWork: ParallelWork {
  let logits: Matrix
  let out: UnsafeMutablePointer<Double>

  func run(_ index: Int, scratch: UnsafeMutablePointer<Float>) {
    out[index] = tk_log_sum_exp(logits.columns, logits.base + index * logits.stride)
  }
}
