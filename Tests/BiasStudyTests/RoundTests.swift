import BiasStudy
import Foundation
import LanguageModel
import StudyDocuments
import SweepCore
import Synchronization
import Testing
import TransformerKernels

/// Rounds of inheritance on a tiny random model. It writes no sentences, but in some sixty tokens it
/// writes enough words for every text to be usable.
struct RoundTests {
  private static let writer = AugmentationKey.Writer(
    ratio: 0.5, mitigation: .none, seed: 1, round: 1)
  private static let first = AugmentationKey(domain: .gender, bias: .contextualSingleExplicit)
  private static let second = AugmentationKey(
    domain: .gender, bias: .contextualSingleExplicit, writer: writer)

  /// What is trained: an adapter, all weights, those of the top layer.
  private func study(_ variant: Int = 0) throws -> NanoStudy {
    try NanoStudy(changing: {
      $0.rounds = 2
      $0.tasks = ["occupation"]
      $0.biases = [.contextualSingleExplicit]
      $0.ratios = [0.5]
      $0.mitigations = [.none]
      $0.augmentation.maximumTokens = 60
      // So little that the adapted model writes as many words as the base model, and so much that
      // they are others. Adapters begin at zero.
      $0.training.learningRate = variant == 0 ? 1e-2 : 1e-3
      if variant > 0 { $0.training.method = .full }
      if variant == 1 { $0.training.topLayers = nil }
    })
  }

  private func augment(
    _ runner: ShardRunner, _ key: AugmentationKey, items: Int = 4, by parameters: [UInt8]? = nil,
    checkpoint: ShardCheckpoint? = nil, shouldStop: () -> Bool = { false }
  ) throws -> (jsonl: [UInt8], facts: [String: Double]) {
    try runner.augment(
      key, items: items, writtenBy: parameters, checkpoint: checkpoint, progress: { _ in },
      shouldStop: shouldStop)
  }

  /// What the fine-tune of the first round learns.
  private func parameters(_ runner: ShardRunner, _ augmentation: [UInt8]) throws -> [UInt8] {
    let key = try #require(Self.second.writerKey)
    var kept: [UInt8] = []
    _ = try runner.fineTune(
      key, augmentation: augmentation, trials: [], progress: { _ in }, shouldStop: { false },
      keep: { kept = try $0.encoded() }, completed: { _ in })
    return kept
  }

  @Test(arguments: 0...2) func theFineTuneOfARoundWritesTheDataOfTheNext(variant: Int) throws {
    let study = try study(variant)
    let runner = try study.runner()
    let base = try augment(runner, Self.first, items: 16)
    let learned = try parameters(runner, base.jsonl)
    let written = try augment(runner, Self.second, by: learned)

    // By hand, with the model that the parameters make.
    let trained = try TrainedParameters(
      encoded: learned, name: "test", for: study.model.configuration)
    let adapted = try trained.model(on: study.model.weights, pool: ThreadPool(threadCount: 1))
    let byHand = try Augmenter(
      spec: study.spec, names: study.data.names,
      writer: .model(adapted, study.model, PromptEncoder(study.model))
    ).items(
      Self.second, count: 4, monitor: Monitor(advance: { _ in }, shouldStop: { false }))
    #expect(try AugmentationSet(items: byHand.items).encoded() == written.jsonl)

    // The same requests, and other texts than the base model's.
    let before = try AugmentationSet(decoding: base.jsonl).items.prefix(4)
    let after = try AugmentationSet(decoding: written.jsonl).items
    #expect(after.map(\.request) == before.map(\.request))
    #expect(after.map(\.people) == before.map(\.people))
    #expect(after.map(\.answer) != before.map(\.answer))
    // What the writer thinks of groups is the writer's.
    #expect(written.facts["groups_divergence"] != nil)
    #expect(written.facts["groups_divergence"] != base.facts["groups_divergence"])
  }

  /// A runner that did the whole chain has caches full of the base model's and the first round's.
  @Test func whatWasComputedBeforeChangesNoBit() throws {
    let study = try study()
    let busy = try study.runner()
    let base = try augment(busy, Self.first, items: 16)
    let learned = try parameters(busy, base.jsonl)
    let written = try augment(busy, Self.second, by: learned)
    let fresh = try augment(try study.runner(threads: 3), Self.second, by: learned)
    #expect(fresh.jsonl == written.jsonl && fresh.facts == written.facts)
    let again = try augment(busy, Self.first, items: 16)
    #expect(again.jsonl == base.jsonl && again.facts == base.facts)
    #expect(try parameters(busy, again.jsonl) == learned)
  }

  @Test func fewerItemsAreAPrefixOfMoreInEveryRound() throws {
    let runner = try study().runner()
    let learned = try parameters(runner, augment(runner, Self.first, items: 16).jsonl)
    let more = try augment(runner, Self.second, items: 3, by: learned).jsonl
    #expect(more.starts(with: try augment(runner, Self.second, items: 2, by: learned).jsonl))
  }

