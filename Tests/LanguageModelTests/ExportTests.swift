import Foundation
import LanguageModel
import Testing
import TransformerKernels

/// A Python with torch, transformers and peft: `$BIASSWEEP_PYTHON`, or the first `python3` of the
/// path if it has them.
enum PeerPython {
  static let path: String? = {
    let given = ProcessInfo.processInfo.environment["BIASSWEEP_PYTHON"]
    let candidate = given.flatMap { $0.isEmpty ? nil : $0 } ?? "python3"
    if (try? run([candidate, "-c", "import torch, transformers, peft"]))?.status == 0 {
      return candidate
    }
    print(
      "Skipped: exports against PEFT and transformers; \(candidate) does not have torch, "
        + "transformers and peft (give one that does in BIASSWEEP_PYTHON)")
    return nil
  }()

  /// Runs a program found by the path.
  static func run(_ arguments: [String]) throws -> (status: Int32, output: String) {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = arguments
    let pipe = Pipe()
    process.standardOutput = pipe
    process.standardError = pipe
    try process.run()
    let output = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return (process.terminationStatus, String(decoding: output, as: UTF8.self))
  }

  /// What `check-export.py` computes.
  struct Job: Encodable {
    var base: String
    var adapter: String?
    var ids: [[Int32]]
    var output: String
    var text: String?
  }

  /// Runs the jobs in one process: Python takes seconds to load its libraries.
  static func run(_ jobs: [Job], in scratch: ScratchDirectory) throws {
    let list = try scratch.write(try JSONEncoder().encode(jobs), to: "jobs.json")
    let result = try run([try #require(path), fixture("check-export.py").path, list])
    try #require(result.status == 0, "\(result.output)")
  }
}

@Suite struct ExportTests {
  private let scratch: ScratchDirectory
  private let pool = ThreadPool(threadCount: 2)

  init() throws { scratch = try ScratchDirectory() }

  private static let adapters = [
    LoRAConfiguration(rank: 4, alpha: 8, targets: [.query, .key, .value, .output], layers: 0..<2),
    LoRAConfiguration(
      rank: 3, alpha: 5, targets: Set(LoRATarget.allCases), layers: 1..<2, rankStabilised: true),
    LoRAConfiguration(rank: 2, alpha: 1.5, targets: [.down, .value], layers: 0..<1),
  ]

  /// A fine-tune of a nano model that has taken a few large steps, so that nothing is zero.
  private func tuned(_ name: String, _ adapter: Adapter) throws -> (NanoModel, FineTuner) {
    let nano = try NanoModel(name)
    let tuner = try FineTuner(weights: nano.weights, options: nano.options(adapter), pool: pool)
    for _ in 0..<3 { try tuner.takeStep(nano.sequences, learningRate: 2e-2) }
    return (nano, tuner)
  }

  @Test(arguments: adapters) func adaptersReadBackToTheSameBits(lora: LoRAConfiguration) throws {
    let (nano, tuner) = try tuned("nano_qwen2", .lora(lora))
    let directory = scratch.file("adapter")
    try tuner.trainedParameters.writePEFT(to: directory, baseModel: "nano")
    let read = try TrainedParameters(
      peftDirectory: directory, for: nano.weights.configuration)
    #expect(read.adapter == .lora(lora))
    let model = try read.model(on: nano.weights, pool: pool)
    let ids = nano.reference.ids
    #expect(bits(try logits(model, batch: ids)) == bits(try logits(tuner.adapted, batch: ids)))
  }

  @Test func parametersReadBackToTheSameBits() throws {
    for adapter in [Adapter.full, .upperLayers(from: 1), .lora(Self.adapters[1])] {
      let (nano, tuner) = try tuned("nano_qwen3", adapter)
      let bytes = try tuner.trainedParameters.encoded()
      let path = try scratch.write(bytes, to: "parameters.safetensors")
      let read = try TrainedParameters(path: path, for: nano.weights.configuration)
      #expect(read.adapter == adapter && read.baseDigest == nano.weights.digest)
      #expect(try read.encoded() == bytes)
      let inMemory = try TrainedParameters(
        encoded: bytes, name: "bytes", for: nano.weights.configuration)
      #expect(inMemory.adapter == adapter && inMemory.baseDigest == read.baseDigest)
      #expect(try inMemory.encoded() == bytes)
      for count in [0, 7, 8, bytes.count / 2, bytes.count - 1] {
        #expect(throws: ModelFileError.self, "\(count) of \(bytes.count) bytes") {
          try TrainedParameters(
            encoded: Array(bytes.prefix(count)), name: "cut", for: nano.weights.configuration)
        }
      }
      let ids = nano.reference.ids
      #expect(
        bits(try logits(try read.model(on: nano.weights, pool: pool), batch: ids))
          == bits(try logits(tuner.adapted, batch: ids)))
      let other = try NanoModel("nano_llama3").weights
      #expect(throws: TrainedParametersError.self) { try read.model(on: other, pool: pool) }
    }
  }

