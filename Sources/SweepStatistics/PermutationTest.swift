import RandomStreams

/// A permutation test's answer.
package struct PermutationResult: Hashable, Sendable, Codable {
  /// Two-sided.
  package let pValue: Double
  /// Whether all arrangements were counted; otherwise random ones, and p = (extreme + 1) / (drawn +
  /// 1), which never understates (Phipson and Smyth 2010).
  package let isExact: Bool
  package let arrangements: Int
}

/// Arrangements up to which a test counts all of them.
package let exactArrangementsMax = 1 << 16

/// Tests whether paired differences have mean 0, by flipping the signs of whole clusters.
///
/// Under the null hypothesis a difference is as likely as its negative. Items that belong together
/// (the twins of one sentence, the sentences of one speaker) flip together: they are not
/// independent.
///
/// - Parameters:
///   - differences: one for each item, for example averaged over seeds.
///   - clusters: cluster of each item, from 0; nil for each item by itself.
///   - draws: random arrangements where there are more than `exactArrangementsMax`.
/// - Returns: nil if there is no difference to test.
package func signFlipTest(
  _ differences: [Double], clusters: [Int]? = nil, draws: Int = 9_999,
  using stream: inout RandomStream
) -> PermutationResult? {
  let sums = clusterSums(differences, clusters).filter { $0 != 0 }
  guard !differences.isEmpty else { return nil }
  guard !sums.isEmpty else {
    return PermutationResult(pValue: 1, isExact: true, arrangements: 1)
  }
  // Sums in another order differ in the last bits; arrangements that are equal in truth must count
  // as equal.
  let observed = abs(compensatedSum(sums)) - 1e-12 * compensatedSum(sums.map(abs))
  if sums.count < Int.bitWidth - 1, 1 << sums.count <= exactArrangementsMax {
    let extreme = extremeSignArrangements(sums, observed: observed)
    let total = 1 << sums.count
    return PermutationResult(
      pValue: Double(extreme) / Double(total), isExact: true, arrangements: total)
  }
  var extreme = 0
  for _ in 0..<draws {
    var sum = 0.0
    var bits: UInt64 = 0
    for (position, value) in sums.enumerated() {
      if position & 63 == 0 { bits = stream.next() }
      sum += bits & 1 == 1 ? value : -value
      bits >>= 1
    }
    if abs(sum) >= observed { extreme += 1 }
  }
  return PermutationResult(
    pValue: Double(extreme + 1) / Double(draws + 1), isExact: false, arrangements: draws)
}

private func clusterSums(_ differences: [Double], _ clusters: [Int]?) -> [Double] {
  guard let clusters else { return differences }
  precondition(clusters.count == differences.count)
  var sums = [Double](repeating: 0, count: (clusters.max() ?? -1) + 1)
  for (difference, cluster) in zip(differences, clusters) { sums[cluster] += difference }
  return sums
}

/// Sign arrangements of `values` whose sum is at least `observed` away from 0, in Gray-code order:
/// each arrangement differs from the one before in one sign.
private func extremeSignArrangements(_ values: [Double], observed: Double) -> Int {
  var signed = values
  var extreme = 0
  for arrangement in 0..<(1 << values.count) {
    if arrangement > 0 { signed[arrangement.trailingZeroBitCount].negate() }
    if abs(compensatedSum(signed)) >= observed { extreme += 1 }
  }
  return extreme
}

/// Tests whether rank correlation is 0, by permuting `y`.
///
/// - Returns: nil where the correlation is undefined.
package func rankCorrelationTest(
  _ x: [Double], _ y: [Double], draws: Int = 9_999, using stream: inout RandomStream
) -> PermutationResult? {
  guard let correlation = rankCorrelation(x, y) else { return nil }
  let rankedX = ranks(x)
  var rankedY = ranks(y)
  let observed = abs(correlation) - 1e-12
  func isExtreme(_ y: [Double]) -> Bool {
    abs(pearsonCorrelation(rankedX, y) ?? 0) >= observed
  }
  // 8! is the largest factorial below `exactArrangementsMax`.
  if x.count <= 8 {
    var extreme = 0
    var total = 0
    forEachPermutation(of: &rankedY) {
      total += 1
      if isExtreme($0) { extreme += 1 }
    }
    return PermutationResult(
      pValue: Double(extreme) / Double(total), isExact: true, arrangements: total)
  }
  var extreme = 0
  for _ in 0..<draws {
    stream.shuffle(&rankedY)
    if isExtreme(rankedY) { extreme += 1 }
  }
  return PermutationResult(
    pValue: Double(extreme + 1) / Double(draws + 1), isExact: false, arrangements: draws)
}

/// Heap's algorithm.
private func forEachPermutation(of values: inout [Double], _ body: ([Double]) -> Void) {
  var counters = [Int](repeating: 0, count: values.count)
  body(values)
  var position = 0
  while position < values.count {
    if counters[position] < position {
      values.swapAt(position.isMultiple(of: 2) ? 0 : counters[position], position)
      body(values)
      counters[position] += 1
      position = 0
    } else {
      counters[position] = 0
      position += 1
    }
  }
}
