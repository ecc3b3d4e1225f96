import Testing
import TransformerKernels

@Suite struct AttentionTests {
  private let pool = ThreadPool(threadCount: 2)
  private let heads = AttentionHeads(queryCount: 4, keyValueCount: 2, width: 6)

  /// Lengths below, at and above the number of query rows handled at a time.
  @Test(arguments: [1, 2, 9, 63, 64, 65, 130]) func outputMatchesItsDefinition(length: Int) {
    var numbers = TestNumbers(seed: UInt64(length))
    let input = numbers.array(length * heads.rowWidth, scale: 2)
    let out = attention(input, [AttentionSegment(rows: 0..<length)])
    #expect(largestDifference(out, referenceAttention(doubles(input), heads: heads)) < 3e-6)
  }

  @Test(arguments: [1, 9, 65]) func gradientMatchesCentralDifferences(length: Int) {
    var numbers = TestNumbers(seed: 20 + UInt64(length))
    // A row of another sequence comes first.
    let input = numbers.array((length + 1) * heads.rowWidth, scale: 2)
    let dout = numbers.array((length + 1) * heads.outputWidth)
    let direction = doubles(numbers.array(length * heads.rowWidth))
    let gradient = FloatBuffer(count: input.count)
    pool.attentionBackward(
      input, heads: heads,
      segments: [AttentionSegment(rows: 0..<1), AttentionSegment(rows: 1..<length + 1)],
      dout: dout, into: gradient.base)
    let numeric = directionalDerivative(
      at: doubles(Array(input[heads.rowWidth...])), along: direction
    ) {
      dot(referenceAttention($0, heads: heads), doubles(Array(dout[heads.outputWidth...])))
    }
    let ours = dot(doubles(Array(gradient.array[heads.rowWidth...])), direction)
    #expect(abs(ours - numeric) < 1e-4 * (1 + abs(numeric)))
  }

  @Test func contextRowsCountAsEarlierRows() {
    var numbers = TestNumbers(seed: 40)
    let length = 90
    let input = numbers.array(length * heads.rowWidth, scale: 2)
    let whole = attention(input, [AttentionSegment(rows: 0..<length)])
    for (first, second) in [(1, 2), (30, 31), (64, 80), (10, 75)] {
      let parts = attention(
        input,
        [
          AttentionSegment(rows: 0..<first),
          AttentionSegment(rows: first..<second, context: 0..<1, contextCount: first),
          AttentionSegment(rows: second..<length, context: 0..<2, contextCount: second),
        ], contexts: [0..<first, first..<second])
      #expect(parts == whole)
    }
  }

  /// Two sequences that share 70 rows: the gradient of a shared row is the sum of those it has in
  /// each sequence.
  @Test(arguments: [1, 2, 3]) func gradientsOfSharedRowsAreSums(threads: Int) {
    var numbers = TestNumbers(seed: 50)
    let input = numbers.array(90 * heads.rowWidth, scale: 2)
    let dout = numbers.array(90 * heads.outputWidth)
    let paths = [Array(0..<75), Array(0..<70) + Array(75..<90)]
    let shared = FloatBuffer(count: input.count)
    ThreadPool(threadCount: threads).attentionBackward(
      input, heads: heads,
      segments: [
        AttentionSegment(rows: 0..<75),
        AttentionSegment(rows: 75..<90, context: 0..<2, contextCount: 70),
      ], contexts: [0..<30, 30..<70], dout: dout, into: shared.base)

    var expected = [Double](repeating: 0, count: input.count)
    for (path, firstOwn) in zip(paths, [0, 70]) {
      func gather(_ array: [Float], _ width: Int) -> [Float] {
        path.flatMap { array[$0 * width..<($0 + 1) * width] }
      }
      // The output of a shared row counts once.
      var ownDout = gather(dout, heads.outputWidth)
      for index in 0..<firstOwn * heads.outputWidth { ownDout[index] = 0 }
      let gradient = FloatBuffer(count: path.count * heads.rowWidth)
      pool.attentionBackward(
        gather(input, heads.rowWidth), heads: heads,
        segments: [AttentionSegment(rows: 0..<path.count)], dout: ownDout, into: gradient.base)
      for (position, row) in path.enumerated() {
        for column in 0..<heads.rowWidth {
          expected[row * heads.rowWidth + column] +=
            Double(gradient.base[position * heads.rowWidth + column])
        }
      }
    }
    #expect(largestDifference(shared.array, expected) < 1e-5)
  }

  /// Also beyond one chain of products.
  @Test(arguments: [1, 70, 700]) func aCacheOfKeysGivesTheSameBits(length: Int) {
    var numbers = TestNumbers(seed: 41)
    let capacity = length + 5
    let input = numbers.array(length * heads.rowWidth, scale: 2)
    let whole = attention(input, [AttentionSegment(rows: 0..<length)])
    let memory = FloatBuffer(count: KeyValueCache.size(capacity: capacity, heads: heads))
    var cache = KeyValueCache(base: memory.base, count: 0, capacity: capacity)
    var rows: [Float] = []
    let out = FloatBuffer(count: heads.outputWidth)
    for position in 0..<length {
      let row = Array(input[position * heads.rowWidth..<(position + 1) * heads.rowWidth])
      pool.attention(row, heads: heads, caches: [cache], into: out.base)
      rows += out.array
      cache.count += 1
    }
    #expect(rows == whole)
  }

  private func attention(
    _ input: [Float], _ segments: [AttentionSegment], contexts: [Range<Int>] = []
  ) -> [Float] {
    let out = FloatBuffer(count: input.count / heads.rowWidth * heads.outputWidth)
    pool.attention(input, heads: heads, segments: segments, contexts: contexts, into: out.base)
    return out.array
  }
}