  /// An export of all weights is the fine-tuned model to the last bit; a merged adapter rounds.
  @Test(arguments: NanoModel.names) func exportedModelsReadBack(name: String) throws {
    for (adapter, tolerance) in [
      (Adapter.full, Float(0)), (.upperLayers(from: 1), 0), (.lora(Self.adapters[0]), 2e-5),
    ] {
      let (nano, tuner) = try tuned(name, adapter)
      let directory = scratch.file("export-\(adapter.hashValue)")
      try tuner.trainedParameters.writeHuggingFace(
        to: directory, base: try fixture(name).path, cacheDirectory: nil)
      let read = try ModelWeights.load(from: directory, cacheDirectory: nil)
      #expect(read.configuration == nano.weights.configuration)
      let ids = nano.reference.ids
      let difference = maximumDifference(
        try logits(AdaptedModel(weights: read, pool: pool), batch: ids),
        try logits(tuner.adapted, batch: ids))
      #expect(difference <= tolerance, "\(name) \(adapter)")
      #expect(throws: TrainedParametersError.directoryNotEmpty(path: directory)) {
        try tuner.trainedParameters.writeHuggingFace(
          to: directory, base: try fixture(name).path, cacheDirectory: nil)
      }
    }
  }

  @Test(.enabled(if: PeerPython.path != nil))
  func exportsGiveTheLogitsOfPEFTAndTransformers() throws {
    var jobs: [PeerPython.Job] = []
    var ours: [[Float]] = []
    func add(_ name: String, _ adapter: Adapter, _ label: String) throws {
      let (nano, tuner) = try tuned(name, adapter)
      let base = try fixture(name).path
      let directory = scratch.file("\(name)-\(label)")
      var job = PeerPython.Job(
        base: base, ids: nano.reference.ids, output: directory + ".safetensors")
      if adapter == .full {
        job.base = directory
        try tuner.trainedParameters.writeHuggingFace(
          to: directory, base: base, cacheDirectory: nil)
      } else {
        job.adapter = directory
        try tuner.trainedParameters.writePEFT(to: directory, baseModel: base)
      }
      jobs.append(job)
      ours.append(try logits(tuner.adapted, batch: nano.reference.ids))
    }
    for name in ["nano_untied", "nano_qwen2", "nano_qwen3"] {
      for (index, lora) in Self.adapters.enumerated() { try add(name, .lora(lora), "lora\(index)") }
    }
    for name in NanoModel.names { try add(name, .full, "full") }
    try PeerPython.run(jobs, in: scratch)
    for (job, ours) in zip(jobs, ours) {
      let theirs = try SafetensorsFile(path: job.output).floats("logits")
      let difference = maximumDifference(ours, theirs)
      let peer = job.adapter == nil ? "transformers" : "PEFT"
      let name = URL(fileURLWithPath: job.output).deletingPathExtension().lastPathComponent
      measured("\(peer), export \(name), logits", difference)
      #expect(difference < 2e-5, "\(job.output)")
    }
  }

  /// The default model: a GGUF file becomes a Hugging Face directory with tokenizer.
  @Test(.enabled(if: PeerPython.path != nil && DefaultModel.isPresent))
  func theDefaultModelGivesTheLogitsOfPEFTAndTransformers() throws {
    let weights = try ModelWeights.load(
      from: DefaultModel.path, cacheDirectory: DefaultModel.cacheDirectory)
    let lora = LoRAConfiguration(
      rank: 8, alpha: 16, targets: [.query, .key, .value, .output], layers: 22..<30)
    let text = "The nurse told the engineer that 1234 naïve tests — really? — had failed.\n"
    let tokenizer = try Tokenizer.load(from: DefaultModel.path)
    let ids = tokenizer.encode(text)
    let tuner = try FineTuner(
      weights: weights,
      options: FineTuningOptions(
        adapter: .lora(lora), epochs: 1, batchSize: 1, learningRate: 1e-2, seed: 4), pool: pool)
    for _ in 0..<3 { try tuner.takeStep([wholeSequence(ids)], learningRate: 1e-2) }
    let ours = try logits(tuner.adapted, ids)
    let parameters = tuner.trainedParameters

    // The untouched model first, as the base of the adapter; its matrices B are zero.
    let untouched = try FineTuner(
      weights: weights, options: tuner.options, pool: pool
    ).trainedParameters
    let base = scratch.file("base")
    try untouched.writeHuggingFace(
      to: base, base: DefaultModel.path, cacheDirectory: DefaultModel.cacheDirectory)
    let readBack = try Tokenizer.load(from: base)
    #expect(readBack.encode(text) == ids && readBack.endOfTurn == tokenizer.endOfTurn)
    let adapter = scratch.file("adapter")
    try parameters.writePEFT(to: adapter, baseModel: base)
    let merged = scratch.file("merged")
    try parameters.writeHuggingFace(
      to: merged, base: DefaultModel.path, cacheDirectory: DefaultModel.cacheDirectory)
    let outputs = ["peft", "merged"].map { scratch.file($0 + ".safetensors") }
    try PeerPython.run(
      [
        .init(base: base, adapter: adapter, ids: [ids], output: outputs[0]),
        .init(base: merged, ids: [ids], output: outputs[1], text: text),
      ], in: scratch)
    for (output, name) in zip(outputs, ["PEFT", "transformers, merged"]) {
      let theirs = try SafetensorsFile(path: output).floats("logits")
      let difference = maximumDifference(ours, theirs)
      measured("\(name), export SmolLM2-135M, logits", difference)
      #expect(difference < 1e-3)
    }
    let whole = try SafetensorsFile(path: outputs[1])
    #expect(try whole.floats("tokens") == ids.map { Float($0) })
  }
}
