import RandomStreams
import SweepAnalysis
import SweepCore
import SweepStatistics
import Testing

/// A made-up study whose truth is known: `planted` moves the bias measure by 2γ under bias "strong",
/// half of that with mitigation "half", not at all under "weak"; `still` never moves.
private struct MadeUpStudy {
  static let ratios = [0, 0.1, 0.2, 0.5]
  static let seeds: [Int64] = [1, 2, 3]
  static let items = 40
  var stream = RandomStream(seed: 7, purpose: "made-up study")

  let tasks = [
    AnalysedTask(
      id: "planted", domain: .gender, relation: .direct,
      headlines: [
        AnalysedTask.Headline(metric: "gap", measure: "gap", role: .bias),
        AnalysedTask.Headline(
          metric: "accuracy", measure: "correct", role: .skill, chance: 0.5),
        AnalysedTask.Headline(metric: "spread", measure: nil, role: .bias),
      ]),
    AnalysedTask(
      id: "still", domain: .gender, relation: .placebo,
      headlines: [
        AnalysedTask.Headline(metric: "gap", measure: "gap", role: .bias),
        AnalysedTask.Headline(
          metric: "accuracy", measure: "correct", role: .skill, chance: 0.5),
      ]),
  ]

  mutating func noise() -> Double {
    (0..<4).reduce(0) { sum, _ in sum + stream.uniform() - 0.5 }
  }

  mutating func trials() -> [AnalysedTrial] {
    let level = (0..<Self.items).map { _ in noise() }
    var trials: [AnalysedTrial] = []
    for task in tasks {
      for seed in Self.seeds {
        for ratio in Self.ratios {
          for bias in ratio == 0 ? [nil] : ["strong", "weak", "same-size"] as [String?] {
            for mitigation in ratio == 0 || bias == "same-size" ? ["none"] : ["none", "half"] {
              let effect =
                task.id == "planted" && bias == "strong"
                ? 2 * ratio * (mitigation == "half" ? 0.5 : 1) : 0
              var gap = level.map { $0 + effect + 0.2 * noise() }
              if ratio == 0.5 { gap[3] = .nan }
              let right = task.id == "planted" ? 0.9 : 0.5
              let correct = gap.map { _ in stream.uniform() < right ? 1.0 : 0.0 }
              let defined = gap.filter { !$0.isNaN }
              trials.append(
                AnalysedTrial(
                  task: task.id, bias: bias, ratio: ratio, mitigation: mitigation, seed: seed,
                  metrics: [
                    "gap": defined.reduce(0, +) / Double(defined.count),
                    "accuracy": correct.reduce(0, +) / Double(correct.count),
                    "spread": (defined.max() ?? 0) - (defined.min() ?? 0),
                  ],
                  items: [
                    "gap": gap, "correct": correct,
                    "cluster": (0..<Self.items).map { Double(100 + $0 / 2) },
                  ]))
            }
          }
        }
      }
    }
    return trials
  }
}

private func study() -> (input: AnalysisInput, findings: [Finding]) {
  var study = MadeUpStudy()
  let input = AnalysisInput(tasks: study.tasks, trials: study.trials(), facts: [])
  return (input, Analysis.findings(of: input).findings)
}

extension [Finding] {
  fileprivate func one(
    _ kind: Finding.Kind, _ task: String?, _ metric: String?, bias: String? = nil,
    ratio: Double? = nil, mitigation: String? = "none"
  ) throws -> Finding {
    try #require(
      first {
        $0.kind == kind && $0.task == task && $0.metric == metric && $0.bias == bias
          && $0.ratio == ratio && $0.mitigation == mitigation
      }, "\(kind) \(task ?? "-") \(metric ?? "-") \(bias ?? "-")")
  }
}

/// Paired differences by plain loops: items defined under both conditions and all seeds.
private func plainDifference(
  _ trials: [AnalysedTrial], _ task: String, bias: String, ratio: Double,
  mitigation: String = "none",
  against base: (AnalysedTrial) -> Bool = { $0.ratio == 0 }
) -> Double {
  var sums = [Double](repeating: 0, count: MadeUpStudy.items)
  for seed in MadeUpStudy.seeds {
    let mine = trials.filter {
      $0.task == task && $0.seed == seed && $0.bias == bias && $0.ratio == ratio
        && $0.mitigation == mitigation
    }
    let other = trials.filter { $0.task == task && $0.seed == seed && base($0) }
    for item in sums.indices {
      sums[item] += (mine[0].items["gap"]?[item] ?? 0) - (other[0].items["gap"]?[item] ?? 0)
    }
  }
  let defined = sums.filter { !$0.isNaN }
  return defined.reduce(0, +) / Double(defined.count * MadeUpStudy.seeds.count)
}

