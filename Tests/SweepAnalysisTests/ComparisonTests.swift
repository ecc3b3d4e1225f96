import RandomStreams
import SweepAnalysis
import SweepCore
import SweepStatistics
import Testing

/// Direct against indirect tasks, with several skill metrics and known shifts.
@Suite struct RelationTests {
  private static let spread = [-1.0, 1, -2, 2, -1, 1]
  private static let deviation = 2.4.squareRoot()

  /// - Parameter shifts: by task, what each of its skill metrics gains at ratio 0.5.
  private func finding(
    _ shifts: [(task: String, relation: AnalysedTask.Relation, gains: [Double])]
  ) throws -> Finding {
    var tasks: [AnalysedTask] = []
    var trials: [AnalysedTrial] = []
    for (id, relation, gains) in shifts {
      tasks.append(
        AnalysedTask(
          id: id, domain: .culture, relation: relation,
          headlines: gains.indices.map {
            AnalysedTask.Headline(metric: "m\($0)", measure: "m\($0)", role: .skill, chance: -9)
          }))
      for (bias, ratio) in [(nil, 0.0), ("x", 0.5)] as [(String?, Double)] {
        let moved = gains.map { ratio == 0 ? 0 : $0 }
        trials.append(
          AnalysedTrial(
            task: id, bias: bias, ratio: ratio, mitigation: "none", seed: 1,
            metrics: Dictionary(
              uniqueKeysWithValues: moved.enumerated().map { ("m\($0)", $1) }),
            items: Dictionary(
              uniqueKeysWithValues: moved.enumerated().map { index, shift in
                ("m\(index)", Self.spread.map { $0 + shift })
              })))
      }
    }
    let found = Analysis.findings(of: AnalysisInput(tasks: tasks, trials: trials, facts: []))
      .findings.filter { $0.kind == .directAgainstIndirect }
    try #require(found.count == 1)
    return found[0]
  }

  /// A task with three metrics weighs no more than one with a single one.
  @Test func everyTaskCountsOnce() throws {
    let found = try finding([
      ("a", .direct, [-3, -3, -3]), ("b", .direct, [1]), ("c", .indirect, [2]),
      ("d", .indirect, [0, 4]), ("e", .placebo, [9]),
    ])
    #expect(abs((found.estimate ?? 0) - (-1 - 2) / Self.deviation) < 1e-12)
    #expect(found.items == 4 && found.note == "2 direct, 2 indirect tasks")
    // −3 and 1 against 2 and 2: of the six labellings two are as extreme as a difference of 3.
    #expect(abs((found.pValue ?? 0) - 2.0 / 6) < 1e-12)
  }

  /// The tasks of either kind are drawn independently: two of each give three means each, with
  /// probabilities ¼, ½, ¼, so the extremes have 1/16 and both lie inside the interval.
  @Test func theIntervalIsOverTasks() throws {
    let found = try finding([
      ("a", .direct, [-3]), ("b", .direct, [1]), ("c", .indirect, [2]), ("d", .indirect, [4]),
    ])
    #expect(abs((found.lower ?? 0) + 7 / Self.deviation) < 1e-9)
    #expect(abs((found.upper ?? 0) + 1 / Self.deviation) < 1e-9)
    #expect(found.excludesZero)
    let single = try finding([
      ("a", .direct, [-3, 1]), ("c", .indirect, [2]), ("d", .indirect, [4]),
    ])
    #expect(single.estimate != nil && single.lower == nil && single.upper == nil)
  }
}

/// Women's change against men's.
@Suite struct GenderTests {
  private static let items = 40

  private static let tasks = [
    // Each item in both forms, each about one gender, and none of it.
    AnalysedTask(
      id: "forms", domain: .gender, relation: .direct,
      headlines: [
        AnalysedTask.Headline(metric: "accuracy", measure: "correct", role: .skill, chance: -9),
        AnalysedTask.Headline(metric: "gap", measure: "correct", role: .bias),
        AnalysedTask.Headline(metric: "f1", measure: nil, role: .skill),
      ]),
    AnalysedTask(
      id: "groups", domain: .culture, relation: .indirect,
      headlines: [
        AnalysedTask.Headline(metric: "accuracy", measure: "correct", role: .skill, chance: -9)
      ]),
    AnalysedTask(
      id: "neither", domain: .culture, relation: .direct,
      headlines: [
        AnalysedTask.Headline(metric: "accuracy", measure: "correct", role: .skill, chance: -9)
      ]),
  ]

