import BiasStudy
import Foundation
import LanguageModel
import SweepCore
import Synchronization
import Testing

/// The whole study on a tiny random model with a real tokenizer: the numbers mean nothing, but all
/// that is promised about them must hold.
struct ShardRunnerTests {
  private let study: NanoStudy

  init() throws { study = try NanoStudy() }

  private func runner(threads: Int = 1) throws -> ShardRunner {
    try study.runner(threads: threads)
  }

  private var shards: [Shard] { study.shards }

  private func tune(
    _ runner: ShardRunner, _ shard: Shard, only: [Trial]? = nil
  ) throws -> (results: [TrialResult], facts: [String: Double]) {
    try study.tune(runner, shard, only: only)
  }

  @Test func whatIsKeptIsTheAdapterThatWasEvaluated() throws {
    let runner = try runner()
    let shard = try #require(shards.last { !$0.trials.isEmpty })
    guard case .fineTune(let key, let trials) = shard.work else { return }
    let augmentation = try key.augmentation.map {
      try AugmentationSet(items: Synthetic.augmented($0, count: 40)).encoded()
    }
    func keep() throws -> [TrainedParameters] {
      var kept: [TrainedParameters] = []
      _ = try runner.fineTune(
        key, augmentation: augmentation, trials: trials, progress: { _ in },
        shouldStop: { false }, keep: { kept.append($0) }, completed: { _ in })
      return kept
    }
    let first = try keep()
    let parameters = try #require(first.count == 1 ? first[0] : nil)
    guard case .lora(let lora) = parameters.adapter else {
      Issue.record("a fine-tune of the study is LoRA")
      return
    }
    #expect(lora.rank == study.spec.training.rank)
    #expect(parameters.baseDigest == study.model.weights.digest)
    let changed = parameters.names.filter { $0.contains("lora_B") }
    #expect(!changed.isEmpty && changed.allSatisfy { parameters[$0]?.contains { $0 != 0 } == true })
    #expect(try keep()[0].encoded() == parameters.encoded())
  }

  @Test func everyTrialOfTheGridGetsItsMetrics() throws {
    let study = try NanoStudy(changing: { $0.mitigations = Mitigation.allCases })
    let runner = try study.runner()
    var seen: Set<TrialID> = []
    for shard in study.shards where !shard.trials.isEmpty {
      for result in try study.tune(runner, shard).results {
        #expect(seen.insert(result.trial).inserted)
        #expect(!result.metrics.isEmpty && result.metrics.values.allSatisfy(\.isFinite))
        #expect(Set(result.metrics.keys).isDisjoint(with: result.notes.keys))
      }
    }
    #expect(seen == Set(Grid(spec: study.spec, tasks: study.tasks).trials.map(\.id)))
  }

  @Test func resultsDependOnNothingButSpecAndKey() throws {
    let culture = try #require(
      shards.last { $0.trials.first?.task.domain == .culture && $0.dependency != nil })
    let first = try tune(try runner(), culture)
    // Other threads, other shards before, and the trials one by one in reverse.
    let other = try runner(threads: 3)
    let gender = try #require(shards.first { $0.trials.first?.task.domain == .gender })
    _ = try tune(other, gender)
    let resumed = try culture.trials.reversed().flatMap { trial in
      try tune(other, culture, only: [trial]).results
    }
    #expect(first.results.sorted { $0.trial < $1.trial } == resumed.sorted { $0.trial < $1.trial })
    #expect(try tune(other, culture).facts == first.facts)
  }

  @Test func mitigationsChangeAugmentedSequencesOnlyAndNeverTheOriginals() throws {
    let runner = try runner()
    let key = AugmentationKey(domain: .gender, bias: .contextualSingleExplicit)
    let bytes = try AugmentationSet(items: Synthetic.augmented(key, count: 40)).encoded()
    func sequences(_ mitigation: Mitigation, _ ratio: Double = 0.5) throws -> [TrainingSequence] {
      try runner.trainingSequences(
        TrainingKey(
          domain: .gender, bias: key.bias, ratio: ratio, mitigation: mitigation, seed: 1),
        augmentation: bytes)
    }
    let plain = try sequences(.none)
    #expect(plain.count == 32 && plain.count { $0.group == .augmented } == 16)
    let prefix = Array(try sequences(.none, 0.2))
    #expect(prefix == Array(plain.prefix(20)))
    for mitigation in [Mitigation.token, .mask, .maskNeutral] {
      let changed = try sequences(mitigation)
      #expect(changed.prefix(16) == plain.prefix(16))
      #expect(zip(changed, plain).dropFirst(16).allSatisfy { $0 != $1 })
    }
    // These act on the loss, or on how the items were made.
    for mitigation in [Mitigation.loss, .lossReweight, .tokenDecoding] {
      #expect(try sequences(mitigation) == plain)
    }
    // The prefix is outside the loss: what is supervised stays the same.
    func supervised(_ sequence: TrainingSequence) -> [Int32] {
      zip(sequence.tokens, sequence.supervised).filter(\.1).map(\.0)
    }
    #expect(try sequences(.token).map(supervised) == plain.map(supervised))
    #expect(plain.allSatisfy { !supervised($0).isEmpty && !$0.supervised[0] })
  }

  @Test func tooSmallOrForeignAugmentationIsRefused() throws {
    let runner = try runner()
    let key = AugmentationKey(domain: .gender, bias: .contextualSingleExplicit)
    let training = TrainingKey(
      domain: .gender, bias: key.bias, ratio: 0.5, mitigation: .none, seed: 1)
    let small = try AugmentationSet(items: Synthetic.augmented(key, count: 3)).encoded()
    let foreign = try AugmentationSet(
      items: Synthetic.augmented(AugmentationKey(domain: .culture, bias: key.bias), count: 40)
    ).encoded()
    for (bytes, available) in [(small, 3), (foreign, 0)] {
      let error = studyError {
        _ = try runner.trainingSequences(training, augmentation: bytes)
      }
      #expect(error == .tooFewAugmented(available: available, needed: 16))
    }
  }

  @Test func stopRequestEndsAShardWithOneError() throws {
    let runner = try runner()
    let shard = try #require(shards.first { $0.dependency == nil && !$0.trials.isEmpty })
    guard case .fineTune(let key, let trials) = shard.work else { return }
    for after in [0, 3, 8, 9] {
      var asked = 0
      let error = studyError {
        _ = try runner.fineTune(
          key, augmentation: nil, trials: trials, progress: { _ in },
          shouldStop: {
            asked += 1
            return asked > after
          }, completed: { _ in })
      }
      #expect(error == .cancelled)
    }
  }

  @Test func progressGrowsAndStaysBelowTheWhole() throws {
    let runner = try runner()
    let shard = try #require(shards.first { $0.dependency == nil && $0.trials.count == 2 })
    guard case .fineTune(let key, let trials) = shard.work else { return }
    var states: [ShardProgress] = []
    _ = try runner.fineTune(
      key, augmentation: nil, trials: trials, progress: { states.append($0) },
      shouldStop: { false }, completed: { _ in })
    #expect(zip(states, states.dropFirst()).allSatisfy { $0.tokens <= $1.tokens })
    #expect(states.allSatisfy { (0..<1).contains($0.fraction) })
    #expect(
      Set(states.map(\.phase)) == ["training", "evaluating group-bias", "evaluating story"])
  }
}

