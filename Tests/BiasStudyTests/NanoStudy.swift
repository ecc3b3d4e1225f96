import BiasStudy
import Foundation
import LanguageModel
import SweepCore

/// The whole study on a tiny random model with a real tokenizer.
struct NanoStudy {
  let spec: SweepSpec
  let tasks = Synthetic.tasks
  let model: LanguageModel
  let data: StudyData

  /// - Parameters:
  ///   - training: changes the spec's training.
  ///   - change: changes anything of the spec.
  init(
    training: (inout SweepSpec.Training) -> Void = { _ in },
    change: (inout SweepSpec) -> Void = { _ in }
  ) throws {
    var spec = try Synthetic.spec()
    training(&spec.training)
    change(&spec)
    self.spec = spec
    data = try Synthetic.data()
    model = try Synthetic.model()
  }

  func runner(threads: Int = 1) throws -> ShardRunner {
    try ShardRunner(spec: spec, tasks: tasks, model: model, data: data, threads: threads)
  }

  var shards: [Shard] { ShardPlan(spec: spec, tasks: tasks).shards }

  /// Runs a fine-tune shard, or `only` some of its trials.
  func tune(
    _ runner: ShardRunner, _ shard: Shard, only: [Trial]? = nil,
    checkpoint: ShardCheckpoint? = nil, progress: (ShardProgress) -> Void = { _ in },
    shouldStop: () -> Bool = { false }
  ) throws -> (results: [TrialResult], facts: [String: Double]) {
    guard case .fineTune(let key, let trials) = shard.work else { return ([], [:]) }
    let augmentation = try key.augmentation.map { augmentationKey in
      // A random model writes no sentences, so D_a is written by hand in its place.
      try AugmentationSet(items: Synthetic.augmented(augmentationKey, count: 40)).encoded()
    }
    var results: [TrialResult] = []
    let facts = try runner.fineTune(
      key, augmentation: augmentation, trials: only ?? trials, checkpoint: checkpoint,
      progress: progress, shouldStop: shouldStop, completed: { results.append($0) })
    return (results, facts)
  }
}
