import Foundation
import LanguageModel
import RandomStreams
import Testing
import TransformerKernels

/// Adapters that other programs wrote, right and wrong.
@Suite struct PEFTAdapterTests {
  private let scratch: ScratchDirectory
  private let directory: String
  private let configuration = oddWeights.configuration
  private let json: String

  init() throws {
    scratch = try ScratchDirectory()
    directory = scratch.file("adapter")
    let tuner = try FineTuner(
      weights: oddWeights,
      options: options(
        .lora(LoRAConfiguration(rank: 3, alpha: 6, targets: [.query, .up], layers: 1..<3))),
      pool: ThreadPool(threadCount: 1))
    try tuner.trainedParameters.writePEFT(to: directory, baseModel: "somewhere/model")
    json = String(decoding: try bytes(of: directory + "/adapter_config.json"), as: UTF8.self)
  }

  private func read() throws -> TrainedParameters {
    try TrainedParameters(peftDirectory: directory, for: configuration)
  }

  private func write(_ json: String) throws {
    try Data(json.utf8).write(to: URL(fileURLWithPath: directory + "/adapter_config.json"))
  }

  /// Adds or replaces an entry; `value` is JSON.
  private func set(_ key: String, _ value: String) throws {
    var lines = json.split(separator: "\n").map(String.init)
    lines.removeAll { $0.hasPrefix("  \"\(key)\" :") && !$0.hasSuffix("[") && !$0.hasSuffix("{") }
    lines.insert("  \"\(key)\": \(value),", at: 1)
    try write(lines.joined(separator: "\n"))
  }

  @Test func theConfigurationNamesWhatPEFTNeeds() throws {
    for part in [
      #""peft_type" : "LORA""#, #""r" : 3"#, #""lora_alpha" : 6"#, #""q_proj""#, #""up_proj""#,
      #""base_model_name_or_path" : "somewhere/model""#, #""use_rslora" : false"#,
    ] {
      #expect(json.contains(part), "\(part)")
    }
  }

  @Test(arguments: [
    ("use_dora", "true"), ("bias", #""all""#), ("peft_type", #""IA3""#),
    ("fan_in_fan_out", "true"), ("lora_bias", "true"), ("use_qalora", "true"),
    ("megatron_config", #"{"a": 1}"#), ("trainable_token_indices", "[3]"),
    ("r", "2.5"), ("r", "0"), ("r", "-3"), ("r", "1e300"), ("r", "4"), ("r", #""8""#),
    ("lora_alpha", "null"), ("lora_alpha", "-1"), ("lora_alpha", "1e300"),
    ("use_rslora", "3"), ("target_modules", #"["q_proj"]"#),
    ("target_modules", #"["q_proj", "lm_head"]"#), ("layers_to_transform", "[0, 1]"),
  ]) func whatIsNotSupportedIsNamed(key: String, value: String) throws {
    // A list spans several lines; the first of two equal keys is not the one that counts.
    try write(
      json.replacing(
        try Regex("\"\(key)\" : (\\[[^\\]]*\\]|[^,\\n]*)"), with: "\"\(key)\" : \(value)"))
    if !json.contains("\"\(key)\"") { try set(key, value) }
    let error = modelFileError { _ = try read() }
    let text = try #require(error?.description, "\(key) \(value)")
    #expect(text.contains(directory), "\(text)")
  }

  @Test func optionsThatAreOffOrHarmlessAreAccepted() throws {
    for (key, value) in [
      ("lora_dropout", "0.1"), ("exclude_modules", "null"), ("megatron_config", "null"),
      ("peft_version", #""0.21.2""#), ("use_qalora", "false"), ("arrow_config", "null"),
      ("revision", #""main""#), ("target_parameters", "[]"),
    ] {
      try set(key, value)
      #expect(try read().names.count == 8, "\(key)")
    }
    for modules in [#""all-linear""#, #"["self_attn.q_proj", "mlp.up_proj"]"#, #"".*_proj""#] {
      try write(
        json.replacing(
          try Regex("\"target_modules\" : \\[[^\\]]*\\]"), with: "\"target_modules\" : \(modules)"))
      #expect(try read().names.count == 8, "\(modules)")
    }
  }

  @Test func tensorsMustFitTheModel() throws {
    let path = directory + "/adapter_model.safetensors"
    let whole = try SafetensorsFile(path: path)
    let prefix = "base_model.model.model.layers."
    typealias Change = (inout [String: [Int]]) -> Void
    let changes: [(String, Change)] = [
      ("missing", { $0["\(prefix)1.self_attn.q_proj.lora_B.weight"] = nil }),
      ("shape", { $0["\(prefix)1.self_attn.q_proj.lora_B.weight"] = [3, 54] }),
      ("module", { $0["\(prefix)1.self_attn.z_proj.lora_A.weight"] = [3, 54] }),
      ("embedding", { $0["base_model.model.model.embed_tokens.lora_embedding_A"] = [3, 101] }),
      ("DoRA", { $0["\(prefix)1.mlp.up_proj.lora_magnitude_vector"] = [77] }),
      ("layer", { $0["\(prefix)9.self_attn.q_proj.lora_A.weight"] = [3, 54] }),
      ("huge layer", { $0["\(prefix)99999999999999999999.self_attn.q_proj.lora_A.weight"] = [1] }),
      ("gap", { $0["\(prefix)1.mlp.gate_proj.lora_A.weight"] = [3, 54] }),
      ("nothing", { $0 = [:] }),
    ]
    for (name, change) in changes {
      var shapes = Dictionary(uniqueKeysWithValues: whole.names.map { ($0, whole.shape(of: $0)!) })
      change(&shapes)
      try SafetensorsFile.write(
        shapes.map { .init(name: $0.key, shape: $0.value) }, to: path
      ) { [Float](repeating: 0.5, count: $0.shape.reduce(1, *)) }
      expectClearFailure(name, mentioning: directory) { _ = try read() }
      #expect(modelFileError { _ = try read() } != nil, "\(name)")
    }
  }

  @Test func damagedFilesNeverCrash() throws {
    var generator = RandomStream(seed: 5, purpose: "damage")
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
      let path = "\(directory)/\(name)"
      let whole = try bytes(of: path)
      for round in 0..<600 {
        var bytes = whole
        if Bool.random(using: &generator) {
          bytes.removeLast(Int.random(in: 1...bytes.count, using: &generator))
        } else {
          for _ in 0..<3 {
            bytes[Int.random(in: 0..<min(bytes.count, 1200), using: &generator)] = .random(
              in: 0...255, using: &generator)
          }
        }
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        expectClearFailure("\(name) \(round)", mentioning: directory) { _ = try read() }
      }
      try Data(whole).write(to: URL(fileURLWithPath: path))
    }
  }
}
