import Foundation

/// The tensors of a decoder in a model file, as they go into a `ParameterLayout`.
struct ParameterSource: Sendable {
  let path: String
  let configuration: LlamaConfiguration
  private let slots: [Slot]
  private let tensor: @Sendable (String) throws -> (BinaryFile, StoredTensor)

  /// One stored tensor and its place in the region.
  private struct Slot {
    var name: String
    var shape: [Int]
    /// In elements from the start of the region.
    var offset: Int
    /// Number of heads whose rows are stored as rotary pairs (2i, 2i + 1); nil for rows that are
    /// in the order of the region.
    var interleavedHeads: Int?
  }

  /// Checks that every tensor is there with the shape that the configuration implies, and that
  /// there are no others.
  ///
  /// - Parameters:
  ///   - path: names the model in errors.
  ///   - names: all tensors of the model.
  ///   - tensor: finds one of them.
  /// - Throws: `ModelFileError`.
  init(
    path: String, configuration: LlamaConfiguration, naming: ParameterNaming, names: [String],
    tensor: @escaping @Sendable (String) throws -> (BinaryFile, StoredTensor)
  ) throws {
    self.path = path
    self.configuration = configuration
    self.tensor = tensor
    slots = Self.slots(configuration, naming: naming)
    let present = Set(names)
    for slot in slots {
      guard present.contains(slot.name) else {
        throw ModelFileError.missing(path: path, place: .tensor(slot.name))
      }
      let (file, stored) = try tensor(slot.name)
      guard stored.shape == slot.shape else {
        throw ModelFileError.shapeMismatch(
          path: file.path, tensor: slot.name, expected: slot.shape, found: stored.shape)
      }
    }
    let known = Set(slots.map(\.name))
    if let extra = names.sorted().first(where: { !known.contains($0) && !naming.ignores($0) }) {
      throw ModelFileError.unsupported(
        path: path, place: .tensor(extra), found: "a tensor that a Llama decoder does not have",
        supported: "the tensors that the configuration implies; no experts, no further biases")
    }
  }

  /// Reads every tensor as Float32, and hands each to `sink` with its offset in the region, in
  /// elements. The alignment gaps of the region are left out: they are zero.
  ///
  /// - Throws: `ModelFileError`, or what `sink` throws.
  func read(to sink: (Int, UnsafeBufferPointer<Float>) throws -> Void) throws {
    let largest = slots.map { $0.shape.reduce(1, *) }.max() ?? 0
    let buffer = UnsafeMutableBufferPointer<Float>.allocate(capacity: largest)
    defer { buffer.deallocate() }
    for slot in slots {
      let (file, stored) = try tensor(slot.name)
      let values = UnsafeMutableBufferPointer(rebasing: buffer[..<stored.elementCount])
      try file.decode(stored, to: values)
      guard let heads = slot.interleavedHeads else {
        try sink(slot.offset, UnsafeBufferPointer(values))
        continue
      }
      let halves = Self.splitRotaryPairs(
        UnsafeBufferPointer(values), rowCount: slot.shape[0], heads: heads)
      try halves.withUnsafeBufferPointer { try sink(slot.offset, $0) }
    }
  }

  /// The matrices of the layers and the head, without reading them.
  ///
  /// - Throws: `ModelFileError`.
  func matrices() throws -> [ParameterMatrix] {
    let layout = ParameterLayout(configuration)
    let hidden = configuration.hiddenSize
    var matrices: [ParameterMatrix] = []
    func add(_ offset: Int, _ rows: Int, _ columns: Int) throws {
      let parts =
        try slots
        .filter { $0.offset >= offset && $0.offset < offset + rows * columns }
        .sorted { $0.offset < $1.offset }
        .map { slot in
          let (file, stored) = try tensor(slot.name)
          let rowOrder =
            slot.interleavedHeads.map {
              Self.rowsOfSplitPairs(rowCount: slot.shape[0], heads: $0)
            } ?? Array(0..<slot.shape[0])
          return ParameterMatrix.Part(file: file, tensor: stored, rowOrder: rowOrder)
        }
      matrices.append(
        ParameterMatrix(offset: offset, rows: rows, columns: columns, parts: parts))
    }
    for layer in layout.layers {
      try add(
        layer.queryKeyValue, configuration.queryWidth + 2 * configuration.keyValueWidth, hidden)
      try add(layer.attentionOutput, hidden, configuration.queryWidth)
      try add(layer.gateUp, 2 * configuration.feedForwardSize, hidden)
      try add(layer.down, hidden, configuration.feedForwardSize)
    }
    try add(layout.head, configuration.vocabularySize, hidden)
    return matrices
  }

  /// Undoes llama.cpp's reordering of query and key rows: within each head, row 2i + p there is
  /// row p · headDimension / 2 + i here.
  private static func rowsOfSplitPairs(rowCount: Int, heads: Int) -> [Int] {
    let headDimension = rowCount / heads
    return (0..<rowCount).map { row in
      let (head, inner) = row.quotientAndRemainder(dividingBy: headDimension)
      let (half, pair) = inner.quotientAndRemainder(dividingBy: headDimension / 2)
      return head * headDimension + 2 * pair + half
    }
  }

  private static func splitRotaryPairs(
    _ values: UnsafeBufferPointer<Float>, rowCount: Int, heads: Int
  ) -> [Float] {
    let columns = values.count / rowCount
    let order = rowsOfSplitPairs(rowCount: rowCount, heads: heads)
    return [Float](unsafeUninitializedCapacity: values.count) { result, initialized in
      for (row, source) in order.enumerated() {
        result.write(
          UnsafeBufferPointer(rebasing: values[source * columns..<(source + 1) * columns]),
          at: row * columns)
      }
      initialized = values.count
    }
  }

