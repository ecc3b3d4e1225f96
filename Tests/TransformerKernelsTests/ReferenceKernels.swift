import TransformerKernels

// Plain twins in Double of what the kernels compute, to compare with.

/// Reproducible numbers in [-1, 1).
struct TestNumbers {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> Float {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return Float(state >> 40) / Float(1 << 23) - 1
  }

  mutating func array(_ count: Int, scale: Float = 1) -> [Float] {
    (0..<count).map { _ in next() * scale }
  }
}

/// A function of arrays whose gradient a kernel claims to compute.
///
/// - Returns: derivative of `function` in direction `direction` at `x`, by central differences.
func directionalDerivative(
  at x: [Double], along direction: [Double], _ function: ([Double]) -> Double
) -> Double {
  let step = 1e-5
  let ahead = function(zip(x, direction).map { $0 + step * $1 })
  let behind = function(zip(x, direction).map { $0 - step * $1 })
  return (ahead - behind) / (2 * step)
}

func dot(_ a: [Double], _ b: [Double]) -> Double { zip(a, b).reduce(0) { $0 + $1.0 * $1.1 } }

func doubles(_ values: [Float]) -> [Double] { values.map(Double.init) }

func largestDifference(_ a: [Float], _ b: [Double]) -> Double {
  guard a.count == b.count else { return .infinity }
  return zip(a, b).reduce(0) { max($0, abs(Double($1.0) - $1.1)) }
}

func referenceRMSNorm(_ x: [Double], weight: [Double], epsilon: Double) -> [Double] {
  let width = weight.count
  return x.indices.map { index in
    let row = index / width * width
    let mean = x[row..<row + width].reduce(0) { $0 + $1 * $1 } / Double(width)
    return x[index] / (mean + epsilon).squareRoot() * weight[index % width]
  }
}

func exponential(_ x: Double) -> Double {
  // Halved until the series converges fast, then squared as often.
  var halvings = 0
  var y = x
  while abs(y) > 0.5 {
    y /= 2
    halvings += 1
  }
  var term = 1.0
  var sum = 1.0
  for n in 1..<24 {
    term *= y / Double(n)
    sum += term
  }
  for _ in 0..<halvings { sum *= sum }
  return sum
}

func referenceSwiGLU(_ gateUp: [Double], width: Int) -> [Double] {
  (0..<gateUp.count / 2).map { index in
    let row = index / width * 2 * width
    let gate = gateUp[row + index % width]
    return gate / (1 + exponential(-gate)) * gateUp[row + width + index % width]
  }
}

/// Causal attention of one sequence; row layout of `AttentionHeads`.
func referenceAttention(_ input: [Double], heads: AttentionHeads) -> [Double] {
  let rowWidth = heads.rowWidth
  let width = heads.width
  let rows = input.count / rowWidth
  let group = heads.queryCount / heads.keyValueCount
  var out = [Double](repeating: 0, count: rows * heads.outputWidth)
  for head in 0..<heads.queryCount {
    let keyOffset = (heads.queryCount + head / group) * width
    let valueOffset = keyOffset + heads.keyValueCount * width
    for row in 0..<rows {
      var weights = (0...row).map { key in
        (0..<width).reduce(0.0) {
          $0 + input[row * rowWidth + head * width + $1]
            * input[key * rowWidth + keyOffset + $1]
        } / Double(width).squareRoot()
      }
      let largest = weights.reduce(-Double.infinity, max)
      weights = weights.map { exponential($0 - largest) }
      let total = weights.reduce(0, +)
      for element in 0..<width {
        out[row * heads.outputWidth + head * width + element] =
          (0...row).reduce(0.0) {
            $0 + weights[$1] * input[$1 * rowWidth + valueOffset + element]
          } / total
      }
    }
  }
  return out
}
