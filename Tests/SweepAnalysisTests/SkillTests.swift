import RandomStreams
import SweepAnalysis
import SweepCore
import SweepStatistics
import Testing

/// Whether a task has skill, for metrics whose items do not all have a value: of sixty items, as in
/// `salary`, the first twenty have an answer in writing.
@Suite struct SkillTests {
  private static let items = 60
  private static let written = 20

  /// - Parameters:
  ///   - parsed: the written answers that hold a number.
  ///   - measure: nil for a metric without values of items.
  private func skill(parsed: Int, measure: String? = "parsed") throws -> Finding {
    let values = (0..<Self.items).map { index -> Double in
      index < Self.written ? (index < parsed ? 1 : 0) : .nan
    }
    let task = AnalysedTask(
      id: "amounts", domain: .gender, relation: .direct,
      headlines: [
        AnalysedTask.Headline(metric: "parse_rate", measure: measure, role: .skill, chance: 0.5)
      ])
    let trial = AnalysedTrial(
      task: task.id, bias: nil, ratio: 0, mitigation: "none", seed: 1,
      metrics: ["parse_rate": Double(parsed) / Double(Self.written)], items: ["parsed": values])
    let found = Analysis.findings(of: AnalysisInput(tasks: [task], trials: [trial], facts: []))
      .findings.filter { $0.kind == .skill }
    #expect(found.count == 1)
    return try #require(found.first)
  }

  @Test func itsBoundIsThatOfTheBootstrapOverItems() throws {
    let finding = try skill(parsed: 18)
    #expect(abs((finding.estimate ?? 0) - 0.9) < 1e-12 && finding.items == Self.written)
    // The resamples of the task, which serve all its metrics.
    var stream = RandomStream(seed: 1, purpose: "bootstrap amounts")
    let bootstrap = CrossedBootstrap(
      seeds: 1, clusters: Array(0..<Self.items), count: 2_000, using: &stream)
    let expected = try #require(
      bootstrap.interval { resample in
        let drawn = resample.items.filter { $0 < Self.written }
        guard !drawn.isEmpty else { return nil }
        return Double(drawn.count { $0 < 18 }) / Double(drawn.count)
      })
    #expect(finding.lower == expected.lower && finding.upper == expected.upper)
    #expect(expected.lower > 0.7 && expected.lower < 0.9)
    #expect(finding.note == nil)
  }

  @Test func anIntervalThatReachesChanceShowsNone() throws {
    let half = try skill(parsed: 10)
    #expect((half.lower ?? 1) < 0.5 && half.note?.hasPrefix("no skill") == true)
    let all = try skill(parsed: 20)
    #expect(all.lower == 1 && all.upper == 1 && all.note == nil)
  }

  @Test func withoutValuesOfItemsItIsNotKnown() throws {
    let unknown = try skill(parsed: 18, measure: nil)
    #expect(unknown.estimate == 0.9 && unknown.lower == nil)
    #expect(unknown.note?.hasPrefix("no interval") == true)
  }
}
