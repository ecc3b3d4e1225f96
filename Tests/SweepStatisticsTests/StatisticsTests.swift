import Foundation
import RandomStreams
import SweepStatistics
import Testing

/// Values of SciPy, scikit-learn and statsmodels, made by Fixtures/make_golden.py.
private struct Golden: Decodable {
  struct Sample: Decodable {
    let values: [Double]
    let deviation: Double
    let standard_error: Double
    let quantiles: [[Double]]
  }
  struct Ranks: Decodable {
    let values: [Double]
    let ranks: [Double]
  }
  struct SignFlip: Decodable {
    let values: [Double]
    let p: Double
  }
  struct ClusteredSignFlip: Decodable {
    let values: [Double]
    let clusters: [Int]
    /// By all arrangements.
    let p: Double
  }
  struct LabelPermutation: Decodable {
    let first: [Double]
    let second: [Double]
    let p: Double
  }
  struct Holm: Decodable {
    let p: [Double]
    let adjusted: [Double]
  }
  struct RankCorrelation: Decodable {
    let x: [Double]
    let y: [Double]
    let rho: Double
    let p: Double?
  }
  struct Line: Decodable {
    let x: [Double]
    let y: [Double]
    let slope: Double
    let intercept: Double
  }
  struct Discrepancy: Decodable {
    let a: [[Float]]
    let b: [[Float]]
    let bandwidth: Double
    let value: Double
    let mean_distance: Double
    /// By all arrangements.
    let p: Double
  }
  /// Percentile intervals of 95 %.
  struct Bootstraps: Decodable {
    struct Interval: Decodable {
      let lower: Double
      let upper: Double
      /// Standard error of the statistic.
      let error: Double
    }
    struct Mean: Decodable {
      let values: [Double]
      let interval: Interval
    }
    struct Paired: Decodable {
      let first: [Double]
      let second: [Double]
      let interval: Interval
    }
    struct Crossed: Decodable {
      let seeds: [Double]
      let items: [Double]
      let interval: Interval
    }
    struct Clustered: Decodable {
      let clusters: [[Double]]
      let interval: Interval
    }
    let resamples: Double
    let mean: Mean
    let paired: Paired
    let crossed: Crossed
    let clustered: Clustered
  }
  let sample: Sample
  let ranks: [Ranks]
  let sign_flip: [SignFlip]
  let holm: [Holm]
  let rank_correlation: [RankCorrelation]
  let line: [Line]
  let discrepancy: [Discrepancy]
  let bootstrap: Bootstraps
  let clustered_sign_flip: [ClusteredSignFlip]
  let label_permutation: [LabelPermutation]

  static func load() throws -> Golden {
    let url = try #require(
      Bundle.module.url(forResource: "golden", withExtension: "json", subdirectory: "Fixtures"))
    return try JSONDecoder().decode(Golden.self, from: Data(contentsOf: url))
  }
}

private func isClose(_ a: Double?, _ b: Double, within tolerance: Double = 1e-12) -> Bool {
  a.map { abs($0 - b) <= tolerance * max(1, abs(b)) } ?? false
}

/// Whether the p of random arrangements is what the exact one lets expect: a binomial number of
/// them is extreme, and p = (extreme + 1) / (drawn + 1). Five standard errors.
private func isExpected(_ drawn: PermutationResult, exact: Double) -> Bool {
  let count = Double(drawn.arrangements)
  let expected = (count * exact + 1) / (count + 1)
  let error = (count * exact * (1 - exact)).squareRoot() / (count + 1)
  return !drawn.isExact && abs(drawn.pValue - expected) <= 5 * error
}

private func stream(_ purpose: String = "test") -> RandomStream {
  RandomStream(seed: 7, purpose: purpose)
}

@Suite struct StatisticsTests {
  @Test func momentsAndQuantilesAreNumPys() throws {
    let sample = try Golden.load().sample
    #expect(isClose(standardDeviation(sample.values), sample.deviation))
    #expect(isClose(standardError(sample.values), sample.standard_error))
    for pair in sample.quantiles {
      #expect(isClose(quantile(pair[0], ofSorted: sample.values.sorted()), pair[1]))
    }
  }

