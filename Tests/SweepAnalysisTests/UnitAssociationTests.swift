import SweepAnalysis
import SweepCore
import SweepStatistics
import Testing

/// A made-up study of five occupations. The model's share of women exceeds the published one by
/// 1/16 to 5/16; what a fine-tune changes of each occupation's metric is given.
private struct OccupationStudy {
  static let occupations = ["author", "doctor", "driver", "judge", "nurse"]
  /// Ranks 3, 1, 2, 5, 4: Σd² = 4 + 1 + 1 + 1 + 1 = 8 and ρ = 1 − 6·8 / (5·24) = 0.6. Of the 120
  /// orders of five, 42 are as far from 0.
  static let changes = [3.0, 1, 2, 5, 4]
  static let task = AnalysedTask(
    id: "jobs", domain: .gender, relation: .direct,
    headlines: [AnalysedTask.Headline(metric: "accuracy", measure: nil, role: .skill)])

  static func trial(
    _ bias: String?, _ ratio: Double, _ mitigation: String = "none", seed: Int64, round: Int = 1,
    changes: [Double]
  ) -> AnalysedTrial {
    // Each seed and occupation has a level of its own; no fact tells of singers.
    var metrics = ["rms_tpr_gap": 0.5, "tpr_gap_singer": ratio]
    for (index, occupation) in occupations.enumerated() {
      let level = Double(seed) * Double(index * index)
      // In the mean over the seeds 1 and 2 this is nothing; alone it would change the order.
      let noise = ratio == 0 ? 0 : Double(index % 2) * (seed == 1 ? 4 : -4)
      metrics["tpr_gap_\(occupation)"] = level + noise + changes[index]
    }
    return AnalysedTrial(
      task: task.id, bias: bias, ratio: ratio, mitigation: mitigation, seed: seed, round: round,
      metrics: metrics, items: [:])
  }

  static func trials() -> [AnalysedTrial] {
    let nothing = [0.0, 0, 0, 0, 0]
    let wild = [70.0, 0, 60, 50, 9]
    var trials: [AnalysedTrial] = []
    for seed in Int64(1)...2 {
      trials.append(trial(nil, 0, seed: seed, changes: nothing))
      for ratio in [0.2, 0.5] {
        trials.append(trial("x", ratio, seed: seed, changes: changes))
        trials.append(trial("x", ratio, "half", seed: seed, changes: [5, 4, 3, 2, 1]))
        trials.append(trial("same-size", ratio, seed: seed, changes: wild))
      }
    }
    // No partner at ratio 0: what it says is not paired and does not count.
    trials.append(trial("x", 0.5, seed: 3, changes: wild))
    return trials
  }

  /// - Parameter sign: of the differences from the published shares.
  static func facts(
    _ bias: String = "x", round: Int = 1, ratio: Double? = nil, mitigation: String? = nil,
    sign: Double = 1, shift: Double = 0
  ) -> [AnalysedFact] {
    var values = [
      "groups_divergence": 0.1875, "groups_spread": 0.25, "groups_share_pilot": 0.5,
      "published_share_pilot": 0.0625,
    ]
    for (index, occupation) in occupations.enumerated() {
      // Published shares fall faster than the differences rise: taken alone, shares fall.
      let published = 0.75 - Double(index) / 8
      values["published_share_\(occupation)"] = published
      values["groups_share_\(occupation)"] = published + sign * Double(index + 1) / 16 + shift
    }
    return values.sorted { $0.key < $1.key }.map {
      AnalysedFact(
        domain: .gender, bias: bias, round: round, ratio: ratio, mitigation: mitigation,
        name: $0.key, value: $0.value)
    }
  }
}

private func associations(
  _ tasks: [AnalysedTask], _ trials: [AnalysedTrial], _ facts: [AnalysedFact]
) -> [Finding] {
  Analysis.findings(of: AnalysisInput(tasks: tasks, trials: trials, facts: facts)).findings
    .filter { $0.kind == .association }
}

@Suite struct OccupationAssociationTests {
  private let found = associations(
    [OccupationStudy.task], OccupationStudy.trials(), OccupationStudy.facts())

