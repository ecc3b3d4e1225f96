import LanguageModel
import SweepCore
import TransformerKernels

/// How fast this process does what a sweep consists of, found by doing a little of it: the sweep's own
/// model, layers, tasks and generator on a few of its own items.
///
/// One process at a time; a sweep of several workers on several machines divides the sum among them.
package struct Calibration: Hashable, Sendable {
  /// Seconds of a domain's kinds of work.
  package struct Rates: Hashable, Sendable {
    /// A token of D_o through one step of training, its frozen layers' outputs at hand.
    var originalToken = 0.0
    /// A token of D_a, likewise.
    var augmentedToken = 0.0
    /// A token through the frozen layers.
    var frozenToken = 0.0
    /// A test item of each task, with all that is asked of it.
    var testItem: [String: Double] = [:]
    /// An item of D_a with all its candidates, by whether groups are set against each other.
    var generatedItem: [Bool: Double] = [:]
    /// What a set of augmented data takes besides its items.
    var generation = 0.0
    /// Tokens of all of D_o, and of an item of D_a.
    var originalTokens = 0.0
    var tokensPerAugmentedItem = 0.0
  }

  package let rates: [Domain: Rates]
  /// What the measurement took.
  package let seconds: Double

  /// Items of D_o of a domain that are trained on, and test items of a task that are asked.
  private static let originalItems = 32
  private static let testItems = 24
  /// The first epoch finds nothing in the cache, the others everything.
  private static let epochs = 3

  /// - Parameters:
  ///   - now: seconds of a steady clock.
  ///   - progress: what is being measured.
  /// - Throws: what the shards of the sweep would throw: `StudyError`, `FineTuningError`.
  package init(
    spec: SweepSpec, tasks: [DownstreamTask], model: LanguageModel, data: StudyData, threads: Int,
    now: () -> Double, progress: (String) -> Void, shouldStop: () -> Bool
  ) throws {
    let begin = now()
    var rates: [Domain: Rates] = [:]
    for domain in Set(tasks.map(\.domain)).sorted() {
      progress("measuring the \(domain.rawValue) domain")
      rates[domain] = try Self.measure(
        domain, spec: spec, tasks: tasks.filter { $0.domain == domain }, model: model, data: data,
        threads: threads, now: now, shouldStop: shouldStop)
    }
    self.rates = rates
    seconds = now() - begin
  }

  private static func measure(
    _ domain: Domain, spec: SweepSpec, tasks: [DownstreamTask], model: LanguageModel,
    data: StudyData, threads: Int, now: () -> Double, shouldStop: () -> Bool
  ) throws -> Rates {
    let original = spec.originalItems(domain, of: tasks)
    let share = min(1, Double(originalItems) / Double(original))
    func part(_ count: Int) -> Int {
      count == 0 ? 0 : max(1, Int((Double(count) * share).rounded()))
    }
    // A sweep in miniature.
    var small = spec
    small.tasks = tasks.map(\.id)
    small.data.originalItems = part(spec.data.originalItems)
    small.data.formatItems = part(spec.data.formatItems)
    small.data.testItems = min(spec.data.testItems, testItems)
    // As large a share of the test items is answered in words as in the sweep.
    small.taskDefinitions = TaskDefinitions(
      spec.definedTasks.map { task in
        let items = task.testItems(spec.data.testItems)
        let written = Double(min(task.answers.sampledItems, items)) / Double(max(1, items))
        var task = task
        task.answers.sampledItems = Int(
          (written * Double(task.testItems(small.data.testItems))).rounded(.up))
        return task
      })
    small.training.epochs = epochs
    let biases = representatives(spec)
    small.biases = biases.isEmpty ? [.neutral] : biases
    small.ratios = biases.isEmpty ? [0] : [0, 0.5]
    small.mitigations = [.none]
    small.seeds = [spec.seeds.first ?? 1]
    small.rounds = 1
    let shards = ShardPlan(spec: small, tasks: tasks).shards
    let runner = try ShardRunner(
      spec: small, tasks: tasks, model: model, data: data, threads: threads)

    var rates = Rates()
    var sets: [AugmentationKey: [UInt8]] = [:]
    for case .augmentation(let key, let count) in shards.map(\.work) {
      let made = try generate(runner, key, count: count, now: now, shouldStop: shouldStop)
      rates.generatedItem[key.bias.isContrastive] = made.items / Double(count)
      rates.generation = max(rates.generation, made.rest)
      sets[key] = made.jsonl
    }
    func tune(_ bias: BiasType?) throws -> FineTuneTimes? {
      for case .fineTune(let key, let trials) in shards.map(\.work) where key.bias == bias {
        return try fineTune(
          runner, key, augmentation: key.augmentation.flatMap { sets[$0] }, trials: trials,
          now: now, shouldStop: shouldStop)
      }
      return nil
    }
    guard let first = try tune(nil) else { return rates }
    rates.originalToken = first.warm / Double(first.warmTokens)
    rates.frozenToken =
      max(0, first.cold - rates.originalToken * Double(first.coldTokens))
      / Double(first.coldTokens)
    let whole = try ShardRunner(
      spec: spec, tasks: tasks, model: model, data: data, threads: threads)
    rates.originalTokens = Double(
      try whole.trainingSequences(
        TrainingKey(domain: domain, bias: nil, ratio: 0, mitigation: .none, seed: 1),
        augmentation: nil
      ).map(\.tokens.count).reduce(0, +))

    if biases.isEmpty {
      // Nothing of D_a was made here: its items count as original ones.
      rates.tokensPerAugmentedItem = rates.originalTokens / Double(max(1, original))
      rates.augmentedToken = rates.originalToken
    }
    // Asked again, so that the outputs of frozen layers are at hand.
    guard let second = try tune(biases.first) else { return rates }
    if !biases.isEmpty {
      let tokens = Double(max(1, second.warmTokens - first.warmTokens))
      rates.tokensPerAugmentedItem =
        tokens / Double(epochs - 1) / Double(max(1, small.originalItems(domain, of: tasks)))
      rates.augmentedToken =
        max(0, second.warm - rates.originalToken * Double(first.warmTokens)) / tokens
    }
    for task in tasks {
      let asked = spec.taskDefinitions[task.id]?.testItems(small.data.testItems) ?? 1
      rates.testItem[task.id] = (second.evaluated[task.id] ?? 0) / Double(max(1, asked))
    }
    return rates
  }

  /// A bias type that describes groups, and one that sets them against each other, of those whose D_a
  /// this machine makes.
  private static func representatives(_ spec: SweepSpec) -> [BiasType] {
    guard spec.augmentation.generator != .endpoint else { return [] }
    let made = spec.biases.filter { $0 != .sameSize }
    return [false, true].compactMap { contrastive in
      made.first { $0.isContrastive == contrastive }
    }
  }

  /// What a small fine-tune took, in seconds.
  private struct FineTuneTimes {
    /// The first epoch.
    var cold: Double
    var coldTokens: Int
    /// The others.
    var warm: Double
    var warmTokens: Int
    var evaluated: [String: Double]
  }

  private static func fineTune(
    _ runner: ShardRunner, _ key: TrainingKey, augmentation: [UInt8]?, trials: [Trial],
    now: () -> Double, shouldStop: () -> Bool
  ) throws -> FineTuneTimes {
    let inEpoch = try runner.trainingSequences(key, augmentation: augmentation)
      .map(\.tokens.count).reduce(0, +)
    let begin = now()
    var steps: [(tokens: Int, at: Double)] = []
    var evaluations: [Double] = []
    _ = try runner.fineTune(
      key, augmentation: augmentation, trials: trials,
      progress: { state in
        if evaluations.isEmpty, state.phase == "training" { steps.append((state.tokens, now())) }
      },
      shouldStop: shouldStop, completed: { _ in evaluations.append(now()) })
    let trained = steps.last ?? (0, begin)
    let first = steps.first { $0.tokens >= inEpoch } ?? trained
    let starts = [trained.at] + evaluations
    return FineTuneTimes(
      cold: first.at - begin, coldTokens: max(1, first.tokens),
      warm: trained.at - first.at, warmTokens: max(1, trained.tokens - first.tokens),
      evaluated: Dictionary(
        uniqueKeysWithValues: zip(trials.map(\.task.id), zip(starts, evaluations).map { $1 - $0 })))
  }

  /// Seconds until the last text was there, and from then to the end.
  private static func generate(
    _ runner: ShardRunner, _ key: AugmentationKey, count: Int, now: () -> Double,
    shouldStop: () -> Bool
  ) throws -> (items: Double, rest: Double, jsonl: [UInt8]) {
    let begin = now()
    var last = begin
    let (jsonl, _) = try runner.augment(
      key, items: count, progress: { _ in last = now() }, shouldStop: shouldStop)
    return (last - begin, now() - last, jsonl)
  }

  // MARK: Prediction

  /// Seconds that a shard takes, without the frozen layers' outputs that it is the first to need.
  package func seconds(_ shard: Shard, spec: SweepSpec) -> Double {
    switch shard.work {
    case .augmentation(let key, let items):
      guard let rates = rates[key.domain], spec.augmentation.generator != .endpoint,
        key.bias != .sameSize
      else { return 0 }
      let item =
        rates.generatedItem[key.bias.isContrastive] ?? rates.generatedItem.values.max() ?? 0
      return item * Double(items) + rates.generation
    case .fineTune(let key, let trials):
      guard let rates = rates[key.domain] else { return 0 }
      let evaluated = trials.reduce(0) { sum, trial in
        let items =
          spec.taskDefinitions[trial.task.id]?.testItems(spec.data.testItems)
          ?? spec.data.testItems
        return sum + rates.testItem[trial.task.id, default: 0] * Double(items)
      }
      return evaluated + Double(spec.training.epochs)
        * (rates.originalTokens * rates.originalToken
          + augmentedTokens(key, spec: spec, rates) * rates.augmentedToken)
    }
  }

  /// Tokens that a fine-tune is trained on, each epoch counted.
  package func trainedTokens(_ key: TrainingKey, spec: SweepSpec) -> Double {
    guard let rates = rates[key.domain] else { return 0 }
    return Double(spec.training.epochs)
      * (rates.originalTokens + augmentedTokens(key, spec: spec, rates))
  }

  private func augmentedTokens(_ key: TrainingKey, spec: SweepSpec, _ rates: Rates) -> Double {
    let original = spec.originalItems(key.domain, of: spec.definedTasks.map(\.task))
    return Double(ShardPlan.augmentedItems(ratio: key.ratio, original: original))
      * rates.tokensPerAugmentedItem
  }

  /// Seconds for a token of the sweep through its frozen layers.
  package var frozenToken: Double { rates.values.map(\.frozenToken).max() ?? 0 }
}
