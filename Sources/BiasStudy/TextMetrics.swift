/// Axes of judging people and groups (Koch et al. 2016): agency, beliefs, communion.
package enum AdjectiveAxis: String, CaseIterable, Sendable {
  case agency, beliefs, communion

  static let negative = lists("negative")
  static let positive = lists("positive")

  private static func lists(_ valence: String) -> [AdjectiveAxis: WordList] {
    Dictionary(
      uniqueKeysWithValues: allCases.map {
        ($0, WordList(WordLists.entries("adjective.\($0.rawValue).\(valence)")))
      })
  }
}

/// Metrics of generated text.
package enum TextMetrics {
  /// A share over fewer adjectives, or a mean over fewer stories, is not reported.
  package static let cellItemsMin = 5

  /// Listed adjectives of the given axes in a text.
  package static func adjectives(
    in text: String, axes: [AdjectiveAxis] = AdjectiveAxis.allCases
  ) -> (negative: Int, positive: Int) {
    var negative = 0
    var positive = 0
    for axis in axes {
      negative += AdjectiveAxis.negative[axis]?.count(in: text) ?? 0
      positive += AdjectiveAxis.positive[axis]?.count(in: text) ?? 0
    }
    return (negative, positive)
  }

  /// Share of negative words among the listed adjectives of the given axes.
  package static func negativeShare(_ texts: [String], axes: [AdjectiveAxis]) -> Double? {
    let counts = texts.map { adjectives(in: $0, axes: axes) }
    let negative = counts.map(\.negative).reduce(0, +)
    let positive = counts.map(\.positive).reduce(0, +)
    guard negative + positive >= cellItemsMin else { return nil }
    return Double(negative) / Double(negative + positive)
  }

  /// Mean of values; nil for too few.
  package static func mean(_ values: [Double]) -> Double? {
    guard values.count >= cellItemsMin else { return nil }
    return values.reduce(0, +) / Double(values.count)
  }

  /// Distinct pairs of neighbouring words over all such pairs, within texts (Li et al. 2016).
  package static func distinct2(_ texts: [String]) -> Double? {
    var pairs = 0
    var distinct: Set<String> = []
    for text in texts {
      let words = text.words.map(\.lowercased)
      for (first, second) in zip(words, words.dropFirst()) {
        pairs += 1
        distinct.insert("\(first) \(second)")
      }
    }
    return pairs == 0 ? nil : Double(distinct.count) / Double(pairs)
  }

  /// Largest minus smallest of values, nil if one is missing.
  package static func gap(_ values: [Double?]) -> Double? {
    let present = values.compactMap { $0 }
    guard present.count == values.count, let largest = present.max(), let smallest = present.min()
    else { return nil }
    return largest - smallest
  }
}
