import ArgumentParser
import Foundation
import LanguageModel
import RandomStreams
import TransformerKernels

/// Times a forward pass or a training step on random tokens, as `bench_torch.py` does: the same
/// shapes, logits at all positions, and the same keys in one line of JSON.
struct StepBenchmark: ParsableCommand {
  enum Mode: String, ExpressibleByArgument, CaseIterable { case forward, full, lora }
  enum Targets: String, ExpressibleByArgument, CaseIterable { case attn, all }

  static let configuration = CommandConfiguration(
    commandName: "step",
    abstract: "Time a forward pass or a training step on random tokens.",
    discussion: "Prints one line of JSON with the keys of the PyTorch reference benchmark.")

  @Option(help: "What a step is.") var mode: Mode
  @Option(help: "smollm2, tiny, small, or the path of a .gguf file or Hugging Face directory.")
  var model = "smollm2"
  @Option(help: "Sequences of a step.") var batch = 8
  @Option(help: "Tokens of a sequence.") var seq = 64
  @Option(help: "Threads.") var threads = 2
  @Option(help: "Timed steps.") var steps = 8
  @Option(help: "Steps before the timed ones.") var warmup = 2
  @Option(name: .customLong("max-seconds"), help: "Stop timing after this long; 3 steps at least.")
  var maxSeconds = 60.0
  @Option(help: "Rank of the adapters.") var rank = 8
  @Option(help: "Adapted modules: those of attention or all.") var targets = Targets.attn
  @Option(name: .customLong("lora-layers"), help: "Adapt only this many of the top layers.")
  var loraLayers: Int?
  @Option(name: .customLong("head-rows"), help: "Positions whose logits are computed at a time.")
  var headRows: Int?
  @Flag(help: "Compute activations again in the backward pass instead of keeping them.")
  var recompute = false
  @Option(help: "Directory of models and data; $BIASSWEEP_CACHE or the user's cache by default.")
  var cache: String?

  func validate() throws {
    for (name, value) in [
      ("batch", batch), ("seq", seq), ("threads", threads), ("steps", steps), ("rank", rank),
    ] where value < 1 {
      throw ValidationError("--\(name) must be at least 1, not \(value)")
    }
  }

  func run() throws {
    let weights = try benchmarkWeights(model, cache: cache)
    let shape = weights.configuration
    let pool = ThreadPool(threadCount: threads)
    var random = RandomStream(seed: 1, purpose: "benchmark tokens")
    let tokens = (0..<batch).map { _ in
      (0..<seq).map { _ in Int32(random.index(below: shape.vocabularySize)) }
    }
    let step = try makeStep(weights, tokens, pool)
    resetPeakMemory()
    let firstStart = ContinuousClock.now
    var losses: [Double] = []
    if warmup > 0 { losses.append(try step()) }
    let firstStep = firstStart.duration(to: .now).seconds
    for _ in 1..<max(1, warmup) { losses.append(try step()) }
    var times: [Double] = []
    let start = ContinuousClock.now
    let cpuBefore = processorSeconds()
    while times.count < steps
      && (times.count < 3 || start.duration(to: .now).seconds < maxSeconds)
    {
      let before = ContinuousClock.now
      losses.append(try step())
      times.append(before.duration(to: .now).seconds)
    }
    let cpu = processorSeconds() - cpuBefore
    let wall = start.duration(to: .now).seconds
    times.sort()
    let median =
      times.count % 2 == 1
      ? times[times.count / 2] : (times[times.count / 2 - 1] + times[times.count / 2]) / 2

    // As in bench_torch.py: parameters of the layers and the final norm, and one head.
    let inLayers =
      weights.layout.elementCount - shape.vocabularySize * shape.hiddenSize
      * (shape.tiesEmbeddings ? 1 : 2)
    let parameters = inLayers + shape.vocabularySize * shape.hiddenSize
    let flopsPerToken: Double =
      switch mode {
      case .forward: 2
      case .lora: 4
      case .full: 6
      }
    let flops: Double = flopsPerToken * Double(parameters) * Double(batch * seq)
    let report = Report(
      impl: "biassweep", mode: mode == .lora ? "lora-\(targets.rawValue)-r\(rank)" : mode.rawValue,
      model: model, batch: batch, seq: seq, threads: threads, dtype: "fp32",
      kernel: MultiplicationBackend.kernelName, steps: times.count,
      tokens_per_s: (Double(batch * seq) / median).rounded(to: 1),
      tokens_per_s_best: (Double(batch * seq) / times[0]).rounded(to: 1),
      step_ms_median: (median * 1e3).rounded(to: 2), step_ms_min: (times[0] * 1e3).rounded(to: 2),
      step_ms_max: (times[times.count - 1] * 1e3).rounded(to: 2),
      first_step_s: firstStep.rounded(to: 2), peak_rss_mb: peakMemoryMegabytes().rounded(),
      gflops: (flops / median / 1e9).rounded(to: 1),
      N: parameters, own_cpu: (cpu / wall).rounded(to: 2),
      cpu_ms_per_step: (cpu / Double(times.count) * 1e3).rounded(to: 1), loss_first: losses[0],
      loss_last: losses[losses.count - 1])
    try BenchmarkOutput.print(report)
  }