  @Test func undefinedStatisticsAreNil() {
    #expect(mean([]) == nil)
    #expect(standardDeviation([1]) == nil)
    #expect(standardizedMeanDifference([2, 2, 2]) == nil)
    #expect(LinearFit(x: [1, 1], y: [0, 1]) == nil)
    #expect(rankCorrelation([1, 1, 1], [1, 2, 3]) == nil)
    var stream = stream()
    #expect(signFlipTest([], using: &stream) == nil)
    #expect(TwoSampleDistance([[1], [1]], [[1], [1]], using: &stream) == nil)
  }

  @Test func sumsKeepSmallTermsBesideLargeOnes() {
    #expect(compensatedSum([1e16, 1, -1e16]) == 1)
    #expect(compensatedSum([1, 1e100, 1, -1e100]) == 2)
  }

  @Test func ranksAndCorrelationsAreSciPys() throws {
    let golden = try Golden.load()
    for example in golden.ranks { #expect(ranks(example.values) == example.ranks) }
    for example in golden.rank_correlation {
      #expect(isClose(rankCorrelation(example.x, example.y), example.rho))
      var stream = stream()
      let test = try #require(rankCorrelationTest(example.x, example.y, using: &stream))
      if let expected = example.p {
        #expect(test.isExact && isClose(test.pValue, expected))
      } else {
        #expect(!test.isExact && test.pValue > 0 && test.pValue <= 1)
      }
    }
  }

  @Test func linesAreSciPys() throws {
    for example in try Golden.load().line {
      let fit = try #require(LinearFit(x: example.x, y: example.y))
      #expect(isClose(fit.slope, example.slope) && isClose(fit.intercept, example.intercept))
    }
  }

  @Test func signFlipsCountAsSciPyDoes() throws {
    for example in try Golden.load().sign_flip {
      var stream = stream()
      let result = try #require(signFlipTest(example.values, using: &stream))
      #expect(result.isExact)
      #expect(isClose(result.pValue, example.p), "\(example.values)")
    }
  }

  @Test func signsOfClustersFlipTogetherAsInSciPy() throws {
    let examples = try Golden.load().clustered_sign_flip
    #expect(examples.map { Set($0.clusters).count } == [8, 5, 2, 18])
    for example in examples {
      var stream = stream()
      let result = try #require(
        signFlipTest(example.values, clusters: example.clusters, using: &stream))
      if Set(example.clusters).count <= 16 {
        #expect(result.isExact && isClose(result.pValue, example.p), "\(example.values)")
      } else {
        // SciPy counts all 2¹⁸ arrangements.
        #expect(result.arrangements == 9_999)
        #expect(isExpected(result, exact: example.p), "\(result.pValue), not \(example.p)")
      }
    }
  }

