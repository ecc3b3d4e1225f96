/// Tests whether two groups of values have the same mean, by giving the labels to the values in every
/// possible way (exact, two-sided; Fisher 1935).
///
/// - Returns: nil if a group is empty or there are more than `exactArrangementsMax` ways.
package func labelPermutationTest(_ first: [Double], _ second: [Double]) -> Double? {
  let pooled = first + second
  let count = pooled.count
  guard !first.isEmpty, !second.isEmpty, count < 32 else { return nil }
  var ways = 1
  for step in 0..<min(first.count, second.count) {
    ways = ways * (count - step) / (step + 1)
    if ways > exactArrangementsMax { return nil }
  }
  let total = compensatedSum(pooled)
  func difference(_ sum: Double) -> Double {
    abs(sum / Double(first.count) - (total - sum) / Double(second.count))
  }
  let scale = compensatedSum(pooled.map(abs))
  let observed = difference(compensatedSum(first)) - 1e-12 * scale
  var extreme = 0
  var chosen: [Int] = []
  func choose(from start: Int, sum: Double) {
    if chosen.count == first.count {
      if difference(sum) >= observed { extreme += 1 }
      return
    }
    for index in start..<(count - (first.count - chosen.count) + 1) {
      chosen.append(index)
      choose(from: index + 1, sum: sum + pooled[index])
      chosen.removeLast()
    }
  }
  choose(from: 0, sum: 0)
  return Double(extreme) / Double(ways)
}
