import BiasStudy
import Foundation
import LanguageModel
import SweepCore
import TransformerKernels

/// How long a sweep would take on this machine, and how many tokens pass the model.
///
/// Without a calibration: the multiplications that its tokens need, over the speed of multiplication
/// measured now. With one: what its kinds of work took when a little of each was done.
struct PlanEstimate {
  private(set) var seconds: Double
  private(set) var basis: String
  private(set) var tokens: CostEstimate
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

    tokens = plan.shards.reduce(CostEstimate(trained: 0, evaluated: 0, generated: 0)) {
      sum, shard in sum + CostEstimate(shard, spec: spec, tasks: tasks)
    }
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

  /// As above, from a little of the sweep's own work, done now.
  ///
  /// - Parameter progress: what is being measured.
  /// - Throws: `InfrastructureError` without the model; `StudyError` without the data.
  init(
    calibrating plan: ShardPlan, spec: SweepSpec, tasks: [DownstreamTask], trunkLimit: Int,
    progress: (String) -> Void
  ) throws {
    try self.init(plan: plan, spec: spec, tasks: tasks, trunkLimit: trunkLimit)
    let threads = ProcessInfo.processInfo.activeProcessorCount
    let model = try LanguageModel.load(
      from: ModelLocation(spec.model).path, cacheDirectory: Cache.root)
    let data = try StudyData(
      store: DatasetStore(directory: Cache.directory("data")), tasks: spec.definedTasks)
    let start = ContinuousClock.now
    let calibration = try Calibration(
      spec: spec, tasks: tasks, model: model, data: data, threads: threads,
      now: { (ContinuousClock.now - start) / .seconds(1) }, progress: progress,
      shouldStop: { false })

    let newTokens = CostEstimate.trunkTokens(plan, spec: spec, tasks: tasks)
    let keepsTrunk = MultiplicationBackend.selected == .own && trunkBytes <= self.trunkLimit
    seconds = keepsTrunk ? Double(newTokens) * calibration.frozenToken : 0
    var allTrained = 0.0
    for shard in plan.shards {
      seconds += calibration.seconds(shard, spec: spec)
      let cost = CostEstimate(shard, spec: spec, tasks: tasks)
      guard case .fineTune(let key, let trials) = shard.work else { continue }
      let trained = calibration.trainedTokens(key, spec: spec)
      allTrained += trained
      if !keepsTrunk {
        // What is written passes all layers each time, and was measured so.
        let written = trials.reduce(0) { $0 + CostEstimate.writtenTokens($1.task, spec: spec) }
        seconds += (trained + Double(cost.evaluated - written)) * calibration.frozenToken
      }
    }
    tokens = CostEstimate(
      trained: Int(allTrained), evaluated: tokens.evaluated, generated: tokens.generated)
    basis =
      "\(threads) threads, a little of its work done in \(Seconds(calibration.seconds)), "
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