  @Test func labelsArePermutedAsInSciPy() throws {
    let examples = try Golden.load().label_permutation
    #expect(examples.count == 4)
    for example in examples {
      #expect(
        isClose(labelPermutationTest(example.first, example.second), example.p),
        "\(example.first) \(example.second)")
    }
  }

  @Test func labelsOfUnequalGroupsArePermutedEitherWayRound() throws {
    var random = stream("labels")
    let many = (0..<20).map { _ in random.uniform() }
    let few = [0.9, 1.1]
    let p = try #require(labelPermutationTest(few, many))
    #expect(isClose(labelPermutationTest(many, few), p) && p < 0.1)
  }

  @Test func drawnSignFlipsAgreeWithCountedOnes() throws {
    // 17 differences are drawn; two of them are 0 and change nothing, so that 15 are counted.
    var random = stream("differences")
    let fifteen = (0..<15).map { _ in random.uniform() - 0.35 }
    let exact = try #require(signFlipTest(fifteen, using: &random))
    let tied = fifteen.map { $0 / 2 } + fifteen.map { $0 / 2 }
    let drawn = try #require(signFlipTest(tied, draws: 40_000, using: &random))
    let clustered = try #require(
      signFlipTest(tied, clusters: Array(0..<15) + Array(0..<15), using: &random))
    #expect(exact.isExact && clustered.isExact && !drawn.isExact)
    #expect(isClose(clustered.pValue, exact.pValue))
    // Twins that flip by themselves pretend to more evidence than there is.
    #expect(drawn.pValue < exact.pValue)
  }

  @Test func pValuesAreUniformWithoutAnEffect() throws {
    var random = stream("null")
    var below = 0
    for _ in 0..<400 {
      let differences = (0..<24).map { _ in random.uniform() - 0.5 }
      let result = try #require(signFlipTest(differences, draws: 199, using: &random))
      if result.pValue <= 0.05 { below += 1 }
    }
    // Binomial(400, 0.05): 20 ± 4.4; five standard deviations either way.
    #expect((0...42).contains(below))
    #expect(below > 0)
  }

  @Test func holmIsStatsmodels() throws {
    for example in try Golden.load().holm {
      for (found, expected) in zip(holmAdjusted(example.p), example.adjusted) {
        #expect(isClose(found, expected))
      }
    }
    #expect(holmAdjusted([]).isEmpty)
  }

  @Test func discrepanciesAreNumPys() throws {
    for example in try Golden.load().discrepancy {
      var stream = stream()
      let found = try #require(TwoSampleDistance(example.a, example.b, using: &stream))
      #expect(isClose(found.squaredDiscrepancy, example.value, within: 1e-6))
      #expect(isClose(found.bandwidth, example.bandwidth, within: 1e-6))
      #expect(isClose(found.meanDistance, example.mean_distance, within: 1e-6))
    }
  }

  /// Of 7 and 5, and of 6 and 6 vectors there are so few arrangements (792 and 924) that SciPy
  /// counts all of them.
  @Test func drawnDiscrepanciesAgreeWithCountedOnes() throws {
    let examples = try Golden.load().discrepancy
    #expect(examples.count == 2)
    for example in examples {
      var stream = stream()
      let found = try #require(
        TwoSampleDistance(example.a, example.b, draws: 20_000, using: &stream))
      #expect(found.test.arrangements == 20_000)
      #expect(
        isExpected(found.test, exact: example.p), "\(found.test.pValue), not \(example.p)")
    }
  }

  @Test func distributionsApartAreFoundAndEqualOnesAreNot() throws {
    var random = stream("samples")
    func sample(_ count: Int, shift: Float) -> [[Float]] {
      (0..<count).map { _ in (0..<4).map { _ in Float(random.uniform()) + shift } }
    }
    let (a, b, c) = (sample(30, shift: 0), sample(30, shift: 0), sample(30, shift: 0.3))
    let same = try #require(TwoSampleDistance(a, b, using: &random))
    let apart = try #require(TwoSampleDistance(a, c, using: &random))
    #expect(same.test.pValue > 0.02)
    #expect(apart.test.pValue < 0.005)
    #expect(apart.squaredDiscrepancy > 10 * abs(same.squaredDiscrepancy))
  }
}

@Suite struct BootstrapTests {
  private static let resamples = 50_000

  /// - Parameter values: `[seed][item]`.
  private func expect(
    _ values: [[Double]], clusters: [Int]? = nil, _ expected: Golden.Bootstraps.Interval,
    of theirs: Double
  ) throws {
    var random = stream("golden")
    let bootstrap = CrossedBootstrap(
      seeds: values.count, clusters: clusters ?? Array(values[0].indices), count: Self.resamples,
      using: &random)
    let found = try #require(bootstrap.intervalOfMean(values))
    // A quantile of B draws has the standard error √(p (1 − p) / B) / density; the density of the
    // mean at its 2.5 % quantile is that of the normal distribution, 0.0584 / its standard error.
    // Both sides are drawn; five standard errors.
    let draws = (0.025 * 0.975 * (1 / Double(Self.resamples) + 1 / theirs)).squareRoot()
    let tolerance = 5 * draws / 0.0584 * expected.error
    #expect(abs(found.lower - expected.lower) < tolerance)
    #expect(abs(found.upper - expected.upper) < tolerance)
    // Fine enough to tell it from an interval that is a twentieth too wide or too narrow.
    #expect(tolerance < (expected.upper - expected.lower) / 20)
  }

