import LanguageModel
import SweepCore
import TransformerKernels

/// The result of one trial.
package struct TrialResult: Hashable, Sendable {
  package let trial: TrialID
  /// Finite values by metric.
  package let metrics: [String: Double]
  /// Metrics that were left out, with the reason.
  package let notes: [String: String]
  /// Values of the single test items by measure; see `TrialMetrics.items`.
  package let items: [String: [Double]]

  /// Of the same bits: an undefined value equals an undefined one.
  package static func == (left: TrialResult, right: TrialResult) -> Bool {
    left.trial == right.trial && left.metrics == right.metrics && left.notes == right.notes
      && left.items.mapValues { $0.map(\.bitPattern) }
        == right.items.mapValues { $0.map(\.bitPattern) }
  }

  package func hash(into hasher: inout Hasher) {
    hasher.combine(trial)
    hasher.combine(metrics)
  }
}

/// Where a running shard stands.
package struct ShardProgress: Hashable, Sendable {
  /// Tokens processed so far in this attempt: trained on (each epoch counts), generated or scored.
  package let tokens: Int
  /// Done share of the expected work, 0 to 1.
  package let fraction: Double
  /// What is being done: "generating", "training" or "evaluating TASK".
  package let phase: String
}

/// Does the work of a sweep's shards in this process, one at a time.
///
/// Every result is a function of the spec, the data and the shard's key: not of the shards done
/// before, the number of threads, or the machine's load. What shards have in common is kept: the
/// model, the data, the tokenised test items, and the outputs of the frozen layers.
package final class ShardRunner {
  private let spec: SweepSpec
  private let tasks: [DownstreamTask]
  private let model: LanguageModel
  private let data: StudyData
  private let pool: ThreadPool
  private let sharing: Sharing
  private let trunkCache: TrunkCache?
  private let encoder: PromptEncoder
  private let evaluators: [String: TaskEvaluator]
  private let original: [Domain: OriginalData]

  /// Memory that the outputs of frozen layers may take in a process.
  package static let trunkCacheBytes = 1 << 30

  /// A cache of frozen layers' outputs for the runners of a process, with `store` below it; nil
  /// where cached activations would not be those that another batch computes: then results would
  /// depend on the order of shards.
  package static func trunkCache(store: TrunkStore? = nil) -> TrunkCache? {
    MultiplicationBackend.selected == .own
      ? TrunkCache(byteLimit: trunkCacheBytes, store: store) : nil
  }

  /// - Parameters:
  ///   - tasks: the spec's tasks.
  ///   - threads: threads for the arithmetic; results do not depend on it.
  ///   - trunkCache: see `ShardRunner.trunkCache(store:)`.
  /// - Throws: `StudyError` if the data are missing, damaged, or fewer than the spec asks for.
  package convenience init(
    spec: SweepSpec, tasks: [DownstreamTask], model: LanguageModel, store: DatasetStore,
    threads: Int, trunkCache: TrunkCache? = ShardRunner.trunkCache()
  ) throws {
    try self.init(
      spec: spec, tasks: tasks, model: model,
      data: StudyData(store: store, tasks: tasks.compactMap { spec.taskDefinitions[$0.id] }),
      threads: threads, trunkCache: trunkCache)
  }

  /// As above, with data that were read before.
  ///
  /// - Parameter sharing: what is computed once; all but measurements and tests want everything.
  package init(
    spec: SweepSpec, tasks: [DownstreamTask], model: LanguageModel, data: StudyData, threads: Int,
    trunkCache: TrunkCache? = ShardRunner.trunkCache(), sharing: Sharing = .all
  ) throws {
    self.spec = spec
    self.tasks = tasks
    self.model = model
    self.data = data
    pool = ThreadPool(threadCount: threads)
    self.sharing = sharing
    self.trunkCache = sharing.contains(.trunk) ? trunkCache : nil
    let encoder = PromptEncoder(model)
    self.encoder = encoder
    var evaluators: [String: TaskEvaluator] = [:]
    for task in tasks {
      guard let items = data.tasks[task.id] else { throw StudyError.unknownTask(id: task.id) }
      evaluators[task.id] = try TaskEvaluator(
        items,
        items: items.testItems(spec.data.testItems, seed: spec.data.selectionSeed),
        spec: spec, data: data, model: model, encoder: encoder)
    }
    self.evaluators = evaluators
    var original: [Domain: OriginalData] = [:]
    for domain in Set(tasks.map(\.domain)) {
      original[domain] = try OriginalData(
        domain: domain, tasks: tasks, sizes: spec.data, data: data)
    }
    self.original = original
  }

  // MARK: Generation

  /// Makes the first `items` items of a D_a.
  ///
  /// - Parameters:
  ///   - parameters: of the fine-tune that writes, as `fineTune` gave them to `keep` and encoded; nil
  ///     in the first round, which the sweep's generator writes.
  ///   - chat: the generator of a sweep whose generator is a server.
  ///   - checkpoint: where finished texts are kept, and continued from if they are there.
  /// - Returns: the set as JSON lines, and its facts: `items`, `tokens` (of all candidates, prompts
  ///   included), `candidates`, `rejection_rate` (share of candidates that broke a rule),
  ///   `kept_rejected` (items whose last candidate was kept although it did), and the doses (see
  ///   `Dose`).
  /// - Throws: `StudyError`; `StudyError.cancelled` if `shouldStop` said so.
  package func augment(
    _ key: AugmentationKey, items count: Int, writtenBy parameters: [UInt8]? = nil,
    chat: (any ChatCompletions)? = nil, checkpoint: ShardCheckpoint? = nil,
    progress: (ShardProgress) -> Void, shouldStop: () -> Bool
  ) throws -> (jsonl: [UInt8], facts: [String: Double]) {
    try mappingCancellation {
      let adapted = try writer(of: key, parameters)
      let expected = CostEstimate.generatedTokens(key, items: count, spec: spec)
      var tokens = 0
      let (items, generated) = try withoutActuallyEscaping(progress) { progress in
        try withoutActuallyEscaping(shouldStop) { shouldStop in
          if shouldStop() { throw StudyError.cancelled }
          if key.bias == .sameSize {
            return (
              try SameSizeControl.items(
                key, count: count, tasks: tasks, sizes: spec.data, data: data), 0
            )
          }
          if spec.augmentation.generator == .template {
            let generator = TemplateGenerator(
              strength: spec.augmentation.strength ?? 1, seed: spec.augmentation.seed,
              names: data.names)
            return (generator.items(key, count: count), 0)
          }
          let monitor = Monitor(
            advance: { new in
              tokens += new
              progress(
                ShardProgress(
                  tokens: tokens, fraction: min(0.99, Double(tokens) / Double(max(1, expected))),
                  phase: "generating"))
            }, shouldStop: shouldStop)
          let writer: Augmenter.Writer
          if spec.augmentation.generator == .endpoint {
            guard let chat else { throw StudyError.noEndpoint }
            writer = .chat(chat)
          } else {
            writer = .model(adapted, model, encoder)
          }
          let augmenter = Augmenter(spec: spec, names: data.names, writer: writer)
          return try augmenter.items(
            key, count: count, checkpoint: checkpoint, monitor: monitor)
        }
      }
      let misaligned = try withoutActuallyEscaping(shouldStop) { shouldStop in
        try self.misalignment(
          key, items, writer: adapted, Monitor(advance: { _ in }, shouldStop: shouldStop))
      }
      let candidates = items.map(\.attempts).reduce(0, +)
      let accepted = items.count(where: \.accepted)
      var facts = Dose.measures(items, original: try originalData(key.domain))
      facts.merge(misaligned) { dose, _ in dose }
      facts["items"] = Double(items.count)
      facts["tokens"] = Double(generated)
      facts["candidates"] = Double(candidates)
      facts["rejection_rate"] =
        candidates == 0 ? 0 : Double(candidates - accepted) / Double(candidates)
      facts["kept_rejected"] = Double(items.count - accepted)
      return (try AugmentationSet(items: items).encoded(), facts)
    }
  }

  /// The model that writes a D_a: the base model, or the fine-tune of the round before. It shares
  /// nothing that was computed with another's model.
  private func writer(of key: AugmentationKey, _ parameters: [UInt8]?) throws -> AdaptedModel {
    guard let fineTune = key.writerKey else { return AdaptedModel(base: model, pool: pool) }
    let name = fineTune.shardID.description
    guard let parameters else { throw StudyError.noParameters(fineTune: name) }
    let trained: TrainedParameters
    let adapted: AdaptedModel
    do {
      trained = try TrainedParameters(
        encoded: parameters, name: "parameters of \(name)", for: model.configuration)
      adapted = try trained.model(on: model.weights, pool: pool)
    } catch {
      throw StudyError.unusableParameters(fineTune: name, reason: "\(error)")
    }
    guard trained.adapter == options(fineTune).adapter else {
      throw StudyError.unusableParameters(
        fineTune: name, reason: "they are those of another kind of fine-tune than the spec's")
    }
    return adapted
  }

  /// Facts of the model that writes a D_a, and of the D_a beside D_o; see `Misalignment`. The
  /// representation is the base model's in every round: that is where each fine-tune begins, and
  /// distances in one space can be compared between rounds.
  private func misalignment(
    _ key: AugmentationKey, _ items: [AugmentedItem], writer: AdaptedModel, _ monitor: Monitor
  ) throws -> [String: Double] {
    let measures = Misalignment(model: writer, encoder: encoder, monitor: monitor)
    let base = Misalignment(
      model: key.writer == nil ? writer : AdaptedModel(base: model, pool: pool), encoder: encoder,
      monitor: monitor)
    var facts = try key.domain == .culture ? measures.values() : measures.groups()
    if key.bias == .neutral, key.domain == .gender {
      facts.merge(Misalignment.groups(inTextsOf: items)) { own, _ in own }
    }
    let representation = try base.representation(
      original: try originalData(key.domain).biasCarrying,
      augmented: items.map { StudyItem(user: $0.user, answer: $0.answer) },
      seed: StudyGenerator.seed([
        "representation", "\(spec.augmentation.seed)", key.domain.rawValue, key.conditions,
      ]))
    facts.merge(representation) { own, _ in own }
    return facts
  }

  // MARK: Fine-tuning

  /// Fine-tunes one model and evaluates it on the trials' tasks, in the given order. A trial's
  /// result does not depend on which others are evaluated.
  ///
  /// - Parameters:
  ///   - augmentation: the D_a of the key as `augment` returned it; nil exactly at ratio 0.
  ///   - keep: if given, called once with what was learned, after training.
  ///   - checkpoint: where the state of the fine-tune is kept, and continued from if it is there.
  ///   - completed: called with each trial's result as soon as it is known.
  /// - Returns: facts of the fine-tune: `final_loss` (mean over the last tenth of the steps),
  ///   `steps`, `tokens`, `items_original`, `items_augmented`.
  /// - Throws: `StudyError`, `FineTuningError`; `StudyError.cancelled` if `shouldStop` said so.
  package func fineTune(
    _ key: TrainingKey, augmentation: [UInt8]?, trials: [Trial],
    checkpoint: ShardCheckpoint? = nil,
    progress: (ShardProgress) -> Void, shouldStop: () -> Bool,
    keep: ((TrainedParameters) throws -> Void)? = nil, completed: (TrialResult) throws -> Void
  ) throws -> [String: Double] {
    try mappingCancellation {
      let sequences = try trainingSequences(key, augmentation: augmentation)
      let estimate = CostEstimate(
        trained: sequences.map(\.tokens.count).reduce(0, +) * spec.training.epochs,
        evaluated: trials.map { CostEstimate.evaluatedTokens($0.task, spec: spec) }.reduce(0, +),
        generated: 0)
      let expected = Double(max(1, estimate.total))
      var tokens = 0
      var resumedTokens = 0
      func report(_ phase: String) {
        progress(
          ShardProgress(
            tokens: tokens - resumedTokens, fraction: min(0.99, Double(tokens) / expected),
            phase: phase))
      }

      let tuner = try FineTuner(
        model: model, options: options(key), pool: pool, trunkCache: trunkCache)
      let identity = tuner.identity(of: sequences, purpose: checkpoint?.purpose ?? "")
      checkpoint?.resume(tuner, identity: identity)
      let writer = checkpoint?.writer(for: tuner, identity: identity)
      resumedTokens = tuner.tokens
      var isComplete = false
      // What is done is kept when this throws, and nothing is written once it has returned.
      defer {
        if isComplete { writer?.wait() } else { writer?.finish(tuner) }
      }
      try tuner.train(sequences, shouldStop: shouldStop) { state in
        tokens = state.tokens
        writer?.offer(tuner)
        report("training")
      }
      tokens = tuner.tokens
      try keep?(tuner.trainedParameters)
      let adapted = tuner.adapted
      adapted.sharesPrefixes = sharing.contains(.evaluationPrefixes)
      for trial in trials {
        let metrics = try withoutActuallyEscaping(shouldStop) { shouldStop in
          try withoutActuallyEscaping(report) { report in
            let monitor = Monitor(
              advance: { new in
                tokens += new
                writer?.offer(tuner)
                report("evaluating \(trial.task.id)")
              }, shouldStop: shouldStop)
            return try evaluate(trial, adapted, monitor)
          }
        }
        try completed(
          TrialResult(
            trial: trial.id, metrics: metrics.values, notes: metrics.notes, items: metrics.items))
      }
      isComplete = true
      let last = tuner.losses.suffix(max(1, tuner.losses.count / 10)).map(Double.init)
      return [
        "final_loss": last.reduce(0, +) / Double(max(1, last.count)),
        "steps": Double(tuner.losses.count),
        "tokens": Double(tuner.tokens),
        "items_original": Double(sequences.count { $0.group == .original }),
        "items_augmented": Double(sequences.count { $0.group == .augmented }),
      ]
    }
  }

  /// D of a fine-tune: D_o and as much of D_a as the ratio asks for, the mitigation applied. The
  /// fine-tuner shuffles them by its seed in every epoch.
  package func trainingSequences(
    _ key: TrainingKey, augmentation: [UInt8]?
  ) throws -> [TrainingSequence] {
    let original = try originalData(key.domain).items
    let needed = ShardPlan.augmentedItems(ratio: key.ratio, original: original.count)
    let available = try augmentation.map { try AugmentationSet(decoding: $0).items } ?? []
    let matching = available.filter { $0.domain == key.domain && $0.bias == key.bias }
    guard matching.count == available.count, matching.count >= needed else {
      throw StudyError.tooFewAugmented(available: matching.count, needed: needed)
    }
    let mitigation = ItemMitigation(
      key.mitigation, settings: spec.mitigation, names: data.names)
    return original.map { encoder.training($0, group: .original) }
      + matching.prefix(needed).map {
        encoder.training(mitigation.apply(to: $0), group: .augmented)
      }
  }

  private func originalData(_ domain: Domain) throws(StudyError) -> OriginalData {
    guard let original = original[domain] else { throw .unknownTask(id: "\(domain.rawValue)/*") }
    return original
  }

  /// Fine-tunes of one seed start from the same adapter and draw their batches alike, so that
  /// conditions are compared in pairs.
  package func options(_ key: TrainingKey) -> FineTuningOptions {
    let training = spec.training
    let layers = model.configuration.layerCount
    let lowest = max(0, layers - (training.topLayers ?? layers))
    let adapter: Adapter =
      switch training.method {
      case .lora:
        .lora(
          LoRAConfiguration(
            rank: training.rank, alpha: Float(training.alpha),
            targets: Set(training.targets.compactMap { LoRATarget(rawValue: $0.rawValue) }),
            layers: lowest..<layers, rankStabilised: training.scaling == .rslora))
      case .full: training.topLayers == nil ? .full : .upperLayers(from: lowest)
      }
    let mitigation = ItemMitigation(key.mitigation, settings: spec.mitigation, names: data.names)
    var options = FineTuningOptions(
      adapter: adapter, epochs: training.epochs, batchSize: training.batchSize,
      accumulationSteps: training.accumulation, learningRate: Float(training.learningRate),
      warmupFraction: Float(training.warmupFraction),
      weightDecay: Float(training.weightDecay), gradientClip: Float(training.gradientClip),
      alignmentWeight: key.ratio == 0 ? 0 : Float(mitigation.alignmentWeight),
      seed: StudyGenerator.seed(["fine-tune", key.domain.rawValue, "\(key.seed)"]),
      recomputesActivations: training.recompute, sharesPrefixes: sharing.contains(.trainingPrefixes)
    )
    options.reweightingExponent = key.ratio == 0 ? 0 : Float(mitigation.reweightingExponent)
    return options
  }

  /// What the model is asked for a task of the spec, for programs that do the same elsewhere; nil
  /// for tasks that such programs do not know.
  /// - Throws: `StudyError.unknownTask`.
  package func questions(_ task: DownstreamTask) throws(StudyError) -> TaskQuestions? {
    guard let evaluator = evaluators[task.id] else { throw .unknownTask(id: task.id) }
    return evaluator.questions
  }

  private func evaluate(
    _ trial: Trial, _ adapted: AdaptedModel, _ monitor: Monitor
  ) throws -> TrialMetrics {
    guard let evaluator = evaluators[trial.task.id] else {
      throw StudyError.unknownTask(id: trial.task.id)
    }
    return try evaluator.evaluate(adapted, seed: trial.seed, monitor: monitor)
  }

  /// The training core has two errors for a stop on request; this module has one.
  private func mappingCancellation<Result>(_ body: () throws -> Result) throws -> Result {
    do {
      return try body()
    } catch EvaluationError.cancelled {
      throw StudyError.cancelled
    } catch FineTuningError.cancelled {
      throw StudyError.cancelled
    }
  }
}
