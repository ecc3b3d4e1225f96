import ArgumentParser
import BiasStudy
import CAllocationCount
import Foundation
import LanguageModel
import RandomStreams
import StudyDocuments
import SweepCore
import TransformerKernels

/// The bars of a single step, each measured side by side with PyTorch: a step of ours, one of the
/// reference, and so on in turn, so that both see the same machine.
struct BarsBenchmark: ParsableCommand {
  enum Row: String, ExpressibleByArgument, CaseIterable {
    case forward, lora, full, tiny, answers, memory, allocations
  }

  static let configuration = CommandConfiguration(
    commandName: "bars",
    abstract: "Measure the bars of a training step beside PyTorch.",
    discussion: """
      Prints one line of JSON for each bar, measured in a process of its own, with `verdict`: \
      "bar met" or "bar not met". Steps of both sides alternate; ratios are of median times.

        forward  8 x 64 tokens, all logits
        lora     r = 8 on q, k, v, o, all layers, 8 x 64, all logits; its share of the ceiling that \
      its matrix products set, its peak memory and its allocations
        full     full fine-tuning, 8 x 64, beside fused AdamW
        tiny     width 128, 4 layers, vocabulary 4,096, full step, 32 x 64
        answers  LoRA on the study's occupation items, beside padded batches with all logits
        memory   peak memory of full fine-tuning, 8 x 256, activations recomputed
        allocations  of a warm step of each kind, without a reference: LoRA and full, in parts, with \
      recomputation, the alignment term, losses weighted, and frozen layers' outputs from the cache

      EXAMPLES:
        biassweep-bench bars --python python3 --reference-model SmolLM2-hf
        biassweep-bench bars --rows forward,answers --rounds 9 --python venv/bin/python \\
          --reference-model SmolLM2-hf
        biassweep-bench bars --rows memory,allocations
      """)

  @Option(help: "Bars to measure, separated by commas; all by default.") var rows: String?
  @Option(help: "Timed steps of each side.") var rounds = 6
  @Option(help: "Threads of each side.") var threads = 2
  @Option(help: "A Python with torch, transformers and peft.") var python = "python3"
  @Option(help: "The reference's script.") var script = "scripts/reference_step.py"
  @Option(help: "The same model as a Hugging Face directory or name, for the reference.")
  var referenceModel = "HuggingFaceTB/SmolLM2-135M-Instruct"
  @Option(help: "Directory of models and data; $BIASSWEEP_CACHE or the user's cache by default.")
  var cache: String?

  private static let rank = 8

  func validate() throws {
    guard rounds >= 1, threads >= 1 else {
      throw ValidationError("--rounds and --threads take 1 or more.")
    }
    _ = try chosenRows()
  }

  private func chosenRows() throws -> [Row] {
    guard let rows else { return Row.allCases }
    return try rows.split(separator: ",").map { name in
      guard let row = Row(rawValue: String(name)) else {
        throw ValidationError(
          "--rows takes \(Row.allCases.map(\.rawValue).joined(separator: ", ")), not \(name).")
      }
      return row
    }
  }

  func run() throws {
    let rows = try chosenRows()
    // Each in a process of its own: a peak of memory is that of one row.
    if rows.count > 1 { return try rows.forEach(runAlone) }
    let pool = ThreadPool(threadCount: threads)
    switch rows.first {
    case .forward: try forward(pool)
    case .lora: try lora(pool)
    case .full: try full(pool)
    case .tiny: try tiny(pool)
    case .answers: try answers(pool)
    case .memory: try memory(pool)
    case .allocations: try allocations(pool)
    case nil: break
    }
  }

  private func runAlone(_ row: Row) throws {
    let process = Process()
    process.executableURL = URL(filePath: CommandLine.arguments[0])
    process.arguments = [
      "bars", "--rows", row.rawValue, "--rounds", "\(rounds)", "--threads", "\(threads)",
      "--python", python, "--script", script, "--reference-model", referenceModel,
    ]
    if let cache { process.arguments? += ["--cache", cache] }
    try process.run()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else { throw ExitCode(process.terminationStatus) }
  }

  // MARK: - Rows

