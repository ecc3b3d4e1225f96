import Testing
import TransformerKernels

@Suite struct HeadPassesTests {
  private let pool = ThreadPool(threadCount: 3)
  private let rows = 37

  @Test(arguments: [1, 8, 67, 200]) func rowsAreShiftedAndSummed(columns: Int) {
    var numbers = TestNumbers(seed: 1)
    let stride = columns + 3
    let start = numbers.array(rows * stride)
    let vector = numbers.array(columns)
    let buffer = FloatBuffer(copying: start, count: start.count)
    let matrix = MutableMatrix(buffer.base, rows: rows, columns: columns, stride: stride)
    pool.add(vector, toRowsOf: matrix)
    let shifted = buffer.array
    for index in start.indices {
      let column = index % stride
      #expect(shifted[index] == start[index] + (column < columns ? vector[column] : 0))
    }
    var sums = [Float](repeating: 7, count: columns)
    for accumulating in [false, true] {
      pool.sumRows(of: matrix, into: &sums, accumulating: accumulating)
    }
    let expected = (0..<columns).map { column in
      2 * (0..<rows).reduce(0.0) { $0 + Double(shifted[$1 * stride + column]) }
    }
    #expect(largestDifference(sums, expected) < 1e-4)
  }

  @Test(arguments: [(3, 1, 6), (4, 2, 16), (6, 3, 10), (2, 2, 64)])
  func headsAreNormalizedAndTheirGradientsAreRight(queries: Int, keys: Int, width: Int) {
    let heads = AttentionHeads(queryCount: queries, keyValueCount: keys, width: width)
    let normalized = (queries + keys) * width
    var numbers = TestNumbers(seed: 2)
    let x = numbers.array(rows * heads.rowWidth)
    let weights = [numbers.array(width), numbers.array(width)]
    let dy = numbers.array(rows * heads.rowWidth)

    /// Queries and keys of each row normalised head by head, values as they are.
    func reference(_ x: [Double], _ weights: [[Double]]) -> [Double] {
      var out = x
      for row in 0..<rows {
        for head in 0..<queries + keys {
          let first = row * heads.rowWidth + head * width
          out.replaceSubrange(
            first..<first + width,
            with: referenceRMSNorm(
              Array(x[first..<first + width]), weight: weights[head < queries ? 0 : 1],
              epsilon: 1e-5))
        }
      }
      return out
    }

    func matrix(_ buffer: FloatBuffer) -> MutableMatrix {
      MutableMatrix(buffer.base, rows: rows, columns: heads.rowWidth)
    }
    let out = FloatBuffer(copying: x, count: x.count)
    var kept = [Float](repeating: 0, count: rows * normalized)
    pool.normalizeHeads(
      matrix(out), heads: heads, queryWeight: weights[0], keyWeight: weights[1], epsilon: 1e-5,
      keeping: &kept)
    #expect(largestDifference(out.array, reference(doubles(x), weights.map(doubles))) < 2e-6)
    for row in 0..<rows {
      #expect(
        Array(kept[row * normalized..<(row + 1) * normalized])
          == Array(x[row * heads.rowWidth..<row * heads.rowWidth + normalized]))
    }

    let gradient = FloatBuffer(copying: dy, count: dy.count)
    pool.normalizeHeadsBackward(
      kept, heads: heads, queryWeight: weights[0], keyWeight: weights[1], epsilon: 1e-5,
      gradient: matrix(gradient))
    let direction = doubles(numbers.array(x.count))
    let numeric = directionalDerivative(at: doubles(x), along: direction) {
      dot(reference($0, weights.map(doubles)), doubles(dy))
    }
    #expect(abs(dot(doubles(gradient.array), direction) - numeric) < 1e-4 * (1 + abs(numeric)))

    var queryGradient = [Float](repeating: 3, count: width)
    var keyGradient = queryGradient
    let upstream = FloatBuffer(copying: dy, count: dy.count)
    for accumulating in [false, true] {
      pool.normalizeHeadsWeightGradient(
        kept, heads: heads, epsilon: 1e-5, dy: matrix(upstream), queryWeight: &queryGradient,
        keyWeight: &keyGradient, accumulating: accumulating)
    }
    for (index, ours) in [queryGradient, keyGradient].enumerated() {
      let direction = doubles(numbers.array(width))
      let numeric = directionalDerivative(at: doubles(weights[index]), along: direction) {
        var changed = weights.map(doubles)
        changed[index] = $0
        return dot(reference(doubles(x), changed), doubles(dy))
      }
      // Once written, once added.
      let found = dot(doubles(ours), direction) / 2
      #expect(abs(found - numeric) < 1e-4 * (1 + abs(numeric)))
    }
  }

  @Test func llama3StretchesLowFrequenciesOnly() {
    let scaling = RotaryScaling.llama3(
      factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalPositions: 8192)
    func stretch(wavelength: Double) -> Double {
      let frequency = 2 * Double.pi / wavelength
      return frequency / scaling.frequency(frequency, index: 0)
    }
    #expect(stretch(wavelength: 100) == 1)
    #expect(abs(stretch(wavelength: 8192 / 4) - 1) < 1e-12)
    #expect(abs(stretch(wavelength: 8193) - 8) < 1e-12)
    let between = stretch(wavelength: 4096)
    #expect(between > 1 && between < 8)
    #expect(RotaryScaling.linear(factor: 4).frequency(2, index: 3) == 0.5)
    #expect(RotaryScaling.divisors([1, 8]).frequency(2, index: 1) == 0.25)
  }
}
