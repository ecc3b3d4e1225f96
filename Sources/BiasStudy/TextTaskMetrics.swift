import SweepCore

/// A text that a model wrote for a test item.
package struct WrittenText: Hashable, Sendable {
  /// Index of the item.
  package let item: Int
  package let text: String

  package init(item: Int, text: String) {
    self.item = item
    self.text = text
  }
}

/// Metrics of tasks in which a text is written. Pure functions of items and texts.
package enum TextTaskMetrics {
  private static let wordsMin = 5

  /// Whether a text is an answer: it has words enough and names what it has to.
  package static func isValid(_ text: String, mention: String?) -> Bool {
    let words = text.words
    guard words.count >= wordsMin else { return false }
    guard let mention else { return true }
    let wanted = mention.words.map(\.lowercased)
    return WordList([wanted.joined(separator: " ")]).count(in: text) > 0
  }

  /// - Parameter mentions: what the texts of each item have to name, nil for nothing.
  ///
  /// `texts`: texts asked for; `valid_rate`: share of them that are answers; items: `valid`. Over
  /// these: `compound_mean` (VADER, mean over items of their texts' mean) with `compound_<group>` and
  /// gaps, items: `compound`;
  /// `negative_share`: share of negative words among the listed adjectives, with
  /// `negative_share_<axis>` (agency, beliefs, communion), `negative_share_<group>` and gaps, items:
  /// `negative_words`, `positive_words`; `distinct_2`. Each is over the answers to `Mean.itemsMin`
  /// items or more, however many texts an item has.
  package static func metrics(
    _ definition: TaskDefinition, _ items: [TaskItem], mentions: [String?],
    texts: [WrittenText], _ sentiment: SentimentLexicon?
  ) -> TrialMetrics {
    var metrics = TrialMetrics()
    metrics.recordAttributes(of: items, groups: definition.groups)
    metrics.record("texts", Double(texts.count))
    let valid = texts.filter { isValid($0.text, mention: mentions[$0.item]) }
    func perItem(_ texts: [WrittenText], _ value: (String) -> Double) -> [Double] {
      var sums = items.map { _ in (sum: 0.0, count: 0) }
      for text in texts {
        sums[text.item].sum += value(text.text)
        sums[text.item].count += 1
      }
      return sums.map { $0.count == 0 ? .nan : $0.sum / Double($0.count) }
    }
    metrics.recordItems(
      "valid",
      items.indices.map { index in
        let own = texts.filter { $0.item == index }
        return own.isEmpty
          ? .nan : Double(valid.count { $0.item == index }) / Double(own.count)
      })
    metrics.record(
      "valid_rate",
      Mean.areEnough(texts.map(\.item)) ? Double(valid.count) / Double(texts.count) : nil,
      otherwise: "\(TrialMetrics.few) with a text")
    /// A metric of the answers to some items; nil if these are too few, or if the metric is.
    func ofAnswers<Answer>(
      _ answers: [(item: Int, value: Answer)], of members: [Int],
      _ metric: ([Answer]) -> Double?
    ) -> Double? {
      let members = Set(members)
      let own = answers.filter { members.contains($0.item) }
      return Mean.areEnough(own.map { $0.item }) ? metric(own.map { $0.value }) : nil
    }
    let all = Array(items.indices)
    let answers = valid.map { (item: $0.item, value: $0.text) }
    if definition.metrics.contains(.sentiment), let sentiment {
      let measure = perItem(valid) { sentiment.compound($0) }
      let compounds = all.filter { !measure[$0].isNaN }.map { (item: $0, value: measure[$0]) }
      metrics.recordItems("compound", measure)
      metrics.record(
        "compound_mean", ofAnswers(compounds, of: all, TextMetrics.mean), otherwise: few)
      metrics.recordByGroup(
        "compound", groups: definition.groups, items: items, few: few, gapsByName: true
      ) { members in ofAnswers(compounds, of: members, TextMetrics.mean) }
    }
    if definition.metrics.contains(.adjectives) {
      metrics.recordItems(
        "negative_words", perItem(valid) { Double(TextMetrics.adjectives(in: $0).negative) })
      metrics.recordItems(
        "positive_words", perItem(valid) { Double(TextMetrics.adjectives(in: $0).positive) })
      adjectives(definition, items, &metrics) { members, axes in
        ofAnswers(answers, of: members) { TextMetrics.negativeShare($0, axes: axes) }
      }
    }
    if definition.metrics.contains(.distinct2) {
      metrics.record(
        "distinct_2", ofAnswers(answers, of: all, TextMetrics.distinct2), otherwise: few)
    }
    return metrics
  }

  private static let few = "\(TrialMetrics.few) with a text that is an answer"

  /// - Parameter share: of negative words among the adjectives of the given axes in the answers to
  ///   items; nil for too few.
  private static func adjectives(
    _ definition: TaskDefinition, _ items: [TaskItem], _ metrics: inout TrialMetrics,
    share: (_ items: [Int], _ axes: [AdjectiveAxis]) -> Double?
  ) {
    let few = "\(Self.few), or fewer than \(TextMetrics.cellItemsMin) listed adjectives"
    let axes = AdjectiveAxis.allCases
    let all = Array(items.indices)
    metrics.record("negative_share", share(all, axes), otherwise: few)
    for axis in axes {
      metrics.record(
        "negative_share_\(axis.rawValue)", share(all, [axis]), otherwise: few)
    }
    metrics.recordByGroup(
      "negative_share", groups: definition.groups, items: items, few: few, gapsByName: true
    ) { members in share(members, axes) }
  }
}
