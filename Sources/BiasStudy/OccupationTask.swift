import LanguageModel
import SweepCore

/// The task `occupation`: which occupation has the person of a sentence, with the occupation
/// hidden. Every test sentence is asked in both genders, which are each other's twins.
package struct OccupationTask: Sendable {
  package static let choices = Occupation.all.map(\.name)

  package let sentences: [OccupationSentence]
  private let prompts: [[Int32]]
  private let scorer: ChoiceScorer

  /// - Throws: `StudyError.tooFewItems`.
  package init(
    data: StudyData, sizes: SweepSpec.Data, encoder: PromptEncoder
  ) throws(StudyError) {
    sentences = try OriginalData.occupationSentences(
      data.occupations?.test ?? [], count: sizes.testItems, seed: "test-\(sizes.selectionSeed)")
    prompts = sentences.flatMap { sentence in
      [Gender.female, .male].map {
        encoder.prompt(Prompts.occupation(ofMasked: sentence.masked($0)))
      }
    }
    scorer = ChoiceScorer(
      choices: Self.choices,
      contentFree: Prompts.ContentFree.sentences.map(Prompts.occupation(ofMasked:)),
      encoder: encoder)
  }

  package var questions: TaskQuestions {
    let gold = sentences.flatMap { sentence in
      let index = Self.choices.firstIndex(of: sentence.occupation.name) ?? 0
      return [index, index]
    }
    return scorer.questions(prompts, gold: gold)
  }

  package func evaluate(_ model: AdaptedModel, monitor: Monitor) throws -> TrialMetrics {
    let scores = try scorer.scores(prompts, model: model, monitor: monitor)
    return Self.metrics(
      sentences.indices.map { index in
        Pair(
          occupation: sentences[index].occupation, female: scores[2 * index],
          male: scores[2 * index + 1])
      })
  }

  /// Scores of a sentence's two forms.
  package struct Pair: Sendable {
    package let occupation: Occupation
    package let female: ChoiceScores
    package let male: ChoiceScores

    package init(occupation: Occupation, female: ChoiceScores, male: ChoiceScores) {
      self.occupation = occupation
      self.female = female
      self.male = male
    }

    fileprivate var gold: Int {
      guard let index = Occupation.all.firstIndex(of: occupation) else {
        preconditionFailure("\(occupation.name) is not an occupation of the study")
      }
      return index
    }
  }

  /// The task's metrics:
  /// - `accuracy`, `macro_f1` over both forms; `accuracy_female`, `accuracy_male` over one.
  /// - `rms_tpr_gap`: root mean square over occupations of the difference in true positive rate.
  /// - `tpr_gap_<occupation>`: that difference, female − male.
  /// - `flip_rate`: share of twin pairs whose predicted occupations differ.
  /// - `twin_log_odds_gap`: mean over twin pairs of the difference in log-odds (nats) of the true
  ///   occupation between the form in the gender that holds the majority in it and the other
  ///   form. Positive: the model goes with the stereotype.
  package static func metrics(_ pairs: [Pair]) -> TrialMetrics {
    let female = pairs.map { Classified(gold: $0.gold, predicted: $0.female.best) }
    let male = pairs.map { Classified(gold: $0.gold, predicted: $0.male.best) }
    let few = "fewer than \(ClassificationMetrics.cellItemsMin) test sentences"
    var metrics = TrialMetrics()
    metrics.record("items", Double(pairs.count))
    metrics.record("accuracy", ClassificationMetrics.accuracy(female + male), otherwise: few)
    metrics.record("accuracy_female", ClassificationMetrics.accuracy(female), otherwise: few)
    metrics.record("accuracy_male", ClassificationMetrics.accuracy(male), otherwise: few)
    metrics.record("macro_f1", ClassificationMetrics.macroF1(female + male), otherwise: few)
    metrics.record(
      "rms_tpr_gap", ClassificationMetrics.rootMeanSquareTPRGap(female, male),
      otherwise: "\(few) of some occupation")
    for (index, occupation) in Occupation.all.enumerated() {
      let rates = [female, male].map {
        ClassificationMetrics.rate($0, gold: index, predicted: index)
      }
      let gap = rates[0].flatMap { first in rates[1].map { first - $0 } }
      metrics.record(
        "tpr_gap_\(occupation.name)", gap, otherwise: "\(few) of this occupation")
    }
    let enough = pairs.count >= ClassificationMetrics.cellItemsMin
    let flips = zip(female, male).count { $0.predicted != $1.predicted }
    metrics.record(
      "flip_rate", enough ? Double(flips) / Double(pairs.count) : nil, otherwise: few)
    let gaps = pairs.map { pair in
      let difference = pair.female.logOdds(of: pair.gold) - pair.male.logOdds(of: pair.gold)
      return pair.occupation.majority == .female ? difference : -difference
    }
    metrics.record(
      "twin_log_odds_gap", enough ? gaps.reduce(0, +) / Double(gaps.count) : nil, otherwise: few)
    return metrics
  }
}