  private func forward(_ pool: ThreadPool) throws {
    let weights = try benchmarkWeights("smollm2", cache: cache)
    let model = AdaptedModel(weights: weights, pool: pool, headRows: 512)
    let tokens = randomTokens(weights, batch: 8, length: 64)
    let times = try alternate(["--mode", "forward", "--model", referenceModel]) { _ in
      try model.logits(tokens) { _, _ in }
    }
    try times.print("forward, 8 x 64, all logits", atLeast: 1.25, threads: threads)
  }

  private func lora(_ pool: ThreadPool) throws {
    let weights = try benchmarkWeights("smollm2", cache: cache)
    let what = "LoRA r = 8 on q, k, v, o, all layers, 8 x 64, all logits"
    let times: Times
    do {
      resetPeakMemory()
      let tuner = try tuner(weights, adapter(weights), pool)
      let sequences = supervised(randomTokens(weights, batch: 8, length: 64))
      times = try alternate(["--mode", "lora", "--model", referenceModel]) { _ in
        try tuner.takeStep(sequences, learningRate: 1e-4)
      }
    }
    try times.print(what, atLeast: 1.4, threads: threads)
    try Bar(what: "peak memory in MB, \(what)", value: times.ownPeak * 1.048576, atMost: 1100)
      .print()
    try Bar(
      what: "allocations of a warm step, \(what)", value: Double(times.allocations), atMost: 0
    )
    .print()
    let products = StepProducts(
      weights.configuration, rows: 8 * 63, predictions: 8 * 63, rank: Self.rank)
    let least = products.measure(pool: pool)
    try Bar(
      what: "share of the ceiling of its matrix products, \(what)",
      value: least / times.ownMedian, atLeast: 0.8,
      detail: [
        "ceiling_ms": least * 1e3, "step_ms": times.ownMedian * 1e3,
        "ceiling_gflops": products.operations / least / 1e9,
      ]
    ).print()
  }

  private func full(_ pool: ThreadPool) throws {
    let weights = try benchmarkWeights("smollm2", cache: cache)
    let what = "full fine-tuning, 8 x 64, all logits"
    let tuner = try tuner(weights, .full, pool)
    let sequences = supervised(randomTokens(weights, batch: 8, length: 64))
    let times = try alternate(["--mode", "full", "--model", referenceModel]) { _ in
      try tuner.takeStep(sequences, learningRate: 1e-4)
    }
    try times.print(what, atLeast: 1.2, threads: threads)
    try Bar(
      what: "allocations of a warm step, \(what)", value: Double(times.allocations), atMost: 0
    )
    .print()
  }

  private func tiny(_ pool: ThreadPool) throws {
    let weights = try benchmarkWeights("tiny", cache: cache)
    let tuner = try tuner(weights, .full, pool)
    let sequences = supervised(randomTokens(weights, batch: 32, length: 64))
    let times = try alternate(["--mode", "full", "--model", "tiny", "--batch", "32"]) { _ in
      try tuner.takeStep(sequences, learningRate: 1e-4)
    }
    try times.print("tiny model, full step, 32 x 64", atLeast: 1.7, threads: threads)
  }

  private func answers(_ pool: ThreadPool) throws {
    let cache = cache ?? defaultCacheDirectory()
    let definition = try SweepDefinition(
      document: BenchmarkSweep.document([
        "name": ["bars"], "tasks": ["occupation"], "biases": ["contextual-single-explicit"],
        "ratios": ["0"], "seeds": ["1"],
      ]), catalogue: .builtIn)
    let model = try LanguageModel.load(
      from: cache + "/models/SmolLM2-135M-Instruct.Q4_1.gguf", cacheDirectory: cache)
    let data = try StudyData(
      store: DatasetStore(directory: cache + "/data"), tasks: definition.spec.definedTasks)
    let original = try OriginalData(
      domain: .gender, tasks: definition.tasks, sizes: definition.spec.data, data: data)
    let encoder = PromptEncoder(model)
    let sequences = original.items.map { encoder.training($0, group: .original) }
    let tuner = try tuner(model.weights, adapter(model.weights), pool, clip: 1)
    let order = tuner.order(ofEpoch: 0, count: sequences.count)
    let batches = stride(from: 0, to: order.count - 7, by: 8).prefix(rounds + 1).map { first in
      order[first..<first + 8].map { sequences[$0] }
    }
    let file = FileManager.default.temporaryDirectory.appending(
      path: "biassweep-bars-\(ProcessInfo.processInfo.processIdentifier).json")
    defer { try? FileManager.default.removeItem(at: file) }
    let items = batches.map { $0.map(ReferenceItem.init) }
    try JSONEncoder().encode(items).write(to: file)
    let times = try alternate(["--mode", "lora", "--model", referenceModel, "--data", file.path]) {
      try tuner.takeStep(batches[$0 % batches.count], learningRate: 1e-4)
    }
    try times.print("answer-only LoRA, 8 occupation items", atLeast: 2.5, threads: threads)
  }

