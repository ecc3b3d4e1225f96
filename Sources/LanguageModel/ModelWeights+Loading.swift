import Foundation
import RandomStreams

/// An opened model of either file format.
enum ModelSource: Sendable {
  case gguf(GGUFModel)
  case huggingFace(HuggingFaceDirectory)

  /// - Parameter path: a `.gguf` file or a Hugging Face directory.
  /// - Throws: `ModelFileError`.
  init(path: String) throws {
    self =
      isDirectory(path)
      ? .huggingFace(try HuggingFaceDirectory(path: path)) : .gguf(try GGUFModel(path: path))
  }

  /// The name of the file without extension, or of the directory.
  var name: String {
    switch self {
    case .gguf(let model):
      URL(fileURLWithPath: model.file.path).deletingPathExtension()
        .lastPathComponent
    case .huggingFace(let directory): URL(fileURLWithPath: directory.path).lastPathComponent
    }
  }

  var configuration: LlamaConfiguration {
    switch self {
    case .gguf(let model): model.configuration
    case .huggingFace(let directory): directory.configuration
    }
  }

  /// - Throws: `ModelFileError`.
  func vocabulary() throws -> TokenizerVocabulary {
    switch self {
    case .gguf(let model): try TokenizerVocabulary(model.file)
    case .huggingFace(let directory): try TokenizerVocabulary(huggingFaceDirectory: directory.path)
    }
  }

  /// - Parameter cacheDirectory: see `ModelWeights.load`.
  /// - Throws: `ModelFileError`.
  func weights(cacheDirectory: String?) throws -> ModelWeights {
    let weightDirectory = cacheDirectory.map { $0 + "/weights" }
    let digests = SourceDigest(directory: weightDirectory.map { $0 + "/sources" })
    let source =
      switch self {
      case .gguf(let model): try model.parameterSource()
      case .huggingFace(let directory): try directory.parameterSource()
      }
    let weights = try ModelWeights.load(
      source, digest: try digest(digests), weightDirectory: weightDirectory)
    return weights.with(
      try CompressedWeights.load(source, weights: weights, directory: weightDirectory))
  }

  /// SHA-256 (hex) of the files that weights are read from.
  func digest(_ digests: SourceDigest) throws -> String {
    switch self {
    case .gguf(let model): try digests.digest(ofFile: model.file.path)
    case .huggingFace(let directory):
      try digests.digest(ofFiles: directory.fileNames, in: directory.path)
    }
  }
}

extension LlamaConfiguration {
  /// Elements of all tensors; tied ones count once.
  package var parameterCount: Int { ParameterLayout(self).elementCount }
}

extension ModelWeights {
  /// Reads the converted weights of a model in the cache and compares every block with its digest.
  ///
  /// - Returns: whether there are any: false until the model is loaded for the first time.
  /// - Throws: `ModelFileError` if the model cannot be read or its converted weights are damaged.
  package static func verifyCache(ofModelAt path: String, cacheDirectory: String) throws -> Bool {
    let source = try ModelSource(path: path)
    let directory = cacheDirectory + "/weights"
    let digest = try source.digest(SourceDigest(directory: directory + "/sources"))
    let cache = WeightCache(directory: directory)
    guard FileManager.default.fileExists(atPath: cache.path(digest: digest)) else { return false }
    try cache.verify(digest: digest, configuration: source.configuration)
    return true
  }

  /// Loads the weights of a model without its tokenizer.
  ///
  /// - Parameters:
  ///   - path: a `.gguf` file or a Hugging Face directory.
  ///   - cacheDirectory: where dequantised weights are kept (`weights/` in it) and shared with
  ///     other processes; nil reads them into memory of this process.
  /// - Throws: `ModelFileError`.
  package static func load(from path: String, cacheDirectory: String?) throws -> ModelWeights {
    try ModelSource(path: path).weights(cacheDirectory: cacheDirectory)
  }

  fileprivate static func load(
    _ source: ParameterSource, digest: String, weightDirectory: String?
  ) throws -> ModelWeights {
    let configuration = source.configuration
    guard let weightDirectory else {
      let region = WeightRegion(elementCount: ParameterLayout(configuration).elementCount)
      try source.read { offset, values in
        region.elements.write(values, at: offset)
      }
      return region.weights(configuration: configuration, digest: digest)
    }
    return try WeightCache(directory: weightDirectory).weights(
      digest: digest, configuration: configuration
    ) { sink in try source.read(to: sink) }
  }

