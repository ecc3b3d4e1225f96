/// Ranks from 1, ties sharing the mean of their ranks.
package func ranks(_ values: [Double]) -> [Double] {
  let order = values.indices.sorted {
    values[$0] == values[$1] ? $0 < $1 : values[$0] < values[$1]
  }
  var ranks = [Double](repeating: 0, count: values.count)
  var start = 0
  while start < order.count {
    var end = start + 1
    while end < order.count, values[order[end]] == values[order[start]] { end += 1 }
    for position in start..<end { ranks[order[position]] = Double(start + 1 + end) / 2 }
    start = end
  }
  return ranks
}

/// Pearson's correlation; nil for fewer than two points or where one side does not vary.
package func pearsonCorrelation(_ x: [Double], _ y: [Double]) -> Double? {
  precondition(x.count == y.count)
  guard x.count > 1, let meanX = mean(x), let meanY = mean(y) else { return nil }
  let spreadX = compensatedSum(x.lazy.map { ($0 - meanX) * ($0 - meanX) })
  let spreadY = compensatedSum(y.lazy.map { ($0 - meanY) * ($0 - meanY) })
  guard spreadX > 0, spreadY > 0 else { return nil }
  let together = compensatedSum(zip(x, y).lazy.map { ($0 - meanX) * ($1 - meanY) })
  // Rounding may carry a perfect correlation past 1.
  return max(-1, min(1, together / (spreadX * spreadY).squareRoot()))
}

/// Spearman's rank correlation, with ties; nil for fewer than two points or where one side does not
/// vary.
package func rankCorrelation(_ x: [Double], _ y: [Double]) -> Double? {
  pearsonCorrelation(ranks(x), ranks(y))
}