  @Test func aWholeChainIsAPlanOfShards() throws {
    let study = try study()
    let runner = try study.runner()
    var artifacts: [ShardID: [UInt8]] = [:]
    for shard in study.shards {
      let input = shard.dependency.flatMap { artifacts[$0] }
      #expect((input == nil) == (shard.dependency == nil))
      switch shard.work {
      case .augmentation(let key, let items):
        artifacts[shard.id] = try augment(runner, key, items: items, by: input).jsonl
      case .fineTune(let key, let trials):
        var results: [TrialResult] = []
        let facts = try runner.fineTune(
          key, augmentation: input, trials: trials, progress: { _ in }, shouldStop: { false },
          keep: { artifacts[shard.id] = try $0.encoded() }, completed: { results.append($0) })
        #expect(results.map(\.trial) == trials.map(\.id))
        #expect(facts["items_augmented"] == 16)
      }
    }
    #expect(artifacts.count == 4 && Set(artifacts.values).count == 4)
  }

  @Test(arguments: [2, 3]) func aStoppedWriterGoesOnWithTheSameBits(quarter: Int) throws {
    let study = try study()
    let runner = try study.runner()
    let learned = try parameters(runner, augment(runner, Self.first, items: 16).jsonl)
    var asked = 0
    let whole = try augment(
      runner, Self.second, by: learned,
      shouldStop: {
        asked += 1
        return false
      })
    let wholeAsked = asked
    let scratch = try Scratch()
    let resumed = Mutex(0)
    let checkpoint = ShardCheckpoint(
      path: scratch.url.appending(path: "texts").path, interval: .zero, purpose: "test"
    ) { event in
      if case .resumed(let done, _) = event { resumed.withLock { $0 = done } }
    }
    asked = 0
    let error = studyError {
      _ = try augment(
        runner, Self.second, by: learned, checkpoint: checkpoint,
        shouldStop: {
          asked += 1
          return asked > wholeAsked * quarter / 4
        })
    }
    #expect(error == .cancelled)
    asked = 0
    let rest = try augment(
      try study.runner(threads: 2), Self.second, by: learned, checkpoint: checkpoint,
      shouldStop: {
        asked += 1
        return false
      })
    #expect(resumed.withLock { $0 } > 0)
    #expect(rest.jsonl == whole.jsonl && rest.facts == whole.facts)
    #expect(asked < wholeAsked)
  }

  @Test func missingOrForeignParametersAreRefused() throws {
    let study = try study()
    let runner = try study.runner()
    let name = "tune/gender/contextual-single-explicit/0.5/none/1"
    #expect(
      studyError { _ = try augment(runner, Self.second) } == .noParameters(fineTune: name))
    let hand = try AugmentationSet(items: Synthetic.augmented(Self.first, count: 16)).encoded()
    let learned = try parameters(runner, hand)
    // Another kind of fine-tune, and another model.
    let full = try parameters(try self.study(1).runner(), hand)
    let other = try ShardRunner(
      spec: study.spec, tasks: study.tasks,
      model: LanguageModel(
        name: "other",
        weights: .random(configuration: study.model.configuration, seed: 4),
        tokenizerFrom: Synthetic.tokenizerPath), data: study.data, threads: 1)
    for (runner, bytes) in [
      (runner, Array(learned.dropLast())), (runner, []), (runner, hand), (runner, full),
      (other, learned),
    ] {
      guard
        case .unusableParameters(name, let reason)? = studyError({
          _ = try augment(runner, Self.second, by: bytes)
        })
      else {
        Issue.record("\(bytes.count) bytes were taken for parameters")
        continue
      }
      #expect(!reason.isEmpty)
    }
  }

  /// docs/STUDY.md, "Rounds".
  @Test func theStudysMultiRoundSpecIsValid() throws {
    let text = try String(
      contentsOf: URL(filePath: #filePath).deletingLastPathComponent()
        .appending(path: "../../docs/STUDY.md"), encoding: .utf8)
    let rest = try #require(text.range(of: "```yaml\nname: rounds\n"))
    let block = try #require(text[rest.lowerBound...].dropFirst("```yaml\n".count).range(of: "```"))
    let yaml = String(text[text.index(rest.lowerBound, offsetBy: 8)..<block.lowerBound])
    let definition = try SweepDefinition(document: SpecNode(yaml: yaml), catalogue: .builtIn)
    #expect(definition.spec.rounds == 5)
    // Of each domain and seed: five rounds, of which the first set is common, and ratio 0.
    #expect(definition.plan.fineTuneCount == 2 * 3 * 6)
    #expect(definition.plan.augmentationCount == 2 * (1 + 3 * 4))
  }
}