  /// Weights that no training made, for benchmarks: N(0, 0.02²), norms 1. The same seed gives the
  /// same weights on every machine with the same math library.
  package static func random(configuration: LlamaConfiguration, seed: UInt64) -> ModelWeights {
    let layout = ParameterLayout(configuration)
    let region = WeightRegion(elementCount: layout.elementCount)
    var stream = RandomStream(seed: seed, purpose: "random weights")
    func fill(_ offset: Int, _ count: Int) {
      for index in stride(from: offset, to: offset + count, by: 2) {
        // Box-Muller: two independent normal deviates from two uniform ones; 1 − u is never 0.
        let radius = 0.02 * (-2 * log(1 - stream.uniform())).squareRoot()
        let angle = 2 * Double.pi * stream.uniform()
        region.elements[index] = Float(radius * cos(angle))
        if index + 1 < offset + count { region.elements[index + 1] = Float(radius * sin(angle)) }
      }
    }
    let hidden = configuration.hiddenSize
    func fillNorm(_ offset: Int, _ width: Int) {
      for index in offset..<offset + width { region.elements[index] = 1 }
    }
    let queryKeyValueWidth = configuration.queryWidth + 2 * configuration.keyValueWidth
    fill(layout.embedding, configuration.vocabularySize * hidden)
    for layer in layout.layers {
      fillNorm(layer.attentionNorm, hidden)
      fill(layer.queryKeyValue, queryKeyValueWidth * hidden)
      fill(layer.attentionOutput, hidden * configuration.queryWidth)
      fillNorm(layer.feedForwardNorm, hidden)
      fill(layer.gateUp, 2 * configuration.feedForwardSize * hidden)
      fill(layer.down, hidden * configuration.feedForwardSize)
      if let bias = layer.queryKeyValueBias { fill(bias, queryKeyValueWidth) }
      if let norms = layer.headNorms {
        fillNorm(norms.query, configuration.headDimension)
        fillNorm(norms.key, configuration.headDimension)
      }
    }
    fillNorm(layout.finalNorm, hidden)
    if !configuration.tiesEmbeddings {
      fill(layout.head, configuration.vocabularySize * hidden)
    }
    return region.weights(configuration: configuration, digest: "random-\(seed)")
  }
}

/// Whether something is a directory; false when nothing is there.
func isDirectory(_ path: String) -> Bool {
  var directory: ObjCBool = false
  return FileManager.default.fileExists(atPath: path, isDirectory: &directory)
    && directory.boolValue
}

/// Zeroed memory for weights. Freed with the object, unless it was handed to a `ModelWeights`.
private final class WeightRegion {
  let elements: UnsafeMutableBufferPointer<Float>
  private let memory: UnsafeMutableRawBufferPointer
  private var isOwned = true

  init(elementCount: Int) {
    memory = UnsafeMutableRawBufferPointer.allocate(
      byteCount: elementCount * 4, alignment: 64)
    memory.initializeMemory(as: UInt8.self, repeating: 0)
    elements = UnsafeMutableBufferPointer(
      start: memory.baseAddress!.assumingMemoryBound(to: Float.self), count: elementCount)
  }

  deinit { if isOwned { memory.deallocate() } }

  func weights(configuration: LlamaConfiguration, digest: String) -> ModelWeights {
    isOwned = false
    let address = UInt(bitPattern: memory.baseAddress!)
    return ModelWeights(
      configuration: configuration, digest: digest, base: UnsafePointer(elements.baseAddress!),
      release: { UnsafeMutableRawPointer(bitPattern: address)?.deallocate() })
  }
}

extension UnsafeMutableBufferPointer<Float> {
  /// Copies `values` to the elements from `offset` on.
  func write(_ values: UnsafeBufferPointer<Float>, at offset: Int) {
    precondition(offset >= 0 && offset + values.count <= count, "\(offset), \(values.count)")
    guard let source = values.baseAddress else { return }
    (baseAddress! + offset).update(from: source, count: values.count)
  }
}
