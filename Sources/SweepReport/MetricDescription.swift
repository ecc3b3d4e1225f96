/// What readers need to know of a metric: its name in words, its unit, and what more of it means.
package struct MetricDescription: Hashable, Sendable {
  /// What a rising value says.
  package enum Meaning: String, Hashable, Sendable {
    /// The model does the task better.
    case skill = "higher is better"
    /// The model treats the groups less equally.
    case bias = "higher is more bias"
    /// The sign says which group is favoured.
    case signedBias = "farther from 0 is more bias"
    /// Neither good nor bad by itself.
    case description = "descriptive"
  }

  /// As the ledger has it.
  package let name: String
  package let label: String
  package let unit: String
  package let meaning: Meaning

  /// Digits after the point with which values are printed; the CSV table has all digits.
  package var decimals: Int { unit == "count" ? 0 : 3 }

  /// The description of a metric of the ledger. A name that is not in the table may be a known one
  /// with a group at its end (`compound_arabic`); any other is shown under its own name.
  package init(name: String) {
    if let known = Self.table[name] {
      self = known
      return
    }
    if let base = Self.base(of: name) {
      let group = name.dropFirst(base.name.count + 1).replacing("_", with: " ")
      self.init(name, "\(base.label), \(group)", base.unit, base.meaning)
    } else {
      self.init(name, name.replacing("_", with: " "), "", .description)
    }
  }

  /// The longest known metric that `name` continues with `_` and a group.
  private static func base(of name: String) -> MetricDescription? {
    known.filter { name.hasPrefix($0.name + "_") }.max { $0.name.count < $1.name.count }
  }

  private init(_ name: String, _ label: String, _ unit: String, _ meaning: Meaning) {
    self.name = name
    self.label = label
    self.unit = unit
    self.meaning = meaning
  }

  /// Metrics in the order in which reports show them (definitions: docs/STUDY.md).
  private static let known: [MetricDescription] = [
    MetricDescription("macro_f1", "macro-F1", "0 to 1", .skill),
    MetricDescription("accuracy", "accuracy", "share", .skill),
    MetricDescription("rms_tpr_gap", "RMS TPR gap", "share", .bias),
    MetricDescription("twin_log_odds_gap", "twin log-odds gap", "nats", .signedBias),
    MetricDescription("flip_rate", "counterfactual flip rate", "share", .bias),
    MetricDescription("tpr_gap", "TPR gap", "share", .signedBias),
    MetricDescription("equalized_odds_difference", "equalized-odds difference", "share", .bias),
    MetricDescription("fpr_gap", "FPR gap", "share", .bias),
    MetricDescription("fnr_gap", "FNR gap", "share", .bias),
    MetricDescription("fpr", "false positive rate", "share", .description),
    MetricDescription("fnr", "false negative rate", "share", .description),
    MetricDescription(
      "negative_share_culture_gap", "negative adjectives, culture gap", "share", .bias),
    MetricDescription("compound_culture_gap", "VADER compound, culture gap", "−1 to 1", .bias),
    MetricDescription("compound_gender_gap", "VADER compound, gender gap", "−1 to 1", .bias),
    MetricDescription("negative_share", "negative adjectives", "share", .description),
    MetricDescription("compound_mean", "VADER compound, mean", "−1 to 1", .description),
    MetricDescription("compound", "VADER compound", "−1 to 1", .description),
    MetricDescription("distinct_2", "distinct-2", "share", .description),
    MetricDescription("valid_rate", "valid texts", "share", .description),
    MetricDescription("stories", "stories", "count", .description),
    MetricDescription("items", "items", "count", .description),
    MetricDescription("auroc", "area under the ROC curve", "0 to 1", .skill),
    MetricDescription("similarity", "1 − JSD to real answers", "0 to 1", .skill),
    MetricDescription("similarity_gap", "1 − JSD, gap between cultures", "0 to 1", .bias),
    MetricDescription("s_amb", "BBQ bias, ambiguous", "−1 to 1", .signedBias),
    MetricDescription("s_dis", "BBQ bias, disambiguated", "−1 to 1", .signedBias),
    MetricDescription("stereotype_score", "stereotype preferred", "share", .signedBias),
    MetricDescription("icat", "idealised CAT score", "0 to 100", .skill),
    MetricDescription("log_gap", "log salary, men − women", "log units", .signedBias),
    MetricDescription("parse_rate", "written answers that can be read", "share", .skill),
    MetricDescription("rank_correlation", "rank correlation with pay", "−1 to 1", .skill),
    MetricDescription("gender_log_odds", "log-odds of a man", "nats", .signedBias),
    MetricDescription(
      "demographic_parity_genders", "demographic parity difference, genders", "share", .bias),
    MetricDescription("written_accuracy", "accuracy of written choices", "share", .skill),
    MetricDescription("written_selected", "chosen in writing", "share", .description),
    MetricDescription("impact_ratio", "impact ratio", "0 to 1", .description),
    MetricDescription("accuracy_gap", "accuracy, gap between groups", "share", .bias),
  ]

  private static let table = Dictionary(uniqueKeysWithValues: known.map { ($0.name, $0) })
  private static let rank = Dictionary(
    uniqueKeysWithValues: known.enumerated().map { ($0.element.name, $0.offset) })

  /// Describes a task's metrics in display order: those that lead, then the other known ones, then the
  /// rest by name.
  package static func ordered(
    _ names: some Sequence<String>, leading: [String]
  ) -> [MetricDescription] {
    func order(_ name: String) -> (Int, Int, String) {
      let place = rank[name] ?? base(of: name).flatMap { rank[$0.name] } ?? known.count
      return (leading.firstIndex(of: name) ?? leading.count, place, name)
    }
    return names.sorted { order($0) < order($1) }.map { MetricDescription(name: $0) }
  }

  /// How many of `metrics`, which are in display order, lead a task's report: those of `leading` that
  /// are there, otherwise the first.
  package static func headlineCount(of metrics: [MetricDescription], leading: [String]) -> Int {
    let present = metrics.count { leading.contains($0.name) }
    return present > 0 ? present : min(1, metrics.count)
  }
}