  /// An item as `reference_step.py` reads it.
  private struct ReferenceItem: Encodable {
    let tokens: [Int32]
    let answer_start: Int

    init(_ sequence: TrainingSequence) {
      tokens = sequence.tokens
      answer_start = sequence.supervised.firstIndex(of: true) ?? sequence.tokens.count
    }
  }

  private func memory(_ pool: ThreadPool) throws {
    let weights = try benchmarkWeights("smollm2", cache: cache)
    resetPeakMemory()
    let tuner = try tuner(weights, .full, pool, recomputing: true)
    let sequences = supervised(randomTokens(weights, batch: 8, length: 256))
    for _ in 0..<2 { try tuner.takeStep(sequences, learningRate: 1e-4) }
    try Bar(
      what: "peak memory in MB, full fine-tuning, 8 x 256, activations recomputed",
      value: peakMemoryMegabytes() * 1.048576, atMost: 3000
    ).print()
  }

  /// Of the third step of each kind on a model without a file; the kernels and the step are those of
  /// any model.
  private func allocations(_ pool: ThreadPool) throws {
    guard allocation_count_works() == 1 else {
      throw ValidationError("allocations are counted with glibc and no sanitizer only")
    }
    let weights = try benchmarkWeights("tiny", cache: cache)
    let layers = weights.configuration.layerCount
    func lora(_ layers: Range<Int>) -> Adapter {
      .lora(
        LoRAConfiguration(
          rank: Self.rank, alpha: 2 * Float(Self.rank), targets: Set(LoRATarget.allCases),
          layers: layers))
    }
    let adapters: [(name: String, adapter: Adapter)] = [
      ("LoRA", lora(0..<layers)), ("LoRA, top half", lora(layers / 2..<layers)), ("full", .full),
    ]
    let kinds: [(name: String, change: (inout FineTuningOptions) -> Void)] = [
      ("plain", { _ in }), ("in 2 parts", { $0.accumulationSteps = 2 }),
      ("activations recomputed", { $0.recomputesActivations = true }),
      ("alignment term", { $0.alignmentWeight = 0.1 }),
      ("losses weighted", { $0.reweightingExponent = 1 }),
    ]
    var sequences = supervised(randomTokens(weights, batch: 8, length: 64))
    for index in sequences.indices where index % 2 == 1 { sequences[index].group = .augmented }
    for (adapterName, adapter) in adapters {
      for (kindName, change) in kinds {
        for cached in adapterName == "LoRA, top half" ? [false, true] : [false] {
          var options = FineTuningOptions(
            adapter: adapter, epochs: 1, batchSize: 8, learningRate: 1e-4, seed: 1)
          change(&options)
          let tuner = try FineTuner(
            weights: weights, options: options, pool: pool,
            trunkCache: cached ? TrunkCache(byteLimit: 1 << 28) : nil)
          for _ in 0..<2 { try tuner.takeStep(sequences, learningRate: 1e-4) }
          allocation_count_begin()
          try tuner.takeStep(sequences, learningRate: 1e-4)
          let count = allocation_count_end()
          let source = cached ? ", frozen layers from the cache" : ""
          try Bar(
            what: "allocations of a warm step, \(adapterName), \(kindName)\(source)",
            value: Double(count), atMost: 0
          ).print()
        }
      }
    }
  }

  // MARK: - Steps

  private func adapter(_ weights: ModelWeights) -> Adapter {
    .lora(
      LoRAConfiguration(
        rank: Self.rank, alpha: 2 * Float(Self.rank), targets: [.query, .key, .value, .output],
        layers: 0..<weights.configuration.layerCount))
  }

