import SweepAnalysis
import SweepCore
import Testing

/// What mitigations take off over all tasks, worked out by hand from known shifts.
///
/// The items' standard deviation at ratio 0 is 2, so that inheritance in standard deviations is
/// half of a shift, and a gain is (|shift without| − |shift with|) / 2. Of bias, with "half":
///
/// | task | metric | bias type | ratio | without | with | gain |
/// |---|---|---|---|---|---|---|
/// | a | m | x | 0.2 | 4 | 2 | 1 |
/// | a | m | y | 0.5 | −3 | 1 | 1 |
/// | b | m | x | 0.5 | 2 | −4 | −1 |
/// | b | m | y | 0.5 | 2 | 1 | 0.5 |
/// | c | m | x | 0.5 | 6 | 0 | 3 |
/// | c | n | x | 0.5 | 1 | 5 | −2 |
@Suite struct MitigationOverallTests {
  /// Their squares add up to 16, of which the sample variance is a quarter.
  private static let spread = [-2.0, -2, 0, 2, 2]

  private struct Shift {
    let task: String
    let metric: String
    let bias: String
    let ratio: Double
    /// By mitigation.
    let shifts: [String: Double]

    init(
      _ task: String, _ metric: String, _ bias: String, _ ratio: Double, none: Double,
      half: Double? = nil, turned: Double? = nil
    ) {
      self.task = task
      self.metric = metric
      self.bias = bias
      self.ratio = ratio
      var shifts = ["none": none]
      shifts["half"] = half
      shifts["turned"] = turned
      self.shifts = shifts
    }
  }

  private static let shifts = [
    Shift("a", "m", "x", 0.2, none: 4, half: 2),
    Shift("a", "m", "y", 0.5, none: -3, half: 1),
    Shift("b", "m", "x", 0.5, none: 2, half: -4),
    Shift("b", "m", "y", 0.5, none: 2, half: 1, turned: -2),
    Shift("c", "m", "x", 0.5, none: 6, half: 0, turned: -6),
    Shift("c", "n", "x", 0.5, none: 1, half: 5, turned: -1),
    // What has no counterpart, is no bias type, of the placebo, or of skill.
    Shift("c", "m", "y", 0.5, none: 9),
    Shift("a", "m", "same-size", 0.5, none: 9),
    Shift("still", "m", "x", 0.5, none: 9, half: 1, turned: 1),
    Shift("a", "skill", "x", 0.2, none: -2, half: -1),
  ]

  private static let tasks = [
    AnalysedTask(
      id: "a", domain: .culture, relation: .direct,
      headlines: [
        AnalysedTask.Headline(metric: "m", measure: "m", role: .bias),
        AnalysedTask.Headline(metric: "skill", measure: "skill", role: .skill, chance: -9),
      ]),
    AnalysedTask(
      id: "b", domain: .gender, relation: .indirect,
      headlines: [AnalysedTask.Headline(metric: "m", measure: "m", role: .bias)]),
    AnalysedTask(
      id: "c", domain: .culture, relation: .direct,
      headlines: [
        AnalysedTask.Headline(metric: "m", measure: "m", role: .bias),
        AnalysedTask.Headline(metric: "n", measure: "n", role: .bias),
      ]),
    AnalysedTask(
      id: "still", domain: .gender, relation: .placebo,
      headlines: [AnalysedTask.Headline(metric: "m", measure: "m", role: .bias)]),
  ]

  /// One trial for each task at ratio 0, and one for each shift, with the one metric only.
  private static func trials() -> [AnalysedTrial] {
    var trials: [AnalysedTrial] = []
    for task in tasks {
      let metrics = task.headlines.map(\.metric)
      trials.append(
        AnalysedTrial(
          task: task.id, bias: nil, ratio: 0, mitigation: "none", seed: 1,
          metrics: Dictionary(uniqueKeysWithValues: metrics.map { ($0, 0.0) }),
          items: Dictionary(uniqueKeysWithValues: metrics.map { ($0, spread) })))
    }
    for shift in shifts {
      for (mitigation, value) in shift.shifts.sorted(by: { $0.key < $1.key }) {
        trials.append(
          AnalysedTrial(
            task: shift.task, bias: shift.bias, ratio: shift.ratio, mitigation: mitigation, seed: 1,
            metrics: [shift.metric: value], items: [shift.metric: spread.map { $0 + value }]))
      }
    }
    return trials
  }

  private let found: [Finding]

  init() {
    let input = AnalysisInput(tasks: Self.tasks, trials: Self.trials(), facts: [])
    found = Analysis.findings(of: input).findings.filter { $0.kind == .mitigationOverall }
  }

  private func one(_ role: HeadlineRole, _ mitigation: String) throws -> Finding {
    try #require(found.first { $0.role == role && $0.mitigation == mitigation })
  }

  /// The gains add up to 2.5. Those of the tasks are 2, −0.5 and 1: of the eight ways to give them
  /// signs, four are as extreme, 2 + 1 with either sign of 0.5, and the opposites. (Were metrics
  /// flipped by themselves, twelve of sixteen would be.)
  @Test func gainsAreAveragedAndSignsOfTasksFlipped() throws {
    let half = try one(.bias, "half")
    #expect(abs((half.estimate ?? 9) - 2.5 / 6) < 1e-12)
    #expect(half.effectSize == half.estimate)
    #expect(abs((half.pValue ?? 9) - 4.0 / 8) < 1e-12)
    #expect(half.items == 6 && half.note == "3 tasks, 6 conditions")
    #expect(half.id == "mitigation_overall/-/bias/-/-/half/-")
  }

  /// Each task has two gains, with the means 1, −0.25 and 0.5. Of the 27 ways to draw three tasks,
  /// one has the second thrice and one the first: 3.7 % each, and the interval leaves out 2.5 %.
  @Test func tasksAreDrawnWhole() throws {
    let half = try one(.bias, "half")
    #expect(abs((half.lower ?? 9) + 0.25) < 1e-12)
    #expect(abs((half.upper ?? 9) - 1) < 1e-12)
  }

  /// What changes sign alone is inherited as before.
  @Test func magnitudesCount() throws {
    let turned = try one(.bias, "turned")
    #expect(turned.estimate == 0 && turned.pValue == 1)
    #expect(turned.lower == 0 && turned.upper == 0)
    #expect(turned.items == 3 && turned.note == "2 tasks, 3 conditions")
  }

  /// A single task says nothing: its sign and the opposite are as extreme.
  @Test func skillStandsByItself() throws {
    let half = try one(.skill, "half")
    #expect(abs((half.estimate ?? 9) - 0.5) < 1e-12)
    #expect(half.pValue == 1 && half.items == 1)
    #expect(found.count == 3)
    #expect(half.family == "mitigation overall skill" && half.adjustedPValue == 1)
  }

  /// Holm: twice the smaller of two p-values, and no p-value after it is smaller.
  @Test func mitigationsAreAdjustedTogether() throws {
    let half = try one(.bias, "half")
    let turned = try one(.bias, "turned")
    #expect(half.family == "mitigation overall bias" && turned.family == half.family)
    #expect(half.adjustedPValue == 1 && turned.adjustedPValue == 1)
  }
}
