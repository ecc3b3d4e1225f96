import Foundation

/// The parts of Hugging Face's `tokenizer.json` that decide how text becomes tokens.
private struct TokenizerJSON: Decodable {
  struct AddedToken: Decodable {
    var id: Int
    var content: String
    var special: Bool?
    var single_word: Bool?
    var lstrip: Bool?
    var rstrip: Bool?
  }

  /// A normalizer, pre-tokenizer or post-processor; which entries it has depends on `type`.
  struct Step: Decodable {
    struct Pattern: Decodable {
      var Regex: String?
    }

    /// An element of a template: a special token, or one of the sequences.
    struct Piece: Decodable {
      var SpecialToken: Named?
    }

    struct Named: Decodable {
      var id: String
    }

    var type: String
    var individual_digits: Bool?
    var add_prefix_space: Bool?
    var use_regex: Bool?
    var pattern: Pattern?
    var behavior: String?
    var invert: Bool?
    var pretokenizers: [Step]?
    var processors: [Step]?
    var single: [Piece]?
  }

  /// "left right" in older files, ["left", "right"] in newer ones.
  struct Merge: Decodable {
    var value: TokenizerVocabulary.Merge

    init(from decoder: any Decoder) throws {
      let container = try decoder.singleValueContainer()
      let merge: TokenizerVocabulary.Merge?
      if let text = try? container.decode(String.self) {
        merge = TokenizerVocabulary.merge(text)
      } else {
        let parts = try container.decode([String].self)
        merge =
          parts.count == 2
          ? TokenizerVocabulary.merge(left: parts[0], right: parts[1]) : nil
      }
      guard let merge else {
        throw DecodingError.dataCorruptedError(
          in: container, debugDescription: "a merge is a pair of tokens")
      }
      value = merge
    }
  }

  struct Model: Decodable {
    var type: String?
    var vocab: [String: Int]
    var merges: [Merge]
    var unk_token: String?
    var byte_fallback: Bool?
    var ignore_merges: Bool?
    var continuing_subword_prefix: String?
    var end_of_word_suffix: String?
    var dropout: Double?
  }

  var added_tokens: [AddedToken]?
  var normalizer: Step?
  var pre_tokenizer: Step?
  var post_processor: Step?
  var model: Model
}

/// The parts of `tokenizer_config.json` that name special tokens and the chat template.
private struct TokenizerConfigJSON: Decodable {
  /// A token as a string, or as an object with its properties.
  struct Token: Decodable {
    var content: String

    init(from decoder: any Decoder) throws {
      if let text = try? decoder.singleValueContainer().decode(String.self) {
        content = text
      } else {
        content = try decoder.container(keyedBy: JSONKey.self)
          .decode(String.self, forKey: JSONKey(stringValue: "content"))
      }
    }
  }

  /// One template, or several with names, of which `default` is meant.
  struct Template: Decodable {
    struct Named: Decodable {
      var name: String
      var template: String
    }

    var text: String?

    init(from decoder: any Decoder) throws {
      let container = try decoder.singleValueContainer()
      if let text = try? container.decode(String.self) {
        self.text = text
      } else {
        text = try container.decode([Named].self).first { $0.name == "default" }?.template
      }
    }
  }

  var bos_token: Token?
  var eos_token: Token?
  var chat_template: Template?
}

/// The token ids in `config.json`.
private struct ModelTokenIDs: Decodable {
  /// One id, or several of which the first is meant.
  struct ID: Decodable {
    var value: Int?

    init(from decoder: any Decoder) throws {
      let container = try decoder.singleValueContainer()
      if let id = try? container.decode(Int.self) {
        value = id
      } else {
        value = try container.decode([Int].self).first
      }
    }
  }

  var bos_token_id: ID?
  var eos_token_id: ID?
}

extension TokenizerVocabulary {
  private static let tokenCountMax = 1 << 21

  /// The vocabulary in a Hugging Face directory: `tokenizer.json`, and for special tokens and chat
  /// template `tokenizer_config.json`, `chat_template.jinja` and `config.json`.
  ///
  /// - Throws: `ModelFileError`.
  init(huggingFaceDirectory directory: String) throws {
    let path = directory + "/tokenizer.json"
    let json = try decodeJSONFile(TokenizerJSON.self, at: path)
    self.path = path
    try Self.checkSupport(json, path: path)
    tokens = try Self.tokens(json, path: path)
    merges = json.model.merges.map(\.value)
    splitter = try Self.splitter(json.pre_tokenizer, path: path)
    composesCharacters = json.normalizer != nil
    prefersWholeWords = json.model.ignore_merges ?? false

    let idOfText = json.model.vocab.merging(
      (json.added_tokens ?? []).map { ($0.content, $0.id) }, uniquingKeysWith: { $1 })
    unknown = json.model.unk_token.flatMap { idOfText[$0] }.map { Int32($0) }
    beginsWithBOS = Self.beginsWithSpecialToken(json.post_processor)

    let configPath = directory + "/tokenizer_config.json"
    let config =
      FileManager.default.fileExists(atPath: configPath)
      ? try decodeJSONFile(TokenizerConfigJSON.self, at: configPath) : nil
    let modelConfigPath = directory + "/config.json"
    let modelIDs =
      FileManager.default.fileExists(atPath: modelConfigPath)
      ? try decodeJSONFile(ModelTokenIDs.self, at: modelConfigPath) : ModelTokenIDs()
    let tokenCount = tokens.count
    func tokenID(
      _ token: TokenizerConfigJSON.Token?, _ key: String, _ id: Int?, _ idKey: String
    ) throws -> Int32? {
      if let token {
        guard let id = idOfText[token.content] else {
          throw ModelFileError.malformed(
            path: configPath, place: .key(key), problem: "\(token.content) is not a token")
        }
        return Int32(id)
      }
      guard let id else { return nil }
      guard (0..<tokenCount).contains(id) else {
        throw ModelFileError.malformed(
          path: modelConfigPath, place: .key(idKey), problem: "there is no token \(id)")
      }
      return Int32(id)
    }
    bos = try tokenID(
      config?.bos_token, "bos_token", modelIDs.bos_token_id?.value, "bos_token_id")
    guard
      let eos = try tokenID(
        config?.eos_token, "eos_token", modelIDs.eos_token_id?.value, "eos_token_id")
    else {
      throw ModelFileError.missing(path: configPath, place: .key("eos_token"))
    }
    self.eos = eos

    let templatePath = directory + "/chat_template.jinja"
    if FileManager.default.fileExists(atPath: templatePath) {
      let file = try BinaryFile(path: templatePath)
      let templateBytesMax = 1 << 20
      let bytes = try file.bytes(at: 0, count: min(file.size, templateBytesMax))
      guard let text = String(validating: bytes, as: UTF8.self) else {
        throw ModelFileError.malformed(
          path: templatePath, place: .file, problem: "the template is not UTF-8")
      }
      chatTemplate = text
    } else {
      chatTemplate = config?.chat_template?.text
    }
  }

