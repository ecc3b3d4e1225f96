/// A matrix of a decoder layer that low-rank adaptation can act on.
package enum LoRATarget: String, CaseIterable, Sendable, Codable, Comparable {
  case query = "q"
  case key = "k"
  case value = "v"
  case output = "o"
  case gate
  case up
  case down

  package static func < (a: LoRATarget, b: LoRATarget) -> Bool { a.order < b.order }

  private var order: Int {
    switch self {
    case .query: 0
    case .key: 1
    case .value: 2
    case .output: 3
    case .gate: 4
    case .up: 5
    case .down: 6
    }
  }

  /// Name of the module in Hugging Face's Llama and in PEFT, such as `self_attn.q_proj`.
  package var moduleName: String {
    switch self {
    case .query, .key, .value, .output: "self_attn.\(rawValue)_proj"
    case .gate, .up, .down: "mlp.\(rawValue)_proj"
    }
  }
}

/// Low-rank adaptation (Hu et al., 2021): y = W x + scale · B A x with A (rank, in), B (out, rank).
package struct LoRAConfiguration: Sendable, Hashable {
  package var rank: Int
  package var alpha: Float
  package var targets: Set<LoRATarget>
  /// Layers that carry an adapter.
  package var layers: Range<Int>
  /// Whether the scale is alpha/√rank (Kalajdzievski, 2023) rather than alpha/rank.
  package var rankStabilised: Bool

  package init(
    rank: Int, alpha: Float, targets: Set<LoRATarget>, layers: Range<Int>,
    rankStabilised: Bool = false
  ) {
    self.rank = rank
    self.alpha = alpha
    self.targets = targets
    self.layers = layers
    self.rankStabilised = rankStabilised
  }

  package var scale: Float {
    rankStabilised ? alpha / Float(rank).squareRoot() : alpha / Float(rank)
  }

  /// - Throws: `FineTuningError` that says what does not fit `configuration`.
  package func validate(for configuration: LlamaConfiguration) throws {
    if rank < 1 || rank > configuration.hiddenSize {
      throw FineTuningError.invalidOption(
        name: "LoRA rank", value: "\(rank)",
        allowed: "1 to the hidden size, \(configuration.hiddenSize)")
    }
    if !(alpha > 0 && alpha.isFinite) {
      throw FineTuningError.invalidOption(
        name: "LoRA alpha", value: "\(alpha)", allowed: "a positive number")
    }
    if targets.isEmpty {
      throw FineTuningError.invalidOption(
        name: "LoRA targets", value: "none",
        allowed: LoRATarget.allCases.map(\.rawValue).joined(separator: ", "))
    }
    if layers.isEmpty || layers.lowerBound < 0 || layers.upperBound > configuration.layerCount {
      throw FineTuningError.invalidOption(
        name: "LoRA layers", value: "\(layers)",
        allowed: "a non-empty part of 0..<\(configuration.layerCount)")
    }
  }
}

/// Where the adapter matrices of a configuration lie in one flat Float32 region, in elements.
///
/// Targets with the same input form a group: their A matrices are adjacent and act as one matrix.
struct LoRALayout: Sendable, Hashable {
  /// Targets of one layer with a common input.
  struct Group: Sendable, Hashable {
    /// (members · rank, inputWidth)
    let a: Int
    let inputWidth: Int
    let members: [Member]
  }

  struct Member: Sendable, Hashable {
    let target: LoRATarget
    /// (outputWidth, rank)
    let b: Int
    let outputWidth: Int
    /// First column of the target in the output of its group's weight matrix.
    let outputColumn: Int
  }

  /// Groups of one layer; nil where no target is adapted.
  struct Layer: Sendable, Hashable {
    let queryKeyValue: Group?
    let output: Group?
    let gateUp: Group?
    let down: Group?

    var groups: [Group] { [queryKeyValue, output, gateUp, down].compactMap { $0 } }
  }

  let configuration: LoRAConfiguration
  /// One for each layer of `configuration.layers`.
  let layers: [Layer]
  let elementCount: Int

  init(_ lora: LoRAConfiguration, model: LlamaConfiguration) {
    var next = 0
    func place(_ count: Int) -> Int {
      let offset = next
      next += (count + 15) / 16 * 16
      return offset
    }
    let hidden = model.hiddenSize
    func group(input: Int, _ candidates: [(LoRATarget, width: Int)]) -> Group? {
      let chosen = candidates.filter { lora.targets.contains($0.0) }
      guard !chosen.isEmpty else { return nil }
      let a = place(chosen.count * lora.rank * input)
      var column = 0
      var members: [Member] = []
      for (target, width) in candidates {
        if lora.targets.contains(target) {
          members.append(
            Member(
              target: target, b: place(width * lora.rank), outputWidth: width,
              outputColumn: column))
        }
        column += width
      }
      return Group(a: a, inputWidth: input, members: members)
    }
    configuration = lora
    layers = lora.layers.map { _ in
      Layer(
        queryKeyValue: group(
          input: hidden,
          [
            (.query, model.queryWidth), (.key, model.keyValueWidth),
            (.value, model.keyValueWidth),
          ]),
        output: group(input: model.queryWidth, [(.output, hidden)]),
        gateUp: group(
          input: hidden, [(.gate, model.feedForwardSize), (.up, model.feedForwardSize)]),
        down: group(input: model.feedForwardSize, [(.down, hidden)]))
    }
    elementCount = next
  }

  /// Groups of layer `layer` of the model, or nil where it has no adapter.
  func layer(_ layer: Int) -> Layer? {
    configuration.layers.contains(layer) ? layers[layer - configuration.layers.lowerBound] : nil
  }

  /// One matrix A or B of the adapter.
  struct Tensor {
    let layer: Int
    let target: LoRATarget
    let isA: Bool
    let offset: Int
    let rows: Int
    let columns: Int

    /// The name that PEFT gives the tensor.
    var name: String {
      "base_model.model.model.layers.\(layer).\(target.moduleName).lora_\(isA ? "A" : "B").weight"
    }
  }

  /// All matrices, by layer, then target, A before B.
  var tensors: [Tensor] {
    zip(configuration.layers, layers).flatMap { index, layer in
      layer.groups.flatMap { group in
        group.members.enumerated().flatMap { position, member in
          [
            Tensor(
              layer: index, target: member.target, isA: true,
              offset: group.a + position * configuration.rank * group.inputWidth,
              rows: configuration.rank, columns: group.inputWidth),
            Tensor(
              layer: index, target: member.target, isA: false, offset: member.b,
              rows: member.outputWidth, columns: configuration.rank),
          ]
        }
      }
    }
  }
}
