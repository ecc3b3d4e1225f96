/// One number that the statistics make of a sweep's results, with what is known of its certainty. The
/// ledger keeps them; definitions: docs/STUDY.md, "Statistics".
package struct Finding: Hashable, Sendable {
  package enum Kind: String, Hashable, Sendable, CaseIterable {
    /// A metric's mean over seeds.
    case level
    /// A skill metric at ratio 0 against chance; whether the task's other findings mean anything.
    case skill
    /// The difference from ratio 0, paired by seed and item.
    case inheritance
    /// The difference from as many further original items, paired by seed and item.
    case againstSameSize = "against_same_size"
    /// The change of a metric with the bias ratio: least squares over all ratios, per unit of γ.
    case slope
    /// The difference between a mitigation and none under the same bias and ratio.
    case mitigation
    /// 1 − inheritance with a mitigation / inheritance without.
    case recovery
    /// What a mitigation takes off the standardised inheritance, over all tasks, biases and ratios.
    case mitigationOverall = "mitigation_overall"
    /// Standardised inheritance of direct tasks less that of indirect tasks.
    case directAgainstIndirect = "direct_against_indirect"
    /// The change of a skill metric from ratio 0 for women less that for men, paired by seed and item.
    case femaleAgainstMale = "female_against_male"
    /// The difference of a later round from the first, paired by seed and item.
    case drift
    /// Rank correlation between a property of D_a and what is inherited, over bias types; or, within
    /// one, between a misalignment and what is inherited over occupations or cultures.
    case association
  }

  package let kind: Kind
  package var task: String?
  package var metric: String?
  package var role: HeadlineRole?
  package var bias: String?
  package var ratio: Double?
  package var mitigation: String?
  /// Of inheritance; 1 for what is about no round.
  package var round = 1
  /// The property of D_a that an association is with.
  package var predictor: String?
  /// Nil where the note says why.
  package var estimate: Double?
  /// Over seeds; nil for one seed.
  package var standardError: Double?
  /// Of 95 %.
  package var lower: Double?
  package var upper: Double?
  /// The estimate in standard deviations of the items at ratio 0 (Glass's Δ).
  package var effectSize: Double?
  /// Two-sided.
  package var pValue: Double?
  /// Holm's, over the findings of the same family.
  package var adjustedPValue: Double?
  package var family: String?
  package var seeds = 0
  /// Test items that entered; 0 where the metric has no values of single items.
  package var items = 0
  package var note: String?
  /// Of everything that the finding was computed from: results and method.
  package var inputs: ContentDigest

  package init(_ kind: Kind, inputs: ContentDigest) {
    self.kind = kind
    self.inputs = inputs
  }

  /// Names the finding within its sweep: its kind and coordinates, "-" for those it has not. What is
  /// about all metrics of a role has that in the metric's place. Rounds after the first stand at the
  /// end.
  package var id: String {
    let coordinates = [
      task, metric ?? role?.rawValue, bias, ratio.map { "\($0)" }, mitigation, predictor,
    ]
    return ([kind.rawValue] + coordinates.map { $0 ?? "-" }).joined(separator: "/")
      + (round > 1 ? "/round-\(round)" : "")
  }

  /// Whether the interval lies on one side of 0; false without one.
  package var excludesZero: Bool {
    guard let lower, let upper else { return false }
    return lower > 0 || upper < 0
  }
}

/// What a metric says of a task.
package enum HeadlineRole: String, Hashable, Sendable, Codable, CaseIterable {
  /// How well the model does it.
  case skill
  /// How differently it treats groups.
  case bias
}
