import SweepCore

/// Tokens that a shard will process, from averages over the study's items as SmolLM2's tokenizer
/// cuts them. For plans and progress bars only; results do not depend on it.
package struct CostEstimate: Hashable, Sendable {
  /// Through forward and backward passes, each epoch counted.
  package let trained: Int
  /// Through forward passes of scoring, and generated for evaluation.
  package let evaluated: Int
  /// Generated (and read as prompts) for augmented data.
  package let generated: Int

  package var total: Int { trained + evaluated + generated }

  package init(trained: Int, evaluated: Int, generated: Int) {
    self.trained = trained
    self.evaluated = evaluated
    self.generated = generated
  }

  package static func + (left: CostEstimate, right: CostEstimate) -> CostEstimate {
    CostEstimate(
      trained: left.trained + right.trained, evaluated: left.evaluated + right.evaluated,
      generated: left.generated + right.generated)
  }

  /// Mean tokens of an item, prompt and answer with their control tokens.
  private static let originalItemTokens = 46
  private static let augmentedItemTokens = 62
  private static let promptTokens = 45
  /// Candidates per accepted item of augmented data.
  private static let candidatesPerItem = 1.6

  /// The estimate for a shard of a sweep.
  package init(_ shard: Shard, spec: SweepSpec, tasks: [DownstreamTask]) {
    switch shard.work {
    case .augmentation(let key, let items):
      self.init(
        trained: 0, evaluated: 0,
        generated: Self.generatedTokens(key, items: items, spec: spec))
    case .fineTune(let key, let trials):
      let original = spec.originalItems(key.domain, of: tasks)
      let augmented = ShardPlan.augmentedItems(ratio: key.ratio, original: original)
      self.init(
        trained: spec.training.epochs
          * (Self.originalTokens(key.domain, spec: spec, tasks: tasks)
            + augmented * Self.augmentedItemTokens),
        evaluated: trials.map { Self.evaluatedTokens($0.task, spec: spec) }.reduce(0, +),
        generated: 0)
    }
  }

  /// Distinct tokens that pass the frozen layers of a sweep: every item and every question to score
  /// once, whatever epochs, ratios, seeds and fine-tunes it serves. D_a counts once for each way
  /// that a mitigation writes it; what a fine-tune wrote serves one mitigation.
  package static func trunkTokens(
    _ plan: ShardPlan, spec: SweepSpec, tasks: [DownstreamTask]
  ) -> Int {
    let variants = Set(
      spec.mitigations.map { mitigation in
        switch mitigation {
        // The D_a of token-decoding is an artifact of its own and counts as one.
        case .none, .loss, .lossReweight, .tokenDecoding: Mitigation.none
        case .token, .mask, .maskNeutral: mitigation
        }
      }
    ).count
    let augmented = plan.shards.reduce(0) { sum, shard in
      guard case .augmentation(let key, let items) = shard.work else { return sum }
      return sum + items * augmentedItemTokens * (key.writer == nil ? variants : 1)
    }
    let domains = Set(tasks.map(\.domain))
    let original = domains.reduce(0) {
      $0 + originalTokens($1, spec: spec, tasks: tasks)
    }
    let scored = tasks.reduce(0) { $0 + scoredTokens($1, spec: spec) }
    return augmented + original + scored
  }

  static func generatedTokens(_ key: AugmentationKey, items: Int, spec: SweepSpec) -> Int {
    guard spec.augmentation.asksModel(key) else { return 0 }
    let perCandidate = Double(promptTokens) + 0.8 * Double(spec.augmentation.maximumTokens)
    return Int(Double(items) * candidatesPerItem * perCandidate)
  }

  /// Tokens of D_o of a domain.
  private static func originalTokens(
    _ domain: Domain, spec: SweepSpec, tasks: [DownstreamTask]
  ) -> Int {
    tasks.filter { $0.domain == domain }.reduce(spec.data.originalItems * originalItemTokens) {
      sum, task in
      guard let definition = spec.taskDefinitions[task.id] else {
        return sum + spec.data.formatItems * originalItemTokens
      }
      let tokens = definition.expectedTokens
      return sum + definition.formatItems(spec.data.formatItems) * (tokens.prompt + tokens.answer)
    }
  }

  package static func evaluatedTokens(_ task: DownstreamTask, spec: SweepSpec) -> Int {
    scoredTokens(task, spec: spec) + writtenTokens(task, spec: spec)
  }

  /// Tokens of a task's prompts and answers that are scored.
  package static func scoredTokens(_ task: DownstreamTask, spec: SweepSpec) -> Int {
    guard let definition = spec.taskDefinitions[task.id] else {
      return spec.data.testItems * promptTokens
    }
    if definition.kind == .text { return 0 }
    let tokens = definition.expectedTokens
    let answers = definition.answers
    // A prompt and its choices, whose last tokens are not read; some four where a field has them.
    let choices = answers.choices.isEmpty ? 4 : answers.choices.count
    let perPrompt = tokens.prompt + choices * (tokens.answer - 1)
    let prompts = answers.orders * max(1, definition.forms.count)
    // A calibration of its own for each item, where the choices are its own.
    let calibration = !definition.contentFree.isEmpty && answers.choices.isEmpty ? 2 : 1
    let preference = definition.preference == nil ? 0 : 3 * originalItemTokens
    return definition.testItems(spec.data.testItems)
      * (perPrompt * prompts * calibration + preference)
  }

  /// Tokens that are read and written where a task generates.
  package static func writtenTokens(_ task: DownstreamTask, spec: SweepSpec) -> Int {
    guard let definition = spec.taskDefinitions[task.id] else { return 0 }
    let tokens = definition.expectedTokens
    let items = definition.testItems(spec.data.testItems)
    switch definition.kind {
    case .text:
      return items * spec.evaluation.samples * (tokens.prompt + spec.evaluation.maximumTokens)
    case .number:
      return min(items, definition.answers.sampledItems) * definition.forms.count
        * (tokens.prompt + tokens.answer)
    case .selection:
      return min(items, definition.answers.sampledItems) * definition.answers.orders
        * (tokens.prompt + tokens.answer)
    case .classification, .survey: return 0
    }
  }
}
