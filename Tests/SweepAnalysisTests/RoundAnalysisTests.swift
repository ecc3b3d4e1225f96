import SweepAnalysis
import SweepCore
import SweepStatistics
import Testing

/// A made-up study over rounds: the measure moves by γ · strength in the first round and by as much
/// again in each later one; the mitigation takes half of it off.
private struct RoundStudy {
  static let items = [-1.0, 1, -2, 2, -1.5, 1.5, -0.5, 0.5]
  static let strengths = ["a": 1.0, "b": 2, "c": 3, "d": 4]
  static let task = AnalysedTask(
    id: "t", domain: .culture, relation: .direct,
    headlines: [AnalysedTask.Headline(metric: "m", measure: "m", role: .bias)])

  static func shift(_ bias: String, _ ratio: Double, _ mitigation: String, _ round: Int) -> Double {
    strengths[bias, default: 0] * ratio * Double(round) * (mitigation == "half" ? 0.5 : 1)
  }

  static func trial(
    _ bias: String?, _ ratio: Double, _ mitigation: String, seed: Int64, round: Int
  ) -> AnalysedTrial {
    let shift = shift(bias ?? "", ratio, mitigation, round)
    let values = items.enumerated().map { $1 + shift + 0.01 * Double(($0 * Int(seed)) % 3) }
    return AnalysedTrial(
      task: task.id, bias: bias, ratio: ratio, mitigation: mitigation, seed: seed, round: round,
      metrics: ["m": values.reduce(0, +) / Double(values.count)], items: ["m": values])
  }

  /// One D_a for all in the first round, one for each condition in later ones.
  static func facts(rounds: Int) -> [AnalysedFact] {
    var facts: [AnalysedFact] = []
    for (bias, strength) in strengths.sorted(by: { $0.key < $1.key }) {
      facts.append(AnalysedFact(domain: .culture, bias: bias, name: "dose", value: strength))
      for round in 1...rounds where round > 1 {
        for (ratio, mitigation, sign) in [(0.5, "none", -1.0), (0.5, "half", 7), (0.2, "none", 9)] {
          for seed in 1...2 {
            // The mean over the seeds counts.
            facts.append(
              AnalysedFact(
                domain: .culture, bias: bias, round: round, ratio: ratio, mitigation: mitigation,
                name: "dose", value: sign * strength + (seed == 1 ? 10 : -10)))
          }
        }
      }
    }
    return facts
  }

  static func findings(rounds: Int) -> [Finding] {
    var trials: [AnalysedTrial] = []
    for seed in Int64(1)...2 {
      trials.append(trial(nil, 0, "none", seed: seed, round: 1))
      for ratio in [0.2, 0.5] {
        trials.append(trial("same-size", ratio, "none", seed: seed, round: 1))
        for bias in strengths.keys.sorted() {
          for mitigation in ["none", "half"] {
            for round in 1...rounds {
              trials.append(trial(bias, ratio, mitigation, seed: seed, round: round))
            }
          }
        }
      }
    }
    return Analysis.findings(
      of: AnalysisInput(tasks: [task], trials: trials, facts: facts(rounds: rounds))
    ).findings
  }
}

@Suite struct RoundAnalysisTests {
  private let findings = RoundStudy.findings(rounds: 3)

  private func one(
    _ kind: Finding.Kind, _ bias: String? = "c", _ ratio: Double? = 0.5,
    _ mitigation: String = "none", round: Int
  ) throws -> Finding {
    let found = findings.filter {
      $0.kind == kind && $0.bias == bias && $0.ratio == ratio && $0.mitigation == mitigation
        && $0.round == round
    }
    try #require(found.count == 1, "\(kind) in round \(round)")
    return found[0]
  }

  private func expect(_ estimate: Double?, _ expected: Double) {
    #expect(abs((estimate ?? .nan) - expected) < 1e-9, "\(estimate ?? .nan), not \(expected)")
  }

  /// What is said of the first round does not depend on whether there are others.
  @Test func theFirstRoundIsAnalysedAsWithoutRounds() {
    let alone = RoundStudy.findings(rounds: 1)
    #expect(!alone.contains { $0.kind == .drift } && alone.allSatisfy { $0.round == 1 })
    #expect(findings.filter { $0.round == 1 } == alone)
    #expect(!alone.contains { $0.id.contains("round") })
  }

  @Test(arguments: 1...3) func everyRoundIsComparedWithRatioZero(round: Int) throws {
    let factor = Double(round)
    expect(try one(.inheritance, round: round).estimate, 1.5 * factor)
    expect(try one(.inheritance, "c", 0.5, "half", round: round).estimate, 0.75 * factor)
    expect(try one(.mitigation, "c", 0.5, "half", round: round).estimate, -0.75 * factor)
    expect(try one(.recovery, "c", 0.5, "half", round: round).estimate, 0.5)
    expect(try one(.slope, "c", nil, round: round).estimate, 3 * factor)
    // The control adds what nobody wrote: it has one round.
    expect(try one(.againstSameSize, round: round).estimate, 1.5 * factor)
    #expect(try one(.level, round: round).seeds == 2)
    #expect(try one(.mitigationOverall, nil, nil, "half", round: round).estimate ?? 0 > 0)
  }

  @Test func driftIsTheDifferenceFromTheFirstRound() throws {
    #expect(findings.count { $0.kind == .drift } == 4 * 2 * 2 * 2)
    #expect(findings.allSatisfy { $0.kind != .drift || $0.round > 1 })
    let second = try one(.drift, round: 2)
    let third = try one(.drift, round: 3)
    expect(second.estimate, 1.5)
    expect(third.estimate, 3)
    #expect(second.seeds == 2 && second.items == RoundStudy.items.count)
    let spread = try #require(try one(.inheritance, round: 1).effectSize) / 1.5
    expect(third.effectSize, 3 * spread)
    #expect(third.id == "drift/t/m/c/0.5/none/-/round-3")
  }

  @Test func familiesAreOfOneRound() {
    let families = Dictionary(grouping: findings.filter { $0.family != nil && $0.pValue != nil }) {
      $0.family ?? ""
    }
    for (family, members) in families {
      #expect(Set(members.map(\.round)).count == 1, "\(family)")
      #expect(
        members.map { $0.adjustedPValue ?? -1 } == holmAdjusted(members.map { $0.pValue ?? 1 }))
    }
    // The control that nobody writes is in the first round only.
    let later = [2, 3].map { families["inheritance bias none round \($0)"]?.count ?? 0 }
    #expect(later[0] > 0 && later[0] == later[1])
    #expect(families["inheritance bias none"]?.count ?? 0 > later[0])
    #expect(Set(findings.map(\.id)).count == findings.count)
  }

  /// In later rounds the sets of other ratios and mitigations say nothing of these conditions.
  @Test(arguments: [(1, 1.0), (2, -1), (3, -1)])
  func propertiesAreThoseOfTheRoundsOwnSets(round: Int, correlation: Double) throws {
    let association = try one(.association, nil, 0.5, round: round)
    #expect(association.estimate == correlation && association.items == 4)
  }
}
