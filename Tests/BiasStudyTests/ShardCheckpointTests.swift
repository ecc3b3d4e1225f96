import BiasStudy
import Foundation
import LanguageModel
import SweepCore
import Synchronization
import Testing

/// Shards that end in the middle and go on elsewhere, on a tiny random model.
struct ShardCheckpointTests {
  private let study: NanoStudy
  private let scratch: Scratch

  init() throws {
    study = try NanoStudy()
    scratch = try Scratch()
  }

  private var path: String { scratch.url.appending(path: "shard.checkpoint").path }

  /// What a checkpoint's owner was told.
  private final class Events: Sendable {
    private let all = Mutex<[ShardCheckpoint.Event]>([])
    func add(_ event: ShardCheckpoint.Event) { all.withLock { $0.append(event) } }
    var resumed: Int? {
      all.withLock { all in
        all.compactMap { if case .resumed(let done, _) = $0 { done } else { nil } }.last
      }
    }
    var unusable: [String] {
      all.withLock { all in
        all.compactMap { if case .unusable(let reason) = $0 { reason } else { nil } }
      }
    }
    var written: [Int] {
      all.withLock { all in
        all.compactMap { if case .written(let done) = $0 { done } else { nil } }
      }
    }
  }

  private func checkpoint(
    _ events: Events, at path: String? = nil, alternatives: [String] = [],
    interval: Duration = .seconds(3600), purpose: String = "test"
  ) -> ShardCheckpoint {
    ShardCheckpoint(
      path: path ?? self.path, alternatives: alternatives, interval: interval, purpose: purpose,
      report: events.add)
  }

  /// Stops `shard` before step `step` (from 0), or, beyond the last, in its evaluation.
  private func stop(
    _ shard: Shard, of other: NanoStudy? = nil, before step: Int, threads: Int,
    checkpoint: ShardCheckpoint
  ) throws {
    let study = other ?? self.study
    var asked = 0
    let error = studyError {
      _ = try study.tune(
        try study.runner(threads: threads), shard, checkpoint: checkpoint,
        shouldStop: {
          asked += 1
          return asked > step
        })
    }
    #expect(error == .cancelled)
  }

  @Test(arguments: [Mitigation.none, .token, .mask, .loss])
  func anotherWorkerGoesOnFromAnyStepWithTheSameBits(mitigation: Mitigation) throws {
    try expectTheSameBitsFromAnyStep(study, mitigation)
  }

