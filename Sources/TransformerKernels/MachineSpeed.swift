/// What this machine can do, measured now; a fraction of a second each.
package enum MachineSpeed {
  /// Floating-point operations a second of matrix products in the sizes of a small model, the best
  /// of several.
  package static func multiplication(threads: Int) -> Double {
    let (m, n, k) = (512, 1536, 576)
    let pool = ThreadPool(threadCount: threads)
    let a = [Float](repeating: 0.5, count: m * k)
    let b = [Float](repeating: 0.25, count: n * k)
    var c = [Float](repeating: 0, count: m * n)
    let seconds = best(of: 8) {
      a.withUnsafeBufferPointer { a in
        b.withUnsafeBufferPointer { b in
          c.withUnsafeMutableBufferPointer { c in
            guard let a = a.baseAddress, let b = b.baseAddress, let c = c.baseAddress else {
              return
            }
            pool.multiply(
              Matrix(a, rows: m, columns: k), Matrix(b, rows: n, columns: k), transposingB: true,
              into: MutableMatrix(c, rows: m, columns: n))
          }
        }
      }
    }
    return 2 * Double(m * n * k) / seconds
  }

  /// Bytes a second read from memory by all threads together, from a buffer larger than caches.
  package static func memoryBandwidth(threads: Int) -> Double {
    let count = 1 << 26
    let pool = ThreadPool(threadCount: threads)
    let values = UnsafeMutablePointer<Float>.allocate(capacity: count)
    defer { values.deallocate() }
    values.initialize(repeating: 1, count: count)
    let pieces = count / ReadSum.pieceFloats
    let sums = UnsafeMutablePointer<Float>.allocate(capacity: pieces)
    defer { sums.deallocate() }
    sums.initialize(repeating: 0, count: pieces)
    let work = ReadSum(values: values, sums: sums)
    let seconds = best(of: 4) { pool.run(work, count: pieces) }
    // Using the sums keeps the reads from being optimised away.
    precondition(sums[0] > 0, "ones add up to \(sums[0])")
    return Double(count * MemoryLayout<Float>.stride) / seconds
  }

  private static func best(of rounds: Int, _ body: () -> Void) -> Double {
    let clock = ContinuousClock()
    return (0..<rounds).map { _ in clock.measure(body) / .seconds(1) }.min() ?? .infinity
  }
}

/// Adds up pieces of a buffer.
private struct ReadSum: ParallelWork {
  static let pieceFloats = 1 << 18

  let values: UnsafePointer<Float>
  let sums: UnsafeMutablePointer<Float>

  init(values: UnsafePointer<Float>, sums: UnsafeMutablePointer<Float>) {
    self.values = values
    self.sums = sums
  }

  func run(_ index: Int, scratch: UnsafeMutablePointer<Float>) {
    let vectors = UnsafeRawPointer(values + index * Self.pieceFloats)
      .assumingMemoryBound(to: SIMD16<Float>.self)
    var sum = (SIMD16<Float>.zero, SIMD16<Float>.zero)
    for position in stride(from: 0, to: Self.pieceFloats / 16, by: 2) {
      sum.0 += vectors[position]
      sum.1 += vectors[position + 1]
    }
    sums[index] = (sum.0 + sum.1).sum()
  }
}
