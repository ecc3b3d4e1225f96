/// Sums in a fixed order with Neumaier's compensation (Neumaier 1974), so that a statistic does not
/// drift with the number of terms.
package func compensatedSum(_ values: some Sequence<Double>) -> Double {
  var sum = 0.0
  var lost = 0.0
  for value in values {
    let next = sum + value
    lost += abs(sum) >= abs(value) ? (sum - next) + value : (value - next) + sum
    sum = next
  }
  return sum + lost
}

/// Arithmetic mean; nil of nothing.
package func mean(_ values: [Double]) -> Double? {
  values.isEmpty ? nil : compensatedSum(values) / Double(values.count)
}

/// Sample standard deviation (denominator n − 1); nil of fewer than two values.
package func standardDeviation(_ values: [Double]) -> Double? {
  guard values.count > 1, let mean = mean(values) else { return nil }
  let squares = compensatedSum(values.lazy.map { ($0 - mean) * ($0 - mean) })
  return (squares / Double(values.count - 1)).squareRoot()
}

/// Standard error of the mean, s / √n; nil of fewer than two values.
package func standardError(_ values: [Double]) -> Double? {
  standardDeviation(values).map { $0 / Double(values.count).squareRoot() }
}

/// The `q`-quantile (0...1) of ascending `sorted` values by linear interpolation between order
/// statistics (type 7 of Hyndman and Fan 1996, the default of NumPy and R).
package func quantile(_ q: Double, ofSorted sorted: [Double]) -> Double {
  precondition(!sorted.isEmpty && (0...1).contains(q))
  let position = q * Double(sorted.count - 1)
  let below = Int(position)
  let above = min(below + 1, sorted.count - 1)
  return sorted[below] + (position - Double(below)) * (sorted[above] - sorted[below])
}

/// Standardised mean of paired differences: Cohen's d_z = mean / standard deviation. Nil where it is
/// undefined: fewer than two differences, or all of them equal.
package func standardizedMeanDifference(_ differences: [Double]) -> Double? {
  guard let deviation = standardDeviation(differences), deviation > 0,
    let mean = mean(differences)
  else { return nil }
  return mean / deviation
}

/// Least-squares line through points (x, y).
package struct LinearFit: Hashable, Sendable, Codable {
  package let slope: Double
  package let intercept: Double

  /// Nil for fewer than two different x.
  package init?(x: [Double], y: [Double]) {
    precondition(x.count == y.count)
    guard let meanX = mean(x), let meanY = mean(y) else { return nil }
    let spread = compensatedSum(x.lazy.map { ($0 - meanX) * ($0 - meanX) })
    guard spread > 0 else { return nil }
    let together = compensatedSum(zip(x, y).lazy.map { ($0 - meanX) * ($1 - meanY) })
    slope = together / spread
    intercept = meanY - together / spread * meanX
  }
}
