import Foundation

/// A Llama model in Hugging Face's layout: `config.json`, safetensors (one file, or several with an
/// index), and the tokenizer's files.
package struct HuggingFaceDirectory: Sendable {
  package let path: String
  package let configuration: LlamaConfiguration
  /// Safetensors files by name, in the order of their names.
  private let shards: [(name: String, file: SafetensorsFile)]
  /// Index into `shards` for every tensor.
  private let shardOfTensor: [String: Int]

  /// Reads the configuration and the headers of the weight files.
  ///
  /// - Throws: `ModelFileError`.
  package init(path: String) throws {
    self.path = path
    configuration = try Self.configuration(path + "/config.json")
    let index = path + "/model.safetensors.index.json"
    if FileManager.default.fileExists(atPath: index) {
      let weightMap = try decodeJSONFile(ShardIndex.self, at: index).weightMap
      let names = Set(weightMap.values).sorted()
      for name in names where name.contains("/") || name.isEmpty || name.hasPrefix(".") {
        throw ModelFileError.malformed(
          path: index, place: .key("weight_map"), problem: "\(name) is not a plain file name")
      }
      let shards = try names.map { (name: $0, file: try SafetensorsFile(path: "\(path)/\($0)")) }
      self.shards = shards
      shardOfTensor = try weightMap.reduce(into: [:]) { result, entry in
        let shard = names.firstIndex(of: entry.value)!
        guard shards[shard].file.shape(of: entry.key) != nil else {
          throw ModelFileError.missing(path: shards[shard].file.path, place: .tensor(entry.key))
        }
        result[entry.key] = shard
      }
    } else {
      let name = "model.safetensors"
      let file = try SafetensorsFile(path: "\(path)/\(name)")
      shards = [(name, file)]
      shardOfTensor = Dictionary(uniqueKeysWithValues: file.names.map { ($0, 0) })
    }
  }

  func parameterSource() throws -> ParameterSource {
    let directory = self
    return try ParameterSource(
      path: path, configuration: configuration, naming: .huggingFace,
      names: Array(shardOfTensor.keys)
    ) { name in
      guard let shard = directory.shardOfTensor[name] else {
        throw ModelFileError.missing(path: directory.path, place: .tensor(name))
      }
      let file = directory.shards[shard].file
      return (file.file, try file.storedTensor(name))
    }
  }

  /// The files that decide what the model computes, by name; the tokenizer's where they exist.
  var fileNames: [String] {
    let optional = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
    let present = optional.filter { FileManager.default.fileExists(atPath: "\(path)/\($0)") }
    return (["config.json"] + present + shards.map(\.name)).sorted()
  }

  /// All files that are needed to read the model: `fileNames`, and the index of several shards.
  var allFileNames: [String] {
    let index = "model.safetensors.index.json"
    let isThere = FileManager.default.fileExists(atPath: "\(path)/\(index)")
    return fileNames + (isThere ? [index] : [])
  }

  private struct ShardIndex: Decodable {
    var weightMap: [String: String]

    enum CodingKeys: String, CodingKey { case weightMap = "weight_map" }
  }

  // MARK: - config.json

  /// The entries of `config.json` that matter, under its own names.
  private struct Config: Decodable {
    var model_type: String
    var architectures: [String]?
    var vocab_size: Int
    var hidden_size: Int
    var intermediate_size: Int
    var num_hidden_layers: Int
    var num_attention_heads: Int
    var num_key_value_heads: Int?
    var head_dim: Int?
    var max_position_embeddings: Int?
    var rms_norm_eps: Double?
    var rope_theta: Double?
    var rope_scaling: Rope?
    var rope_parameters: Rope?
    var partial_rotary_factor: Double?
    var tie_word_embeddings: Bool?
    var attention_bias: Bool?
    var mlp_bias: Bool?
    var hidden_act: String?
    var quantization_config: Presence?
  }

  private struct Rope: Decodable {
    var rope_theta: Double?
    var rope_type: String?
    /// The name of `rope_type` in older files.
    var type: String?
  }

  /// An object of which only the existence matters.
  private struct Presence: Decodable {
    init(from decoder: any Decoder) throws {}
  }

  private static func configuration(_ path: String) throws -> LlamaConfiguration {
    let config = try decodeJSONFile(Config.self, at: path)
    func require<T: Equatable>(_ key: String, _ found: T?, _ allowed: T) throws {
      guard let found, found != allowed else { return }
      throw ModelFileError.unsupported(
        path: path, place: .key(key), found: "\(found)", supported: "\(allowed)")
    }
    try require("model_type", config.model_type, "llama")
    let architecture = "LlamaForCausalLM"
    if let architectures = config.architectures, !architectures.contains(architecture) {
      try require("architectures", architectures, [architecture])
    }
    try require("hidden_act", config.hidden_act, "silu")
    try require("attention_bias", config.attention_bias, false)
    try require("mlp_bias", config.mlp_bias, false)
    try require("partial_rotary_factor", config.partial_rotary_factor, 1)
    try require("quantization_config", config.quantization_config.map { _ in "present" }, "none")
    for (key, rope) in [
      ("rope_scaling", config.rope_scaling), ("rope_parameters", config.rope_parameters),
    ] {
      try require("\(key).rope_type", rope?.rope_type ?? rope?.type, "default")
    }
    let keys = ConfigurationKeys.huggingFace
    guard config.num_attention_heads > 0,
      config.head_dim != nil || config.hidden_size % config.num_attention_heads == 0
    else {
      throw ModelFileError.malformed(
        path: path, place: .key(keys.headCount),
        problem: "\(config.num_attention_heads) heads do not divide \(config.hidden_size)")
    }
    // The defaults are those of transformers' LlamaConfig.
    let configuration = LlamaConfiguration(
      vocabularySize: config.vocab_size, hiddenSize: config.hidden_size,
      layerCount: config.num_hidden_layers, headCount: config.num_attention_heads,
      keyValueHeadCount: config.num_key_value_heads ?? config.num_attention_heads,
      headDimension: config.head_dim ?? config.hidden_size / config.num_attention_heads,
      feedForwardSize: config.intermediate_size,
      ropeTheta: config.rope_parameters?.rope_theta ?? config.rope_theta ?? 10_000,
      normEpsilon: Float(config.rms_norm_eps ?? 1e-6),
      maximumPositions: config.max_position_embeddings ?? 2048,
      tiesEmbeddings: config.tie_word_embeddings ?? false)
    try configuration.validate(path: path, keys: keys)
    return configuration
  }
}
