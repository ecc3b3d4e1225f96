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

  /// Mean tokens of an item, prompt and answer with their control tokens.
  private static let originalItemTokens = 46
  private static let augmentedItemTokens = 62
  private static let promptTokens = 45
  private static let storyPromptTokens = 30
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
      let formats = tasks.count { $0.domain == key.domain }
      let original = spec.data.originalItems + formats * spec.data.formatItems
      let augmented = ShardPlan.augmentedItems(ratio: key.ratio, original: original)
      self.init(
        trained: spec.training.epochs
          * (original * Self.originalItemTokens + augmented * Self.augmentedItemTokens),
        evaluated: trials.map { Self.evaluatedTokens($0.task, spec: spec) }.reduce(0, +),
        generated: 0)
    }
  }

  /// Distinct tokens that pass the frozen layers of a sweep: every item and every question to score
  /// once, whatever epochs, ratios, seeds and fine-tunes it serves. D_a counts once for each way
  /// that a mitigation writes it.
  package static func trunkTokens(
    _ plan: ShardPlan, spec: SweepSpec, tasks: [DownstreamTask]
  ) -> Int {
    let variants = Set(
      spec.mitigations.map { mitigation in
        switch mitigation {
        case .none, .loss: Mitigation.none
        case .token, .mask: mitigation
        }
      }
    ).count
    let augmented = plan.shards.reduce(0) { sum, shard in
      guard case .augmentation(_, let items) = shard.work else { return sum }
      return sum + items * augmentedItemTokens * variants
    }
    let domains = Set(tasks.map(\.domain))
    let original = domains.count * spec.data.originalItems + tasks.count * spec.data.formatItems
    let scored = tasks.filter { $0.id != "story" }
      .reduce(0) { $0 + evaluatedTokens($1, spec: spec) }
    return augmented + original * originalItemTokens + scored
  }

  static func generatedTokens(_ key: AugmentationKey, items: Int, spec: SweepSpec) -> Int {
    guard spec.augmentation.asksModel(key) else { return 0 }
    let perCandidate = Double(promptTokens) + 0.8 * Double(spec.augmentation.maximumTokens)
    return Int(Double(items) * candidatesPerItem * perCandidate)
  }

  package static func evaluatedTokens(_ task: DownstreamTask, spec: SweepSpec) -> Int {
    switch task.id {
    case "occupation": 2 * spec.data.testItems * promptTokens
    case "story":
      spec.data.testItems * spec.evaluation.samples
        * (storyPromptTokens + spec.evaluation.maximumTokens)
    default: spec.data.testItems * promptTokens
    }
  }
}
