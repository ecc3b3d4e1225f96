import BiasStudy
import Foundation
import LanguageModel
import SweepCore
import TransformerKernels

/// How long a sweep would take on this machine: the multiplications that its tokens need, over the
/// speed of multiplication measured now.
struct PlanEstimate {
  let seconds: Double
  let basis: String
  /// Bytes of all outputs of frozen layers that the sweep uses; 0 where every layer is trained.
  let trunkBytes: Int
  /// Most bytes of them that are kept, on disk or in memory.
  let trunkLimit: Int

  /// Share of a training or evaluation step's time that is multiplication.
  private static let multiplicationShare = 0.75
  /// Generation works on few rows at a time and is bound by memory, not by multiplication.
  private static let generationSlowdown = 2.5

  /// - Parameter trunkLimit: disk space for outputs of frozen layers.
  init(
    plan: ShardPlan, spec: SweepSpec, tasks: [DownstreamTask], trunkLimit: Int
  ) throws {
    let configuration = try Self.configuration(spec.model)
    let threads = ProcessInfo.processInfo.activeProcessorCount
    let flops = MachineSpeed.multiplication(threads: threads)
    let perLayer = 2.0 * Double(Self.parametersPerLayer(configuration))
    let layers = Double(configuration.layerCount)
    let trained = Double(min(spec.training.topLayers ?? .max, configuration.layerCount))
    let trunk = layers - trained
    let trunkTokens = CostEstimate.trunkTokens(plan, spec: spec, tasks: tasks)
    trunkBytes =
      trunk > 0 ? trunkTokens * configuration.hiddenSize * MemoryLayout<Float>.stride : 0
    self.trunkLimit = max(trunkLimit, ShardRunner.trunkCacheBytes)
    // Passes over everything in turn find nothing in a cache that does not hold it all.
    let keepsTrunk = MultiplicationBackend.selected == .own && trunkBytes <= self.trunkLimit

    // Once on this machine.
    var work = keepsTrunk ? Double(trunkTokens) * trunk * perLayer : 0
    for shard in plan.shards {
      let cost = CostEstimate(shard, spec: spec, tasks: tasks)
      work += Double(cost.generated) * layers * perLayer * Self.generationSlowdown
      guard case .fineTune(_, let trials) = shard.work else { continue }
      // Forward and backward through the trained layers in each epoch, and gradients of weights.
      let passes = spec.training.method == .full ? 3.0 : 2.0
      work += Double(cost.trained) * trained * perLayer * passes
      let written = trials.reduce(0) { $0 + CostEstimate.writtenTokens($1.task, spec: spec) }
      work += Double(written) * layers * perLayer * Self.generationSlowdown
      work += Double(cost.evaluated - written) * trained * perLayer
      if !keepsTrunk {
        work += Double(cost.trained + cost.evaluated - written) * trunk * perLayer
      }
    }
    seconds = work / (flops * Self.multiplicationShare)
    basis =
      "\(threads) threads, \(Int(flops / 1e9)) GFLOP/s measured now, "
      + "\(MultiplicationBackend.kernelName) kernels"
  }

  /// The shape of the spec's model; that of SmolLM2-135M while the model was not fetched.
  private static func configuration(_ name: String) throws -> LlamaConfiguration {
    guard let location = try? ModelLocation(name) else {
      return LlamaConfiguration(
        vocabularySize: 49152, hiddenSize: 576, layerCount: 30, headCount: 9,
        keyValueHeadCount: 3, headDimension: 64, feedForwardSize: 1536, ropeTheta: 100_000,
        normEpsilon: 1e-5, maximumPositions: 8192, tiesEmbeddings: true)
    }
    return try LanguageModel.configuration(at: location.path)
  }

  private static func parametersPerLayer(_ shape: LlamaConfiguration) -> Int {
    shape.hiddenSize
      * (2 * shape.queryWidth + 2 * shape.keyValueWidth + 3 * shape.feedForwardSize)
  }
}
