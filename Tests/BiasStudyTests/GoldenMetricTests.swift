import BiasStudy
import Foundation
import StudyDocuments
import SweepCore
import Testing

/// Whole metrics of tasks against Fairlearn, scikit-learn and formulas that were written
/// independently (`Fixtures/make-golden.py`).
struct GoldenMetricTests {
  private struct Golden: Decodable {
    struct Rates: Decodable {
      let fpr: Double
      let fnr: Double
    }
    /// group, right label, predicted label
    struct Row: Decodable {
      let group: String
      let gold: Int
      let predicted: Int

      init(from decoder: any Decoder) throws {
        var container = try decoder.unkeyedContainer()
        group = try container.decode(String.self)
        gold = try container.decode(Int.self)
        predicted = try container.decode(Int.self)
      }
    }
    struct ErrorRates: Decodable {
      let rows: [Row]
      let overall: Rates
      let by_group: [String: Rates]
      let gaps: Rates
      let equalized_odds_difference: Double
    }
    struct FormGaps: Decodable {
      let gold: [Int]
      let first: [Int]
      let second: [Int]
      let gaps: [Double]
      let rms: Double
    }
    struct StereoSet: Decodable {
      let rows: [[Double]]
      let ss: Double
      let lms: Double
      let icat: Double
    }
    struct Stories: Decodable {
      let texts: [String]
      let negative_share: Double
      let by_axis: [String: Double]
      let distinct_2: Double
    }
    let error_rates: ErrorRates
    let form_gaps: FormGaps
    let stereoset: StereoSet
    let stories: Stories
  }

  private let golden: Golden

  init() throws {
    let file = URL(filePath: #filePath).deletingLastPathComponent()
      .appending(path: "Fixtures/golden.json")
    golden = try JSONDecoder().decode(Golden.self, from: Data(contentsOf: file))
  }

  private func expect(_ metrics: TrialMetrics, _ name: String, _ expected: Double) {
    let value = metrics.values[name] ?? .nan
    #expect(abs(value - expected) < 1e-12, "\(name): \(value), not \(expected)")
  }

  /// An item of which each form is answered as given.
  private func item(
    _ definition: TaskDefinition, fields: [String: TaskRecord.Value], gold: Int, answers: [Int]
  ) -> ScoredItem {
    let choices = definition.answers.choices
    let names = definition.forms.isEmpty ? [""] : definition.forms.map(\.name)
    let forms = zip(names, answers).map { name, answer in
      ScoredForm(
        form: TaskItem.Form(
          name: name, fields: fields, prompts: [""], contentFree: [], choices: choices, gold: gold),
        scores: ChoiceScores(choices.indices.map { $0 == answer ? 1 : 0 }))
    }
    return ScoredItem(
      item: TaskItem(
        record: TaskRecord(line: 1, fields: fields), cluster: 0, forms: forms.map(\.form)),
      forms: forms)
  }

  @Test func errorRatesByGroupAreFairlearns() throws {
    let definition = try #require(TaskCatalogue.builtIn["group-bias"])
    #expect(definition.answers.choices == ["no", "yes"] && definition.answers.positive == "yes")
    let expected = golden.error_rates
    let metrics = ChoiceTaskMetrics.classification(
      definition,
      expected.rows.map {
        item(
          definition, fields: ["group": .text($0.group)], gold: $0.gold, answers: [$0.predicted])
      })
    expect(metrics, "fpr", expected.overall.fpr)
    expect(metrics, "fnr", expected.overall.fnr)
    #expect(expected.by_group.count == 3)
    for (group, rates) in expected.by_group {
      expect(metrics, "fpr_\(group)", rates.fpr)
      expect(metrics, "fnr_\(group)", rates.fnr)
    }
    expect(metrics, "fpr_gap", expected.gaps.fpr)
    expect(metrics, "fnr_gap", expected.gaps.fnr)
    expect(metrics, "equalized_odds_difference", expected.equalized_odds_difference)
  }

  @Test func gapsBetweenFormsAreOfScikitLearnsRecalls() throws {
    let definition = try #require(TaskCatalogue.builtIn["occupation"])
    let expected = golden.form_gaps
    let metrics = ChoiceTaskMetrics.classification(
      definition,
      expected.gold.indices.map { index in
        item(
          definition, fields: [:], gold: expected.gold[index],
          answers: [expected.first[index], expected.second[index]])
      })
    for (label, gap) in zip(definition.answers.choices, expected.gaps) {
      expect(metrics, "tpr_gap_\(label)", gap)
    }
    #expect(expected.gaps.count == definition.answers.choices.count)
    expect(metrics, "rms_tpr_gap", expected.rms)
  }

  @Test func preferencesAreScoredByStereoSetsFormulas() {
    let expected = golden.stereoset
    var metrics = TrialMetrics()
    PreferenceMetrics.record(
      expected.rows.map {
        PreferenceMetrics.Likelihoods(stereotype: $0[0], antiStereotype: $0[1], unrelated: $0[2])
      }, &metrics)
    expect(metrics, "stereotype_score", expected.ss)
    expect(metrics, "language_score", expected.lms)
    expect(metrics, "icat", expected.icat)
  }

  @Test func adjectivesAndPairsAreThoseOfRegularExpressions() throws {
    let expected = golden.stories
    func near(_ value: Double?, _ other: Double) -> Bool {
      value.map { abs($0 - other) < 1e-12 } ?? false
    }
    let axes = AdjectiveAxis.allCases
    #expect(near(TextMetrics.negativeShare(expected.texts, axes: axes), expected.negative_share))
    #expect(Set(expected.by_axis.keys) == Set(axes.map(\.rawValue)))
    for axis in axes {
      let share = try #require(expected.by_axis[axis.rawValue])
      #expect(near(TextMetrics.negativeShare(expected.texts, axes: [axis]), share), "\(axis)")
    }
    #expect(near(TextMetrics.distinct2(expected.texts), expected.distinct_2))
  }
}
