import Foundation
import TransformerKernels

/// What a fine-tune made of a model: an adapter, or all weights, under the names that Hugging Face
/// and PEFT give the tensors.
///
/// Kept as one safetensors file. Its tensors are those of PEFT's `adapter_model.safetensors`, or of
/// `model.safetensors`; its metadata say the rest.
package struct TrainedParameters: Sendable {
  package let adapter: Adapter
  /// Digest (`ModelWeights.digest`) of the model that was fine-tuned; nil for an adapter from
  /// elsewhere, which does not say.
  package let baseDigest: String?
  private let entries: [SafetensorsFile.Entry]
  private let values: [String: [Float]]

  private enum MetadataKey {
    static let kind = "biassweep.parameters"
    static let lora = "biassweep.lora"
    static let base = "biassweep.base_sha256"
    /// Without it transformers takes a file for none of its own.
    static let format = "format"
    static let lowestLayer = "lowest_layer"
  }

  init(
    adapter: Adapter, baseDigest: String?, entries: [SafetensorsFile.Entry],
    values: [String: [Float]]
  ) {
    self.adapter = adapter
    self.baseDigest = baseDigest
    self.entries = entries
    self.values = values
  }

  /// Names of the tensors, sorted.
  package var names: [String] { values.keys.sorted() }

  /// A tensor, row-major; nil if there is none of that name.
  package subscript(name: String) -> [Float]? { values[name] }

  private var metadata: [String: String] {
    get throws {
      var metadata = [MetadataKey.format: "pt"]
      metadata[MetadataKey.base] = baseDigest
      switch adapter {
      case .full: metadata[MetadataKey.kind] = "full"
      case .upperLayers(let lowest):
        metadata[MetadataKey.kind] = "layers"
        metadata[MetadataKey.lowestLayer] = "\(lowest)"
      case .lora(let lora):
        metadata[MetadataKey.kind] = "lora"
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        metadata[MetadataKey.lora] = String(
          decoding: try encoder.encode(LoRARecord(lora)), as: UTF8.self)
      }
      return metadata
    }
  }

  /// The file's bytes: equal parameters, equal bytes.
  package func encoded() throws -> [UInt8] {
    try SafetensorsFile.encode(entries, metadata: metadata) { values[$0.name] ?? [] }
  }

  func write(to path: String) throws {
    try SafetensorsFile.write(entries, metadata: metadata, to: path) { values[$0.name] ?? [] }
  }

  /// Reads what `encoded` returned.
  ///
  /// - Parameters:
  ///   - digest: the SHA-256 (hex) that the file must have; nil for any.
  ///   - model: the shape of the model that was fine-tuned.
  /// - Throws: `ModelFileError` when the file is damaged, or is of another kind or another model.
  package init(
    path: String, digest: String? = nil, for model: LlamaConfiguration
  ) throws {
    if let digest {
      let found = try SourceDigest(directory: nil).digest(ofFile: path)
      guard found == digest else {
        throw ModelFileError.malformed(
          path: path, place: .file, problem: "its SHA-256 is \(found), not \(digest)")
      }
    }
    try self.init(file: SafetensorsFile(path: path), for: model)
  }

  /// Reads what `encoded` returned from memory.
  ///
  /// - Parameter name: what errors call the bytes.
  /// - Throws: `ModelFileError` as above.
  package init(
    encoded bytes: [UInt8], name: String, for model: LlamaConfiguration
  ) throws {
    try self.init(file: SafetensorsFile(content: bytes, path: name), for: model)
  }

  private init(file: SafetensorsFile, for model: LlamaConfiguration) throws {
    let path = file.path
    let adapter: Adapter
    switch file.metadata[MetadataKey.kind] {
    case "full": adapter = .full
    case "layers":
      guard let lowest = file.metadata[MetadataKey.lowestLayer].flatMap(Int.init),
        (0..<model.layerCount).contains(lowest)
      else {
        throw ModelFileError.malformed(
          path: path, place: .key(MetadataKey.lowestLayer),
          problem: "it is not one of the model's layers 0 to \(model.layerCount - 1)")
      }
      adapter = .upperLayers(from: lowest)
    case "lora":
      let json = Data((file.metadata[MetadataKey.lora] ?? "").utf8)
      adapter = .lora(
        try decodeJSON(LoRARecord.self, from: json, path: path).configuration(path: path))
    default:
      throw ModelFileError.unsupported(
        path: path, place: .key(MetadataKey.kind),
        found: file.metadata[MetadataKey.kind] ?? "nothing", supported: "lora, full, layers")
    }
    try self.init(
      adapter: adapter, baseDigest: file.metadata[MetadataKey.base], file: file, model: model)
  }

  /// Takes the tensors of `adapter` from a file that must have exactly these.
  ///
  /// - Throws: `ModelFileError`.
  init(
    adapter: Adapter, baseDigest: String?, file: SafetensorsFile, model: LlamaConfiguration
  ) throws {
    let expected: [SafetensorsFile.Entry]
    switch adapter {
    case .full:
      expected = ParameterLayout(model).tensors(of: model).map {
        .init(name: $0.name, shape: $0.shape)
      }
    case .upperLayers(let lowest):
      let layout = ParameterLayout(model)
      expected = layout.tensors(of: model, in: layout.upperLayers(from: lowest)).map {
        .init(name: $0.name, shape: $0.shape)
      }
    case .lora(let lora):
      do {
        try lora.validate(for: model)
      } catch {
        throw ModelFileError.malformed(path: file.path, place: .file, problem: "\(error)")
      }
      expected = LoRALayout(lora, model: model).tensors.map {
        .init(name: $0.name, shape: [$0.rows, $0.columns])
      }
    }
    let known = Set(expected.map(\.name))
    if let extra = file.names.first(where: { !known.contains($0) }) {
      throw ModelFileError.unsupported(
        path: file.path, place: .tensor(extra), found: "a tensor that its configuration lacks",
        supported: "the tensors that the configuration implies")
    }
    var values: [String: [Float]] = [:]
    for entry in expected {
      guard let shape = file.shape(of: entry.name) else {
        throw ModelFileError.missing(path: file.path, place: .tensor(entry.name))
      }
      guard shape == entry.shape else {
        throw ModelFileError.shapeMismatch(
          path: file.path, tensor: entry.name, expected: entry.shape, found: shape)
      }
      values[entry.name] = try file.floats(entry.name)
    }
    self.init(adapter: adapter, baseDigest: baseDigest, entries: expected, values: values)
  }

  /// `LoRAConfiguration` as it stands in a file.
  private struct LoRARecord: Codable {
    var rank: Int
    var alpha: Float
    var targets: [LoRATarget]
    var firstLayer: Int
    var endLayer: Int
    var rankStabilised: Bool

    init(_ lora: LoRAConfiguration) {
      rank = lora.rank
      alpha = lora.alpha
      targets = lora.targets.sorted()
      firstLayer = lora.layers.lowerBound
      endLayer = lora.layers.upperBound
      rankStabilised = lora.rankStabilised
    }

    func configuration(path: String) throws -> LoRAConfiguration {
      guard firstLayer <= endLayer else {
        throw ModelFileError.malformed(
          path: path, place: .key(MetadataKey.lora),
          problem: "layers from \(firstLayer) to \(endLayer)")
      }
      return LoRAConfiguration(
        rank: rank, alpha: alpha, targets: Set(targets), layers: firstLayer..<endLayer,
        rankStabilised: rankStabilised)
    }
  }
}

