import Foundation
import LanguageModel
import TransformerKernels

/// The matrix products of a LoRA step on the projections of attention in all layers, with logits at
/// all positions: the least that the step has to compute, and so its ceiling.
struct StepProducts {
  struct Product: Hashable {
    let m: Int
    let n: Int
    let k: Int
    let transposingA: Bool
    let transposingB: Bool

    var operations: Double { 2 * Double(m) * Double(n) * Double(k) }
  }

  /// How often each product occurs in a step.
  private(set) var counts: [(product: Product, count: Int)] = []

  init(_ shape: LlamaConfiguration, rows: Int, predictions: Int, rank: Int) {
    let hidden = shape.hiddenSize
    let feedForward = shape.feedForwardSize
    let query = shape.queryWidth
    let keyValue = shape.keyValueWidth
    let together = query + 2 * keyValue
    let layers = shape.layerCount
    func add(
      _ count: Int, _ m: Int, _ n: Int, _ k: Int, a: Bool = false, b: Bool = false
    ) {
      counts.append((Product(m: m, n: n, k: k, transposingA: a, transposingB: b), count))
    }
    // Forward: x Wᵀ, then x Aᵀ and u Bᵀ of the adapters.
    add(layers, rows, together, hidden, b: true)
    add(layers, rows, hidden, query, b: true)
    add(layers, rows, 2 * feedForward, hidden, b: true)
    add(layers, rows, hidden, feedForward, b: true)
    add(layers, rows, 3 * rank, hidden, b: true)
    add(layers, rows, rank, query, b: true)
    add(layers, rows, query, rank, b: true)
    add(2 * layers, rows, keyValue, rank, b: true)
    add(layers, rows, hidden, rank, b: true)
    // Backward: dy W; dy B, du A; and the gradients duᵀ x of A and dyᵀ u of B. Nothing below the
    // lowest layer needs a gradient.
    add(layers, rows, feedForward, hidden)
    add(layers, rows, hidden, 2 * feedForward)
    add(layers, rows, query, hidden)
    add(layers - 1, rows, hidden, together)
    add(layers, rows, rank, hidden)
    add(layers, rows, query, rank)
    add(layers, rows, rank, query)
    add(2 * layers, rows, rank, keyValue)
    add(layers - 1, rows, hidden, 3 * rank)
    add(layers, rank, query, rows, a: true)
    add(layers, hidden, rank, rows, a: true)
    add(layers, 3 * rank, hidden, rows, a: true)
    add(layers, query, rank, rows, a: true)
    add(2 * layers, keyValue, rank, rows, a: true)
    // Head.
    add(1, predictions, shape.vocabularySize, hidden, b: true)
    add(1, predictions, hidden, shape.vocabularySize)
  }

  var operations: Double { counts.reduce(0) { $0 + $1.product.operations * Double($1.count) } }

  /// Seconds that all products take at the median time measured for each.
  func measure(pool: ThreadPool) -> Double {
    counts.reduce(0) { $0 + Self.median(of: $1.product, pool: pool) * Double($1.count) }
  }

  private static func median(of product: Product, pool: ThreadPool) -> Double {
    let (m, n, k) = (product.m, product.n, product.k)
    let a = FloatBuffer(count: m * k)
    let b = FloatBuffer(count: n * k)
    let c = FloatBuffer(count: m * n, zeroed: true)
    for buffer in [a, b] {
      for index in 0..<buffer.count {
        buffer.base[index] = Float((index &* 2_654_435_761) >> 8 & 0xffff) / 65536 - 0.5
      }
    }
    func multiply() {
      pool.multiply(
        product.transposingA
          ? Matrix(a.base, rows: k, columns: m) : Matrix(a.base, rows: m, columns: k),
        transposingA: product.transposingA,
        product.transposingB
          ? Matrix(b.base, rows: n, columns: k) : Matrix(b.base, rows: k, columns: n),
        transposingB: product.transposingB, into: MutableMatrix(c.base, rows: m, columns: n))
    }
    multiply()
    var times: [Double] = []
    for _ in 0..<(product.operations > 1e10 ? 3 : 15) {
      let start = ContinuousClock.now
      multiply()
      times.append(start.duration(to: .now).seconds)
    }
    return times.sorted()[times.count / 2]
  }
}