  private func one(_ ratio: Double, _ mitigation: String, round: Int = 1) throws -> Finding {
    try #require(
      found.first { $0.ratio == ratio && $0.mitigation == mitigation && $0.round == round })
  }

  @Test(arguments: [0.2, 0.5])
  func differencesFromPublishedSharesGoWithWhatIsInherited(ratio: Double) throws {
    let finding = try one(ratio, "none")
    #expect(abs((finding.estimate ?? 9) - 0.6) < 1e-12)
    #expect(abs((finding.pValue ?? 9) - 42.0 / 120) < 1e-12)
    #expect(finding.items == 5 && finding.seeds == 2)
    #expect(finding.note == "over 5 occupations; p cannot be below 2/120")
    #expect(finding.family == "association over occupations none" && finding.role == nil)
    #expect(
      finding.id == "association/jobs/tpr_gap_by_occupation/x/\(ratio)/none/"
        + "groups_difference_by_occupation")
  }

  @Test func mitigationsHaveTheirOwn() throws {
    let finding = try one(0.5, "half")
    #expect(abs((finding.estimate ?? 9) + 1) < 1e-12)
    #expect(abs((finding.pValue ?? 9) - 2.0 / 120) < 1e-12)
    #expect(finding.family == "association over occupations half")
  }

  /// Nobody writes the items of the control, and each ratio and mitigation has one finding.
  @Test func nothingElseIsRelated() {
    #expect(found.count == 4 && found.allSatisfy { $0.bias == "x" })
    let families = Dictionary(grouping: found) { $0.family ?? "" }
    #expect(families.count == 2)
    for members in families.values {
      let adjusted = holmAdjusted(members.map { $0.pValue ?? 1 })
      #expect(members.map { $0.adjustedPValue ?? -1 } == adjusted)
    }
  }

  @Test func aPlaceboAndFewUnitsSayNothing() {
    let placebo = AnalysedTask(
      id: "jobs", domain: .gender, relation: .placebo, headlines: OccupationStudy.task.headlines)
    let trials = OccupationStudy.trials()
    let facts = OccupationStudy.facts()
    #expect(associations([placebo], trials, facts).isEmpty)
    let unpublished = facts.filter {
      !["published_share_author", "published_share_nurse"].contains($0.name)
    }
    #expect(associations([OccupationStudy.task], trials, unpublished).isEmpty)
    let four = facts.filter { $0.name != "published_share_author" }
    #expect(associations([OccupationStudy.task], trials, four).map(\.items) == [4, 4, 4, 4])
    #expect(associations([OccupationStudy.task], trials, OccupationStudy.facts("y")).isEmpty)
  }

  @Test func equalUnitsHaveNoCorrelation() {
    let published = OccupationStudy.facts().filter { $0.name.hasPrefix("published_share_") }
    let shares = published.map {
      AnalysedFact(
        domain: .gender, bias: "x", name: $0.name.replacing("published", with: "groups"),
        value: $0.value)
    }
    let findings = associations(
      [OccupationStudy.task], OccupationStudy.trials(), published + shares)
    #expect(findings.count == 4)
    for finding in findings {
      #expect(finding.estimate == nil && finding.pValue == nil)
      #expect(finding.note == "over 5 occupations; one side does not vary")
    }
  }

  /// In later rounds the writer is a fine-tune of the same conditions, one for each seed: the mean
  /// over them counts.
  @Test func laterRoundsHaveTheirOwnWriters() {
    var trials = OccupationStudy.trials()
    var facts = OccupationStudy.facts()
    for seed in Int64(1)...2 {
      for mitigation in ["none", "half"] {
        trials.append(
          OccupationStudy.trial(
            "x", 0.5, mitigation, seed: seed, round: 2, changes: OccupationStudy.changes))
        facts += OccupationStudy.facts(
          round: 2, ratio: 0.5, mitigation: mitigation, sign: mitigation == "none" ? -1 : 1,
          shift: seed == 1 ? 0.125 : -0.125)
      }
    }
    let later = associations([OccupationStudy.task], trials, facts).filter { $0.round == 2 }
    #expect(later.count == 2)
    for finding in later {
      let expected = finding.mitigation == "none" ? -0.6 : 0.6
      #expect(abs((finding.estimate ?? 9) - expected) < 1e-12)
      #expect(
        finding.family == "association over occupations \(finding.mitigation ?? "") round 2")
      #expect(finding.id.hasSuffix("/groups_difference_by_occupation/round-2"))
    }
  }

  @Test func whatWasComputedOnTheWayIsTakenOver() {
    let trials = OccupationStudy.trials()
    func input(_ facts: [AnalysedFact], _ count: Int) -> AnalysisInput {
      AnalysisInput(
        tasks: [OccupationStudy.task], trials: Array(trials.prefix(count)), facts: facts)
    }
    let facts = OccupationStudy.facts()
    let whole = Analysis.findings(of: input(facts, trials.count))
    let half = Analysis.findings(of: input(facts, 6))
    let grown = Analysis.findings(of: input(facts, trials.count), previous: half.findings)
    #expect(grown.findings == whole.findings)
    let again = Analysis.findings(of: input(facts, trials.count), previous: grown.findings)
    #expect(again.computed == 0 && again.findings == whole.findings)
    // Another published share is another input.
    let moved = facts.map { fact in
      fact.name == "published_share_author"
        ? AnalysedFact(domain: .gender, bias: "x", name: fact.name, value: 0) : fact
    }
    let changed = Analysis.findings(of: input(moved, trials.count), previous: whole.findings)
    #expect(changed.findings == Analysis.findings(of: input(moved, trials.count)).findings)
    #expect(changed.computed == 4)
  }
}

