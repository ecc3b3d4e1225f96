import Testing
import TransformerKernels

@Suite struct RowPassesTests {
  private let pool = ThreadPool(threadCount: 2)
  private static let widths = [1, 7, 8, 40, 67, 576]

  @Test(arguments: widths) func rmsNormMatchesItsDefinition(width: Int) {
    let rows = 21
    var numbers = TestNumbers(seed: 1)
    let x = numbers.array(rows * width)
    let weight = numbers.array(width)
    let out = result(rows * width) {
      pool.rmsNorm(x, rows: rows, width: width, weight: weight, epsilon: 1e-5, into: $0)
    }
    let expected = referenceRMSNorm(doubles(x), weight: doubles(weight), epsilon: 1e-5)
    #expect(largestDifference(out, expected) < 2e-6)
  }

  @Test(arguments: widths) func rmsNormGradientsMatchCentralDifferences(width: Int) {
    let rows = 5
    var numbers = TestNumbers(seed: 2)
    let x = numbers.array(rows * width)
    let weight = numbers.array(width)
    let dy = numbers.array(rows * width)
    let direction = doubles(numbers.array(rows * width))
    let weightDirection = doubles(numbers.array(width))

    var dx = [Float](repeating: 0, count: rows * width)
    pool.rmsNormBackward(
      x, rows: rows, width: width, weight: weight, epsilon: 1e-5, dy: dy, addingTo: &dx)
    let numeric = directionalDerivative(at: doubles(x), along: direction) {
      dot(referenceRMSNorm($0, weight: doubles(weight), epsilon: 1e-5), doubles(dy))
    }
    #expect(abs(dot(doubles(dx), direction) - numeric) < 1e-4 * (1 + abs(numeric)))

    var scales = [Float](repeating: 0, count: rows)
    var out = [Float](repeating: 0, count: rows * width)
    pool.rmsNorm(
      x, rows: rows, width: width, weight: weight, epsilon: 1e-5, into: &out, scale: &scales)
    var dweight = [Float](repeating: 5, count: width)
    for accumulating in [false, true] {
      pool.rmsNormWeightGradient(
        x, rows: rows, width: width, scale: scales, dy: dy, into: &dweight,
        accumulating: accumulating)
    }
    let numericWeight = directionalDerivative(at: doubles(weight), along: weightDirection) {
      dot(referenceRMSNorm(doubles(x), weight: $0, epsilon: 1e-5), doubles(dy))
    }
    // Once written, once added.
    let ours = dot(doubles(dweight), weightDirection) / 2
    #expect(abs(ours - numericWeight) < 1e-4 * (1 + abs(numericWeight)))
  }

  @Test(arguments: widths) func swiGLUAndItsGradientMatchTheirDefinition(width: Int) {
    let rows = 19
    var numbers = TestNumbers(seed: 3)
    let gateUp = numbers.array(rows * 2 * width, scale: 6)
    let dout = numbers.array(rows * width)
    let direction = doubles(numbers.array(rows * 2 * width))
    let out = result(rows * width) {
      pool.swiGLU(gateUp, rows: rows, width: width, into: $0)
    }
    #expect(largestDifference(out, referenceSwiGLU(doubles(gateUp), width: width)) < 2e-5)

    var gradient = gateUp
    let again = result(rows * width) {
      pool.swiGLUBackward(&gradient, rows: rows, width: width, dout: dout, recomputing: $0)
    }
    #expect(again == out)
    expectTheSameOfRowsApart(gateUp, rows: rows, width: width, dout: dout, out, gradient)
    let numeric = directionalDerivative(at: doubles(gateUp), along: direction) {
      dot(referenceSwiGLU($0, width: width), doubles(dout))
    }
    #expect(abs(dot(doubles(gradient), direction) - numeric) < 1e-4 * (1 + abs(numeric)))
  }

  /// Rows with something between them, which stays.
  private func expectTheSameOfRowsApart(
    _ gateUp: [Float], rows: Int, width: Int, dout: [Float], _ out: [Float], _ gradient: [Float]
  ) {
    func apart(_ values: [Float]) -> [Float] {
      var all: [Float] = []
      for row in 0..<rows {
        all += values[row * 2 * width..<(row + 1) * 2 * width]
        all += [9, 9, 9]
      }
      return all
    }
    var spread = apart(gateUp)
    let ours = result(rows * width) {
      pool.swiGLU(spread, rows: rows, width: width, stride: 2 * width + 3, into: $0)
    }
    #expect(ours == out)
    pool.swiGLUBackward(&spread, rows: rows, width: width, stride: 2 * width + 3, dout: dout)
    #expect(spread == apart(gradient))
  }

