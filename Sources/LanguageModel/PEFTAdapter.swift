import Foundation

/// Adapters in the format of Hugging Face's PEFT: a directory with `adapter_config.json` and
/// `adapter_model.safetensors`.
///
/// Reference: https://huggingface.co/docs/peft/developer_guides/checkpoint
extension TrainedParameters {
  private static let configurationName = "adapter_config.json"
  private static let weightsName = "adapter_model.safetensors"

  /// Writes an adapter; `PeftModel.from_pretrained` reads it.
  ///
  /// - Parameters:
  ///   - directory: made where it does not exist.
  ///   - baseModel: the name or path under which users of the adapter find the model.
  /// - Throws: `TrainedParametersError`, `ModelFileError.system`.
  package func writePEFT(to directory: String, baseModel: String) throws {
    guard case .lora(let lora) = adapter else { throw TrainedParametersError.notAnAdapter }
    try makeEmptyDirectory(directory)
    try write(to: "\(directory)/\(Self.weightsName)")
    let path = "\(directory)/\(Self.configurationName)"
    let json = try PEFTConfiguration(lora, baseModel: baseModel).encoded()
    try replaceFile(at: path) { descriptor, _ in
      try json.withUnsafeBytes { try writeAll($0, to: descriptor, at: 0, path: path) }
    }
  }

  /// Reads an adapter for models of the shape `model`.
  ///
  /// - Throws: `ModelFileError`; `.unsupported` names an option of PEFT that would change what the
  ///   adapter computes and is not implemented here (DoRA, biases, patterns of ranks, …).
  package init(peftDirectory directory: String, for model: LlamaConfiguration) throws {
    let path = "\(directory)/\(Self.configurationName)"
    let configuration = try decodeJSONFile(PEFTConfiguration.self, at: path)
    try configuration.check(path: path)
    let file = try SafetensorsFile(path: "\(directory)/\(Self.weightsName)")
    let lora = try configuration.lora(
      modules: try Self.adaptedModules(file), model: model, path: path)
    try self.init(adapter: .lora(lora), baseDigest: nil, file: file, model: model)
  }

  /// Layer and target of each adapted matrix, from the names of the tensors.
  private static func adaptedModules(
    _ file: SafetensorsFile
  ) throws -> Set<PEFTConfiguration.Module> {
    var modules: Set<PEFTConfiguration.Module> = []
    for name in file.names {
      let prefix = "base_model.model.model.layers."
      var rest = name.hasPrefix(prefix) ? name.dropFirst(prefix.count) : ""
      let digits = rest.prefix { $0.isASCII && $0.isNumber }
      rest = rest.dropFirst(digits.count)
      guard let layer = Int(digits),
        let target = LoRATarget.allCases.first(where: { target in
          ["A", "B"].contains { rest == ".\(target.moduleName).lora_\($0).weight" }
        })
      else {
        throw ModelFileError.unsupported(
          path: file.path, place: .tensor(name), found: "a tensor of an unknown module",
          supported:
            "lora_A and lora_B of "
            + LoRATarget.allCases.map(\.moduleName).joined(separator: ", "))
      }
      modules.insert(.init(layer: layer, target: target))
    }
    guard !modules.isEmpty else {
      throw ModelFileError.malformed(path: file.path, place: .file, problem: "it has no tensors")
    }
    return modules
  }
}

/// PEFT's `LoraConfig` as it stands in `adapter_config.json`.
struct PEFTConfiguration: Decodable {
  /// One adapted matrix.
  struct Module: Hashable {
    var layer: Int
    var target: LoRATarget
  }

  private var entries: [String: JSONValue]

  init(from decoder: any Decoder) throws {
    entries = try decoder.singleValueContainer().decode([String: JSONValue].self)
  }

  init(_ lora: LoRAConfiguration, baseModel: String) {
    entries = [
      "peft_type": .string("LORA"), "task_type": .string("CAUSAL_LM"),
      "base_model_name_or_path": .string(baseModel), "inference_mode": .boolean(true),
      "r": .number(Double(lora.rank)), "lora_alpha": .number(Double(lora.alpha)),
      "lora_dropout": .number(0), "bias": .string("none"), "fan_in_fan_out": .boolean(false),
      "init_lora_weights": .boolean(true), "use_rslora": .boolean(lora.rankStabilised),
      "use_dora": .boolean(false), "modules_to_save": .null, "rank_pattern": .object([:]),
      "alpha_pattern": .object([:]),
      "target_modules": .array(lora.targets.sorted().map { .string($0.shortModuleName) }),
      "layers_to_transform": .array(lora.layers.map { .number(Double($0)) }),
      "layers_pattern": .string("layers"),
    ]
  }

  func encoded() throws -> Data {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
    return try encoder.encode(JSONValue.object(entries)) + Data("\n".utf8)
  }

  /// Entries that are read, or that make no difference to what a finished adapter computes.
  private static let harmless: Set<String> = [
    "peft_type", "task_type", "base_model_name_or_path", "inference_mode", "r", "lora_alpha",
    "lora_dropout", "bias", "init_lora_weights", "use_rslora", "target_modules",
    "layers_to_transform", "layers_pattern", "revision", "auto_mapping", "peft_version",
    "runtime_config", "eva_config", "corda_config", "loftq_config", "ensure_weight_tying",
  ]

