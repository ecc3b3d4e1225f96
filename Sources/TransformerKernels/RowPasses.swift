import CTransformerKernels

/// Rows of one piece of a row-wise pass.
private let rowsPerPiece = 16

extension ThreadPool {
  /// `out` = RMSNorm of each row of `x` (rows, width) with `weight`. `scale`, if given, receives the
  /// factor 1/√(mean square + epsilon) of each row.
  package func rmsNorm(
    _ x: UnsafePointer<Float>, rows: Int, width: Int, weight: UnsafePointer<Float>, epsilon: Float,
    into out: UnsafeMutablePointer<Float>, scale: UnsafeMutablePointer<Float>? = nil
  ) {
    forRows(
      RMSNormWork(
        rows: rows, width: width, x: x, weight: weight, epsilon: epsilon, out: out, scale: scale))
  }

  /// `dx` += gradient of `rmsNorm` with respect to `x`, given the gradient `dy` of its result.
  package func rmsNormBackward(
    _ x: UnsafePointer<Float>, rows: Int, width: Int, weight: UnsafePointer<Float>, epsilon: Float,
    dy: UnsafePointer<Float>, addingTo dx: UnsafeMutablePointer<Float>
  ) {
    forRows(
      RMSNormBackwardWork(
        rows: rows, width: width, x: x, weight: weight, epsilon: epsilon, dy: dy, dx: dx))
  }

  /// `dweight` (width) = (or +=) gradient of `rmsNorm` with respect to its weight; `scale` as
  /// `rmsNorm` returned it.
  package func rmsNormWeightGradient(
    _ x: UnsafePointer<Float>, rows: Int, width: Int, scale: UnsafePointer<Float>,
    dy: UnsafePointer<Float>, into dweight: UnsafeMutablePointer<Float>, accumulating: Bool
  ) {
    let work = RMSNormWeightWork(
      rows: rows, width: width, x: x, scale: scale, dy: dy, dweight: dweight,
      accumulating: accumulating)
    run(work, count: (width + RMSNormWeightWork.block - 1) / RMSNormWeightWork.block)
  }

  /// Rotary positions in half-split form, in place, on the first `heads` heads of each row of `x`.
  ///
  /// - Parameters:
  ///   - positions: (rows)
  ///   - table: see `RotaryTable`.
  ///   - inverse: rotates back, which is also the gradient.
  package func rotate(
    _ x: MutableMatrix, heads: Int, positions: UnsafePointer<Int32>, table: RotaryTable,
    inverse: Bool = false
  ) {
    forRows(
      RotationWork(
        rows: x.rows, x: x, heads: heads, positions: positions, width: table.width,
        table: table.buffer.base, direction: inverse ? -1 : 1))
  }

  /// `out` (rows, width) = silu(gate) · up, with `gateUp` (rows, 2 · width) holding gate, then up, in
  /// rows that are `stride` floats apart, or follow each other.
  package func swiGLU(
    _ gateUp: UnsafePointer<Float>, rows: Int, width: Int, stride: Int? = nil,
    into out: UnsafeMutablePointer<Float>
  ) {
    forRows(
      SwiGLUWork(
        rows: rows, width: width, gateUp: gateUp, stride: stride ?? 2 * width, out: out))
  }

  /// Replaces `gateUp` by its gradient, given the gradient `dout` of `swiGLU`. `out`, if given,
  /// receives the result of `swiGLU` once more.
  package func swiGLUBackward(
    _ gateUp: UnsafeMutablePointer<Float>, rows: Int, width: Int, stride: Int? = nil,
    dout: UnsafePointer<Float>, recomputing out: UnsafeMutablePointer<Float>? = nil
  ) {
    forRows(
      SwiGLUBackwardWork(
        rows: rows, width: width, gateUp: gateUp, stride: stride ?? 2 * width, dout: dout,
        out: out))
  }

  /// `x` *= `factor` for each row.
  package func scale(_ x: MutableMatrix, by factor: Float) {
    forRows(ScaleWork(rows: x.rows, x: x, factor: factor))
  }

  /// Sets `count` floats to `value`.
  package func fill(_ x: UnsafeMutablePointer<Float>, with value: Float, count: Int) {
    run(FillWork(count: count, x: x, value: value), count: FillWork.pieces(count))
  }