  private static func slots(
    _ configuration: LlamaConfiguration, naming: ParameterNaming
  ) -> [Slot] {
    let layout = ParameterLayout(configuration)
    let hidden = configuration.hiddenSize
    let queryWidth = configuration.queryWidth
    let keyValueWidth = configuration.keyValueWidth
    let feedForward = configuration.feedForwardSize
    let pairs = naming.interleavesRotaryPairs
    var slots = [
      Slot(
        name: naming.embedding, shape: [configuration.vocabularySize, hidden],
        offset: layout.embedding),
      Slot(name: naming.finalNorm, shape: [hidden], offset: layout.finalNorm),
    ]
    if !configuration.tiesEmbeddings {
      slots.append(
        Slot(
          name: naming.head, shape: [configuration.vocabularySize, hidden], offset: layout.head))
    }
    for (index, layer) in layout.layers.enumerated() {
      func add(
        _ name: String, _ shape: [Int], _ offset: Int, heads: Int? = nil, kind: String = "weight"
      ) {
        slots.append(
          Slot(
            name: naming.layerTensor(index, name, kind: kind), shape: shape, offset: offset,
            interleavedHeads: pairs ? heads : nil))
      }
      let key = layer.queryKeyValue + queryWidth * hidden
      add(naming.attentionNorm, [hidden], layer.attentionNorm)
      add(
        naming.query, [queryWidth, hidden], layer.queryKeyValue, heads: configuration.headCount)
      add(naming.key, [keyValueWidth, hidden], key, heads: configuration.keyValueHeadCount)
      add(naming.value, [keyValueWidth, hidden], key + keyValueWidth * hidden)
      add(naming.attentionOutput, [hidden, queryWidth], layer.attentionOutput)
      add(naming.feedForwardNorm, [hidden], layer.feedForwardNorm)
      add(naming.gate, [feedForward, hidden], layer.gateUp)
      add(naming.up, [feedForward, hidden], layer.gateUp + feedForward * hidden)
      add(naming.down, [hidden, feedForward], layer.down)
      if let bias = layer.queryKeyValueBias {
        let key = bias + queryWidth
        add(naming.query, [queryWidth], bias, kind: "bias")
        add(naming.key, [keyValueWidth], key, kind: "bias")
        add(naming.value, [keyValueWidth], key + keyValueWidth, kind: "bias")
      }
      if let norms = layer.headNorms {
        add(naming.queryNorm, [configuration.headDimension], norms.query)
        add(naming.keyNorm, [configuration.headDimension], norms.key)
      }
    }
    return slots
  }
}

/// One matrix of a `ParameterLayout` and the tensors whose rows it is made of, one after the other.
struct ParameterMatrix: Sendable {
  struct Part: Sendable {
    var file: BinaryFile
    var tensor: StoredTensor
    /// The tensor's rows in the order of the region.
    var rowOrder: [Int]
  }

  /// In elements from the start of the region.
  var offset: Int
  var rows: Int
  var columns: Int
  var parts: [Part]
}

/// The tensor names of a file format.
struct ParameterNaming: Sendable {
  var embedding: String
  var finalNorm: String
  var head: String
  var layerPrefix: String
  var attentionNorm: String
  var query: String
  var key: String
  var value: String
  var attentionOutput: String
  var feedForwardNorm: String
  var gate: String
  var up: String
  var down: String
  var queryNorm: String
  var keyNorm: String
  /// Whether query and key rows are stored in the order of interleaved rotary pairs.
  var interleavesRotaryPairs: Bool

  func layerTensor(_ layer: Int, _ name: String, kind: String = "weight") -> String {
    "\(layerPrefix)\(layer).\(name).\(kind)"
  }

  /// Whether a tensor repeats what the configuration says: the head of a tied model, and the
  /// rotary frequencies that old checkpoints, or their scaling that GGUF files store.
  func ignores(_ name: String) -> Bool {
    name == head || name == Self.rotaryFactors || name.hasSuffix(".rotary_emb.inv_freq")
  }

  /// GGUF's tensor of divisors of the rotary frequencies.
  static let rotaryFactors = "rope_freqs.weight"

  /// The names in GGUF files, whose Llama models alone have interleaved rotary pairs.
  static func gguf(_ architecture: GGUFModel.Architecture) -> ParameterNaming {
    var naming = gguf
    naming.interleavesRotaryPairs = architecture == .llama
    return naming
  }

  static let gguf = ParameterNaming(
    embedding: "token_embd.weight", finalNorm: "output_norm.weight", head: "output.weight",
    layerPrefix: "blk.", attentionNorm: "attn_norm", query: "attn_q", key: "attn_k",
    value: "attn_v", attentionOutput: "attn_output", feedForwardNorm: "ffn_norm",
    gate: "ffn_gate", up: "ffn_up", down: "ffn_down", queryNorm: "attn_q_norm",
    keyNorm: "attn_k_norm", interleavesRotaryPairs: true)

  static let huggingFace = ParameterNaming(
    embedding: "model.embed_tokens.weight", finalNorm: "model.norm.weight",
    head: "lm_head.weight", layerPrefix: "model.layers.", attentionNorm: "input_layernorm",
    query: "self_attn.q_proj", key: "self_attn.k_proj", value: "self_attn.v_proj",
    attentionOutput: "self_attn.o_proj", feedForwardNorm: "post_attention_layernorm",
    gate: "mlp.gate_proj", up: "mlp.up_proj", down: "mlp.down_proj",
    queryNorm: "self_attn.q_norm", keyNorm: "self_attn.k_norm", interleavesRotaryPairs: false)
}
