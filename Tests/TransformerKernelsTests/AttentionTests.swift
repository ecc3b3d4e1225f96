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

  @Test func aCacheOfKeysGivesTheSameBits() {
    var numbers = TestNumbers(seed: 41)
    let length = 70
    let input = numbers.array(length * heads.rowWidth, scale: 2)
    let whole = attention(input, [AttentionSegment(rows: 0..<length)])
    let memory = FloatBuffer(count: KeyValueCache.size(capacity: length, heads: heads))
    var cache = KeyValueCache(base: memory.base, count: 0, capacity: length)
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