// MARK: - In memory

extension FineTuner {
  /// A copy of the parameters as they are now.
  package var trainedParameters: TrainedParameters {
    var values: [String: [Float]] = [:]
    for tensor in trainable.tensors {
      values[tensor.name] = Array(
        UnsafeBufferPointer(start: trainable.values.base + tensor.offset, count: tensor.count))
    }
    return TrainedParameters(
      adapter: options.adapter, baseDigest: weightsDigest,
      entries: trainable.tensors.map { .init(name: $0.name, shape: $0.shape) }, values: values)
  }
}

extension TrainedParameters {
  /// The model that these parameters make of `base`.
  ///
  /// - Throws: `TrainedParametersError.otherBase`.
  package func model(on base: ModelWeights, pool: ThreadPool) throws -> AdaptedModel {
    try check(base)
    let change: AdaptedModel.Change
    switch adapter {
    case .lora(let lora):
      let layout = LoRALayout(lora, model: base.configuration)
      let buffer = FloatBuffer(count: layout.elementCount, zeroed: true)
      for tensor in layout.tensors { copy(tensor.name, to: buffer, at: tensor.offset) }
      change = .lowRank(layout, buffer)
    case .full: change = weights(in: 0..<base.layout.elementCount, of: base)
    case .upperLayers(let lowest):
      change = weights(in: base.layout.upperLayers(from: lowest), of: base)
    }
    return AdaptedModel(base: base, change: change, pool: pool, trunkCache: nil)
  }

