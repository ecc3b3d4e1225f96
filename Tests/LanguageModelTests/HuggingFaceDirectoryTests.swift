import Foundation
import LanguageModel
import RandomStreams
import Testing

@Suite struct HuggingFaceDirectoryTests {
  private let scratch: ScratchDirectory

  init() throws { scratch = try ScratchDirectory() }

  private func configuration(
    replacing old: String, with new: String
  ) throws -> LlamaConfiguration {
    let json = TinyModel().configJSON
    try #require(json.contains(old))
    try scratch.write(json.replacingOccurrences(of: old, with: new).utf8, to: "config.json")
    try scratch.write(little(UInt64(2)) + Array("{}".utf8), to: "model.safetensors")
    return try HuggingFaceDirectory(path: scratch.path).configuration
  }

  @Test func rotaryBaseIsReadInBothNotations() throws {
    let old = #""rope_theta": 5000.0"#
    #expect(try configuration(replacing: old, with: old) == TinyModel().configuration)
    let nested = #""rope_parameters": {"rope_theta": 700.0, "rope_type": "default"}"#
    #expect(try configuration(replacing: old, with: nested).ropeTheta == 700)
    let null = #""rope_scaling": null"#
    #expect(try configuration(replacing: old, with: null).ropeTheta == 10_000)
  }