  @Test(arguments: [2, 6, 16, 64]) func rotationTurnsPairsAndBack(width: Int) {
    let heads = 3
    let rowWidth = heads * width + 5
    let positions: [Int32] = [0, 1, 2, 17, 99]
    var numbers = TestNumbers(seed: 4)
    let x = numbers.array(positions.count * rowWidth)
    let table = RotaryTable(width: width, positions: 100, theta: 10_000)
    let turned = FloatBuffer(copying: x, count: x.count)
    let matrix = MutableMatrix(turned.base, rows: positions.count, columns: rowWidth)
    pool.rotate(matrix, heads: heads, positions: positions, table: table)
    for (row, position) in positions.enumerated() {
      for head in 0..<heads {
        for i in 0..<width / 2 {
          // Lengths of pairs stay; position 0 does not turn; the rest of the row is left alone.
          let a = row * rowWidth + head * width + i
          let b = a + width / 2
          let before = x[a] * x[a] + x[b] * x[b]
          let after =
            turned.base[a] * turned.base[a] + turned.base[b] * turned.base[b]
          #expect(abs(before - after) < 1e-5)
          if position == 0 { #expect(turned.base[a] == x[a] && turned.base[b] == x[b]) }
        }
      }
      let rest = row * rowWidth + heads * width
      #expect(Array(turned.array[rest..<rest + 5]) == Array(x[rest..<rest + 5]))
    }
    // The first pair turns by one radian for each position.
    let cosine =
      (x[rowWidth] * turned.base[rowWidth]
        + x[rowWidth + width / 2] * turned.base[rowWidth + width / 2])
      / (x[rowWidth] * x[rowWidth] + x[rowWidth + width / 2] * x[rowWidth + width / 2])
    #expect(abs(cosine - 0.5403023) < 1e-5)
    pool.rotate(matrix, heads: heads, positions: positions, table: table, inverse: true)
    #expect(largestDifference(turned.array, doubles(x)) < 1e-6)
  }

  @Test func adamWMatchesItsDefinition() {
    let count = 20_000
    var numbers = TestNumbers(seed: 5)
    var parameters = numbers.array(count)
    var first = [Float](repeating: 0, count: count)
    var second = [Float](repeating: 0, count: count)
    var expected = doubles(parameters)
    var m = [Double](repeating: 0, count: count)
    var v = [Double](repeating: 0, count: count)
    for number in 1...5 {
      let gradients = numbers.array(count)
      pool.adamW(
        AdamWStep(learningRate: 1e-2, weightDecay: 0.1, gradientScale: 0.5, number: number),
        count: count, parameters: &parameters, gradients: gradients, firstMoment: &first,
        secondMoment: &second)
      let correction1 = 1 - (0..<number).reduce(1.0) { power, _ in power * 0.9 }
      let correction2 = 1 - (0..<number).reduce(1.0) { power, _ in power * 0.999 }
      for i in 0..<count {
        let g = Double(gradients[i]) * 0.5
        m[i] = 0.9 * m[i] + 0.1 * g
        v[i] = 0.999 * v[i] + 0.001 * g * g
        expected[i] =
          expected[i] * (1 - 1e-2 * 0.1) - 1e-2 * (m[i] / correction1)
          / ((v[i] / correction2).squareRoot() + 1e-8)
      }
    }
    #expect(largestDifference(parameters, expected) < 3e-6)
  }

  @Test(arguments: [0, 1, 7, 8, 70_000]) func sumOfSquaresIsExactEnough(count: Int) {
    var numbers = TestNumbers(seed: 6)
    let x = numbers.array(count)
    let expected = x.reduce(0.0) { $0 + Double($1) * Double($1) }
    #expect(abs(pool.sumOfSquares(x, count: count) - expected) <= 1e-12 * expected)
  }

  @Test(arguments: [1, 5, 8, 513, 4099]) func crossEntropyAndItsGradientMatchTheirDefinition(
    vocabulary: Int
  ) {
    let rows = 9
    var numbers = TestNumbers(seed: 7)
    let logits = numbers.array(rows * vocabulary, scale: 20)
    let targets = (0..<rows).map { Int32($0 * 31 % vocabulary) }
    let gradient = FloatBuffer(copying: logits, count: logits.count)
    var losses = [Double](repeating: 0, count: rows)
    pool.crossEntropy(
      MutableMatrix(gradient.base, rows: rows, columns: vocabulary), targets: targets,
      losses: &losses, gradientScale: 0.25)
    for row in 0..<rows {
      let values = doubles(Array(logits[row * vocabulary..<(row + 1) * vocabulary]))
      let largest = values.reduce(-Double.infinity, max)
      let weights = values.map { exponential($0 - largest) }
      let total = weights.reduce(0, +)
      // e^-loss is the probability of the target.
      let target = Int(targets[row])
      #expect(abs(exponential(-losses[row]) - weights[target] / total) < 1e-6)
      let expected = weights.indices.map {
        0.25 * (weights[$0] / total - ($0 == target ? 1 : 0))
      }
      let ours = Array(gradient.array[row * vocabulary..<(row + 1) * vocabulary])
      #expect(largestDifference(ours, expected) < 1e-6)
    }
  }

  private func result(
    _ count: Int, _ body: (UnsafeMutablePointer<Float>) -> Void
  ) -> [Float] {
    let buffer = FloatBuffer(count: count)
    body(buffer.base)
    return buffer.array
  }
}
