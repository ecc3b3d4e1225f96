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

/// What a task asks a model, in tokens.
package enum TaskQuestions: Hashable, Sendable {
  /// The probabilities of the same answers to each prompt; `gold` is the index of the right one,
  /// nil for a prompt that only calibrates.
  case choices(prompts: [[Int32]], answers: [[Int32]], gold: [Int?])
  /// A text for each prompt, `samples` times.
  case texts(prompts: [[Int32]], samples: Int, options: AdaptedModel.SamplingOptions)
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

  /// All that `scores` asks a model, given the right answers to `prompts`.
  package func questions(_ prompts: [[Int32]], gold: [Int]) -> TaskQuestions {
    .choices(
      prompts: contentFree + prompts, answers: choices, gold: contentFree.map { _ in nil } + gold)
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