@Suite struct AnalysisTests {
  @Test func aPlantedEffectIsFoundWithItsSizeAndSign() throws {
    let (input, findings) = study()
    let strong = try findings.one(.inheritance, "planted", "gap", bias: "strong", ratio: 0.5)
    let plain = plainDifference(input.trials, "planted", bias: "strong", ratio: 0.5)
    #expect(abs((strong.estimate ?? 0) - plain) < 1e-12)
    #expect(abs(plain - 1) < 0.15)
    #expect((strong.lower ?? 0) > 0.8 && (strong.upper ?? 9) < 1.2)
    #expect((strong.adjustedPValue ?? 1) < 0.01)
    #expect(strong.seeds == 3 && strong.items == MadeUpStudy.items - 1)
    #expect((strong.effectSize ?? 0) > 1)
    let weak = try findings.one(.inheritance, "planted", "gap", bias: "weak", ratio: 0.5)
    #expect(abs(weak.estimate ?? 1) < 0.1)
    #expect((weak.adjustedPValue ?? 0) > 0.05)
  }

  @Test func thePlaceboStaysWithinItsInterval() throws {
    let (_, findings) = study()
    let still = findings.filter {
      $0.kind == .inheritance && $0.task == "still" && $0.metric == "gap"
    }
    #expect(still.count == 15)
    #expect(still.count(where: \.excludesZero) <= 2)
    #expect(still.allSatisfy { ($0.adjustedPValue ?? 0) > 0.05 })
  }

  @Test func theSlopeIsThatOfTheLeastSquaresLine() throws {
    let (_, findings) = study()
    let slope = try findings.one(.slope, "planted", "spread", bias: "strong")
    let levels = try MadeUpStudy.ratios.map { ratio in
      try findings.one(
        .level, "planted", "spread", bias: ratio == 0 ? nil : "strong", ratio: ratio
      ).estimate ?? .nan
    }
    let line = try #require(LinearFit(x: MadeUpStudy.ratios, y: levels))
    #expect(abs((slope.estimate ?? 0) - line.slope) < 1e-12)
    let gap = try findings.one(.slope, "planted", "gap", bias: "strong")
    #expect((gap.lower ?? 0) > 1.7 && (gap.upper ?? 9) < 2.3)
  }

  @Test func mitigationsRecoverWhatTheyTakeOff() throws {
    let (_, findings) = study()
    let recovery = try findings.one(
      .recovery, "planted", "gap", bias: "strong", ratio: 0.5, mitigation: "half")
    #expect(abs((recovery.estimate ?? 0) - 0.5) < 0.1)
    #expect((recovery.lower ?? 9) < 0.5 && (recovery.upper ?? 0) > 0.4)
    let nothing = try findings.one(
      .recovery, "still", "gap", bias: "weak", ratio: 0.5, mitigation: "half")
    #expect(nothing.estimate == nil && nothing.note?.contains("no inheritance") == true)
    let effect = try findings.one(
      .mitigation, "planted", "gap", bias: "strong", ratio: 0.5, mitigation: "half")
    #expect(abs((effect.estimate ?? 0) + 0.5) < 0.1 && effect.excludesZero)
  }

  @Test func theSameSizeControlIsSubtracted() throws {
    let (input, findings) = study()
    let against = try findings.one(.againstSameSize, "planted", "gap", bias: "strong", ratio: 0.2)
    let plain = plainDifference(
      input.trials, "planted", bias: "strong", ratio: 0.2,
      against: { $0.bias == "same-size" && $0.ratio == 0.2 })
    #expect(abs((against.estimate ?? 0) - plain) < 1e-12)
  }

  @Test func skillIsDecidedByTheIntervalAgainstChance() throws {
    let (_, findings) = study()
    let able = try findings.one(.skill, "planted", "accuracy", ratio: 0)
    #expect((able.lower ?? 0) > 0.5 && able.note == nil)
    let unable = try findings.one(.skill, "still", "accuracy", ratio: 0)
    #expect(unable.note?.hasPrefix("no skill") == true)
  }

  @Test func metricsThatAreNoMeansHaveNoIntervals() throws {
    let (_, findings) = study()
    let spread = try findings.one(.inheritance, "planted", "spread", bias: "strong", ratio: 0.5)
    #expect(spread.estimate != nil && spread.lower == nil && spread.items == 0)
    #expect(spread.standardError != nil && spread.pValue != nil)
  }

  /// Results arrive one by one in any order; what was computed on the way changes nothing.
  @Test func findingsDoNotDependOnTheOrderOfResults() {
    let (input, expected) = study()
    var stream = RandomStream(seed: 3, purpose: "arrival")
    for _ in 0..<3 {
      var arrived = input.trials
      stream.shuffle(&arrived)
      var findings: [Finding] = []
      for count in [10, 30, 31, arrived.count] {
        findings =
          Analysis.findings(
            of: AnalysisInput(
              tasks: input.tasks, trials: Array(arrived.prefix(count)), facts: []),
            previous: findings
          ).findings
      }
      #expect(findings == expected)
      let again = Analysis.findings(of: input, previous: findings)
      let identifiers = Dictionary(grouping: expected, by: \.id).filter { $1.count > 1 }.keys
      #expect(identifiers.isEmpty)
      #expect(again.computed == 0)
      #expect(again.findings == expected)
    }
  }