  /// Refuses adapters of another kind, and every option that is switched on and not known here.
  ///
  /// - Throws: `ModelFileError.unsupported`.
  func check(path: String) throws {
    func require(_ key: String, _ expected: JSONValue) throws {
      guard let found = entries[key], found != expected else { return }
      throw ModelFileError.unsupported(
        path: path, place: .key(key), found: "\(found)", supported: "\(expected)")
    }
    guard entries["peft_type"] != nil else {
      throw ModelFileError.missing(path: path, place: .key("peft_type"))
    }
    try require("peft_type", .string("LORA"))
    try require("bias", .string("none"))
    for (key, value) in entries.sorted(by: { $0.key < $1.key })
    where !Self.harmless.contains(key) && !value.isOff {
      throw ModelFileError.unsupported(
        path: path, place: .key(key), found: "\(value)",
        supported: "plain LoRA, with or without rank stabilisation")
    }
  }

  /// The adapter that the entries describe, whose matrices are `modules`.
  ///
  /// - Throws: `ModelFileError` when the two contradict each other, or when the matrices are not
  ///   the same targets in each of some successive layers.
  func lora(
    modules: Set<Module>, model: LlamaConfiguration, path: String
  ) throws -> LoRAConfiguration {
    guard case .number(let rank)? = entries["r"], let rank = Int(exactly: rank) else {
      throw wrong("r", "a whole number", path)
    }
    guard case .number(let alpha)? = entries["lora_alpha"] else {
      throw wrong("lora_alpha", "a number", path)
    }
    let stabilised: Bool
    switch entries["use_rslora"] {
    case nil, .null: stabilised = false
    case .boolean(let value): stabilised = value
    default: throw wrong("use_rslora", "true or false", path)
    }
    let targets = Set(modules.map(\.target))
    let layers = modules.map(\.layer)
    guard let first = layers.min(), let last = layers.max(), last < model.layerCount else {
      throw ModelFileError.malformed(
        path: path, place: .file,
        problem: "the adapter has layer \(layers.max() ?? 0), the model \(model.layerCount) layers")
    }
    guard modules.count == targets.count * (last - first + 1) else {
      throw ModelFileError.unsupported(
        path: path, place: .key("target_modules"),
        found: "\(modules.count) matrices in layers \(first) to \(last)",
        supported: "the same targets in each of some successive layers")
    }
    try checkTargets(targets, path: path)
    if case .array(let listed)? = entries["layers_to_transform"],
      Set(listed) != Set((first...last).map { .number(Double($0)) })
    {
      throw ModelFileError.malformed(
        path: path, place: .key("layers_to_transform"),
        problem: "the tensors are those of layers \(first) to \(last)")
    }
    return LoRAConfiguration(
      rank: rank, alpha: Float(alpha), targets: targets, layers: first..<last + 1,
      rankStabilised: stabilised)
  }

  /// A list of module names must name the targets that there are. Other forms (a regular expression,
  /// `all-linear`) are left to the names of the tensors.
  private func checkTargets(_ targets: Set<LoRATarget>, path: String) throws {
    guard case .array(let listed)? = entries["target_modules"] else { return }
    let named = try listed.map { entry -> LoRATarget in
      guard case .string(let name) = entry,
        let target = LoRATarget.allCases.first(where: {
          name == $0.shortModuleName || name.hasSuffix("." + $0.shortModuleName)
        })
      else {
        throw ModelFileError.unsupported(
          path: path, place: .key("target_modules"), found: "\(entry)",
          supported: LoRATarget.allCases.map(\.shortModuleName).joined(separator: ", "))
      }
      return target
    }
    guard Set(named) == targets else {
      throw ModelFileError.malformed(
        path: path, place: .key("target_modules"),
        problem: "the tensors are those of "
          + targets.sorted().map(\.shortModuleName).joined(separator: ", "))
    }
  }

  private func wrong(_ key: String, _ expected: String, _ path: String) -> ModelFileError {
    guard let found = entries[key] else { return .missing(path: path, place: .key(key)) }
    return .malformed(path: path, place: .key(key), problem: "\(found) is not \(expected)")
  }
}

extension LoRATarget {
  /// The last part of the module's name, such as `q_proj`.
  fileprivate var shortModuleName: String { "\(rawValue)_proj" }
}

/// Any JSON value.
enum JSONValue: Codable, Hashable, CustomStringConvertible {
  case null
  case boolean(Bool)
  case number(Double)
  case string(String)
  case array([JSONValue])
  case object([String: JSONValue])

  init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    if container.decodeNil() {
      self = .null
    } else if let value = try? container.decode(Bool.self) {
      self = .boolean(value)
    } else if let value = try? container.decode(Double.self) {
      self = .number(value)
    } else if let value = try? container.decode(String.self) {
      self = .string(value)
    } else if let value = try? container.decode([JSONValue].self) {
      self = .array(value)
    } else {
      self = .object(try container.decode([String: JSONValue].self))
    }
  }

  func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    switch self {
    case .null: try container.encodeNil()
    case .boolean(let value): try container.encode(value)
    case .number(let value):
      // Whole numbers without a fraction: PEFT's ranks and alphas are integers.
      if let whole = Int(exactly: value) {
        try container.encode(whole)
      } else {
        try container.encode(value)
      }
    case .string(let value): try container.encode(value)
    case .array(let value): try container.encode(value)
    case .object(let value): try container.encode(value)
    }
  }

  /// Whether an option with this value is switched off.
  var isOff: Bool {
    switch self {
    case .null: true
    case .boolean(let value): !value
    case .number(let value): value == 0
    case .string(let value): value.isEmpty
    case .array(let value): value.isEmpty
    case .object(let value): value.isEmpty
    }
  }

  var description: String {
    switch self {
    case .null: "null"
    case .boolean(let value): "\(value)"
    case .number(let value): "\(value)"
    case .string(let value): value
    case .array(let value): "[" + value.map(\.description).joined(separator: ", ") + "]"
    case .object(let value):
      "{"
        + value.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }
        .joined(separator: ", ") + "}"
    }
  }
}
