import Testing
import TransformerKernels

/// Adds 1 to an element of its own for each piece.
private struct Counting: ParallelWork {
  let counts: UnsafeMutablePointer<Int>

  func run(_ index: Int, scratch: UnsafeMutablePointer<Float>) { counts[index] += 1 }
}

@Suite struct ThreadPoolTests {
  @Test(arguments: [1, 2, 3, 8]) func everyPieceRunsExactlyOnce(threads: Int) {
    let pool = ThreadPool(threadCount: threads)
    for count in [0, 1, 2, 7, 1000] {
      var counts = [Int](repeating: 0, count: max(1, count))
      for _ in 0..<200 {
        counts.withUnsafeMutableBufferPointer { buffer in
          guard let base = buffer.baseAddress else { return }
          pool.run(Counting(counts: base), count: count)
        }
      }
      #expect(counts.prefix(count).allSatisfy { $0 == 200 })
    }
  }
}
