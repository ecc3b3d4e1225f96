import Testing
import TransformerKernels

@Suite struct SamplingTests {
  private let pool = ThreadPool(threadCount: 2)

  @Test func temperatureZeroTakesTheFirstOfTheLargest() {
    #expect(sample([1, 5, 3, 5], temperature: 0, topK: 0, draw: 0.99) == 1)
  }

  @Test func drawsFollowTheProbabilities() {
    // Probabilities 1/8, 4/8, 1/8, 2/8.
    let logits: [Float] = [0, 1.386_294_4, 0, 0.693_147_2]
    let expected: [(Double, Int32)] = [
      (0, 0), (0.12, 0), (0.13, 1), (0.62, 1), (0.63, 2), (0.74, 2), (0.76, 3), (0.999, 3),
    ]
    for (draw, token) in expected {
      #expect(sample(logits, temperature: 1, topK: 0, draw: draw) == token)
    }
  }

  @Test func topKKeepsTheLargestAndTheLowerTokenAmongEquals() {
    // The best two of these are tokens 1 and 0, with probabilities 2/3 and 1/3.
    let logits: [Float] = [0, 0.693_147_2, 0, -1]
    #expect(sample(logits, temperature: 1, topK: 2, draw: 0.66) == 1)
    #expect(sample(logits, temperature: 1, topK: 2, draw: 0.67) == 0)
    #expect(sample(logits, temperature: 1, topK: 2, draw: 0.999_999) == 0)
  }

  @Test func lowTemperatureSharpens() {
    #expect(sample([0, 1], temperature: 0.01, topK: 0, draw: 0.001) == 1)
    #expect(sample([0, 1], temperature: 0.01, topK: 1, draw: 0.001) == 1)
  }

  @Test func topKOfManyIsTheSortedPrefix() {
    var numbers = TestNumbers(seed: 50)
    let logits = numbers.array(5000, scale: 3)
    let best = logits.indices.sorted { (logits[$1], $0) < (logits[$0], $1) }
    // The first position passes any small draw, the last one is reached at the end.
    #expect(sample(logits, temperature: 1, topK: 40, draw: 0) == Int32(best[0]))
    #expect(sample(logits, temperature: 1, topK: 40, draw: 0.999_999_9) == Int32(best[39]))
  }

  private func sample(_ logits: [Float], temperature: Float, topK: Int, draw: Double) -> Int32 {
    let buffer = FloatBuffer(copying: logits, count: logits.count)
    return pool.sampleTokens(
      MutableMatrix(buffer.base, rows: 1, columns: logits.count), temperature: temperature,
      topK: topK, draws: [draw])[0]
  }
}
