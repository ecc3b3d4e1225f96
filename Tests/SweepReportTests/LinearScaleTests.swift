import SweepReport
import Testing

/// Round ticks around data.
struct LinearScaleTests {
  @Test(arguments: [
    ([0.0, 1], 0.0, 1.0, [0.0, 0.5, 1]),
    ([0.412, 0.587], 0.4, 0.6, [0.4, 0.45, 0.5, 0.55, 0.6]),
    ([-0.1, 0.35], -0.2, 0.4, [-0.2, 0, 0.2, 0.4]),
    ([3, 97], 0, 100, [0, 50, 100]),
    ([0.02, 0.02], 0.018, 0.022, [0.018, 0.019, 0.02, 0.021, 0.022]),
    ([0], -0.1, 0.1, [-0.1, -0.05, 0, 0.05, 0.1]),
    ([], 0, 1, [0, 0.5, 1]),
    ([.infinity, .nan, 0, 1], 0, 1, [0, 0.5, 1]),
  ])
  func ticksAreRound(values: [Double], lower: Double, upper: Double, ticks: [Double]) {
    let scale = LinearScale(covering: values)
    #expect(abs(scale.lower - lower) < 1e-12 && abs(scale.upper - upper) < 1e-12)
    #expect(scale.ticks.count == ticks.count)
    for (found, expected) in zip(scale.ticks, ticks) { #expect(abs(found - expected) < 1e-12) }
  }

  @Test func allValuesFitAndTicksAreFew() {
    var state: UInt64 = 1
    for _ in 0..<2_000 {
      var values: [Double] = []
      for _ in 0..<4 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        values.append((Double(state >> 11) * 0x1p-53 - 0.5) * Double(1 + state % 1_000))
      }
      let scale = LinearScale(covering: values)
      #expect(values.allSatisfy { scale.lower <= $0 + 1e-9 && $0 <= scale.upper + 1e-9 })
      #expect((3...7).contains(scale.ticks.count), "\(values) has ticks \(scale.ticks)")
      let labels = Set(scale.ticks.map { ($0 * scale.powerOfTen).rounded() })
      #expect(labels.count == scale.ticks.count, "labels coincide: \(scale.ticks)")
    }
  }

  @Test(arguments: [
    [Double.greatestFiniteMagnitude, -.greatestFiniteMagnitude],
    [.leastNonzeroMagnitude, .leastNonzeroMagnitude], [0, .leastNonzeroMagnitude], [1e99, -1e99],
  ])
  func extremeValuesDoNotTrap(values: [Double]) {
    let scale = LinearScale(covering: values)
    #expect(scale.lower < scale.upper)
  }

  @Test func positionsAreLinear() {
    let scale = LinearScale(covering: [0, 1])
    #expect(scale.position(0, from: 208, to: 30) == 208)
    #expect(scale.position(1, from: 208, to: 30) == 30)
    #expect(scale.position(0.5, from: 208, to: 30) == 119)
  }
}

extension LinearScale {
  fileprivate var powerOfTen: Double { (0..<decimals).reduce(1) { product, _ in product * 10 } }
}