  /// Refuses whatever would change the tokens and is not implemented.
  private static func checkSupport(_ json: TokenizerJSON, path: String) throws {
    func require<T: Equatable>(_ key: String, _ found: T?, _ allowed: T) throws {
      guard let found, found != allowed else { return }
      throw ModelFileError.unsupported(
        path: path, place: .key(key), found: "\(found)", supported: "\(allowed)")
    }
    try require("model.type", json.model.type, "BPE")
    try require("model.byte_fallback", json.model.byte_fallback, false)
    try require("model.continuing_subword_prefix", json.model.continuing_subword_prefix, "")
    try require("model.end_of_word_suffix", json.model.end_of_word_suffix, "")
    try require("model.dropout", json.model.dropout, 0)
    try require("normalizer.type", json.normalizer?.type, "NFC")
    for (index, token) in (json.added_tokens ?? []).enumerated() {
      try require("added_tokens[\(index)].single_word", token.single_word, false)
      try require("added_tokens[\(index)].lstrip", token.lstrip, false)
      try require("added_tokens[\(index)].rstrip", token.rstrip, false)
    }
  }

  private static func tokens(_ json: TokenizerJSON, path: String) throws -> Tokens {
    let added = json.added_tokens ?? []
    let largest = max(json.model.vocab.values.max() ?? -1, added.map(\.id).max() ?? -1)
    let smallest = min(json.model.vocab.values.min() ?? 0, added.map(\.id).min() ?? 0)
    guard smallest >= 0, largest < tokenCountMax else {
      throw ModelFileError.malformed(
        path: path, place: .key("model.vocab"),
        problem: "token ids reach from \(smallest) to \(largest), outside 0..<\(tokenCountMax)")
    }
    var tokens = Tokens(
      repeating: Token(bytes: [], kind: .unused), count: largest + 1)
    for (text, id) in json.model.vocab {
      guard tokens[id].kind == .unused else {
        throw ModelFileError.malformed(
          path: path, place: .key("model.vocab"), problem: "two tokens have the id \(id)")
      }
      tokens[id] = Token(text: text, kind: .normal)
    }
    for token in added {
      tokens[token.id] = Token(
        text: token.content, kind: token.special ?? false ? .control : .userDefined)
    }
    return tokens
  }

  private static func splitter(
    _ preTokenizer: TokenizerJSON.Step?, path: String
  ) throws -> WordSplitter {
    let steps = preTokenizer.map { $0.type == "Sequence" ? $0.pretokenizers ?? [] : [$0] } ?? []
    func unsupported(_ index: Int, _ found: String) -> ModelFileError {
      .unsupported(
        path: path, place: .key("pre_tokenizer[\(index)]"), found: found,
        supported: """
          a sequence of Digits (individual), Split (isolated) by one of \
          \(WordSplitter.Pattern.known.map(\.regularExpression)), and ByteLevel without a prefix space
          """)
    }
    var splitter = WordSplitter(isolatesDigits: false, pattern: nil)
    var isByteLevel = false
    for (index, step) in steps.enumerated() {
      switch step.type {
      case "Digits":
        guard step.individual_digits == true, splitter.pattern == nil else {
          throw unsupported(index, "Digits that are not cut off one by one, or too late")
        }
        splitter.isolatesDigits = true
      case "Split":
        let regex = step.pattern?.Regex
        guard
          let pattern = WordSplitter.Pattern.known.first(where: { $0.regularExpression == regex }),
          splitter.pattern == nil, step.behavior == "Isolated", step.invert != true
        else { throw unsupported(index, "Split by \(regex ?? "a string")") }
        splitter.pattern = pattern
      case "ByteLevel":
        guard step.add_prefix_space != true else {
          throw unsupported(index, "ByteLevel with a prefix space")
        }
        if step.use_regex ?? true {
          guard splitter.pattern == nil else {
            throw unsupported(index, "a second pattern")
          }
          splitter.pattern = .gpt2
        }
        isByteLevel = true
      default: throw unsupported(index, step.type)
      }
    }
    guard isByteLevel else { throw unsupported(steps.count, "no ByteLevel") }
    return splitter
  }

  private static func beginsWithSpecialToken(_ step: TokenizerJSON.Step?) -> Bool {
    guard let step else { return false }
    if step.type == "Sequence" {
      return (step.processors ?? []).contains { beginsWithSpecialToken($0) }
    }
    return step.type == "TemplateProcessing" && step.single?.first?.SpecialToken != nil
  }
}
