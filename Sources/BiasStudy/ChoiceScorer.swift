import LanguageModel

/// Counts tokens for progress reports and asks whether to stop.
package struct Monitor {
  /// Called with the number of tokens processed since the last call.
  package let advance: (Int) -> Void
  package let shouldStop: () -> Bool

  package init(advance: @escaping (Int) -> Void, shouldStop: @escaping () -> Bool) {
    self.advance = advance
    self.shouldStop = shouldStop
  }
}

/// Scores the same choices as answers to many prompts.
package struct ChoiceScorer: Sendable {
  private let encoder: PromptEncoder
  private let choices: [[Int32]]
  private let contentFree: [[Int32]]

  /// - Parameter contentFree: the user texts whose mean score is taken off: the task's prompt with
  ///   inputs that say nothing.
  package init(choices: [String], contentFree: [String], encoder: PromptEncoder) {
    precondition(!contentFree.isEmpty, "no content-free prompt")
    self.encoder = encoder
    self.choices = choices.map { encoder.answer(Prompts.label($0)) }
    self.contentFree = contentFree.map(encoder.prompt)
  }

  /// Scores in the order of the prompts (tokens, as the encoder made them).
  package func scores(
    _ prompts: [[Int32]], model: AdaptedModel, monitor: Monitor
  ) throws -> [ChoiceScores] {
    let requests = (contentFree + prompts).map {
      AdaptedModel.ScoringRequest(prompt: $0, continuations: choices)
    }
    let scores = try model.score(
      requests, progress: monitor.advance, shouldStop: monitor.shouldStop)
    let references = scores.prefix(contentFree.count)
    let reference = choices.indices.map { choice in
      references.map { Self.perToken($0[choice]) }.reduce(0, +) / Double(references.count)
    }
    return scores.dropFirst(contentFree.count).map { choice in
      ChoiceScores(zip(choice.map(Self.perToken), reference).map { $0 - $1 })
    }
  }

  private static func perToken(_ score: AdaptedModel.Score) -> Double {
    score.logProbability / Double(score.tokenCount)
  }
}
