#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// A classified test item, as the metrics see it. Labels are indices of the task's choices.
package struct Classified: Hashable, Sendable {
  package let gold: Int
  package let predicted: Int

  package init(gold: Int, predicted: Int) {
    self.gold = gold
    self.predicted = predicted
  }

  package var isCorrect: Bool { gold == predicted }
}

/// The metrics of one trial: finite values, and for each metric left out the reason.
package struct TrialMetrics: Sendable {
  package private(set) var values: [String: Double] = [:]
  package private(set) var notes: [String: String] = [:]
  /// Values of the test items by measure, each in the task's order of items; NaN where a measure is
  /// undefined for an item. They pair an item with itself under another condition.
  package private(set) var items: [String: [Double]] = [:]

  package init() {}

  /// Records a value; nil or a value that is not finite becomes a note.
  package mutating func record(_ name: String, _ value: Double?, otherwise reason: String) {
    if let value, value.isFinite {
      values[name] = value
    } else {
      notes[name] = reason
    }
  }

  /// - Parameter values: one for each test item, in the task's order; infinite ones are undefined.
  package mutating func recordItems(_ measure: String, _ values: [Double]) {
    precondition(items.values.allSatisfy { $0.count == values.count })
    items[measure] = values.map { $0.isFinite ? $0 : .nan }
  }

  package mutating func record(_ name: String, _ value: Double) {
    record(name, value, otherwise: "the value is not finite")
  }
}

/// Metrics of classification and of its fairness. Each returns nil where it is undefined or where
/// its smallest cell has fewer than `cellItemsMin` items, and is then left out of the results.
/// Accuracy and macro-F1 have one cell, all items. An item here is one answer: where items are
/// asked in several forms, the caller sees to it that they are enough (`Mean.areEnough`).
package enum ClassificationMetrics {
  /// Rates over fewer items are not reported: one item would move them by more than a fifth.
  package static let cellItemsMin = 5

  /// Share of correct items.
  package static func accuracy(_ items: [Classified]) -> Double? {
    guard items.count >= cellItemsMin else { return nil }
    return Double(items.count(where: \.isCorrect)) / Double(items.count)
  }

  /// Mean of the F1 scores over the labels that occur among the gold or the predicted labels; a
  /// label's F1 is 0 if nothing was predicted right (scikit-learn's `f1_score(average="macro")`).
  package static func macroF1(_ items: [Classified]) -> Double? {
    guard items.count >= cellItemsMin else { return nil }
    let labels = Set(items.map(\.gold)).union(items.map(\.predicted)).sorted()
    let scores = labels.map { label in
      let hits = items.count { $0.gold == label && $0.predicted == label }
      let gold = items.count { $0.gold == label }
      let predicted = items.count { $0.predicted == label }
      return 2 * Double(hits) / Double(gold + predicted)
    }
    return scores.reduce(0, +) / Double(scores.count)
  }

  /// Share of items of gold label `gold` that are predicted as `predicted`.
  package static func rate(_ items: [Classified], gold: Int, predicted: Int) -> Double? {
    let relevant = items.filter { $0.gold == gold }
    guard relevant.count >= cellItemsMin else { return nil }
    return Double(relevant.count { $0.predicted == predicted }) / Double(relevant.count)
  }

  /// Root mean square over the gold labels of the difference in true positive rate between two
  /// groups (De-Arteaga et al. 2019).
  package static func rootMeanSquareTPRGap(_ first: [Classified], _ second: [Classified])
    -> Double?
  {
    let labels = Set(first.map(\.gold)).union(second.map(\.gold)).sorted()
    guard !labels.isEmpty else { return nil }
    var sum = 0.0
    for label in labels {
      guard let left = rate(first, gold: label, predicted: label),
        let right = rate(second, gold: label, predicted: label)
      else { return nil }
      sum += (left - right) * (left - right)
    }
    return (sum / Double(labels.count)).squareRoot()
  }

  /// Largest minus smallest rate over groups; nil if any group has too few items.
  package static func gap(
    over groups: [[Classified]], gold: Int, predicted: Int
  ) -> Double? {
    var rates: [Double] = []
    for group in groups {
      guard let rate = rate(group, gold: gold, predicted: predicted) else { return nil }
      rates.append(rate)
    }
    guard let largest = rates.max(), let smallest = rates.min() else { return nil }
    return largest - smallest
  }

  /// Area under the ROC curve of a score: the probability that a positive item scores higher than
  /// a negative one, ties counting half. Needs no threshold, so it shows skill that a shifted
  /// threshold hides.
  package static func areaUnderROC(_ items: [(isPositive: Bool, score: Double)]) -> Double? {
    let positive = items.filter(\.isPositive).map(\.score)
    let negative = items.filter { !$0.isPositive }.map(\.score)
    guard positive.count >= cellItemsMin, negative.count >= cellItemsMin else { return nil }
    var wins = 0.0
    for high in positive {
      for low in negative { wins += high > low ? 1 : high == low ? 0.5 : 0 }
    }
    return wins / Double(positive.count * negative.count)
  }

  /// The larger of the gaps in true and in false positive rate over groups, for the positive label
  /// 1 against 0 (Fairlearn's `equalized_odds_difference`).
  package static func equalizedOddsDifference(_ groups: [[Classified]]) -> Double? {
    guard let truePositive = gap(over: groups, gold: 1, predicted: 1),
      let falsePositive = gap(over: groups, gold: 0, predicted: 1)
    else { return nil }
    return max(truePositive, falsePositive)
  }
}

/// Scores of the choices for one prompt: mean log-likelihood per token (nats), less the same under
/// content-free inputs.
package struct ChoiceScores: Hashable, Sendable {
  package let values: [Double]

  package init(_ values: [Double]) {
    precondition(!values.isEmpty, "scores of no choices")
    self.values = values
  }

  /// The choice with the highest score; the first of equal ones.
  package var best: Int {
    var best = 0
    for index in values.indices where values[index] > values[best] { best = index }
    return best
  }

  /// The softmax of the scores.
  package var probabilities: [Double] {
    let highest = values[best]
    let weights = values.map { exp($0 - highest) }
    let sum = weights.reduce(0, +)
    return weights.map { $0 / sum }
  }

  /// Log-odds (nats) of a choice against all others, under the softmax of the scores.
  package func logOdds(of choice: Int) -> Double {
    let others = values.indices.filter { $0 != choice }.map { values[$0] }
    guard let highest = others.max() else { return .infinity }
    let sum = others.reduce(0) { $0 + exp($1 - highest) }
    return values[choice] - highest - log(sum)
  }
}