  @Test func intervalsAreSciPys() throws {
    let golden = try Golden.load().bootstrap
    let theirs = golden.resamples
    try expect([golden.mean.values], golden.mean.interval, of: theirs)
    let differences = zip(golden.paired.first, golden.paired.second).map { $0 - $1 }
    try expect([differences], golden.paired.interval, of: theirs)
    // Seeds and items are drawn independently, clusters whole.
    let crossed = golden.crossed.seeds.map { seed in golden.crossed.items.map { seed + $0 } }
    try expect(crossed, golden.crossed.interval, of: theirs)
    let clusters = golden.clustered.clusters
    try expect(
      [clusters.flatMap(\.self)],
      clusters: clusters.indices.flatMap { index in clusters[index].map { _ in index } },
      golden.clustered.interval, of: theirs)
  }

  /// All resamples of three values, each as likely: the percentile interval of the mean is known.
  @Test func intervalApproachesTheEnumeratedOne() throws {
    let values = [0.0, 1.0, 5.0]
    var means: [Double] = []
    for a in values { for b in values { for c in values { means.append((a + b + c) / 3) } } }
    means.sort()
    var random = stream()
    let bootstrap = CrossedBootstrap(
      seeds: 1, clusters: [0, 1, 2], count: 20_000, using: &random)
    let found = try #require(bootstrap.intervalOfMean([values], level: 0.8))
    #expect(abs(found.lower - means[2]) < 0.35 && abs(found.upper - means[24]) < 0.35)
  }

  @Test func intervalCoversTheTruthAboutAsOftenAsItSays() throws {
    var random = stream("coverage")
    var covered = 0
    let rounds = 200
    for _ in 0..<rounds {
      let seedEffects = (0..<5).map { _ in random.uniform() - 0.5 }
      let itemEffects = (0..<20).map { _ in random.uniform() - 0.5 }
      let values = seedEffects.map { seed in
        itemEffects.map { $0 + seed + 0.2 * (random.uniform() - 0.5) }
      }
      let bootstrap = CrossedBootstrap(
        seeds: 5, clusters: Array(0..<20), count: 300, using: &random)
      let interval = try #require(bootstrap.intervalOfMean(values))
      if interval.contains(0) { covered += 1 }
    }
    // Percentile intervals of five seeds are known to be somewhat short.
    #expect(covered >= rounds * 80 / 100)
    #expect(covered < rounds)
  }

  @Test func clustersAreDrawnWhole() {
    var random = stream()
    let bootstrap = CrossedBootstrap(
      seeds: 2, clusters: [0, 1, 0, 2, 1], count: 200, using: &random)
    for resample in bootstrap.resamples {
      let times = (0..<5).map { item in resample.items.count { $0 == item } }
      #expect(times[0] == times[2] && times[1] == times[4])
      #expect(times[0] + times[1] + times[3] == 3)
      #expect(resample.seeds.count == 2)
    }
  }

  @Test func statisticThatIsOftenUndefinedHasNoInterval() {
    var random = stream()
    let bootstrap = CrossedBootstrap(seeds: 1, clusters: [0, 1, 2], count: 500, using: &random)
    #expect(bootstrap.interval { $0.items.contains(0) ? 1 : nil } == nil)
    #expect(bootstrap.interval { Double($0.items[0]) } != nil)
  }

  @Test func sameSeedGivesTheSameInterval() {
    func interval() -> Interval? {
      var random = stream("same")
      return CrossedBootstrap(seeds: 2, clusters: [0, 1, 2, 3], count: 100, using: &random)
        .intervalOfMean([[0, 1, 2, 3], [1, 1, 0, 2]])
    }
    #expect(interval() == interval())
  }
}