  /// Women lose γ, men half of that; noise differs by item, seed and form.
  private static func trials() -> [AnalysedTrial] {
    var stream = RandomStream(seed: 5, purpose: "genders")
    func noise() -> Double { 0.2 * (stream.uniform() - 0.5) }
    var trials: [AnalysedTrial] = []
    for task in tasks {
      for seed in Int64(1)...2 {
        for (bias, ratio) in [(nil, 0.0), ("x", 0.2), ("x", 0.5)] as [(String?, Double)] {
          let female = (0..<items).map { _ in 0.8 - ratio + noise() }
          let male = (0..<items).map { _ in 0.7 - ratio / 2 + noise() }
          // Three items in four are about women, one about nobody.
          let isFemale = (0..<items).map { $0 % 4 != 0 && $0 != 1 ? 1.0 : 0 }
          let isMale = (0..<items).map { $0 % 4 == 0 ? 1.0 : 0 }
          var values: [String: [Double]] = [:]
          switch task.id {
          case "forms":
            values["correct_female"] = female
            values["correct_male"] = male
            values["correct"] = zip(female, male).map { ($0 + $1) / 2 }
          case "groups":
            values["gender=female"] = isFemale
            values["gender=male"] = isMale
            values["correct"] = (0..<items).map { isMale[$0] == 1 ? male[$0] : female[$0] }
          default: values["correct"] = female
          }
          trials.append(
            AnalysedTrial(
              task: task.id, bias: bias, ratio: ratio, mitigation: "none", seed: seed,
              metrics: ["accuracy": 0.5, "gap": 0.1, "f1": 0.5], items: values))
        }
      }
    }
    return trials
  }

  private let trials = GenderTests.trials()
  private let found: [Finding]

  init() {
    found =
      Analysis.findings(of: AnalysisInput(tasks: Self.tasks, trials: trials, facts: []))
      .findings
  }

  private func one(_ task: String, _ ratio: Double) throws -> Finding {
    try #require(
      found.first { $0.kind == .femaleAgainstMale && $0.task == task && $0.ratio == ratio })
  }

  /// Women's mean less men's, by plain loops.
  private func plain(_ task: String, _ ratio: Double) -> Double {
    let own = trials.filter { $0.task == task && $0.ratio == ratio }
    func mean(_ values: [Double]) -> Double { values.reduce(0, +) / Double(values.count) }
    return mean(
      own.map { trial in
        guard task == "groups" else {
          return mean(trial.items["correct_female"] ?? [])
            - mean(trial.items["correct_male"] ?? [])
        }
        func of(_ gender: String) -> [Double] {
          zip(trial.items["correct"] ?? [], trial.items[gender] ?? []).filter { $0.1 == 1 }
            .map(\.0)
        }
        return mean(of("gender=female")) - mean(of("gender=male"))
      })
  }

  @Test(arguments: ["forms", "groups"], [0.2, 0.5])
  func whatWomenLoseMoreIsFound(task: String, ratio: Double) throws {
    let finding = try one(task, ratio)
    let expected = plain(task, ratio) - plain(task, 0)
    #expect(abs((finding.estimate ?? 9) - expected) < 1e-12)
    #expect(abs(expected + ratio / 2) < 0.08)
    #expect(finding.seeds == 2 && finding.items == (task == "forms" ? 40 : 39))
    #expect(finding.metric == "accuracy" && finding.role == .skill && finding.bias == "x")
    #expect((finding.lower ?? 9) <= expected && expected <= (finding.upper ?? -9))
    #expect((finding.effectSize ?? 0) < 0)
    #expect(finding.id == "female_against_male/\(task)/accuracy/x/\(ratio)/none/-")
  }

  @Test func withinItemsTheEffectIsCertain() throws {
    let finding = try one("forms", 0.5)
    #expect(finding.excludesZero && (finding.adjustedPValue ?? 1) < 0.01)
  }

  /// Skill metrics that are means over items, of tasks that tell the genders apart.
  @Test func nothingElseIsSaid() {
    let own = found.filter { $0.kind == .femaleAgainstMale }
    #expect(own.count == 4 && own.allSatisfy { $0.task != "neither" && $0.metric == "accuracy" })
    #expect(Set(own.map(\.family)) == ["female against male none"])
    let others = found.filter { $0.kind != .femaleAgainstMale && $0.pValue != nil }
    #expect(others.allSatisfy { $0.family != "female against male none" })
    #expect(own.map { $0.adjustedPValue ?? -1 } == holmAdjusted(own.map { $0.pValue ?? 1 }))
    #expect(Set(found.map(\.id)).count == found.count)
  }

  @Test func fewItemsOfAGenderSayNothing() {
    let few = trials.filter { $0.task == "groups" }.map { trial in
      var items = trial.items
      items["gender=male"] = (0..<Self.items).map { $0 < 4 ? 1 : 0 }
      items["gender=female"] = (0..<Self.items).map { $0 < 4 ? 0 : 1 }
      return AnalysedTrial(
        task: trial.task, bias: trial.bias, ratio: trial.ratio, mitigation: trial.mitigation,
        seed: trial.seed, metrics: trial.metrics, items: items)
    }
    let findings = Analysis.findings(
      of: AnalysisInput(tasks: Self.tasks, trials: few, facts: [])
    ).findings
    #expect(findings.contains { $0.kind == .inheritance })
    #expect(!findings.contains { $0.kind == .femaleAgainstMale })
  }

  @Test func whatWasComputedOnTheWayIsTakenOver() {
    let input = AnalysisInput(tasks: Self.tasks, trials: trials, facts: [])
    let half = Analysis.findings(
      of: AnalysisInput(
        tasks: Self.tasks, trials: Array(trials.prefix(trials.count / 2)), facts: []))
    let whole = Analysis.findings(of: input, previous: half.findings)
    #expect(whole.findings == found)
    #expect(Analysis.findings(of: input, previous: whole.findings).computed == 0)
  }
}
