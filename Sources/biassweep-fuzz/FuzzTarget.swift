import BiasStudy
import Foundation
import LanguageModel
import StudyDocuments
import SweepCore

/// A parser of outside input: it takes any bytes, and either accepts them or throws one of the
/// errors that its callers know. Everything else (a trap, a read outside memory, another error, an
/// unbounded allocation, a hang) is a defect.
struct FuzzTarget: Sendable {
  let name: String
  /// What is parsed, for the list of targets.
  let summary: String
  /// Parses the input; files go to the directory.
  let parse: @Sendable (_ input: [UInt8], _ directory: String) throws -> Void

  static let all: [FuzzTarget] = [
    FuzzTarget(name: "safetensors", summary: "a safetensors file, header and tensors") {
      input, directory in
      let path = directory + "/model.safetensors"
      try write(input, to: path)
      let file = try SafetensorsFile(path: path)
      for name in file.names { _ = try file.floats(name) }
    },
    FuzzTarget(name: "gguf", summary: "a GGUF file: metadata, tensors, model, tokenizer") {
      input, directory in
      let path = directory + "/model.gguf"
      try write(input, to: path)
      let file = try GGUFFile(path: path)
      for name in file.tensorNames { _ = try? file.floats(name) }  // Some may hold no numbers.
      _ = try ModelWeights.load(from: path, cacheDirectory: nil)
      _ = try Tokenizer.load(from: path)
    },
    FuzzTarget(name: "config", summary: "a model's config.json") { input, directory in
      try write(input, to: directory + "/config.json")
      try write(emptySafetensors, to: directory + "/model.safetensors")
      _ = try HuggingFaceDirectory(path: directory)
      _ = try ModelWeights.load(from: directory, cacheDirectory: nil)
    },
    FuzzTarget(name: "index", summary: "model.safetensors.index.json") { input, directory in
      try write(Array(smallConfig.utf8), to: directory + "/config.json")
      try write(input, to: directory + "/model.safetensors.index.json")
      _ = try HuggingFaceDirectory(path: directory)
    },
    FuzzTarget(name: "tokenizer", summary: "tokenizer.json, then text through it") {
      input, directory in
      try write(
        Array(#"{"eos_token": "<|im_end|>"}"#.utf8), to: directory + "/tokenizer_config.json")
      try write(input, to: directory + "/tokenizer.json")
      let tokenizer = try Tokenizer.load(from: directory)
      let text = "The nurse's 12 naïve  tests\r\n\n failed.<|im_end|>"
      for tokens in [tokenizer.encode(text), tokenizer.encode(text, allowSpecial: true)] {
        _ = tokenizer.decode(tokens)
      }
    },
    FuzzTarget(name: "chat-template", summary: "a chat template, then a conversation in it") {
      input, directory in
      let source = String(decoding: input, as: UTF8.self)
      _ = try ChatTemplate(source: source, tokenizer: smallTokenizer, path: directory)
    },
    FuzzTarget(name: "adapter", summary: "PEFT's adapter_config.json") { input, directory in
      try write(input, to: directory + "/adapter_config.json")
      try write(smallAdapter, to: directory + "/adapter_model.safetensors")
      _ = try TrainedParameters(peftDirectory: directory, for: smallConfiguration)
    },
    FuzzTarget(name: "parameters", summary: "kept parameters of a fine-tune") { input, directory in
      let path = directory + "/parameters.safetensors"
      try write(input, to: path)
      _ = try TrainedParameters(path: path, for: smallConfiguration).encoded()
    },
    FuzzTarget(name: "checkpoint", summary: "the state of a fine-tune in a file") {
      input, directory in
      let path = directory + "/state.safetensors"
      try write(input, to: path)
      _ = FineTuningCheckpoint.steps(path: path)
      let tuner = try SmallFineTune.tuner(cache: nil)
      let state = tuner.emptyState()
      try FineTuningCheckpoint.read(
        path: path, identity: SmallFineTune.identity(tuner), into: state)
      tuner.restore(state)
      _ = tuner.accumulateGradients(SmallFineTune.sequences)
    },
    FuzzTarget(name: "trunk", summary: "a segment of cached outputs of frozen layers") {
      input, directory in
      let trunk = directory + "/trunk"
      try FileManager.default.createDirectory(atPath: trunk, withIntermediateDirectories: true)
      try write(input, to: trunk + "/1-seed.trunk")
      // Reads its entries, computes the others and appends them to a segment of its own.
      let store = TrunkStore(directory: trunk, byteLimit: 1 << 22)
      let tuner = try SmallFineTune.tuner(cache: TrunkCache(byteLimit: 0, store: store))
      _ = tuner.accumulateGradients(SmallFineTune.sequences)
      try FileManager.default.removeItem(atPath: trunk)
    },
    FuzzTarget(name: "csv", summary: "CSV, as the data sets have it") { input, directory in
      var reader = try CSVReader(bytes: input, file: "input.csv")
      if let column = reader.header.first {
        try reader.forEachRecord(columns: [column]) { _, _ throws(StudyError) in }
      }
      _ = try GroupComments([
        .init(group: TargetGroup.allCases[0], bytes: input, file: "input.csv")
      ])
    },
    FuzzTarget(name: "names", summary: "the dictionary of first names") { input, directory in
      _ = try NameTable(dictionary: input, file: "names.txt")
    },
    FuzzTarget(name: "augmentation", summary: "a generated data set, JSON lines") {
      input, directory in
      let set = try AugmentationSet(decoding: input)
      guard try AugmentationSet(decoding: set.encoded()).items.count == set.items.count else {
        throw FuzzDefect(description: "a set does not survive writing and reading")
      }
    },
    FuzzTarget(name: "task-file", summary: "a task file, YAML") { input, directory in
      _ = try TaskDefinition(yaml: String(decoding: input, as: UTF8.self), file: "input.yaml")
    },
    FuzzTarget(name: "task-data", summary: "a task's items, JSON lines and CSV") {
      input, directory in
      guard let definition = TaskCatalogue.builtIn["offensive"] else { return }
      // Both formats read any bytes; whichever accepts them goes on.
      for file in ["input.csv", "input.jsonl"] {
        guard let records = try? TaskRecords.read(input, file: file) else { continue }
        let tasks = try TaskItems(definition: definition, records: records, file: file)
        let tested = try tasks.testItems(1, seed: 1)
        _ = try tasks.formatExamples(1, seed: 1, tested: tested)
      }
    },
    FuzzTarget(name: "grid", summary: "a sweep's spec as users write it, YAML") {
      input, directory in
      let spec = try SweepDefinition(
        document: SpecNode(yaml: String(decoding: input, as: UTF8.self)), catalogue: .builtIn
      ).spec
      guard try SweepSpec(canonicalJSON: spec.canonicalJSON()) == spec else {
        throw FuzzDefect(description: "a valid spec does not survive the wire")
      }
    },
    FuzzTarget(name: "spec", summary: "a sweep's spec as it crosses the wire") { input, directory in
      let spec = try SweepSpec(canonicalJSON: String(decoding: input, as: UTF8.self))
      guard try SweepSpec(canonicalJSON: spec.canonicalJSON()) == spec else {
        throw FuzzDefect(description: "a spec does not survive writing and reading")
      }
    },
  ]

  /// Parses one input.
  ///
  /// - Returns: whether it was accepted.
  /// - Throws: errors that no caller expects.
  func run(_ input: [UInt8], directory: String) throws -> Bool {
    do {
      try parse(input, directory)
      return true
    } catch is ModelFileError {
      return false
    } catch is StudyError {
      return false
    } catch is InvalidTaskFile {
      return false
    } catch is InvalidSpec {
      return false
    } catch is CheckpointError {
      return false
    } catch is DecodingError {
      // Only the spec: its reader names the cause to the user itself.
      guard name == "spec" else { throw FuzzDefect(description: "a raw DecodingError escaped") }
      return false
    }
  }
}

/// A parser did what it must not do.
struct FuzzDefect: Error, CustomStringConvertible {
  let description: String
}

// MARK: - What surrounds an input

private func write(_ bytes: [UInt8], to path: String) throws {
  try Data(bytes).write(to: URL(fileURLWithPath: path))
}

private let smallConfig = """
  {"model_type": "llama", "vocab_size": 40, "hidden_size": 12, "intermediate_size": 20, \
  "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6, \
  "max_position_embeddings": 64, "rms_norm_eps": 1e-05, "tie_word_embeddings": true}
  """

private let smallConfiguration = LlamaConfiguration(
  vocabularySize: 40, hiddenSize: 12, layerCount: 2, headCount: 4, keyValueHeadCount: 2,
  headDimension: 6, feedForwardSize: 20, ropeTheta: 10_000, normEpsilon: 1e-5,
  maximumPositions: 64, tiesEmbeddings: true)

private let emptySafetensors: [UInt8] = [2, 0, 0, 0, 0, 0, 0, 0] + Array("{}".utf8)

/// The matrices of an adapter of rank 2 on q of layer 1.
private let smallAdapter: [UInt8] = {
  let prefix = "base_model.model.model.layers.1.self_attn.q_proj.lora_"
  let entries = [
    SafetensorsFile.Entry(name: prefix + "A.weight", shape: [2, 12]),
    SafetensorsFile.Entry(name: prefix + "B.weight", shape: [24, 2]),
  ]
  do {
    return try SafetensorsFile.encode(entries) {
      [Float](repeating: 0.5, count: $0.shape.reduce(1, *))
    }
  } catch {
    preconditionFailure("encoding two small tensors: \(error)")
  }
}()

/// A tokenizer with the tokens that chat templates need.
private let smallTokenizer: Tokenizer = {
  let added = [
    "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
  ]
  let tokens = added.enumerated().map {
    #"{"id": \#($0.offset + 1), "content": "\#($0.element)", "special": true}"#
  }
  let json = """
    {"added_tokens": [\(tokens.joined(separator: ","))], "pre_tokenizer": {"type": "ByteLevel", \
    "add_prefix_space": false}, "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}
    """
  let directory = NSTemporaryDirectory() + "biassweep-fuzz-tokenizer-\(UUID().uuidString)"
  do {
    try FileManager.default.createDirectory(
      atPath: directory, withIntermediateDirectories: true)
    try write(Array(json.utf8), to: directory + "/tokenizer.json")
    try write(
      Array(#"{"eos_token": "<|im_end|>"}"#.utf8), to: directory + "/tokenizer_config.json")
    let tokenizer = try Tokenizer.load(from: directory)
    try FileManager.default.removeItem(atPath: directory)
    return tokenizer
  } catch {
    preconditionFailure("a small tokenizer: \(error)")
  }
}()