  @Test func headDimensionAndKeyValueHeadsHaveDefaults() throws {
    let found = try configuration(
      replacing: #""num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6"#,
      with: #""num_attention_heads": 2, "head_dim": null"#)
    #expect(found.headDimension == 6 && found.keyValueHeadCount == 2)
  }

  @Test(arguments: [
    (#""model_type": "llama""#, #""model_type": "mistral""#, "mistral"),
    ("LlamaForCausalLM", "LlamaForSequenceClassification", "LlamaForSequenceClassification"),
    (#""hidden_act": "silu""#, #""hidden_act": "gelu""#, "gelu"),
    (#""attention_bias": false"#, #""attention_bias": true"#, "attention_bias"),
    (#""mlp_bias": false"#, #""mlp_bias": true"#, "mlp_bias"),
    (
      #""rope_theta": 5000.0"#, #""rope_scaling": {"type": "yarn", "factor": 2}"#, "yarn"
    ),
    (
      #""rope_theta": 5000.0"#, #""rope_parameters": {"rope_type": "llama3"}"#,
      "rope_parameters.factor"
    ),
    (
      #""rope_theta": 5000.0"#, #""rope_scaling": {"type": "linear", "factor": 0.5}"#, "0.5"
    ),
    (#""model_type": "llama""#, #""model_type": "qwen2""#, "LlamaForCausalLM"),
    (#""mlp_bias": false"#, #""use_sliding_window": true"#, "use_sliding_window"),
    (#""mlp_bias": false"#, #""layer_types": ["sliding_attention"]"#, "layer_types"),
    (#""vocab_size": 40,"#, "", "vocab_size"),
    (#""vocab_size": 40"#, #""vocab_size": 0"#, "vocab_size"),
    (#""vocab_size": 40"#, #""vocab_size": "40""#, "vocab_size"),
    (#""hidden_size": 12"#, #""hidden_size": 9000000000000000000"#, "hidden_size"),
    (#""hidden_size": 12"#, #""hidden_size": 1e400"#, "config.json"),
    (#""num_attention_heads": 4"#, #""num_attention_heads": 0"#, "num_attention_heads"),
    (#""num_key_value_heads": 2"#, #""num_key_value_heads": 3"#, "num_key_value_heads"),
    (#""head_dim": 6"#, #""head_dim": 5"#, "head_dim"),
    (#""rms_norm_eps": 1e-05"#, #""rms_norm_eps": -1"#, "rms_norm_eps"),
    (#""mlp_bias""#, #""quantization_config": {"bits": 4}, "mlp_bias""#, "quantization_config"),
  ])
  func whatIsNotSupportedIsNamed(old: String, new: String, named: String) {
    let error = modelFileError { _ = try configuration(replacing: old, with: new) }
    #expect(error?.description.contains(named) == true, "\(error as Any)")
  }

  @Test func tensorsAreFoundInSeveralFiles() throws {
    let tiny = TinyModel(tied: false)
    try tiny.writeHuggingFace(to: scratch.path)
    let whole = try ModelWeights.load(from: scratch.path, cacheDirectory: nil)
    try FileManager.default.removeItem(atPath: scratch.file("model.safetensors"))
    var map: [String: String] = [:]
    for (part, tensors) in [tiny.tensors.prefix(7), tiny.tensors.dropFirst(7)].enumerated() {
      let name = "model-0000\(part + 1)-of-00002.safetensors"
      try SafetensorsFile.write(
        tensors.map { .init(name: $0.huggingFace, shape: $0.shape) }, to: scratch.file(name)
      ) { entry in tensors.first { $0.huggingFace == entry.name }!.values }
      for tensor in tensors { map[tensor.huggingFace] = name }
    }
    let index = "model.safetensors.index.json"
    try scratch.write(JSONEncoder().encode(["weight_map": map]), to: index)
    let sharded = try ModelWeights.load(from: scratch.path, cacheDirectory: nil)
    #expect(memcmp(whole.base, sharded.base, whole.layout.elementCount * 4) == 0)

    map["lm_head.weight"] = "../elsewhere.safetensors"
    try scratch.write(JSONEncoder().encode(["weight_map": map]), to: index)
    let error = modelFileError {
      _ = try ModelWeights.load(from: scratch.path, cacheDirectory: nil)
    }
    #expect(error?.description.contains("../elsewhere.safetensors") == true)
  }

  @Test func theDigestCoversWeightsAndConfiguration() throws {
    func digest() throws -> String {
      try ModelWeights.load(from: scratch.path, cacheDirectory: nil).digest
    }
    let tiny = TinyModel()
    try tiny.writeHuggingFace(to: scratch.path)
    let first = try digest()
    #expect(try digest() == first)
    let other = tiny.configJSON.replacingOccurrences(of: "5000.0", with: "6000.0")
    try scratch.write(other.utf8, to: "config.json")
    let second = try digest()
    #expect(second != first)
    var weights = try bytes(of: scratch.file("model.safetensors"))
    weights[weights.count - 4] ^= 1
    try scratch.write(weights, to: "model.safetensors")
    let third = try digest()
    #expect(third != second && third != first)
  }

  @Test func aModelWithoutTokenizerHasWeightsButIsNoLanguageModel() throws {
    try TinyModel().writeHuggingFace(to: scratch.path)
    _ = try ModelWeights.load(from: scratch.path, cacheDirectory: nil)
    let error = modelFileError {
      _ = try LanguageModel.load(from: scratch.path, cacheDirectory: scratch.file("cache"))
    }
    #expect(error == .notFound(path: scratch.file("tokenizer.json")))
  }

  @Test func damagedConfigurationsNeverCrash() throws {
    try TinyModel().writeHuggingFace(to: scratch.path)
    let whole = Array(TinyModel().configJSON.utf8)
    var generator = RandomStream(seed: 3, purpose: "damage")
    for round in 0..<1000 {
      var bytes = whole
      if round < whole.count {
        bytes.removeLast(round + 1)
      } else {
        for _ in 0..<Int.random(in: 1...4, using: &generator) {
          bytes[Int.random(in: 0..<bytes.count, using: &generator)] =
            Bool.random(using: &generator)
            ? .random(in: 48...57, using: &generator) : .random(in: 0...255, using: &generator)
        }
      }
      try scratch.write(bytes, to: "config.json")
      expectClearFailure("round \(round)", mentioning: scratch.path) {
        _ = try ModelWeights.load(from: scratch.path, cacheDirectory: nil)
      }
    }
  }
}