/// Generation needs a model that writes sentences.
struct GenerationTests {
  static let modelPath: String? = {
    let environment = ProcessInfo.processInfo.environment
    let cache =
      environment["BIASSWEEP_CACHE"]
      ?? (environment["XDG_CACHE_HOME"] ?? (environment["HOME"] ?? "") + "/.cache") + "/biassweep"
    let path = cache + "/models/SmolLM2-135M-Instruct.Q4_1.gguf"
    guard FileManager.default.fileExists(atPath: path), RealData.isPresent else {
      print("skipping generation tests: \(path) or the data are missing (run scripts/fetch-model)")
      return nil
    }
    return path
  }()

  @Test(.enabled(if: modelPath != nil)) func fewerItemsAreAPrefixOfMoreAndKeepTheRules() throws {
    let path = try #require(Self.modelPath)
    let cache = URL(filePath: path).deletingLastPathComponent().deletingLastPathComponent().path
    let model = try LanguageModel.load(from: path, cacheDirectory: cache)
    let spec = try Synthetic.spec()
    let tasks = Synthetic.tasks
    let runner = try ShardRunner(
      spec: spec, tasks: tasks, model: model, data: Synthetic.data(), threads: 2)
    for (domain, bias) in [
      (Domain.culture, BiasType.contrastiveSingleExplicit), (.gender, .contrastiveSingleExplicit),
    ] {
      let key = AugmentationKey(domain: domain, bias: bias)
      func make(_ count: Int) throws -> ([UInt8], [String: Double]) {
        let made = try runner.augment(
          key, items: count, progress: { _ in }, shouldStop: { false })
        return (made.jsonl, made.facts)
      }
      let (more, facts) = try make(3)
      #expect(more.starts(with: try make(2).0))
      let items = try AugmentationSet(decoding: more).items
      #expect(items.map(\.index) == [0, 1, 2])
      let candidates = items.map(\.attempts).reduce(0, +)
      let accepted = items.count(where: \.accepted)
      #expect(facts["candidates"] == Double(candidates))
      #expect(facts["rejection_rate"] == Double(candidates - accepted) / Double(candidates))
      for item in items where domain == .culture {
        #expect(item.labels.count == 2 && item.labels[0] != item.labels[1])
      }
    }
  }

  @Test(.enabled(if: modelPath != nil)) func aStoppedGenerationGoesOnWithWhatIsFinished() throws {
    let path = try #require(Self.modelPath)
    let cache = URL(filePath: path).deletingLastPathComponent().deletingLastPathComponent().path
    let model = try LanguageModel.load(from: path, cacheDirectory: cache)
    let scratch = try Scratch()
    let runner = try ShardRunner(
      spec: try Synthetic.spec(), tasks: Synthetic.tasks, model: model,
      data: Synthetic.data(), threads: 2)
    let key = AugmentationKey(domain: .gender, bias: .contrastiveSingleExplicit)
    func make(_ checkpoint: ShardCheckpoint?, stopAfter: Int = .max) throws
      -> (jsonl: [UInt8], facts: [String: Double], asked: Int)
    {
      var asked = 0
      let made = try runner.augment(
        key, items: 4, checkpoint: checkpoint, progress: { _ in },
        shouldStop: {
          asked += 1
          return asked > stopAfter
        })
      return (made.jsonl, made.facts, asked)
    }
    let whole = try make(nil)
    let resumed = Mutex(0)
    let checkpoint = ShardCheckpoint(
      path: scratch.url.appending(path: "texts").path, interval: .zero, purpose: "test"
    ) { event in
      if case .resumed(let done, _) = event { resumed.withLock { $0 = done } }
    }
    #expect(studyError { _ = try make(checkpoint, stopAfter: whole.asked - 3) } == .cancelled)
    let rest = try make(checkpoint)
    #expect(resumed.withLock { $0 } > 0)
    #expect(rest.jsonl == whole.jsonl && rest.facts == whole.facts)
    #expect(rest.asked < whole.asked)
    // Everything is there: nothing is generated again.
    #expect(try make(checkpoint).asked <= rest.asked)
  }
}
