extension LlamaConfiguration {
  private static let vocabularySizeMax = 1 << 20
  private static let widthMax = 1 << 18
  private static let layerCountMax = 1 << 10
  private static let headCountMax = 1 << 10
  private static let headDimensionMax = 1 << 12
  private static let maximumPositionsMax = 1 << 28

  /// Checks the sizes of a configuration that was read from a file, so that later arithmetic on
  /// them can neither overflow nor divide by zero.
  ///
  /// - Parameter keys: the file's names for the sizes.
  /// - Throws: `ModelFileError.malformed` that names the key.
  func validate(path: String, keys: ConfigurationKeys) throws {
    func check(_ value: Int, _ key: String, _ limit: Int) throws {
      guard (1...limit).contains(value) else {
        throw ModelFileError.malformed(
          path: path, place: .key(key), problem: "\(value) is outside 1...\(limit)")
      }
    }
    try check(vocabularySize, keys.vocabularySize, Self.vocabularySizeMax)
    try check(hiddenSize, keys.hiddenSize, Self.widthMax)
    try check(layerCount, keys.layerCount, Self.layerCountMax)
    try check(headCount, keys.headCount, Self.headCountMax)
    try check(keyValueHeadCount, keys.keyValueHeadCount, headCount)
    try check(headDimension, keys.headDimension, Self.headDimensionMax)
    try check(feedForwardSize, keys.feedForwardSize, Self.widthMax)
    try check(maximumPositions, keys.maximumPositions, Self.maximumPositionsMax)
    func require(_ condition: Bool, _ key: String, _ problem: String) throws {
      guard condition else {
        throw ModelFileError.malformed(path: path, place: .key(key), problem: problem)
      }
    }
    try require(
      headCount % keyValueHeadCount == 0, keys.keyValueHeadCount,
      "\(keyValueHeadCount) key-value heads do not divide \(headCount) heads")
    try require(
      headDimension % 2 == 0, keys.headDimension,
      "rotary positions need an even head dimension, not \(headDimension)")
    try require(
      ropeTheta.isFinite && ropeTheta > 1, keys.ropeTheta, "\(ropeTheta) is not above 1")
    try require(
      normEpsilon.isFinite && normEpsilon > 0 && normEpsilon < 1, keys.normEpsilon,
      "\(normEpsilon) is outside 0..<1")
    switch rotaryScaling {
    case .linear(let factor):
      try require(
        factor.isFinite && factor >= 1, keys.rotaryScaling, "\(factor) is no stretching factor")
    case .llama3(let factor, let low, let high, let positions):
      try require(
        [factor, low, high, positions].allSatisfy { $0.isFinite && $0 > 0 } && factor >= 1
          && low < high, keys.rotaryScaling,
        "factor \(factor), bounds \(low) and \(high), \(positions) positions do not fit together")
    case .divisors(let divisors):
      try require(
        divisors.count == headDimension / 2
          && divisors.allSatisfy { $0.isFinite && $0 > 0 }, keys.rotaryScaling,
        "the divisors of the rotary frequencies are not \(headDimension / 2) positive numbers")
    case nil: break
    }
  }
}

/// The names that a file format gives to the entries of a `LlamaConfiguration`.
struct ConfigurationKeys {
  var vocabularySize: String
  var hiddenSize: String
  var layerCount: String
  var headCount: String
  var keyValueHeadCount: String
  var headDimension: String
  var feedForwardSize: String
  var maximumPositions: String
  var ropeTheta: String
  var normEpsilon: String
  var rotaryScaling: String

  /// - Parameter name: the architecture as GGUF files spell it, which begins their keys.
  static func gguf(_ name: String) -> ConfigurationKeys {
    ConfigurationKeys(
      vocabularySize: "\(name).vocab_size", hiddenSize: "\(name).embedding_length",
      layerCount: "\(name).block_count", headCount: "\(name).attention.head_count",
      keyValueHeadCount: "\(name).attention.head_count_kv",
      headDimension: "\(name).attention.key_length",
      feedForwardSize: "\(name).feed_forward_length",
      maximumPositions: "\(name).context_length", ropeTheta: "\(name).rope.freq_base",
      normEpsilon: "\(name).attention.layer_norm_rms_epsilon",
      rotaryScaling: "\(name).rope.scaling.factor")
  }

  static let huggingFace = ConfigurationKeys(
    vocabularySize: "vocab_size", hiddenSize: "hidden_size", layerCount: "num_hidden_layers",
    headCount: "num_attention_heads", keyValueHeadCount: "num_key_value_heads",
    headDimension: "head_dim", feedForwardSize: "intermediate_size",
    maximumPositions: "max_position_embeddings", ropeTheta: "rope_theta",
    normEpsilon: "rms_norm_eps", rotaryScaling: "rope_scaling")
}