  /// Σ x² in Double: blocks of fixed size, added in order.
  package func sumOfSquares(_ x: UnsafePointer<Float>, count: Int) -> Double {
    let block = SumOfSquaresWork.block
    // Few enough partial sums at a time to live on the stack.
    return withUnsafeTemporaryAllocation(of: Double.self, capacity: 64) { partial in
      var sum = 0.0
      for first in stride(from: 0, to: count, by: 64 * block) {
        let rest = min(64 * block, count - first)
        let blocks = (rest + block - 1) / block
        run(
          SumOfSquaresWork(count: rest, x: x + first, partial: partial.baseAddress!), count: blocks)
        for index in 0..<blocks { sum += partial[index] }
      }
      return sum
    }
  }

  /// One AdamW step on `count` parameters.
  package func adamW(
    _ step: AdamWStep, count: Int, parameters: UnsafeMutablePointer<Float>,
    gradients: UnsafePointer<Float>, firstMoment: UnsafeMutablePointer<Float>,
    secondMoment: UnsafeMutablePointer<Float>
  ) {
    let work = AdamWWork(
      count: count, step: step.kernelForm, parameters: parameters, gradients: gradients,
      firstMoment: firstMoment, secondMoment: secondMoment)
    run(work, count: (count + AdamWWork.block - 1) / AdamWWork.block)
  }

  private func forRows(_ work: some RowWork) {
    run(RowPieces(work: work), count: (work.rows + rowsPerPiece - 1) / rowsPerPiece)
  }
}

/// One AdamW step as torch.optim.AdamW defines it: decoupled decay of every parameter, then the
/// bias-corrected Adam update (Loshchilov and Hutter, 2019).
package struct AdamWStep: Sendable, Hashable {
  package var learningRate: Double
  package var beta1: Double
  package var beta2: Double
  package var epsilon: Double
  package var weightDecay: Double
  /// Factor on every gradient, for clipping.
  package var gradientScale: Double
  /// Number of this step, from 1.
  package var number: Int

  package init(
    learningRate: Double, beta1: Double = 0.9, beta2: Double = 0.999, epsilon: Double = 1e-8,
    weightDecay: Double = 0.01, gradientScale: Double = 1, number: Int
  ) {
    self.learningRate = learningRate
    self.beta1 = beta1
    self.beta2 = beta2
    self.epsilon = epsilon
    self.weightDecay = weightDecay
    self.gradientScale = gradientScale
    self.number = number
  }

  fileprivate var kernelForm: tk_adamw_step {
    func oneMinusPower(_ beta: Double) -> Double {
      // By repeated multiplication: the C library's pow may differ between machines.
      var power = 1.0
      var base = beta
      var exponent = number
      while exponent > 0 {
        if exponent & 1 == 1 { power *= base }
        base *= base
        exponent >>= 1
      }
      return 1 - power
    }
    return tk_adamw_step(
      learning_rate: learningRate, beta1: beta1, beta2: beta2, epsilon: epsilon,
      weight_decay: weightDecay, gradient_scale: gradientScale,
      correction1: oneMinusPower(beta1), correction2: oneMinusPower(beta2))
  }
}

/// A pass over independent rows.
private protocol RowWork {
  var rows: Int { get }
  func run(rows: Range<Int>)
}

private struct RowPieces<Work: RowWork>: ParallelWork {
  let work: Work

  func run(_ index: Int, scratch: UnsafeMutablePointer<Float>) {
    let first = index * rowsPerPiece
    work.run(rows: first..<min(first + rowsPerPiece, work.rows))
  }
}

private struct RMSNormWork: RowWork {
  let rows: Int
  let width: Int
  let x: UnsafePointer<Float>
  let weight: UnsafePointer<Float>
  let epsilon: Float
  let out: UnsafeMutablePointer<Float>
  let scale: UnsafeMutablePointer<Float>?

  func run(rows: Range<Int>) {
    let offset = rows.lowerBound * width
    tk_rms_norm(
      rows.count, width, x + offset, weight, epsilon, out + offset,
      scale.map { $0 + rows.lowerBound })
  }
}

