/// What determines a set of augmented data D_a within a sweep. A smaller ratio uses a prefix.
package struct AugmentationKey: Hashable, Sendable {
  package let domain: Domain
  package let bias: BiasType
  /// Whether the generator's words for all groups get equal probability (`token-decoding`).
  package let equalisesGroups: Bool

  package init(domain: Domain, bias: BiasType, equalisesGroups: Bool = false) {
    self.domain = domain
    self.bias = bias
    self.equalisesGroups = equalisesGroups
  }

  /// The coordinates without the domain, as they stand in identifiers.
  package var conditions: String {
    bias.rawValue + (equalisesGroups ? "/\(Mitigation.tokenDecoding.rawValue)" : "")
  }
}

/// What determines a fine-tuned model within a sweep; every task of the domain evaluates it.
package struct TrainingKey: Hashable, Sendable {
  package let domain: Domain
  /// Nil exactly at ratio 0.
  package let bias: BiasType?
  package let ratio: Double
  package let mitigation: Mitigation
  package let seed: UInt64

  package init(
    domain: Domain, bias: BiasType?, ratio: Double, mitigation: Mitigation, seed: UInt64
  ) {
    self.domain = domain
    self.bias = bias
    self.ratio = ratio
    self.mitigation = mitigation
    self.seed = seed
  }

  package var augmentation: AugmentationKey? {
    bias.map { bias in
      AugmentationKey(
        domain: domain, bias: bias,
        // Where nothing is generated there is nothing to decode.
        equalisesGroups: mitigation == .tokenDecoding && bias != .sameSize)
    }
  }

  /// The coordinates without the domain, as they stand in identifiers.
  package var conditions: String {
    "\(bias?.rawValue ?? "original")/\(ratio)/\(mitigation.rawValue)/\(seed)"
  }
}

package struct ShardID: Hashable, Sendable, Comparable, Codable, CustomStringConvertible {
  package let description: String
  package init(_ text: String) { description = text }
  package init(from decoder: any Decoder) throws {
    description = try decoder.singleValueContainer().decode(String.self)
  }
  package func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }
  package static func < (left: ShardID, right: ShardID) -> Bool {
    left.description < right.description
  }
}

/// The leased unit of work.
package struct Shard: Hashable, Sendable {
  package enum Work: Hashable, Sendable {
    /// Make one D_a of `items` items.
    case augmentation(AugmentationKey, items: Int)
    /// Fine-tune one model and evaluate it on each trial's task.
    case fineTune(TrainingKey, trials: [Trial])
  }

  package let id: ShardID
  package let work: Work
  /// The shard whose artifact this one needs.
  package let dependency: ShardID?
  /// Expected work relative to other shards of the sweep, in tokens of a forward pass.
  package let cost: Double

  package init(id: ShardID, work: Work, dependency: ShardID?, cost: Double) {
    self.id = id
    self.work = work
    self.dependency = dependency
    self.cost = cost
  }

  /// A fact that every worker adds to a shard that it completes: how long the shard's own work took,
  /// without dispatch, transfers and reports. Its lease took longer by what orchestration costs.
  package static let secondsFact = "work_seconds"

  package var trials: [Trial] {
    if case .fineTune(_, let trials) = work { trials } else { [] }
  }
}

/// The sweep cut into shards so that equal work is found and done once: one fine-tune serves all
/// tasks of its domain, ratio 0 is one fine-tune for all biases and mitigations, and one D_a, made
/// for the largest ratio, serves all ratios, mitigations and seeds.
package struct ShardPlan: Sendable {
  package let grid: Grid
  /// In dispatch order: generation first, then the longest expected shard first.
  package let shards: [Shard]

  package var fineTuneCount: Int { shards.count - augmentationCount }
  package var augmentationCount: Int {
    shards.count { if case .augmentation = $0.work { true } else { false } }
  }

  /// Of the shards in their order.
  package var digest: ContentDigest {
    ContentDigest(of: shards.map(\.id.description).joined(separator: "\n").utf8)
  }

  /// For costs, which only order shards and weigh progress: an item's length; a backward pass
  /// beside the forward pass; and a generated token, which is slow, and some of which are rejected,
  /// in forward passes of a token.
  private static let tokensPerItem = 50.0
  private static let passesPerToken = 2.0
  private static let generationPasses = 6.0

  /// Items of D_a for a ratio γ beside `original` items: γ / (1 − γ) · |D_o|, rounded to nearest.
  package static func augmentedItems(ratio: Double, original: Int) -> Int {
    Int((ratio / (1 - ratio) * Double(original)).rounded())
  }

  package init(spec: SweepSpec, tasks: [DownstreamTask]) {
    let grid = Grid(spec: spec, tasks: tasks)
    var keys: [TrainingKey] = []
    var trials: [TrainingKey: [Trial]] = [:]
    for trial in grid.trials {
      if trials[trial.trainingKey] == nil { keys.append(trial.trainingKey) }
      trials[trial.trainingKey, default: []].append(trial)
    }

    func originalItems(_ domain: Domain) -> Int { spec.originalItems(domain, of: tasks) }
    func augmentationID(_ key: AugmentationKey) -> ShardID {
      ShardID("augment/\(key.domain.rawValue)/\(key.conditions)")
    }

    var augmentations: [Shard] = []
    var planned: Set<AugmentationKey> = []
    let largestRatio = spec.ratios.max() ?? 0
    for key in keys.compactMap(\.augmentation) where planned.insert(key).inserted {
      let items = Self.augmentedItems(
        ratio: largestRatio, original: originalItems(key.domain))
      augmentations.append(
        Shard(
          id: augmentationID(key), work: .augmentation(key, items: items), dependency: nil,
          cost: Double(items * spec.augmentation.generatedTokens(key))
            * Self.generationPasses))
    }
    let fineTunes = keys.map { key in
      let original = originalItems(key.domain)
      let items = original + Self.augmentedItems(ratio: key.ratio, original: original)
      let evaluated = trials[key, default: []]
      return Shard(
        id: ShardID("tune/\(key.domain.rawValue)/\(key.conditions)"),
        work: .fineTune(key, trials: evaluated),
        dependency: key.augmentation.map(augmentationID),
        cost: Double(items * spec.training.epochs + evaluated.count * spec.data.testItems)
          * Self.tokensPerItem * Self.passesPerToken)
    }
    self.grid = grid
    self.shards = Self.longestFirst(augmentations) + Self.longestFirst(fineTunes)
  }

  /// Equal costs keep their order.
  private static func longestFirst(_ shards: [Shard]) -> [Shard] {
    shards.enumerated()
      .sorted { ($1.element.cost, $0.offset) < ($0.element.cost, $1.offset) }
      .map(\.element)
  }
}
