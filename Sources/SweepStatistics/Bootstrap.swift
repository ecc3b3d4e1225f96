import RandomStreams

/// An interval estimate.
package struct Interval: Hashable, Sendable, Codable {
  package let lower: Double
  package let upper: Double
  /// Coverage aimed at, for example 0.95.
  package let level: Double

  package init(lower: Double, upper: Double, level: Double) {
    self.lower = lower
    self.upper = upper
    self.level = level
  }

  package func contains(_ value: Double) -> Bool { lower <= value && value <= upper }
}

/// Resamples of crossed factors: every seed saw the same items, so that seeds and clusters of items
/// are drawn with replacement independently of each other (the pigeonhole bootstrap, Owen 2007). It
/// is conservative: neither a lucky seed nor an odd item passes for a finding.
///
/// The same resamples serve all statistics of a sweep, so that intervals of a difference and of its
/// terms belong together.
package struct CrossedBootstrap: Sendable {
  /// Seeds and items of one resample, by index, drawn with replacement.
  package struct Resample: Sendable {
    package let seeds: [Int]
    /// Whole clusters after each other.
    package let items: [Int]
  }

  package let resamples: [Resample]

  /// - Parameters:
  ///   - seeds: number of seeds, at least 1.
  ///   - clusters: cluster of each item, from 0 without gaps; for independent items 0, 1, 2, …
  ///   - count: number of resamples.
  package init(seeds: Int, clusters: [Int], count: Int, using stream: inout RandomStream) {
    precondition(seeds > 0 && !clusters.isEmpty && count > 0)
    var members = [[Int]](repeating: [], count: (clusters.max() ?? 0) + 1)
    for (item, cluster) in clusters.enumerated() { members[cluster].append(item) }
    precondition(members.allSatisfy { !$0.isEmpty })
    resamples = (0..<count).map { _ in
      Resample(
        seeds: (0..<seeds).map { _ in stream.index(below: seeds) },
        items: members.indices.flatMap { _ in members[stream.index(below: members.count)] })
    }
  }

  /// Percentile interval of `statistic`.
  ///
  /// - Parameter statistic: value of the statistic on a resample; nil where it is undefined there
  ///   (a group without items).
  /// - Returns: nil if the statistic is undefined on more than one resample in twenty, since an
  ///   interval of the others would be biased.
  package func interval(
    level: Double = 0.95, _ statistic: (Resample) throws -> Double?
  ) rethrows -> Interval? {
    let values = try resamples.compactMap(statistic).filter(\.isFinite).sorted()
    guard values.count * 20 >= resamples.count * 19 else { return nil }
    let tail = (1 - level) / 2
    return Interval(
      lower: quantile(tail, ofSorted: values), upper: quantile(1 - tail, ofSorted: values),
      level: level)
  }

  /// Percentile interval of the mean of `values[seed][item]`.
  package func intervalOfMean(_ values: [[Double]], level: Double = 0.95) -> Interval? {
    interval(level: level) { resample in
      var sum = 0.0
      for seed in resample.seeds {
        for item in resample.items { sum += values[seed][item] }
      }
      return sum / Double(resample.seeds.count * resample.items.count)
    }
  }
}