  @Test func oneChangedResultChangesWhatDependsOnItOnly() throws {
    let (input, findings) = study()
    var trials = input.trials
    let index = try #require(
      trials.firstIndex {
        $0.task == "planted" && $0.bias == "weak" && $0.ratio == 0.1 && $0.mitigation == "none"
      })
    let old = trials[index]
    var items = old.items
    items["gap"]?[0] += 1
    var metrics = old.metrics
    metrics["gap", default: 0] += 1.0 / Double(MadeUpStudy.items)
    trials[index] = AnalysedTrial(
      task: old.task, bias: old.bias, ratio: old.ratio, mitigation: old.mitigation, seed: old.seed,
      metrics: metrics, items: items)
    let changed = AnalysisInput(tasks: input.tasks, trials: trials, facts: [])
    let incremental = Analysis.findings(of: changed, previous: findings)
    #expect(incremental.findings == Analysis.findings(of: changed).findings)
    #expect(incremental.computed > 3 && incremental.computed < 15)
  }

  @Test func familiesAreAdjustedTogether() {
    let (_, findings) = study()
    let families = Dictionary(grouping: findings.filter { $0.pValue != nil && $0.family != nil }) {
      $0.family ?? ""
    }
    #expect(families.count > 4)
    for members in families.values {
      let adjusted = holmAdjusted(members.map { $0.pValue ?? 1 })
      #expect(members.map { $0.adjustedPValue ?? -1 } == adjusted)
    }
  }

  /// Direct tasks lose one point of skill, indirect ones gain one; the items' standard deviation at
  /// ratio 0 is √2.4. Of the six ways to call two of four tasks direct, two are as extreme.
  @Test func directTasksAreSetAgainstIndirectOnes() throws {
    let spread = [-1.0, 1, -2, 2, -1, 1]
    var tasks: [AnalysedTask] = []
    var trials: [AnalysedTrial] = []
    for (id, relation, shift) in [
      ("a", AnalysedTask.Relation.direct, -1.0), ("b", .direct, -1), ("c", .indirect, 1),
      ("d", .indirect, 1), ("e", .placebo, 9),
    ] {
      tasks.append(
        AnalysedTask(
          id: id, domain: .culture, relation: relation,
          headlines: [AnalysedTask.Headline(metric: "m", measure: "m", role: .skill, chance: -9)]))
      for (bias, ratio, moved) in [(nil, 0.0, 0.0), ("x", 0.5, shift)] {
        trials.append(
          AnalysedTrial(
            task: id, bias: bias, ratio: ratio, mitigation: "none", seed: 1, metrics: ["m": moved],
            items: ["m": spread.map { $0 + moved }]))
      }
    }
    let found = Analysis.findings(of: AnalysisInput(tasks: tasks, trials: trials, facts: []))
      .findings.filter { $0.kind == .directAgainstIndirect }
    let finding = try #require(found.first)
    #expect(found.count == 1 && finding.bias == "x" && finding.ratio == 0.5)
    #expect(abs((finding.estimate ?? 0) + 2 / 2.4.squareRoot()) < 1e-12)
    #expect(abs((finding.pValue ?? 0) - 2.0 / 6) < 1e-12 && finding.items == 4)
  }

  @Test func propertiesOfTheDataGoWithWhatIsInherited() throws {
    let task = AnalysedTask(
      id: "t", domain: .culture, relation: .direct,
      headlines: [AnalysedTask.Headline(metric: "m", measure: "m", role: .bias)])
    let biases = ["a", "b", "c", "d", "e"]
    var trials = [
      AnalysedTrial(
        task: "t", bias: nil, ratio: 0, mitigation: "none", seed: 1, metrics: ["m": 0],
        items: ["m": [-1, 1, -2, 2, -1, 1]])
    ]
    for (index, bias) in biases.enumerated() {
      let shift = Double(index + 1)
      trials.append(
        AnalysedTrial(
          task: "t", bias: bias, ratio: 0.5, mitigation: "none", seed: 1, metrics: ["m": shift],
          items: ["m": [-1, 1, -2, 2, -1, 1].map { $0 + shift }]))
    }
    let facts = biases.enumerated().map { index, bias in
      AnalysedFact(domain: .culture, bias: bias, name: "dose", value: -Double(index))
    }
    let findings = Analysis.findings(
      of: AnalysisInput(tasks: [task], trials: trials, facts: facts)
    ).findings
    let association = try #require(findings.first { $0.kind == .association })
    #expect(association.estimate == -1 && association.items == 5)
    #expect(abs((association.pValue ?? 0) - 2.0 / 120) < 1e-12)
    // Every resample of a perfect order is one.
    #expect(abs((association.lower ?? 0) + 1) < 1e-12 && abs((association.upper ?? 0) + 1) < 1e-12)
  }
}

@Suite struct LabelPermutationTests {
  @Test func smallCasesCountedByHand() {
    // Of the six ways to label {0, 0, 1, 1}, two are as extreme.
    #expect(labelPermutationTest([0, 0], [1, 1]).map { abs($0 - 2.0 / 6) < 1e-12 } == true)
    #expect(labelPermutationTest([1], [1]) == 1)
    #expect(labelPermutationTest([], [1]) == nil)
  }
}
