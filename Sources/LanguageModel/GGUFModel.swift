import TransformerKernels

/// The Llama-family decoder that a GGUF file holds.
struct GGUFModel: Sendable {
  /// The architectures that are known, as GGUF files spell them.
  enum Architecture: String, CaseIterable, Sendable {
    case llama, qwen2, qwen3
  }

  let file: GGUFFile
  let configuration: LlamaConfiguration
  private let architecture: Architecture

  /// - Throws: `ModelFileError`, `.unsupported` when the architecture is none of those known.
  init(path: String) throws {
    file = try GGUFFile(path: path)
    let name = try file.string("general.architecture")
    guard let architecture = Architecture(rawValue: name) else {
      throw ModelFileError.unsupported(
        path: path, place: .key("general.architecture"), found: "the architecture \(name)",
        supported: Architecture.allCases.map(\.rawValue).joined(separator: ", "))
    }
    self.architecture = architecture
    configuration = try Self.configuration(file, architecture)
  }

  func parameterSource() throws -> ParameterSource {
    let file = file
    return try ParameterSource(
      path: file.path, configuration: configuration, naming: .gguf(architecture),
      names: file.tensorNames
    ) { name in
      guard let tensor = file.tensors[name] else {
        throw ModelFileError.missing(path: file.path, place: .tensor(name))
      }
      return (file.file, tensor)
    }
  }

  private static func configuration(
    _ file: GGUFFile, _ architecture: Architecture
  ) throws -> LlamaConfiguration {
    let name = architecture.rawValue
    let keys = ConfigurationKeys.gguf(name)
    let hidden = try file.integer(keys.hiddenSize)
    let heads = try file.integer(keys.headCount)
    guard heads > 0 else {
      throw ModelFileError.malformed(
        path: file.path, place: .key(keys.headCount), problem: "\(heads) heads")
    }
    let keyDimension = try file.optionalInteger(keys.headDimension)
    guard keyDimension != nil || hidden % heads == 0 else {
      throw ModelFileError.malformed(
        path: file.path, place: .key(keys.headCount),
        problem: "\(heads) heads do not divide the width \(hidden)")
    }
    let headDimension = keyDimension ?? hidden / heads
    guard let embedding = file.shape(of: ParameterNaming.gguf.embedding), embedding.count == 2
    else {
      throw ModelFileError.missing(
        path: file.path, place: .tensor(ParameterNaming.gguf.embedding))
    }
    func require<T: Equatable>(_ key: String, _ found: T?, _ allowed: T) throws {
      guard let found, found != allowed else { return }
      throw ModelFileError.unsupported(
        path: file.path, place: .key(key), found: "\(found)", supported: "\(allowed)")
    }
    let rotary = "\(name).rope.dimension_count"
    try require(rotary, try file.optionalInteger(rotary), headDimension)
    let valueDimension = "\(name).attention.value_length"
    try require(valueDimension, try file.optionalInteger(valueDimension), headDimension)
    let oldScaling = "\(name).rope.scale_linear"
    try require(oldScaling, try file.optionalNumber(oldScaling), 1)
    let experts = "\(name).expert_count"
    try require(experts, try file.optionalInteger(experts), 0)
    let configuration = LlamaConfiguration(
      vocabularySize: try file.optionalInteger(keys.vocabularySize) ?? embedding[0],
      hiddenSize: hidden, layerCount: try file.integer(keys.layerCount), headCount: heads,
      keyValueHeadCount: try file.optionalInteger(keys.keyValueHeadCount) ?? heads,
      headDimension: headDimension, feedForwardSize: try file.integer(keys.feedForwardSize),
      ropeTheta: try file.optionalNumber(keys.ropeTheta) ?? 10_000,
      normEpsilon: Float(try file.optionalNumber(keys.normEpsilon) ?? 0),
      maximumPositions: try file.integer(keys.maximumPositions),
      tiesEmbeddings: file.shape(of: ParameterNaming.gguf.head) == nil,
      rotaryScaling: try rotaryScaling(file, keys, name),
      hasQueryKeyValueBias: architecture == .qwen2, normalizesHeads: architecture == .qwen3)
    try configuration.validate(path: file.path, keys: keys)
    return configuration
  }

  /// Llama 3's scaling is a tensor of divisors in these files, others are metadata.
  private static func rotaryScaling(
    _ file: GGUFFile, _ keys: ConfigurationKeys, _ name: String
  ) throws -> RotaryScaling? {
    let typeKey = "\(name).rope.scaling.type"
    let type = try file.optionalString(typeKey) ?? "none"
    let factors = ParameterNaming.rotaryFactors
    switch (type, file.shape(of: factors) != nil) {
    case ("none", false): return nil
    case ("none", true): return .divisors(try file.floats(factors))
    case ("linear", false): return .linear(factor: try file.optionalNumber(keys.rotaryScaling) ?? 1)
    default:
      throw ModelFileError.unsupported(
        path: file.path, place: .key(typeKey), found: type,
        supported: "none, linear, or the tensor \(factors) alone")
    }
  }
}
