import BiasStudy
import Foundation
import Testing

/// Values by scikit-learn, Fairlearn and vaderSentiment (`Fixtures/make-golden.py`).
private struct Golden: Decodable {
  struct Case: Decodable {
    let gold: [Int]
    let predicted: [Int]
    let accuracy: Double
    let macro_f1: Double
  }
  struct Gap: Decodable {
    let first: [[Int]]
    let second: [[Int]]
    let rms_tpr_gap: Double
  }
  struct Groups: Decodable {
    let groups: [[[Int]]]
    let equalized_odds_difference: Double
  }
  struct Ranking: Decodable {
    let labels: [Int]
    let scores: [Double]
    let auroc: Double
  }
  struct Sentiment: Decodable {
    let text: String
    let compound: Double
  }
  let classification: [Case]
  let tpr_gaps: [Gap]
  let groups: [Groups]
  let rankings: [Ranking]
  let sentiment: [Sentiment]
  let lexicon: [String: Double]

  static func load() throws -> Golden {
    let file = URL(filePath: #filePath).deletingLastPathComponent()
      .appending(path: "Fixtures/golden.json")
    return try JSONDecoder().decode(Golden.self, from: Data(contentsOf: file))
  }
}

private func classified(_ pairs: [[Int]]) -> [Classified] {
  pairs.map { Classified(gold: $0[0], predicted: $0[1]) }
}

private func near(_ value: Double?, _ expected: Double) -> Bool {
  value.map { abs($0 - expected) < 1e-12 } ?? false
}

struct MetricTests {
  private let golden: Golden

  init() throws { golden = try Golden.load() }

  @Test func accuracyAndMacroF1AreScikitLearns() {
    for item in golden.classification {
      let items = zip(item.gold, item.predicted).map { Classified(gold: $0, predicted: $1) }
      #expect(near(ClassificationMetrics.accuracy(items), item.accuracy))
      #expect(near(ClassificationMetrics.macroF1(items), item.macro_f1))
    }
  }

  @Test func truePositiveRateGapIsFromScikitLearnsRecalls() {
    for gap in golden.tpr_gaps {
      let value = ClassificationMetrics.rootMeanSquareTPRGap(
        classified(gap.first), classified(gap.second))
      #expect(near(value, gap.rms_tpr_gap))
    }
  }

  @Test func equalizedOddsDifferenceIsFairlearns() {
    for item in golden.groups {
      let groups = item.groups.map(classified)
      #expect(
        near(ClassificationMetrics.equalizedOddsDifference(groups), item.equalized_odds_difference))
      let gaps = [
        ClassificationMetrics.gap(over: groups, gold: 0, predicted: 1),
        ClassificationMetrics.gap(over: groups, gold: 1, predicted: 0),
      ].compactMap { $0 }
      #expect(near(gaps.max(), item.equalized_odds_difference))
    }
  }

  @Test func areaUnderROCIsScikitLearns() {
    for ranking in golden.rankings {
      let value = ClassificationMetrics.areaUnderROC(
        zip(ranking.labels, ranking.scores).map { ($0 == 1, $1) })
      #expect(near(value, ranking.auroc))
    }
  }

  @Test func compoundSentimentIsVADERs() throws {
    let lines = golden.lexicon.sorted { $0.key < $1.key }.map { "\($0.key)\t\($0.value)\t0\t[]\n" }
    let lexicon = try SentimentLexicon(lexicon: Array(lines.joined().utf8), file: "lexicon")
    for item in golden.sentiment {
      // The package rounds to four places.
      #expect(abs(lexicon.compound(item.text) - item.compound) <= 0.00005001, "\(item.text)")
    }
  }

  @Test(.enabled(if: RealData.isPresent)) func fullLexiconGivesTheSameSentiment() throws {
    let lexicon = try SentimentLexicon(
      lexicon: RealData.store.read("vader", "vader_lexicon.txt"), file: "vader_lexicon.txt")
    for item in golden.sentiment {
      #expect(abs(lexicon.compound(item.text) - item.compound) <= 0.00005001, "\(item.text)")
    }
  }

  @Test func malformedLexiconIsNamedByLine() {
    let error = studyError { _ = try SentimentLexicon(lexicon: Array("a\t1\nb\n".utf8), file: "v") }
    #expect(
      error == .malformed(file: "v", line: 2, problem: "expected a token, a tab and its valence"))
  }

  @Test func equalScoresChooseTheFirst() {
    #expect(ChoiceScores([1, 2, 2]).best == 1)
    #expect(near(ChoiceScores([0, 0, 0]).logOdds(of: 1), -log(2)))
  }

  @Test func distinctPairsAreCountedWithinTexts() {
    #expect(near(TextMetrics.distinct2(["a b a b", "b c"]), 3.0 / 4))
    #expect(TextMetrics.distinct2(["alone"]) == nil)
  }
}
