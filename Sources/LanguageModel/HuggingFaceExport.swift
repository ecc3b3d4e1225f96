import Foundation
import TransformerKernels

extension TrainedParameters {
  /// Writes the whole model that these parameters make of another as a Hugging Face directory:
  /// `config.json`, `model.safetensors` (F32; an adapter is merged into the weights) and the files
  /// of the tokenizer. transformers reads it, and so does `LanguageModel.load`.
  ///
  /// - Parameters:
  ///   - directory: made where it does not exist; must be empty.
  ///   - base: the model that was fine-tuned: a `.gguf` file or a Hugging Face directory.
  ///   - cacheDirectory: see `ModelWeights.load`.
  /// - Throws: `ModelFileError`, `TrainedParametersError`.
  package func writeHuggingFace(
    to directory: String, base: String, cacheDirectory: String?
  ) throws {
    let source = try ModelSource(path: base)
    let weights = try source.weights(cacheDirectory: cacheDirectory)
    try check(weights)
    let vocabulary = try? source.vocabulary()  // A model without a tokenizer is exported without.
    let config = try HuggingFaceConfiguration.json(
      source.configuration, bos: vocabulary?.bos, eos: vocabulary?.eos)
    try makeEmptyDirectory(directory)

    let tensors = weights.layout.tensors(of: weights.configuration)
    let byName = Dictionary(uniqueKeysWithValues: tensors.map { ($0.name, $0) })
    try SafetensorsFile.write(
      tensors.map { .init(name: $0.name, shape: $0.shape) }, metadata: ["format": "pt"],
      to: directory + "/model.safetensors"
    ) { entry in
      guard let tensor = byName[entry.name] else { return [] }
      return merged(tensor, base: weights)
    }
    switch source {
    case .huggingFace(let original):
      for name in Self.tokenizerFiles {
        let path = "\(original.path)/\(name)"
        guard FileManager.default.fileExists(atPath: path) else { continue }
        let file = try BinaryFile(path: path)
        try writeFile(try file.bytes(at: 0, count: file.size), to: "\(directory)/\(name)")
      }
    case .gguf:
      guard let vocabulary else { break }
      try writeFile(vocabulary.tokenizerJSON(), to: directory + "/tokenizer.json")
      try writeFile(vocabulary.tokenizerConfigJSON(), to: directory + "/tokenizer_config.json")
    }
    // Last: a directory with a configuration is complete.
    try writeFile(config, to: directory + "/config.json")
  }

  private static let tokenizerFiles = [
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
    "generation_config.json",
  ]
}

/// Makes a directory for an export.
///
/// - Throws: `TrainedParametersError.directoryNotEmpty`, `ModelFileError.system`.
func makeEmptyDirectory(_ path: String) throws {
  try makeDirectory(path)
  do {
    guard try FileManager.default.contentsOfDirectory(atPath: path).isEmpty else {
      throw TrainedParametersError.directoryNotEmpty(path: path)
    }
  } catch let error as CocoaError {
    throw ModelFileError.system(
      operation: "list the directory", path: path, code: posixCode(of: error))
  }
}

private func writeFile(_ bytes: some ContiguousBytes, to path: String) throws {
  try replaceFile(at: path) { descriptor, _ in
    try bytes.withUnsafeBytes { try writeAll($0, to: descriptor, at: 0, path: path) }
  }
}

/// JSON with sorted keys and a final line feed.
private func prettyJSON(_ value: JSONValue) throws -> Data {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
  return try encoder.encode(value) + Data("\n".utf8)
}

extension HuggingFaceConfiguration {
  /// The `config.json` of a model.
  ///
  /// - Throws: `TrainedParametersError.inexpressible` for scalings that only GGUF files have.
  static func json(
    _ model: LlamaConfiguration, bos: Int32?, eos: Int32?
  ) throws -> Data {
    let type: ModelType =
      model.hasQueryKeyValueBias ? .qwen2 : model.normalizesHeads ? .qwen3 : .llama
    func number(_ value: Int) -> JSONValue { .number(Double(value)) }
    func token(_ id: Int32?) -> JSONValue { id.map { .number(Double($0)) } ?? .null }
    var entries: [String: JSONValue] = [
      "model_type": .string(type.rawValue),
      "architectures": .array([.string(type.architecture)]),
      "vocab_size": number(model.vocabularySize), "hidden_size": number(model.hiddenSize),
      "intermediate_size": number(model.feedForwardSize),
      "num_hidden_layers": number(model.layerCount),
      "num_attention_heads": number(model.headCount),
      "num_key_value_heads": number(model.keyValueHeadCount),
      "head_dim": number(model.headDimension), "hidden_act": .string("silu"),
      "max_position_embeddings": number(model.maximumPositions),
      // By its shortest decimal form: 1e-05, not the Double that is nearest to the Float.
      "rms_norm_eps": .number(Double("\(model.normEpsilon)") ?? Double(model.normEpsilon)),
      "rope_theta": .number(model.ropeTheta), "rope_scaling": .null,
      "tie_word_embeddings": .boolean(model.tiesEmbeddings), "attention_bias": .boolean(false),
      "torch_dtype": .string("float32"), "bos_token_id": token(bos), "eos_token_id": token(eos),
    ]
    if type == .llama { entries["mlp_bias"] = .boolean(false) }
    switch model.rotaryScaling {
    case nil: break
    case .linear(let factor):
      entries["rope_scaling"] = .object([
        "rope_type": .string("linear"), "factor": .number(factor),
      ])
    case .llama3(let factor, let low, let high, let positions):
      entries["rope_scaling"] = .object([
        "rope_type": .string("llama3"), "factor": .number(factor),
        "low_freq_factor": .number(low), "high_freq_factor": .number(high),
        "original_max_position_embeddings": .number(positions),
      ])
    case .divisors:
      throw TrainedParametersError.inexpressible(what: "a GGUF file's own rotary divisors")
    }
    return try prettyJSON(.object(entries))
  }
}

