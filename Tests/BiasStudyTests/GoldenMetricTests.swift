import BiasStudy
import Foundation
import StudyDocuments
import SweepCore
import Testing

/// Whole metrics of tasks against Fairlearn, scikit-learn, SciPy, vaderSentiment and formulas that
/// were written independently (`Fixtures/make-golden.py`).
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
      let log_odds: Double
    }
    struct Stories: Decodable {
      let texts: [String]
      let negative_share: Double
      let by_axis: [String: Double]
      let distinct_2: Double
    }
    /// Scores of the choices in each of an item's forms.
    struct Twins: Decodable {
      struct Row: Decodable {
        let gold: Int
        let favoured: String
        let female: [Double]
        let male: [Double]
      }
      let rows: [Row]
      let flip_rate: Double
      let log_odds_gap: Double
    }
    struct GroupAccuracy: Decodable {
      let rows: [Row]
      let overall: Double
      let by_group: [String: Double]
      let gap: Double
      let difference: Double
    }
    struct Salaries: Decodable {
      struct Row: Decodable {
        let truth: Double
        let female: [Double]
        let male: [Double]
      }
      /// What was read out of a written answer.
      struct Sample: Decodable {
        let item: Int
        let form: Int
        let amount: Double?
      }
      let rows: [Row]
      let means: [String: Double]
      let gap_percent: Double
      let log_gap: Double
      let rank_correlation: Double
      let accuracy: Double
      let samples: [Sample]
      let parse_rate: Double
      let written_means: [Double]
      let written_gap_percent: Double
    }
    struct PreferredGender: Decodable {
      struct Row: Decodable {
        let genders: [String]
        let scores: [Double]
        let gold: Int?
      }
      let rows: [Row]
      let log_odds: Double
      let accuracy: Double
    }
    struct Surveys: Decodable {
      struct Row: Decodable {
        let culture: String
        let scores: [Double]
        let shares: [Double]
      }
      let rows: [Row]
      let similarity: Double
      let by_group: [String: Double]
      let gap: Double
      let entropy: Double
      let accuracy: Double
    }
    struct GroupSentiment: Decodable {
      struct Person: Decodable {
        let name: String
        let culture: String
        let gender: String
      }
      struct Text: Decodable {
        let item: Int
        let text: String
      }
      let items: [Person]
      let texts: [Text]
      let valid_rate: Double
      let mean: Double
      let by_group: [String: Double]
      let gaps: [String: Double]
    }
    let error_rates: ErrorRates
    let form_gaps: FormGaps
    let stereoset: StereoSet
    let stories: Stories
    let twins: [String: Twins]
    let group_accuracy: GroupAccuracy
    let salaries: Salaries
    let preferred_gender: PreferredGender
    let surveys: Surveys
    let group_sentiment: GroupSentiment
    let lexicon: [String: Double]
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
    let scores = answers.map { answer -> [Double] in
      choices.indices.map { $0 == answer ? 1 : 0 }
    }
    return item(definition, fields: fields, gold: gold, choices: choices, scores: scores)
  }

  /// An item of which the choices of each form have the scores given.
  private func item(
    _ definition: TaskDefinition, fields: [String: TaskRecord.Value], gold: Int?,
    choices: [String], scores: [[Double]]
  ) -> ScoredItem {
    let names = definition.forms.isEmpty ? [""] : definition.forms.map(\.name)
    let forms = zip(names, scores).map { name, own in
      ScoredForm(
        form: TaskItem.Form(
          name: name, fields: fields, prompts: [""], contentFree: [], choices: choices, gold: gold),
        scores: ChoiceScores(own))
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

  /// In one task by the right answer and the form that its stereotype favours, in the other by the
  /// positive answer.
  @Test(arguments: ["occupation", "sarcasm"])
  func twinsDifferAsScikitLearnAndSciPySay(id: String) throws {
    let definition = try #require(TaskCatalogue.builtIn[id])
    let favoured: String? = id == "occupation" ? "majority" : nil
    #expect(definition.favoured == favoured)
    #expect(definition.forms.map(\.name) == ["female", "male"])
    let choices = definition.answers.choices
    let expected = try #require(golden.twins[id])
    let metrics = ChoiceTaskMetrics.classification(
      definition,
      expected.rows.map { row in
        item(
          definition, fields: ["majority": .text(row.favoured)], gold: row.gold, choices: choices,
          scores: [row.female, row.male])
      })
    expect(metrics, "flip_rate", expected.flip_rate)
    expect(metrics, "twin_log_odds_gap", expected.log_odds_gap)
  }

  @Test func accuracyByGroupIsFairlearns() throws {
    let definition = try #require(TaskCatalogue.builtIn["stance"])
    #expect(definition.groups == ["gender"])
    let expected = golden.group_accuracy
    let metrics = ChoiceTaskMetrics.classification(
      definition,
      expected.rows.map {
        item(
          definition, fields: ["gender": .text($0.group)], gold: $0.gold, answers: [$0.predicted])
      })
    expect(metrics, "accuracy", expected.overall)
    #expect(Set(expected.by_group.keys) == ["female", "male"])
    for (group, accuracy) in expected.by_group {
      expect(metrics, "accuracy_\(group)", accuracy)
    }
    expect(metrics, "accuracy_gap", expected.gap)
    expect(metrics, "accuracy_difference", expected.difference)
  }

  @Test func salariesAreMeansOfSciPysDistributions() throws {
    let definition = try #require(TaskCatalogue.builtIn["salary"])
    #expect(definition.forms.map(\.name) == ["female", "male"])
    let choices = definition.answers.choices
    let numbers = NumberChoices(choices)
    #expect(numbers.values == [30.0, 40, 50, 60, 75, 95, 120])
    let expected = golden.salaries
    let metrics = AmountMetrics.metrics(
      definition,
      expected.rows.map { row in
        item(
          definition, fields: ["thousands": .text(row.truth.description)],
          gold: numbers.nearest(to: row.truth), choices: choices, scores: [row.female, row.male])
      },
      samples: expected.samples.map { (item: $0.item, form: $0.form, amount: $0.amount) })
    #expect(Set(expected.means.keys) == ["female", "male"])
    for (form, mean) in expected.means { expect(metrics, "mean_\(form)", mean) }
    expect(metrics, "gap_percent", expected.gap_percent)
    expect(metrics, "log_gap", expected.log_gap)
    expect(metrics, "rank_correlation", expected.rank_correlation)
    expect(metrics, "accuracy", expected.accuracy)
    expect(metrics, "parse_rate", expected.parse_rate)
    expect(metrics, "written_mean_female", expected.written_means[0])
    expect(metrics, "written_mean_male", expected.written_means[1])
    expect(metrics, "written_gap_percent", expected.written_gap_percent)
  }

  @Test func preferenceForAGenderIsSciPysLogit() throws {
    let definition = try #require(TaskCatalogue.builtIn["hiring"])
    let expected = golden.preferred_gender
    let metrics = SelectionMetrics.metrics(
      definition,
      expected.rows.map { row in
        item(
          definition, fields: ["genders": .list(row.genders)], gold: row.gold,
          choices: ["p", "q", "r", "s"], scores: [row.scores])
      })
    expect(metrics, "gender_log_odds", expected.log_odds)
    expect(metrics, "accuracy", expected.accuracy)
  }

  @Test func surveysAreComparedAsSciPyDoes() throws {
    let definition = try #require(TaskCatalogue.builtIn["value-survey"])
    #expect(definition.groups == ["culture"] && definition.answers.shares == "shares")
    let expected = golden.surveys
    let metrics = ChoiceTaskMetrics.survey(
      definition,
      expected.rows.map { row in
        item(
          definition,
          fields: [
            "culture": .text(row.culture), "shares": .list(row.shares.map(\.description)),
          ],
          gold: nil, choices: ["p", "q", "r", "s"], scores: [row.scores])
      })
    expect(metrics, "similarity", expected.similarity)
    #expect(expected.by_group.count == 3)
    for (culture, similarity) in expected.by_group {
      expect(metrics, "similarity_\(culture)", similarity)
    }
    expect(metrics, "similarity_gap", expected.gap)
    expect(metrics, "entropy", expected.entropy)
    expect(metrics, "accuracy", expected.accuracy)
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
    expect(metrics, "stereotype_log_odds", expected.log_odds)
  }

  /// Means of groups over the texts that are answers, of which a person may have several or none.
  @Test func sentimentOfGroupsIsVADERs() throws {
    let definition = try #require(TaskCatalogue.builtIn["story"])
    #expect(definition.groups == ["culture", "gender"])
    let expected = golden.group_sentiment
    let lines = golden.lexicon.sorted { $0.key < $1.key }.map { "\($0.key)\t\($0.value)\t0\t[]\n" }
    let lexicon = try SentimentLexicon(lexicon: Array(lines.joined().utf8), file: "lexicon")
    let items = expected.items.enumerated().map { index, person in
      TaskItem(
        record: TaskRecord(
          line: index + 1,
          fields: ["culture": .text(person.culture), "gender": .text(person.gender)]),
        cluster: index, forms: [])
    }
    let names = expected.items.map(\.name)
    let metrics = TextTaskMetrics.metrics(
      definition, items, mentions: names,
      texts: expected.texts.map { WrittenText(item: $0.item, text: $0.text) }, lexicon)
    expect(metrics, "valid_rate", expected.valid_rate)
    expect(metrics, "compound_mean", expected.mean)
    #expect(expected.by_group.count == 6 && expected.gaps.count == 2)
    for (group, mean) in expected.by_group { expect(metrics, "compound_\(group)", mean) }
    for (field, gap) in expected.gaps { expect(metrics, "compound_\(field)_gap", gap) }
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
