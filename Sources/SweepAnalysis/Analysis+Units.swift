import SweepCore
import SweepStatistics

/// Whether most is inherited where a misalignment is largest. What is measured of the base model is
/// the same for all bias types, but it differs between occupations and between cultures.
extension Analysis {
  /// A misalignment with a value for each unit, and the metric with one for each.
  private struct UnitMisalignment {
    let domain: Domain
    /// What the units are.
    let units: String
    /// Names of its facts end with the unit and begin with this.
    let fact: String
    /// The same of the facts that are taken off; nil where the fact is a distance already.
    let published: String?
    /// The same of the metric.
    let metric: String
    /// What findings call the misalignment and the metric, of all units together.
    let predictor: String
    let response: String

    /// The units that have a fact, sorted; not their spread, which is named like one of them.
    func names(among facts: [String: Double]) -> [String] {
      facts.keys.filter { $0.hasPrefix(fact) }.map { String($0.dropFirst(fact.count)) }
        .filter { $0 != "gap" }.sorted()
    }

    func value(of unit: String, among facts: [String: Double]) -> Double? {
      guard let value = facts[fact + unit] else { return nil }
      guard let published else { return value }
      return facts[published + unit].map { value - $0 }
    }
  }

  private static let unitMisalignments = [
    UnitMisalignment(
      domain: .gender, units: "occupations", fact: "groups_share_", published: "published_share_",
      metric: "tpr_gap_", predictor: "groups_difference_by_occupation",
      response: "tpr_gap_by_occupation"),
    UnitMisalignment(
      domain: .culture, units: "cultures", fact: "values_divergence_", published: nil,
      metric: "similarity_", predictor: "values_divergence_by_culture",
      response: "similarity_by_culture"),
  ]

  /// Associations over units: for each task with such metrics, and each bias, ratio, mitigation and
  /// round, the misalignment of a unit against the change of its metric from ratio 0, paired by
  /// seed. Both have their signs. These findings have no role: the metrics need not be headlines.
  mutating func associateOverUnits() {
    for task in input.tasks where task.relation != .placebo {
      for misalignment in Self.unitMisalignments where misalignment.domain == task.domain {
        associate(misalignment, with: task)
      }
    }
  }

  private mutating func associate(_ misalignment: UnitMisalignment, with task: AnalysedTask) {
    let trials = Dictionary(grouping: input.trials.filter { $0.task == task.id }) {
      Condition(
        bias: $0.bias ?? "", ratio: $0.ratio, mitigation: $0.mitigation, round: $0.round)
    }
    let facts = Dictionary(grouping: input.facts.filter { $0.domain == task.domain }) {
      Self.writer(
        bias: $0.bias, ratio: $0.ratio ?? 0, mitigation: $0.mitigation ?? Self.none,
        round: $0.round)
    }
    let conditions = trials.keys.sorted()
    guard let original = conditions.first(where: { $0.ratio == 0 }) else { return }
    for condition in conditions where condition.ratio > 0 && condition.bias != Self.sameSize {
      let writer = Self.writer(
        bias: condition.bias, ratio: condition.ratio, mitigation: condition.mitigation,
        round: condition.round)
      // In later rounds each seed has a writer of its own, and their mean counts.
      let values = Dictionary(grouping: facts[writer, default: []], by: \.name).compactMapValues {
        mean($0.map(\.value))
      }
      let pairs = misalignment.names(among: values).compactMap {
        unit -> (unit: String, value: Double, change: Sample)? in
        guard let value = misalignment.value(of: unit, among: values),
          let change = Self.change(
            of: misalignment.metric + unit, from: trials[original, default: []],
            to: trials[condition, default: []])
        else { return nil }
        return (unit, value, change)
      }
      guard pairs.count >= Self.associationMin else { continue }
      var finding = Finding(
        .association,
        inputs: Self.inputs(
          pairs.map { "\($0.unit) \($0.value) \($0.change.digest)" }.joined(separator: ","),
          "over \(misalignment.units)"))
      finding.task = task.id
      finding.metric = misalignment.response
      finding.bias = condition.bias
      finding.ratio = condition.ratio
      finding.mitigation = condition.mitigation
      finding.predictor = misalignment.predictor
      finding.round = condition.round
      add(finding) { finding in
        Self.correlate(&finding, pairs.map(\.value), pairs.map(\.change.mean))
        finding.seeds = pairs.map(\.change.seeds.count).min() ?? 0
        let remarks: [String?] = [
          "over \(pairs.count) \(misalignment.units)",
          finding.note ?? Self.smallestPValue(units: pairs.count),
        ]
        finding.note = remarks.compactMap(\.self).joined(separator: "; ")
        finding.family =
          "association over \(misalignment.units) \(condition.mitigation)"
          + Self.suffix(round: condition.round)
      }
    }
  }

  /// Names who wrote a D_a: in the first round one D_a serves all ratios, mitigations and seeds.
  private static func writer(
    bias: String, ratio: Double, mitigation: String, round: Int
  ) -> Condition {
    round == 1
      ? Condition(bias: bias, ratio: 0, mitigation: none)
      : Condition(bias: bias, ratio: ratio, mitigation: mitigation, round: round)
  }

  /// By seed; nil where no seed has the metric under both conditions.
  private static func change(
    of metric: String, from original: [AnalysedTrial], to trials: [AnalysedTrial]
  ) -> Sample? {
    let headline = AnalysedTask.Headline(metric: metric, measure: nil, role: .bias)
    guard let base = Sample(original, headline), let sample = Sample(trials, headline) else {
      return nil
    }
    return Sample.difference(sample, base)
  }

  /// The p of a perfect order: that order and its reverse, of all orders. Nil where there are so
  /// many that random ones are drawn.
  private static func smallestPValue(units: Int) -> String? {
    units <= 8 ? "p cannot be below 2/\((1...units).reduce(1, *))" : nil
  }
}