  /// A closure that does one step and returns its loss (for `forward`, one logit).
  private func makeStep(
    _ weights: ModelWeights, _ tokens: [[Int32]], _ pool: ThreadPool
  ) throws -> () throws -> Double {
    let shape = weights.configuration
    let adapter: Adapter
    switch mode {
    case .forward:
      let model = AdaptedModel(weights: weights, pool: pool, headRows: headRows ?? batch * seq)
      return {
        var logit: Float = 0
        try model.logits(tokens) { range, logits in
          if range.lowerBound == 0 { logit = logits.base[0] }
        }
        return Double(logit)
      }
    case .full:
      adapter = .full
    case .lora:
      let layers = min(loraLayers ?? shape.layerCount, shape.layerCount)
      adapter = .lora(
        LoRAConfiguration(
          rank: rank, alpha: 2 * Float(rank),
          targets: targets == .attn
            ? [.query, .key, .value, .output] : Set(LoRATarget.allCases),
          layers: shape.layerCount - layers..<shape.layerCount))
    }
    let tuner = try FineTuner(
      weights: weights,
      options: FineTuningOptions(
        adapter: adapter, epochs: 1, batchSize: batch, learningRate: 1e-4, gradientClip: nil,
        seed: 1, recomputesActivations: recompute), pool: pool,
      headRows: headRows ?? min(512, batch * seq))
    let sequences = tokens.map {
      TrainingSequence(tokens: $0, supervised: $0.map { _ in true }, group: .original)
    }
    return { Double(try tuner.takeStep(sequences, learningRate: 1e-4)) }
  }

  /// The keys of `bench_torch.py`.
  private struct Report: Encodable {
    let impl: String
    let mode: String
    let model: String
    let batch: Int
    let seq: Int
    let threads: Int
    let dtype: String
    let kernel: String
    let steps: Int
    let tokens_per_s: Double
    let tokens_per_s_best: Double
    let step_ms_median: Double
    let step_ms_min: Double
    let step_ms_max: Double
    let first_step_s: Double
    let peak_rss_mb: Double
    let gflops: Double
    let N: Int
    let own_cpu: Double
    let cpu_ms_per_step: Double
    let loss_first: Double
    let loss_last: Double
  }
}

/// The weights that `--model` names: random ones, those in the cache, or those of a file.
func benchmarkWeights(_ model: String, cache: String?) throws -> ModelWeights {
  func random(hidden: Int, layers: Int, heads: Int, feedForward: Int, vocabulary: Int)
    -> ModelWeights
  {
    ModelWeights.random(
      configuration: LlamaConfiguration(
        vocabularySize: vocabulary, hiddenSize: hidden, layerCount: layers, headCount: heads,
        keyValueHeadCount: heads, headDimension: hidden / heads, feedForwardSize: feedForward,
        ropeTheta: 10_000, normEpsilon: 1e-6, maximumPositions: 2048, tiesEmbeddings: false),
      seed: 0)
  }
  let directory = cache ?? defaultCacheDirectory()
  switch model {
  case "tiny":
    return random(hidden: 128, layers: 4, heads: 4, feedForward: 344, vocabulary: 4096)
  case "small":
    return random(hidden: 256, layers: 6, heads: 8, feedForward: 688, vocabulary: 8192)
  case "smollm2":
    return try ModelWeights.load(
      from: directory + "/models/SmolLM2-135M-Instruct.Q4_1.gguf", cacheDirectory: directory)
  default:
    return try ModelWeights.load(from: model, cacheDirectory: directory)
  }
}

/// `$BIASSWEEP_CACHE`, or `biassweep` in the user's cache directory.
func defaultCacheDirectory() -> String {
  let environment = ProcessInfo.processInfo.environment
  if let directory = environment["BIASSWEEP_CACHE"], !directory.isEmpty { return directory }
  let caches =
    environment["XDG_CACHE_HOME"].flatMap { $0.isEmpty ? nil : $0 }
    ?? NSHomeDirectory() + "/.cache"
  return caches + "/biassweep"
}

/// Starts a new measurement of the peak resident memory, where the system allows it.
func resetPeakMemory() {
  // Linux only: without it, the peak covers loading too.
  if let file = FileHandle(forWritingAtPath: "/proc/self/clear_refs") {
    file.write(Data("5".utf8))
    file.closeFile()
  }
}

/// Peak resident memory of this process in MiB, 0 where it is not known.
func peakMemoryMegabytes() -> Double {
  guard let status = try? String(contentsOfFile: "/proc/self/status", encoding: .utf8),
    let line = status.split(separator: "\n").first(where: { $0.hasPrefix("VmHWM:") }),
    let kibibytes = line.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first
  else { return 0 }
  return (Double(kibibytes) ?? 0) / 1024
}

/// Processor time of this process, all threads.
func processorSeconds() -> Double {
  var usage = rusage()
  getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
  return [usage.ru_utime, usage.ru_stime].reduce(0) {
    $0 + Double($1.tv_sec) + Double($1.tv_usec) * 1e-6
  }
}

extension Duration {
  var seconds: Double {
    Double(components.seconds) + Double(components.attoseconds) * 1e-18
  }
}

extension Double {
  func rounded(to places: Int) -> Double {
    let factor = (0..<places).reduce(1.0) { power, _ in power * 10 }
    return (self * factor).rounded() / factor
  }
}