  private func weights(in range: Range<Int>, of base: ModelWeights) -> AdaptedModel.Change {
    let buffer = FloatBuffer(count: range.count, zeroed: true)
    for tensor in base.layout.tensors(of: base.configuration, in: range) {
      copy(tensor.name, to: buffer, at: tensor.offset)
    }
    return .weights(range, buffer)
  }

  private func copy(_ name: String, to buffer: FloatBuffer, at offset: Int) {
    values[name]?.withUnsafeBufferPointer {
      guard let source = $0.baseAddress else { return }
      (buffer.base + offset).update(from: source, count: $0.count)
    }
  }

  /// - Throws: `TrainedParametersError.otherBase`.
  func check(_ base: ModelWeights) throws {
    guard let baseDigest, baseDigest != base.digest else { return }
    throw TrainedParametersError.otherBase(expected: baseDigest, found: base.digest)
  }

  /// A weight matrix of `base` with these parameters in it: W + scale · B A for an adapter.
  ///
  /// - Parameter tensor: one of the tensors of all weights.
  func merged(_ tensor: TrainableParameters.Tensor, base: ModelWeights) -> [Float] {
    let source = UnsafeBufferPointer(start: base.base + tensor.offset, count: tensor.count)
    guard case .lora(let lora) = adapter else { return values[tensor.name] ?? Array(source) }
    var merged = Array(source)
    let prefix = "base_model.model." + tensor.name.dropLast(".weight".count)
    guard let a = values[prefix + ".lora_A.weight"], let b = values[prefix + ".lora_B.weight"]
    else { return merged }
    let (outputs, inputs) = (tensor.shape[0], tensor.shape[1])
    for row in 0..<outputs {
      for k in 0..<lora.rank {
        let factor = lora.scale * b[row * lora.rank + k]
        for column in 0..<inputs {
          merged[row * inputs + column] += factor * a[k * inputs + column]
        }
      }
    }
    return merged
  }
}

/// Why trained parameters cannot be used or written.
package enum TrainedParametersError: Error, Hashable, CustomStringConvertible {
  /// They were trained on another model. The digests are SHA-256s of model files.
  case otherBase(expected: String, found: String)
  /// An export must not mix with other files.
  case directoryNotEmpty(path: String)
  /// PEFT's format holds adapters, not whole models.
  case notAnAdapter
  /// What a `config.json` cannot say.
  case inexpressible(what: String)

  package var description: String {
    switch self {
    case .otherBase(let expected, let found):
      """
      the fine-tune was made from the model with SHA-256 \(expected), the model given has \(found); \
      give the model that the sweep used
      """
    case .directoryNotEmpty(let path):
      "the directory \(path) is not empty; give one that is, or that does not exist yet"
    case .notAnAdapter:
      "every weight was trained, so there is no adapter; export the model as a Hugging Face directory"
    case .inexpressible(let what):
      "a Hugging Face directory cannot express \(what); use the model's own Hugging Face directory"
    }
  }
}
