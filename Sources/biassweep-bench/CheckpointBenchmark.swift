import ArgumentParser
import Foundation
import LanguageModel
import RandomStreams
import Synchronization
import TransformerKernels

/// Times training with and without checkpoints, in turns, and what a checkpoint costs.
struct CheckpointBenchmark: ParsableCommand {
  enum Mode: String, ExpressibleByArgument, CaseIterable { case full, lora }

  static let configuration = CommandConfiguration(
    commandName: "checkpoint",
    abstract: "Time training with and without checkpoints, in turns.",
    discussion: """
      Prints one line of JSON. `stall_percent` is the share of the time that training stood still \
      for checkpoints; `cost_percent` adds the processor time of digest and writing, divided by the \
      threads. Both are of the rounds with checkpoints. `slowdown_percent` compares the steps a \
      second of both kinds of rounds, and is as noisy as the machine.

      EXAMPLES:
        biassweep-bench checkpoint --mode lora
        biassweep-bench checkpoint --mode full --interval 10 --seconds 60
      """)

  @Option(help: "What is trained.") var mode = Mode.lora
  @Option(help: "A .gguf file or Hugging Face directory; smollm2 for the default model.")
  var model = "smollm2"
  @Option(help: "Sequences of a step.") var batch = 8
  @Option(help: "Tokens of a sequence.") var seq = 64
  @Option(help: "Threads.") var threads = 2
  @Option(help: "Rank of the adapters, on all modules of all layers.") var rank = 8
  @Option(help: "Least seconds between two checkpoints.") var interval = 10.0
  @Option(help: "Seconds of training of each kind.") var seconds = 30.0
  @Option(help: "Rounds of each kind that the seconds are cut into.") var rounds = 2
  @Option(help: "Where the checkpoint is written; a temporary directory by default.")
  var directory: String?
  @Option(help: "Directory of models and data; $BIASSWEEP_CACHE or the user's cache by default.")
  var cache: String?

  func validate() throws {
    for (name, value) in [
      ("batch", batch), ("seq", seq), ("threads", threads), ("rank", rank), ("rounds", rounds),
    ] where value < 1 {
      throw ValidationError("--\(name) must be at least 1, not \(value)")
    }
  }

  func run() throws {
    let cacheDirectory = cache ?? defaultCacheDirectory()
    let weights = try ModelWeights.load(
      from: model == "smollm2"
        ? cacheDirectory + "/models/SmolLM2-135M-Instruct.Q4_1.gguf" : model,
      cacheDirectory: cacheDirectory)
    let shape = weights.configuration
    let adapter: Adapter =
      switch mode {
      case .full: .full
      case .lora:
        .lora(
          LoRAConfiguration(
            rank: rank, alpha: 2 * Float(rank), targets: Set(LoRATarget.allCases),
            layers: 0..<shape.layerCount))
      }
    let options = FineTuningOptions(
      adapter: adapter, epochs: 1_000_000, batchSize: batch, learningRate: 1e-5, seed: 1)
    let tuner = try FineTuner(
      weights: weights, options: options, pool: ThreadPool(threadCount: threads))
    var random = RandomStream(seed: 1, purpose: "benchmark tokens")
    let sequences = (0..<batch).map { _ in
      TrainingSequence(
        tokens: (0..<seq).map { _ in Int32(random.index(below: shape.vocabularySize)) },
        supervised: Array(repeating: true, count: seq), group: .original)
    }
    let identity = tuner.identity(of: sequences, purpose: "benchmark")
    let place =
      directory
      ?? FileManager.default.temporaryDirectory
      .appendingPathComponent("biassweep-bench-\(UUID().uuidString)").path
    try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: true)
    let path = place + "/bench.checkpoint"
    defer { unlink(path) }
    let failure = Mutex<String?>(nil)
    let writer = CheckpointWriter(
      for: tuner, identity: identity, path: path, interval: .seconds(interval),
      written: { _ in }, failed: { error in failure.withLock { $0 = "\(error)" } })

    // One step of each kind, and one checkpoint, so that all memory is there.
    try train(tuner, sequences, seconds: 0, writer: nil)
    writer.finish(tuner)
    let first = writer.totals
    var plain = Round()
    var kept = Round()
    for _ in 0..<rounds {
      plain.add(
        try train(tuner, sequences, seconds: seconds / Double(rounds), writer: nil))
      kept.add(
        try train(tuner, sequences, seconds: seconds / Double(rounds), writer: writer))
      writer.wait()
    }
    if let failure = failure.withLock({ $0 }) { throw ValidationError(failure) }
    let totals = writer.totals
    let count = totals.written - first.written
    let stall = (totals.stall - first.stall).seconds
    let background = (totals.background - first.background).seconds
    let state = tuner.emptyState()
    writer.finish(tuner)
    let before = ContinuousClock.now
    try FineTuningCheckpoint.read(path: path, identity: identity, into: state)
    tuner.restore(state)
    let resume = before.duration(to: .now).seconds
    let size = try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int ?? 0
    try BenchmarkOutput.print(
      Report(
        mode: mode.rawValue, model: model, batch: batch, seq: seq, threads: threads,
        interval_s: interval, checkpoints: count, bytes: size,
        stall_ms: (stall / Double(max(1, count)) * 1e3).rounded(to: 2),
        background_cpu_ms: (background / Double(max(1, count)) * 1e3).rounded(to: 1),
        stall_percent: (100 * stall / kept.seconds).rounded(to: 3),
        cost_percent: (100 * (stall + background / Double(threads)) / kept.seconds).rounded(to: 3),
        steps_per_s_without: plain.rate.rounded(to: 3), steps_per_s_with: kept.rate.rounded(to: 3),
        slowdown_percent: (100 * (1 - kept.rate / plain.rate)).rounded(to: 2),
        resume_ms: (resume * 1e3).rounded(to: 1), peak_rss_mb: peakMemoryMegabytes().rounded()))
  }

  private struct Round {
    var steps = 0
    var seconds = 0.0
    var rate: Double { Double(steps) / seconds }

    mutating func add(_ other: Round) {
      steps += other.steps
      seconds += other.seconds
    }
  }

  /// Trains on for some seconds, one step at least.
  @discardableResult
  private func train(
    _ tuner: FineTuner, _ sequences: [TrainingSequence], seconds: Double, writer: CheckpointWriter?
  ) throws -> Round {
    let start = ContinuousClock.now
    var round = Round()
    do {
      try tuner.train(
        sequences,
        shouldStop: { round.steps > 0 && start.duration(to: .now).seconds >= seconds },
        progress: { _ in
          round.steps += 1
          writer?.offer(tuner)
        })
    } catch FineTuningError.cancelled {
      // That is how a round ends.
    }
    round.seconds = start.duration(to: .now).seconds
    return round
  }

  private struct Report: Encodable {
    let mode: String
    let model: String
    let batch: Int
    let seq: Int
    let threads: Int
    let interval_s: Double
    let checkpoints: Int
    let bytes: Int
    let stall_ms: Double
    let background_cpu_ms: Double
    let stall_percent: Double
    let cost_percent: Double
    let steps_per_s_without: Double
    let steps_per_s_with: Double
    let slowdown_percent: Double
    let resume_ms: Double
    let peak_rss_mb: Double
  }
}
