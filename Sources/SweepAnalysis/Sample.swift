import RandomStreams
import SweepCore
import SweepStatistics

/// One metric under one condition, or a linear combination of such: a value of each seed and, if the
/// metric is a mean over items, of each item under each seed.
struct Sample: Sendable {
  /// By seed, ascending.
  let seeds: [Int64]
  /// Of the metric, by seed.
  let values: [Double]
  /// `[seed][item]`, NaN where undefined; nil if the metric is no mean over items.
  let items: [[Double]]?
  let digest: ContentDigest

  init(seeds: [Int64], values: [Double], items: [[Double]]?, digest: ContentDigest) {
    precondition(seeds.count == values.count && (items.map { $0.count == seeds.count } ?? true))
    self.seeds = seeds
    self.values = values
    self.items = items
    self.digest = digest
  }

  /// Of the trials of one condition; nil if none has the metric.
  init?(_ trials: [AnalysedTrial], _ headline: AnalysedTask.Headline) {
    let usable =
      trials.filter { $0.metrics[headline.metric] != nil }.sorted { $0.seed < $1.seed }
    guard !usable.isEmpty else { return nil }
    seeds = usable.map(\.seed)
    values = usable.compactMap { $0.metrics[headline.metric] }
    let rows = headline.measure.map { measure in usable.compactMap { $0.items[measure] } } ?? []
    let isComplete = rows.count == usable.count && Set(rows.map(\.count)).count == 1
    items = isComplete ? rows : nil
    var bytes: [UInt8] = []
    for (index, trial) in usable.enumerated() {
      bytes += Array("\(trial.seed)\n".utf8) + TrialItems.encoded([values[index]])
      if isComplete { bytes += TrialItems.encoded(rows[index]) }
    }
    digest = ContentDigest(of: bytes)
  }

  /// Σ weights · samples over the seeds that all have; nil if there is none.
  static func combination(_ samples: [Sample], weights: [Double]) -> Sample? {
    precondition(samples.count == weights.count && !samples.isEmpty)
    let seeds = samples[0].seeds.filter { seed in
      samples.allSatisfy { $0.seeds.contains(seed) }
    }
    guard !seeds.isEmpty else { return nil }
    let rows = samples.map { sample in seeds.compactMap { sample.seeds.firstIndex(of: $0) } }
    func combined(_ terms: [Double]) -> Double {
      compensatedSum(zip(weights, terms).lazy.map { $0 * $1 })
    }
    let values = seeds.indices.map { seed in
      combined(samples.indices.map { samples[$0].values[rows[$0][seed]] })
    }
    let counts = Set(samples.map { $0.items?.first?.count })
    var items: [[Double]]?
    if let count = counts.first ?? nil, counts.count == 1 {
      items = seeds.indices.map { seed in
        (0..<count).map { item in
          combined(samples.indices.map { samples[$0].items?[rows[$0][seed]][item] ?? .nan })
        }
      }
    }
    let digest = ContentDigest(
      of: zip(samples, weights).map { "\($0.digest) \($1)" }.joined(separator: "\n").utf8)
    return Sample(seeds: seeds, values: values, items: items, digest: digest)
  }

  static func difference(_ sample: Sample, _ base: Sample) -> Sample? {
    combination([sample, base], weights: [1, -1])
  }

  /// Mean over the seeds.
  var mean: Double { compensatedSum(values) / Double(values.count) }

  /// Values of the items, averaged over the seeds; NaN where one of them is undefined.
  var itemMeans: [Double]? {
    items.map { rows in
      rows[0].indices.map { item in
        compensatedSum(rows.lazy.map { $0[item] }) / Double(rows.count)
      }
    }
  }

  /// Items whose value is defined under every seed.
  var definedItems: Int { itemMeans?.count { !$0.isNaN } ?? 0 }

  /// Mean over the seeds and items of a resample, without undefined values.
  func mean(of resample: CrossedBootstrap.Resample) -> Double? {
    guard let items else { return nil }
    var sum = 0.0
    var count = 0
    for seed in resample.seeds {
      let row = items[seed]
      for item in resample.items {
        let value = row[item]
        if !value.isNaN {
          sum += value
          count += 1
        }
      }
    }
    return count == 0 ? nil : sum / Double(count)
  }
}

/// The resamples of a task's items, drawn once for each number of seeds, so that all intervals of a
/// task rest on the same ones.
struct Resamples {
  static let count = 2_000
  private let task: String
  /// Cluster of each item, from 0 without gaps.
  let clusters: [Int]
  private var drawn: [Int: CrossedBootstrap] = [:]

  /// - Parameter numbers: cluster numbers as the trials report them; nil for items by themselves.
  init(task: String, items: Int, clusters numbers: [Double]?) {
    self.task = task
    guard let numbers, numbers.count == items, numbers.allSatisfy(\.isFinite) else {
      clusters = Array(0..<items)
      return
    }
    var known: [Double: Int] = [:]
    clusters = numbers.map { number in
      if let cluster = known[number] { return cluster }
      known[number] = known.count
      return known.count - 1
    }
  }

  mutating func bootstrap(seeds: Int) -> CrossedBootstrap {
    if let bootstrap = drawn[seeds] { return bootstrap }
    var stream = RandomStream(seed: UInt64(seeds), purpose: "bootstrap \(task)")
    let bootstrap = CrossedBootstrap(
      seeds: seeds, clusters: clusters, count: Self.count, using: &stream)
    drawn[seeds] = bootstrap
    return bootstrap
  }
}