private struct RMSNormBackwardWork: RowWork {
  let rows: Int
  let width: Int
  let x: UnsafePointer<Float>
  let weight: UnsafePointer<Float>
  let epsilon: Float
  let dy: UnsafePointer<Float>
  let dx: UnsafeMutablePointer<Float>

  func run(rows: Range<Int>) {
    let offset = rows.lowerBound * width
    tk_rms_norm_backward(
      rows.count, width, x + offset, weight, epsilon, dy + offset, dx + offset)
  }
}

private struct RMSNormWeightWork: ParallelWork {
  static let block = 64
  let rows: Int
  let width: Int
  let x: UnsafePointer<Float>
  let scale: UnsafePointer<Float>
  let dy: UnsafePointer<Float>
  let dweight: UnsafeMutablePointer<Float>
  let accumulating: Bool

  func run(_ index: Int, scratch: UnsafeMutablePointer<Float>) {
    let first = index * Self.block
    tk_rms_norm_weight_gradient(
      rows, width, first, min(first + Self.block, width), x, scale, dy, dweight,
      accumulating ? 1 : 0)
  }
}

private struct RotationWork: RowWork {
  let rows: Int
  let x: MutableMatrix
  let heads: Int
  let positions: UnsafePointer<Int32>
  let width: Int
  let table: UnsafePointer<Float>
  let direction: Float

  func run(rows: Range<Int>) {
    tk_rope(
      rows.count, heads, width, x.base + rows.lowerBound * x.stride, x.stride,
      positions + rows.lowerBound, table, direction)
  }
}

private struct SwiGLUWork: RowWork {
  let rows: Int
  let width: Int
  let gateUp: UnsafePointer<Float>
  let stride: Int
  let out: UnsafeMutablePointer<Float>

  func run(rows: Range<Int>) {
    let first = rows.lowerBound
    tk_swiglu(rows.count, width, gateUp + first * stride, stride, out + first * width)
  }
}

private struct SwiGLUBackwardWork: RowWork {
  let rows: Int
  let width: Int
  let gateUp: UnsafeMutablePointer<Float>
  let stride: Int
  let dout: UnsafePointer<Float>
  let out: UnsafeMutablePointer<Float>?

  func run(rows: Range<Int>) {
    let first = rows.lowerBound
    tk_swiglu_backward(
      rows.count, width, gateUp + first * stride, stride, dout + first * width,
      out.map { $0 + first * width })
  }
}

private struct ScaleWork: RowWork {
  let rows: Int
  let x: MutableMatrix
  let factor: Float

  func run(rows: Range<Int>) {
    for row in rows { tk_scale(x.columns, factor, x.base + row * x.stride) }
  }
}

private struct FillWork: ParallelWork {
  private static let block = 1 << 18
  static func pieces(_ count: Int) -> Int { (count + block - 1) / block }
  let count: Int
  let x: UnsafeMutablePointer<Float>
  let value: Float

  func run(_ index: Int, scratch: UnsafeMutablePointer<Float>) {
    let first = index * Self.block
    (x + first).update(repeating: value, count: min(Self.block, count - first))
  }
}

private struct SumOfSquaresWork: ParallelWork {
  static let block = 1 << 16
  let count: Int
  let x: UnsafePointer<Float>
  let partial: UnsafeMutablePointer<Double>

  func run(_ index: Int, scratch: UnsafeMutablePointer<Float>) {
    let first = index * Self.block
    partial[index] = tk_sum_of_squares(min(Self.block, count - first), x + first)
  }
}

private struct AdamWWork: ParallelWork {
  static let block = 1 << 14
  let count: Int
  let step: tk_adamw_step
  let parameters: UnsafeMutablePointer<Float>
  let gradients: UnsafePointer<Float>
  let firstMoment: UnsafeMutablePointer<Float>
  let secondMoment: UnsafeMutablePointer<Float>

  func run(_ index: Int, scratch: UnsafeMutablePointer<Float>) {
    let first = index * Self.block
    withUnsafePointer(to: step) {
      tk_adamw(
        min(Self.block, count - first), $0, parameters + first, gradients + first,
        firstMoment + first, secondMoment + first)
    }
  }
}