  /// Full fine-tuning, of all weights and of the top layer, in parts and with activations computed
  /// again; LoRA with the other scaling.
  @Test(arguments: [0, 1, 2])
  func everyMethodGoesOnFromAnyStepWithTheSameBits(variant: Int) throws {
    let lora = try study.tune(
      try study.runner(), try #require(study.shards.first { !$0.trials.isEmpty }))
    let study = try NanoStudy { training in
      switch variant {
      case 0:
        training.method = .full
        training.topLayers = nil
        training.recompute = true
      case 1:
        training.method = .full
        training.accumulation = 2
      default: training.scaling = .rslora
      }
      // Weights move further than the product of two small matrices.
      if training.method == .full { training.learningRate = 1e-3 }
    }
    let other = try study.tune(
      try study.runner(), try #require(study.shards.first { !$0.trials.isEmpty }))
    #expect(other.facts["final_loss"] != lora.facts["final_loss"])
    try expectTheSameBitsFromAnyStep(study, .loss)
  }

  private func expectTheSameBitsFromAnyStep(_ study: NanoStudy, _ mitigation: Mitigation) throws {
    let shard = try #require(
      study.shards.first {
        guard case .fineTune(let key, _) = $0.work else { return false }
        return key.mitigation == mitigation && key.ratio > 0 && key.domain == .gender
      })
    let whole = try study.tune(try study.runner(), shard)
    let steps = Int(whole.facts["steps"] ?? 0)
    #expect(steps == 8)
    for step in 1...steps {
      let events = Events()
      try stop(
        shard, of: study, before: step, threads: 1 + step % 2, checkpoint: checkpoint(events))
      #expect(events.written == [step])
      let heir = try study.tune(
        try study.runner(threads: 1 + step % 3), shard, checkpoint: checkpoint(events))
      #expect(events.resumed == step)
      #expect(heir.results == whole.results)
      #expect(heir.facts == whole.facts)
      try FileManager.default.removeItem(atPath: path)
    }
  }

  @Test func anUnusableCheckpointMeansTheBeginningNotAWrongResult() throws {
    let shards = study.shards.filter { $0.dependency == nil && !$0.trials.isEmpty }
    let shard = try #require(shards.first)
    let whole = try study.tune(try study.runner(), shard)
    let events = Events()
    try stop(shard, before: 2, threads: 1, checkpoint: checkpoint(events))
    let good = try Data(contentsOf: URL(filePath: path))
    var flipped = good
    flipped[good.count - 9] ^= 1
    let other = try #require(shards.last)
    for (data, shard, purpose) in [
      (flipped, shard, "test"), (good.prefix(good.count / 2), shard, "test"),
      (Data(), shard, "test"), (Data("not a checkpoint".utf8), shard, "test"),
      (good, shard, "another shard"),
      (good, other, "test"),
    ] {
      try data.write(to: URL(filePath: path))
      let events = Events()
      let again = try study.tune(
        try study.runner(), shard, checkpoint: checkpoint(events, purpose: purpose))
      #expect(events.resumed == nil)
      #expect(events.unusable.count == 1)
      if shard.id == shards.first?.id {
        #expect(again.results == whole.results && again.facts == whole.facts)
      }
    }
  }

  @Test func theFurthestUsableFileIsTaken() throws {
    let shard = try #require(study.shards.first { $0.dependency == nil && !$0.trials.isEmpty })
    let whole = try study.tune(try study.runner(), shard)
    let files = (1...3).map { scratch.url.appending(path: "\($0)").path }
    for (index, file) in files.enumerated() {
      try stop(shard, before: index + 1, threads: 1, checkpoint: checkpoint(Events(), at: file))
    }
    var damaged = try Data(contentsOf: URL(filePath: files[2]))
    damaged[damaged.count - 1] ^= 0x80
    try damaged.write(to: URL(filePath: files[2]))
    let events = Events()
    let heir = try study.tune(
      try study.runner(), shard,
      checkpoint: checkpoint(events, at: files[0], alternatives: [files[1], files[2], "/none"]))
    #expect(events.resumed == 2)
    #expect(events.unusable.count == 1)
    #expect(heir.results == whole.results)
  }

  @Test func aShardThatEndsInItsEvaluationIsNotTrainedAgain() throws {
    let shard = try #require(study.shards.first { $0.dependency == nil && $0.trials.count == 2 })
    let whole = try study.tune(try study.runner(), shard)
    let steps = Int(whole.facts["steps"] ?? 0)
    let events = Events()
    try stop(shard, before: steps + 1, threads: 2, checkpoint: checkpoint(events))
    var phases: Set<String> = []
    let heir = try study.tune(
      try study.runner(), shard, only: [shard.trials[1]], checkpoint: checkpoint(events),
      progress: { phases.insert($0.phase) })
    #expect(events.resumed == steps)
    #expect(!phases.contains("training"))
    #expect(heir.results == whole.results.filter { $0.trial == shard.trials[1].id })
    #expect(heir.facts == whole.facts)
  }

  @Test func checkpointsAreWrittenWhileTraining() throws {
    let shard = try #require(study.shards.first { $0.dependency == nil && !$0.trials.isEmpty })
    let events = Events()
    _ = try study.tune(
      try study.runner(), shard, checkpoint: checkpoint(events, interval: .zero))
    #expect(!events.written.isEmpty)
    #expect(events.written == events.written.sorted())
    #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.url.path).count == 1)
  }
}
