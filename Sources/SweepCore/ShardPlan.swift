/// What determines a set of augmented data D_a within a sweep. A smaller ratio uses a prefix, except
/// where a fine-tune writes: that belongs to one ratio.
package struct AugmentationKey: Hashable, Sendable {
  /// The fine-tune that writes, of the same domain and bias.
  package struct Writer: Hashable, Sendable {
    package let ratio: Double
    package let mitigation: Mitigation
    package let seed: UInt64
    package let round: Int

    package init(ratio: Double, mitigation: Mitigation, seed: UInt64, round: Int) {
      self.ratio = ratio
      self.mitigation = mitigation
      self.seed = seed
      self.round = round
    }
  }

  package let domain: Domain
  package let bias: BiasType
  /// Whether the generator's words for all groups get equal probability (`token-decoding`).
  package let equalisesGroups: Bool
  /// Nil in the first round, where the sweep's generator writes.
  package let writer: Writer?

  package init(
    domain: Domain, bias: BiasType, equalisesGroups: Bool = false, writer: Writer? = nil
  ) {
    self.domain = domain
    self.bias = bias
    self.equalisesGroups = equalisesGroups
    self.writer = writer
  }

  /// The round whose fine-tunes use the set.
  package var round: Int { (writer?.round ?? 0) + 1 }

  /// The fine-tune that writes the set; nil in the first round.
  package var writerKey: TrainingKey? {
    writer.map {
      TrainingKey(
        domain: domain, bias: bias, ratio: $0.ratio, mitigation: $0.mitigation, seed: $0.seed,
        round: $0.round)
    }
  }

  /// The coordinates without the domain, as they stand in identifiers. Those of a fine-tune's set
  /// are those of the fine-tune that uses it.
  package var conditions: String {
    if let writer {
      return "\(bias.rawValue)/\(writer.ratio)/\(writer.mitigation.rawValue)/\(writer.seed)"
        + TrainingKey.suffix(round: round)
    }
    return bias.rawValue + (equalisesGroups ? "/\(Mitigation.tokenDecoding.rawValue)" : "")
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
  /// From 1. Every round fine-tunes the base model; only who wrote its D_a differs.
  package let round: Int

  package init(
    domain: Domain, bias: BiasType?, ratio: Double, mitigation: Mitigation, seed: UInt64,
    round: Int = 1
  ) {
    precondition(round >= 1 && (round == 1 || bias != nil), "round \(round) without D_a")
    self.domain = domain
    self.bias = bias
    self.ratio = ratio
    self.mitigation = mitigation
    self.seed = seed
    self.round = round
  }

  package var augmentation: AugmentationKey? {
    bias.map { bias in
      AugmentationKey(
        domain: domain, bias: bias,
        // Where nothing is generated there is nothing to decode.
        equalisesGroups: mitigation == .tokenDecoding && bias != .sameSize,
        writer: round == 1
          ? nil
          : AugmentationKey.Writer(
            ratio: ratio, mitigation: mitigation, seed: seed, round: round - 1))
    }
  }

  /// The coordinates without the domain, as they stand in identifiers.
  package var conditions: String {
    "\(bias?.rawValue ?? "original")/\(ratio)/\(mitigation.rawValue)/\(seed)"
      + Self.suffix(round: round)
  }

  /// What names a round in identifiers: nothing for the first, whose names are those of sweeps
  /// without further ones.
  fileprivate static func suffix(round: Int) -> String { round == 1 ? "" : "/round-\(round)" }
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

extension AugmentationKey {
  /// The shard that makes the set.
  package var shardID: ShardID { ShardID("augment/\(domain.rawValue)/\(conditions)") }
}

extension TrainingKey {
  /// The shard that fine-tunes and evaluates the model.
  package var shardID: ShardID { ShardID("tune/\(domain.rawValue)/\(conditions)") }
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
/// tasks of its domain, ratio 0 is one fine-tune for all biases, mitigations and rounds, and one D_a,
/// made for the largest ratio, serves all ratios, mitigations and seeds of the first round. From the
/// second round on each D_a is a fine-tune's own: its fine-tune writes it, and one fine-tune uses it.
package struct ShardPlan: Sendable {
  package let grid: Grid
  /// In dispatch order: round by round, in each generation first, then the longest expected shard
  /// first. A shard comes after the one that it depends on.
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
    var trials: [[Trial]] = []
    var places = [TrainingKey: Int](minimumCapacity: grid.trials.count)
    for trial in grid.trials {
      let key = trial.trainingKey
      let place = places[key, default: keys.count]
      if place == keys.count {
        places[key] = place
        keys.append(key)
        trials.append([])
      }
      trials[place].append(trial)
    }

    var originalItems: [Domain: Int] = [:]
    for domain in Domain.allCases {
      originalItems[domain] = spec.originalItems(domain, of: tasks)
    }
    var augmentations: [Int: [Shard]] = [:]
    var planned: Set<AugmentationKey> = []
    let largestRatio = spec.ratios.max() ?? 0
    for key in keys.compactMap(\.augmentation) where planned.insert(key).inserted {
      let items = Self.augmentedItems(
        ratio: key.writer?.ratio ?? largestRatio, original: originalItems[key.domain, default: 0])
      augmentations[key.round, default: []].append(
        Shard(
          id: key.shardID, work: .augmentation(key, items: items),
          dependency: key.writerKey?.shardID,
          cost: Double(items * spec.augmentation.generatedTokens(key))
            * Self.generationPasses))
    }
    var fineTunes: [Int: [Shard]] = [:]
    for (key, evaluated) in zip(keys, trials) {
      let original = originalItems[key.domain, default: 0]
      let items = original + Self.augmentedItems(ratio: key.ratio, original: original)
      fineTunes[key.round, default: []].append(
        Shard(
          id: key.shardID,
          work: .fineTune(key, trials: evaluated),
          dependency: key.augmentation?.shardID,
          cost: Double(items * spec.training.epochs + evaluated.count * spec.data.testItems)
            * Self.tokensPerItem * Self.passesPerToken))
    }
    self.grid = grid
    self.shards = (1...spec.rounds).flatMap { round in
      Self.longestFirst(augmentations[round, default: []])
        + Self.longestFirst(fineTunes[round, default: []])
    }
  }

  /// Fine-tunes that write the D_a of a later round: what they learned is their artifact.
  package var writers: Set<ShardID> {
    Set(
      shards.compactMap { shard in
        if case .augmentation = shard.work { shard.dependency } else { nil }
      })
  }

  /// Equal costs keep their order.
  private static func longestFirst(_ shards: [Shard]) -> [Shard] {
    shards.enumerated()
      .sorted { ($1.element.cost, $0.offset) < ($0.element.cost, $1.offset) }
      .map(\.element)
  }
}
