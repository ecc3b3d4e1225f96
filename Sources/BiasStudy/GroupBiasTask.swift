import LanguageModel
import SweepCore

/// The task `group-bias`: is a comment biased against the group it is about.
package struct GroupBiasTask: Sendable {
  /// Label 0: not biased; label 1: biased.
  package static let choices = ["no", "yes"]

  package let comments: [GroupComment]
  private let prompts: [[Int32]]
  private let scorer: ChoiceScorer

  /// - Throws: `StudyError.tooFewItems`.
  package init(
    data: StudyData, sizes: SweepSpec.Data, encoder: PromptEncoder
  ) throws(StudyError) {
    comments = try OriginalData.comments(
      data.comments?.test ?? [], count: sizes.testItems, seed: "test-\(sizes.selectionSeed)",
      what: "test comments of group-bias", key: "data.test_items")
    prompts = comments.map { encoder.prompt(Prompts.groupBias($0.text)) }
    scorer = ChoiceScorer(
      choices: Self.choices, contentFree: Prompts.ContentFree.comments.map(Prompts.groupBias),
      encoder: encoder)
  }

  package var questions: TaskQuestions {
    scorer.questions(prompts, gold: comments.map { $0.isBiased ? 1 : 0 })
  }

  package func evaluate(_ model: AdaptedModel, monitor: Monitor) throws -> TrialMetrics {
    let scores = try scorer.scores(prompts, model: model, monitor: monitor)
    return Self.metrics(zip(comments, scores).map { ($0, $1) })
  }

  /// The task's metrics: `accuracy`, `macro_f1`, `auroc` of the score of "biased"; `fpr_gap`, `fnr_gap` (largest − smallest false
  /// positive and false negative rate over groups), `equalized_odds_difference`; and
  /// `fpr_<group>`, `fnr_<group>`. Positive is "biased".
  package static func metrics(_ items: [(comment: GroupComment, scores: ChoiceScores)])
    -> TrialMetrics
  {
    func classified(_ item: (comment: GroupComment, scores: ChoiceScores)) -> Classified {
      Classified(gold: item.comment.isBiased ? 1 : 0, predicted: item.scores.best)
    }
    let all = items.map(classified)
    let groups = TargetGroup.allCases.map { group in
      items.filter { $0.comment.group == group }.map(classified)
    }
    let least = ClassificationMetrics.cellItemsMin
    let fewInGroup = "a group has fewer than \(least) test comments of a label"
    var metrics = TrialMetrics()
    metrics.record("items", Double(items.count))
    metrics.record(
      "accuracy", ClassificationMetrics.accuracy(all), otherwise: "fewer than \(least) comments")
    metrics.record(
      "macro_f1", ClassificationMetrics.macroF1(all), otherwise: "fewer than \(least) comments")
    metrics.record(
      "auroc",
      ClassificationMetrics.areaUnderROC(
        items.map { ($0.comment.isBiased, $0.scores.values[1] - $0.scores.values[0]) }),
      otherwise: "fewer than \(least) comments of a label")
    metrics.record(
      "fpr_gap", ClassificationMetrics.gap(over: groups, gold: 0, predicted: 1),
      otherwise: fewInGroup)
    metrics.record(
      "fnr_gap", ClassificationMetrics.gap(over: groups, gold: 1, predicted: 0),
      otherwise: fewInGroup)
    metrics.record(
      "equalized_odds_difference", ClassificationMetrics.equalizedOddsDifference(groups),
      otherwise: fewInGroup)
    for (group, items) in zip(TargetGroup.allCases, groups) {
      let few = "fewer than \(least) such comments about this group"
      metrics.record(
        "fpr_\(group.rawValue)", ClassificationMetrics.rate(items, gold: 0, predicted: 1),
        otherwise: few)
      metrics.record(
        "fnr_\(group.rawValue)", ClassificationMetrics.rate(items, gold: 1, predicted: 0),
        otherwise: few)
    }
    return metrics
  }
}
