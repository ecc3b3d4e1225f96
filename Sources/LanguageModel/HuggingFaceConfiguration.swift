import Foundation
import TransformerKernels

/// The entries of a model's `config.json` that matter, under its own names.
struct HuggingFaceConfiguration: Decodable {
  /// The architectures that are known, as `model_type` spells them.
  enum ModelType: String, CaseIterable {
    case llama, qwen2, qwen3

    var architecture: String {
      switch self {
      case .llama: "LlamaForCausalLM"
      case .qwen2: "Qwen2ForCausalLM"
      case .qwen3: "Qwen3ForCausalLM"
      }
    }
  }

  fileprivate struct Rope: Decodable {
    var rope_theta: Double?
    var rope_type: String?
    /// The name of `rope_type` in older files.
    var type: String?
    var factor: Double?
    var low_freq_factor: Double?
    var high_freq_factor: Double?
    var original_max_position_embeddings: Double?
  }

  /// An object of which only the existence matters.
  private struct Presence: Decodable {
    init(from decoder: any Decoder) throws {}
  }

  private var model_type: String
  private var architectures: [String]?
  private var vocab_size: Int
  private var hidden_size: Int
  private var intermediate_size: Int
  private var num_hidden_layers: Int
  private var num_attention_heads: Int
  private var num_key_value_heads: Int?
  private var head_dim: Int?
  private var max_position_embeddings: Int?
  private var rms_norm_eps: Double?
  private var rope_theta: Double?
  private var rope_scaling: Rope?
  private var rope_parameters: Rope?
  private var partial_rotary_factor: Double?
  private var tie_word_embeddings: Bool?
  private var attention_bias: Bool?
  private var mlp_bias: Bool?
  private var hidden_act: String?
  private var use_sliding_window: Bool?
  private var layer_types: [String]?
  private var quantization_config: Presence?

  /// The shape of the model that the `config.json` at `path` describes.
  ///
  /// - Throws: `ModelFileError`.
  static func read(_ path: String) throws -> LlamaConfiguration {
    try decodeJSONFile(Self.self, at: path).configuration(path)
  }

  private func configuration(_ path: String) throws -> LlamaConfiguration {
    func require<T: Equatable>(_ key: String, _ found: T?, _ allowed: T) throws {
      guard let found, found != allowed else { return }
      throw ModelFileError.unsupported(
        path: path, place: .key(key), found: "\(found)", supported: "\(allowed)")
    }
    guard let type = ModelType(rawValue: model_type) else {
      throw ModelFileError.unsupported(
        path: path, place: .key("model_type"), found: model_type,
        supported: ModelType.allCases.map(\.rawValue).joined(separator: ", "))
    }
    if let architectures, !architectures.contains(type.architecture) {
      try require("architectures", architectures, [type.architecture])
    }
    try require("hidden_act", hidden_act, "silu")
    try require("attention_bias", attention_bias, false)
    try require("mlp_bias", mlp_bias, false)
    try require("partial_rotary_factor", partial_rotary_factor, 1)
    try require("use_sliding_window", use_sliding_window, false)
    for type in layer_types ?? [] { try require("layer_types", type, "full_attention") }
    try require("quantization_config", quantization_config.map { _ in "present" }, "none")
    let keys = ConfigurationKeys.huggingFace
    guard num_attention_heads > 0,
      head_dim != nil || hidden_size % num_attention_heads == 0
    else {
      throw ModelFileError.malformed(
        path: path, place: .key(keys.headCount),
        problem: "\(num_attention_heads) heads do not divide \(hidden_size)")
    }
    // The defaults are those of transformers' configuration classes.
    let configuration = LlamaConfiguration(
      vocabularySize: vocab_size, hiddenSize: hidden_size,
      layerCount: num_hidden_layers, headCount: num_attention_heads,
      keyValueHeadCount: num_key_value_heads ?? num_attention_heads,
      headDimension: head_dim ?? (type == .qwen3 ? 128 : hidden_size / num_attention_heads),
      feedForwardSize: intermediate_size,
      ropeTheta: rope_parameters?.rope_theta ?? rope_theta ?? 10_000,
      normEpsilon: Float(rms_norm_eps ?? 1e-6),
      maximumPositions: max_position_embeddings ?? (type == .llama ? 2048 : 32768),
      tiesEmbeddings: tie_word_embeddings ?? false,
      rotaryScaling: try rope_parameters.flatMap { try $0.scaling(path, "rope_parameters") }
        ?? rope_scaling.flatMap { try $0.scaling(path, "rope_scaling") },
      hasQueryKeyValueBias: type == .qwen2, normalizesHeads: type == .qwen3)
    try configuration.validate(path: path, keys: keys)
    return configuration
  }
}

extension HuggingFaceConfiguration.Rope {
  /// - Parameter key: the name of this object, for errors.
  fileprivate func scaling(_ path: String, _ key: String) throws -> RotaryScaling? {
    func number(_ name: String, _ value: Double?) throws -> Double {
      guard let value else {
        throw ModelFileError.missing(path: path, place: .key("\(key).\(name)"))
      }
      return value
    }
    switch rope_type ?? type ?? "default" {
    case "default": return nil
    case "linear": return .linear(factor: try number("factor", factor))
    case "llama3":
      return .llama3(
        factor: try number("factor", factor),
        lowFrequencyFactor: try number("low_freq_factor", low_freq_factor),
        highFrequencyFactor: try number("high_freq_factor", high_freq_factor),
        originalPositions: try number(
          "original_max_position_embeddings", original_max_position_embeddings))
    case let other:
      throw ModelFileError.unsupported(
        path: path, place: .key("\(key).rope_type"), found: other,
        supported: "default, linear, llama3")
    }
  }
}