  private func tuner(
    _ weights: ModelWeights, _ adapter: Adapter, _ pool: ThreadPool, clip: Float? = nil,
    recomputing: Bool = false
  ) throws -> FineTuner {
    try FineTuner(
      weights: weights,
      options: FineTuningOptions(
        adapter: adapter, epochs: 1, batchSize: 8, learningRate: 1e-4, gradientClip: clip, seed: 1,
        recomputesActivations: recomputing), pool: pool,
      headRows: recomputing ? 256 : 512)
  }

  private func randomTokens(_ weights: ModelWeights, batch: Int, length: Int) -> [[Int32]] {
    var random = RandomStream(seed: 1, purpose: "benchmark tokens")
    return (0..<batch).map { _ in
      (0..<length).map { _ in Int32(random.index(below: weights.configuration.vocabularySize)) }
    }
  }

  private func supervised(_ tokens: [[Int32]]) -> [TrainingSequence] {
    tokens.map {
      TrainingSequence(tokens: $0, supervised: $0.map { _ in true }, group: .original)
    }
  }

  /// Steps of ours and of the reference in turn, after one of each that is not timed.
  private func alternate(_ arguments: [String], _ step: (Int) throws -> Void) throws -> Times {
    let peer = try StepPeer(
      python: python, script: script, arguments: arguments + ["--threads", "\(threads)"])
    var times = Times()
    for round in 0...rounds {
      // The reference's threads spin for a while after a step.
      Thread.sleep(forTimeInterval: 0.3)
      allocation_count_begin()
      let start = ContinuousClock.now
      try step(round)
      let own = start.duration(to: .now).seconds
      times.allocations = allocation_count_end()
      let other = try peer.step(round)
      if round > 0 { times.append(own: own, reference: other) }
    }
    times.ownPeak = peakMemoryMegabytes()
    times.referencePeak = try peer.finish()
    return times
  }
}

/// Times of alternating steps.
private struct Times {
  private var own: [Double] = []
  private var reference: [Double] = []
  /// Allocations of the latest step of ours.
  var allocations = 0
  /// Peak resident memory in MiB.
  var ownPeak = 0.0
  var referencePeak = 0.0

  mutating func append(own: Double, reference: Double) {
    self.own.append(own)
    self.reference.append(reference)
  }

  var ownMedian: Double { Self.median(own) }

  /// The ratio of the medians, and the smallest and largest of a pair of neighbouring steps.
  func print(_ what: String, atLeast bar: Double, threads: Int) throws {
    let ratios = zip(reference, own).map { $0 / $1 }.sorted()
    try Bar(
      what: what, value: Self.median(reference) / ownMedian, atLeast: bar,
      detail: [
        "own_ms": ownMedian * 1e3, "reference_ms": Self.median(reference) * 1e3,
        "lowest_pair": ratios[0], "highest_pair": ratios[ratios.count - 1],
        "own_peak_mb": ownPeak * 1.048576, "reference_peak_mb": referencePeak * 1.048576,
        "rounds": Double(own.count), "threads": Double(threads),
      ]
    ).print()
  }

  private static func median(_ values: [Double]) -> Double {
    let sorted = values.sorted()
    let middle = sorted.count / 2
    return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
  }
}

/// A measured value beside what is asked for.
private struct Bar: Encodable {
  let what: String
  let value: Double
  let bar: Double
  let verdict: String
  let detail: [String: Double]

  init(what: String, value: Double, atLeast bar: Double, detail: [String: Double] = [:]) {
    self.init(what: what, value: value, bar: bar, met: value >= bar, detail: detail)
  }

  init(what: String, value: Double, atMost bar: Double) {
    self.init(what: what, value: value, bar: bar, met: value <= bar, detail: [:])
  }

  private init(
    what: String, value: Double, bar: Double, met: Bool, detail: [String: Double]
  ) {
    self.what = what
    self.value = value.rounded(to: 3)
    self.bar = bar
    verdict = met ? "bar met" : "bar not met"
    self.detail = detail.mapValues { $0.rounded(to: 2) }
  }

  func print() throws { try BenchmarkOutput.print(self) }
}