// MARK: - Tokenizer

extension TokenizerVocabulary {
  /// `tokenizer.json` of Hugging Face's tokenizers.
  func tokenizerJSON() throws -> Data {
    func text(_ id: Int32) -> JSONValue {
      .string(String(decoding: tokens[Int(id)].bytes, as: UTF8.self))
    }
    var vocabulary: [String: JSONValue] = [:]
    var added: [JSONValue] = []
    for (id, token) in tokens.enumerated() {
      switch token.kind {
      case .normal:
        let key = ByteAlphabet.text(of: token.bytes)
        if vocabulary[key] == nil { vocabulary[key] = .number(Double(id)) }
      case .control, .userDefined:
        added.append(
          .object([
            "id": .number(Double(id)), "content": text(Int32(id)),
            "special": .boolean(token.kind == .control), "normalized": .boolean(false),
            "single_word": .boolean(false), "lstrip": .boolean(false), "rstrip": .boolean(false),
          ]))
      case .unused: break
      }
    }
    let merges = self.merges.map { merge in
      JSONValue.array([
        .string(ByteAlphabet.text(of: merge.left)), .string(ByteAlphabet.text(of: merge.right)),
      ])
    }
    var steps: [JSONValue] = []
    if splitter.isolatesDigits {
      steps.append(.object(["type": .string("Digits"), "individual_digits": .boolean(true)]))
    }
    if let pattern = splitter.pattern, pattern != .gpt2 {
      steps.append(
        .object([
          "type": .string("Split"), "behavior": .string("Isolated"), "invert": .boolean(false),
          "pattern": .object(["Regex": .string(pattern.regularExpression)]),
        ]))
    }
    let byteLevel: [String: JSONValue] = [
      "type": .string("ByteLevel"), "add_prefix_space": .boolean(false),
      "trim_offsets": .boolean(true),
    ]
    steps.append(
      .object(
        byteLevel.merging(["use_regex": .boolean(splitter.pattern == .gpt2)]) { $1 }))
    let beginning: JSONValue =
      if beginsWithBOS, let bos {
        .object([
          "type": .string("TemplateProcessing"),
          "single": .array([
            .object(["SpecialToken": .object(["id": text(bos), "type_id": .number(0)])]),
            .object(["Sequence": .object(["id": .string("A"), "type_id": .number(0)])]),
          ]),
          "pair": .array([
            .object(["Sequence": .object(["id": .string("A"), "type_id": .number(0)])]),
            .object(["Sequence": .object(["id": .string("B"), "type_id": .number(1)])]),
          ]),
          "special_tokens": .object([
            String(decoding: tokens[Int(bos)].bytes, as: UTF8.self): .object([
              "id": text(bos), "ids": .array([.number(Double(bos))]), "tokens": .array([text(bos)]),
            ])
          ]),
        ])
      } else {
        .null
      }
    return try JSONEncoder().encode(
      JSONValue.object([
        "version": .string("1.0"), "truncation": .null, "padding": .null,
        "added_tokens": .array(added),
        "normalizer": composesCharacters ? .object(["type": .string("NFC")]) : .null,
        "pre_tokenizer": .object([
          "type": .string("Sequence"), "pretokenizers": .array(steps),
        ]),
        "post_processor": beginning,
        "decoder": .object(byteLevel.merging(["use_regex": .boolean(true)]) { $1 }),
        "model": .object([
          "type": .string("BPE"), "dropout": .null, "unk_token": unknown.map(text) ?? .null,
          "fuse_unk": .boolean(false), "byte_fallback": .boolean(false),
          "ignore_merges": .boolean(prefersWholeWords), "vocab": .object(vocabulary),
          "merges": .array(merges),
        ]),
      ]))
  }

  /// `tokenizer_config.json`: special tokens and chat template.
  func tokenizerConfigJSON() throws -> Data {
    func text(_ id: Int32?) -> JSONValue {
      id.map { .string(String(decoding: tokens[Int($0)].bytes, as: UTF8.self)) } ?? .null
    }
    return try prettyJSON(
      .object([
        "tokenizer_class": .string("PreTrainedTokenizerFast"), "bos_token": text(bos),
        "eos_token": text(eos), "clean_up_tokenization_spaces": .boolean(false),
        "chat_template": chatTemplate.map { .string($0) } ?? .null,
      ]))
  }
}