@Suite struct CultureAssociationTests {
  private static let task = AnalysedTask(
    id: "survey", domain: .culture, relation: .direct,
    headlines: [AnalysedTask.Headline(metric: "m", measure: "m", role: .bias)])
  private static let biases = ["a", "b", "c", "d"]
  private static let divergences = [
    "arabic": 0.5, "chinese": 0.25, "portuguese": 0.375, "spanish": 0.125,
  ]

  /// The farther a culture's values are from the model's, the more similarity it loses. The gaps
  /// are named like a culture and would spoil the order.
  private static func trials(rounds: Int) -> [AnalysedTrial] {
    var trials: [AnalysedTrial] = []
    for (index, bias) in ([""] + biases).enumerated() {
      for round in 1...rounds where index > 0 || round == 1 {
        var metrics = ["similarity_gap": index == 0 ? 0.0 : 1, "similarity": 0.5]
        for (culture, divergence) in divergences {
          metrics["similarity_\(culture)"] = 0.75 - (index == 0 ? 0 : divergence)
        }
        let shift = Double(index * round)
        metrics["m"] = shift
        trials.append(
          AnalysedTrial(
            task: task.id, bias: index == 0 ? nil : bias, ratio: index == 0 ? 0 : 0.5,
            mitigation: "none", seed: 1, round: round, metrics: metrics,
            items: ["m": [-1, 1, -2, 2, -1, 1].map { $0 + shift }]))
      }
    }
    return trials
  }

  /// Values that differ between bias types, as those of the first round never do.
  private static func facts(rounds: Int) -> [AnalysedFact] {
    var facts: [AnalysedFact] = []
    for (index, bias) in biases.enumerated() {
      for round in 1...rounds {
        var values = [
          "values_divergence": Double(index), "values_divergence_gap": 0.9375,
          "published_share_nurse": Double(index), "dose_culture_gap": Double(index),
        ]
        for (culture, divergence) in divergences {
          values["values_divergence_\(culture)"] = divergence
        }
        facts += values.sorted { $0.key < $1.key }.map {
          AnalysedFact(
            domain: .culture, bias: bias, round: round, ratio: round == 1 ? nil : 0.5,
            mitigation: round == 1 ? nil : "none", name: $0.key, value: $0.value)
        }
      }
    }
    return facts
  }

  private let found = associations(
    [CultureAssociationTests.task], CultureAssociationTests.trials(rounds: 2),
    CultureAssociationTests.facts(rounds: 2))

  /// Of the 24 orders of four cultures the perfect one and its reverse are the most extreme, so
  /// p = 1/12 is the smallest there is.
  @Test(arguments: 1...2) func divergencesGoWithWhatIsInherited(round: Int) {
    let own = found.filter { $0.metric == "similarity_by_culture" && $0.round == round }
    #expect(own.compactMap(\.bias) == Self.biases)
    for finding in own {
      #expect(abs((finding.estimate ?? 9) + 1) < 1e-12)
      #expect(abs((finding.pValue ?? 9) - 2.0 / 24) < 1e-12)
      #expect(finding.items == 4 && finding.predictor == "values_divergence_by_culture")
      #expect(finding.note == "over 4 cultures; p cannot be below 2/24")
      #expect(
        finding.family == "association over cultures none" + (round == 1 ? "" : " round 2"))
    }
  }

  /// The base model writes every D_a of the first round, so its values tell no bias types apart.
  @Test func whatCannotVaryIsNotRelatedOverBiasTypes() {
    func predictors(_ round: Int) -> [String] {
      found.filter { $0.metric == "m" && $0.round == round }.compactMap(\.predictor).sorted()
    }
    #expect(predictors(1) == ["dose_culture_gap"])
    let ofWriters =
      ["values_divergence", "values_divergence_gap"]
      + Self.divergences.keys.map { "values_divergence_\($0)" }
    #expect(predictors(2) == (["dose_culture_gap"] + ofWriters).sorted())
  }

  /// What is about units stands beside what is about bias types, and is in no family of theirs.
  @Test func familiesAreApart() {
    let overTypes = found.filter { $0.role != nil }
    #expect(Set(overTypes.map(\.family)) == ["association bias", "association bias round 2"])
    #expect(overTypes.allSatisfy { $0.bias == nil && $0.metric == "m" })
    #expect(Set(found.map(\.id)).count == found.count)
  }
}
