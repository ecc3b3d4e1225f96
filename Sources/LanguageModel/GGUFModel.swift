/// The Llama decoder that a GGUF file holds.
struct GGUFModel: Sendable {
  let file: GGUFFile
  let configuration: LlamaConfiguration

  /// - Throws: `ModelFileError`, `.unsupported` when the architecture is not Llama's.
  init(path: String) throws {
    file = try GGUFFile(path: path)
    let architecture = try file.string("general.architecture")
    guard architecture == "llama" else {
      throw ModelFileError.unsupported(
        path: path, place: .key("general.architecture"), found: "the architecture \(architecture)",
        supported: "llama")
    }
    configuration = try Self.configuration(file)
  }

  func parameterSource() throws -> ParameterSource {
    let file = file
    return try ParameterSource(
      path: file.path, configuration: configuration, naming: .gguf, names: file.tensorNames
    ) { name in
      guard let tensor = file.tensors[name] else {
        throw ModelFileError.missing(path: file.path, place: .tensor(name))
      }
      return (file.file, tensor)
    }
  }

  private static func configuration(_ file: GGUFFile) throws -> LlamaConfiguration {
    let keys = ConfigurationKeys.gguf
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
    let configuration = LlamaConfiguration(
      vocabularySize: try file.optionalInteger(keys.vocabularySize) ?? embedding[0],
      hiddenSize: hidden, layerCount: try file.integer(keys.layerCount), headCount: heads,
      keyValueHeadCount: try file.optionalInteger(keys.keyValueHeadCount) ?? heads,
      headDimension: headDimension, feedForwardSize: try file.integer(keys.feedForwardSize),
      ropeTheta: try file.optionalNumber(keys.ropeTheta) ?? 10_000,
      normEpsilon: Float(try file.optionalNumber(keys.normEpsilon) ?? 0),
      maximumPositions: try file.integer(keys.maximumPositions),
      tiesEmbeddings: file.shape(of: ParameterNaming.gguf.head) == nil)
    try configuration.validate(path: file.path, keys: keys)

    func require<T: Equatable>(_ key: String, _ found: T?, _ allowed: T) throws {
      guard let found, found != allowed else { return }
      throw ModelFileError.unsupported(
        path: file.path, place: .key(key), found: "\(found)", supported: "\(allowed)")
    }
    let rotary = "llama.rope.dimension_count"
    try require(rotary, try file.optionalInteger(rotary), headDimension)
    let valueDimension = "llama.attention.value_length"
    try require(valueDimension, try file.optionalInteger(valueDimension), headDimension)
    let scaling = "llama.rope.scaling.type"
    try require(scaling, try file.optionalString(scaling), "none")
    let oldScaling = "llama.rope.scale_linear"
    try require(oldScaling, try file.optionalNumber(oldScaling), 1)
    let experts = "llama.expert_count"
    try require(experts, try file.optionalInteger(experts), 0)
    return configuration
  }
}
