import Foundation

/// An axis with round tick values: 1, 2 or 5 times a power of ten apart.
package struct LinearScale: Hashable, Sendable {
  package let lower: Double
  package let upper: Double
  package let ticks: [Double]
  /// Digits after the point that tell the ticks apart.
  package let decimals: Int

  /// Values beyond this are no measurement; they are left out of the axis.
  private static let magnitudeMax = 1e100

  /// The smallest such axis that holds all finite `values` with about `count` ticks. Equal values
  /// get an axis around them; none at all gives 0 to 1.
  package init(covering values: some Sequence<Double>, tickCount count: Int = 5) {
    precondition(count >= 2, "an axis needs at least two ticks")
    let finite = values.filter { $0.magnitude <= Self.magnitudeMax }
    var low = finite.min() ?? 0
    var high = finite.max() ?? 1
    // Differences in the last digits are no range to zoom into.
    let size = max(low.magnitude, high.magnitude)
    if high - low <= max(size * 1e-9, 1 / Self.magnitudeMax) {
      let padding = size <= 1 / Self.magnitudeMax ? 0.1 : size * 0.1
      low -= padding
      high += padding
    }
    let raw = (high - low) / Double(count - 1)
    let power = pow(10, log10(raw).rounded(.down))
    let factor = [1.0, 2, 5].first { raw <= $0 * power * (1 + 1e-9) } ?? 10
    let step = factor * power
    let first = (low / step + 1e-9).rounded(.down)
    let last = (high / step - 1e-9).rounded(.up)
    ticks = stride(from: first, through: last, by: 1).map { $0 * step }
    lower = first * step
    upper = last * step
    decimals = max(0, Int((-log10(step) - 1e-9).rounded(.up)))
  }

  /// Where `value` stands on a line from `start` (for `lower`) to `end` (for `upper`).
  package func position(_ value: Double, from start: Double, to end: Double) -> Double {
    start + (value - lower) / (upper - lower) * (end - start)
  }
}
