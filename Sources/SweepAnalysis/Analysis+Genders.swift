import SweepCore
import SweepStatistics

/// Whether women or men are affected more.
extension Analysis {
  /// Findings on a skill metric whose items say how well it goes for women and for men: the change
  /// from ratio 0 for women less that for men, paired by seed and item.
  ///
  /// - Parameters:
  ///   - samples: the trials of each condition.
  ///   - spread: standard deviation of the metric's items at ratio 0.
  ///   - finding: makes one of a kind and condition, from a sample and what else enters.
  mutating func compareGenders(
    _ headline: AnalysedTask.Headline, _ grouped: [Condition: [AnalysedTrial]], spread: Double?,
    finding: (Finding.Kind, Condition?, Sample, String) -> Finding, _ resamples: inout Resamples
  ) {
    guard headline.role == .skill, let measure = headline.measure else { return }
    let samples = grouped.compactMapValues { trials in
      Sample(trials.compactMap { $0.womenLessMen(metric: headline.metric, measure) }, headline)
    }
    guard let original = samples.first(where: { $0.key.ratio == 0 })?.value else { return }
    for condition in samples.keys.sorted() where condition.ratio > 0 {
      guard let sample = samples[condition], let difference = Sample.difference(sample, original)
      else { continue }
      add(finding(.femaleAgainstMale, condition, difference, "\(spread ?? -1)")) { finding in
        finding.family =
          "female against male \(condition.mitigation)" + Self.suffix(round: condition.round)
        Self.test(&finding, difference, &resamples)
        if let spread, spread > 0, let estimate = finding.estimate {
          finding.effectSize = estimate / spread
        }
      }
    }
  }
}

extension AnalysedTrial {
  /// Fewer items of a gender say nothing of it.
  private static let itemsOfGenderMin = 5

  /// The trial with one metric and measure: the mean for women less that for men. Nil where the items
  /// do not tell the genders apart.
  ///
  /// Where each item is asked in both forms, which have measures of their own, a value is the
  /// difference within the item. Where each item is about one of them, which the indicators of the
  /// group `gender` say, it is the item's share of the difference of the two means.
  func womenLessMen(metric: String, _ measure: String) -> AnalysedTrial? {
    let values: [Double]
    if let female = items["\(measure)_female"], let male = items["\(measure)_male"],
      female.count == male.count
    {
      values = zip(female, male).map { $0 - $1 }
    } else if let all = items[measure], let female = items["gender=female"],
      let male = items["gender=male"], female.count == all.count, male.count == all.count
    {
      let women = all.indices.count { female[$0] == 1 && !all[$0].isNaN }
      let men = all.indices.count { male[$0] == 1 && !all[$0].isNaN }
      guard min(women, men) >= Self.itemsOfGenderMin else { return nil }
      let count = Double(women + men)
      values = all.indices.map { index in
        if female[index] == 1 { return all[index] * count / Double(women) }
        if male[index] == 1 { return -all[index] * count / Double(men) }
        return .nan
      }
    } else {
      return nil
    }
    guard let difference = mean(values.filter { !$0.isNaN }) else { return nil }
    return AnalysedTrial(
      task: task, bias: bias, ratio: ratio, mitigation: mitigation, seed: seed, round: round,
      metrics: [metric: difference], items: [measure: values])
  }
}
