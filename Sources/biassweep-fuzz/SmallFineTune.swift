import Foundation
import LanguageModel
import TransformerKernels

/// A fine-tune of a tiny random model, whose files are fuzzed.
enum SmallFineTune {
  private static let weights = ModelWeights.random(
    configuration: LlamaConfiguration(
      vocabularySize: 23, hiddenSize: 8, layerCount: 2, headCount: 2, keyValueHeadCount: 1,
      headDimension: 4, feedForwardSize: 12, ropeTheta: 10_000, normEpsilon: 1e-5,
      maximumPositions: 32, tiesEmbeddings: true), seed: 5)

  static let sequences = [[1, 2, 3, 4], [1, 2, 9, 8, 7], [5, 6]].enumerated().map { index, tokens in
    TrainingSequence(
      tokens: tokens.map(Int32.init), supervised: tokens.map { _ in true },
      group: index == 1 ? .augmented : .original)
  }

  /// - Parameter cache: of the frozen layer's outputs.
  static func tuner(cache: TrunkCache?) throws -> FineTuner {
    try FineTuner(
      weights: weights,
      options: FineTuningOptions(
        adapter: .lora(LoRAConfiguration(rank: 1, alpha: 1, targets: [.value], layers: 1..<2)),
        epochs: 1, batchSize: 3, learningRate: 1e-3, alignmentWeight: 0.5, seed: 1),
      pool: ThreadPool(threadCount: 1), trunkCache: cache)
  }

  static func identity(_ tuner: FineTuner) -> FineTuningIdentity {
    tuner.identity(of: sequences, purpose: "fuzz")
  }

  /// Writes a checkpoint and a segment as programs write them: where fuzzing starts from.
  static func writeSeeds(to directory: String) throws {
    let checkpoints = directory + "/checkpoint"
    try FileManager.default.createDirectory(
      atPath: checkpoints, withIntermediateDirectories: true)
    let tuner = try tuner(cache: nil)
    let state = tuner.emptyState()
    tuner.capture(into: state)
    try FineTuningCheckpoint.write(
      state, identity: identity(tuner), to: checkpoints + "/start.safetensors")
    try tuner.train(sequences)
    tuner.capture(into: state)
    try FineTuningCheckpoint.write(
      state, identity: identity(tuner), to: checkpoints + "/trained.safetensors")
    let segments = directory + "/trunk"
    let cache = TrunkCache(
      byteLimit: 0, store: TrunkStore(directory: segments, byteLimit: 1 << 22))
    _ = try Self.tuner(cache: cache).accumulateGradients(sequences)
    for (index, name) in try FileManager.default.contentsOfDirectory(atPath: segments).sorted()
      .enumerated()
    {
      try FileManager.default.moveItem(
        atPath: "\(segments)/\(name)", toPath: "\(segments)/segment-\(index)")
    }
  }
}
