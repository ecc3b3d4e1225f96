/// What a tokenizer is made of, whichever file it came from.
struct TokenizerVocabulary: Sendable {
  /// What a token stands for.
  struct Token: Sendable {
    enum Kind: Sendable {
      /// Built by merges.
      case normal
      /// Recognised only where control tokens are allowed; ends turns, separates texts.
      case control
      /// Recognised as a whole wherever it occurs.
      case userDefined
      /// Never produced.
      case unused
    }

    var bytes: [UInt8]
    var kind: Kind

    init(bytes: [UInt8], kind: Kind) {
      self.bytes = bytes
      self.kind = kind
    }

    /// - Parameter text: for a normal token in the byte alphabet, otherwise the text itself.
    init(text: String, kind: Kind) {
      self.init(
        bytes: kind == .normal ? ByteAlphabet.bytes(of: text) : Array(text.utf8), kind: kind)
    }
  }

  typealias Tokens = [Token]

  struct Merge: Sendable {
    var left: [UInt8]
    var right: [UInt8]
  }

  /// Names the file in errors.
  var path: String
  /// By id.
  var tokens: Tokens
  /// In the order in which they are applied.
  var merges: [Merge]
  var splitter: WordSplitter
  /// Whether text is brought to Unicode's form NFC first.
  var composesCharacters = false
  var prefersWholeWords: Bool
  /// Stands for bytes that no token covers; nil drops them.
  var unknown: Int32?
  var bos: Int32?
  var eos: Int32
  var endOfTurn: Int32?
  var beginsWithBOS: Bool
  /// The model's chat template, in Jinja.
  var chatTemplate: String?

  /// Parts of "left right", both in the byte alphabet; nil when the text is not of this form.
  static func merge(_ text: String) -> Merge? {
    let parts = text.split(separator: " ", omittingEmptySubsequences: false)
    guard parts.count == 2, !parts[0].isEmpty, !parts[1].isEmpty else { return nil }
    return merge(left: String(parts[0]), right: String(parts[1]))
  }

  static func merge(left: String, right: String) -> Merge {
    Merge(left: ByteAlphabet.bytes(of: left), right: ByteAlphabet.bytes(of: right))
  }
}

extension [TokenizerVocabulary.Token] {
  /// nil for ids without a token.
  func token(_ id: Int32) -> TokenizerVocabulary.Token? {
    indices.contains(Int(id)) ? self[Int(id)] : nil
  }
}

/// The characters that stand for bytes in the vocabularies of byte-level tokenizers.
///
/// Reference: `bytes_to_unicode` in https://github.com/openai/gpt-2/blob/master/src/encoder.py
enum ByteAlphabet {
  /// By scalar value; -1 where a scalar stands for no byte.
  private static let byteOfScalar: [Int16] = {
    var table = [Int16](repeating: -1, count: 256 + 68)
    var replaced = 0
    for byte in 0..<256 {
      let isPrintable =
        (33...126).contains(byte) || (161...172).contains(byte) || (174...255).contains(byte)
      if isPrintable {
        table[byte] = Int16(byte)
      } else {
        table[256 + replaced] = Int16(byte)
        replaced += 1
      }
    }
    return table
  }()

  /// The characters that stand for `bytes`.
  static func text(of bytes: [UInt8]) -> String {
    String(String.UnicodeScalarView(bytes.map { scalarOfByte[Int($0)] }))
  }

  private static let scalarOfByte: [Unicode.Scalar] = {
    var table = [Unicode.Scalar](repeating: " ", count: 256)
    for (value, byte) in byteOfScalar.enumerated() where byte >= 0 {
      table[Int(byte)] = Unicode.Scalar(UInt32(value)) ?? " "
    }
    return table
  }()

  /// The bytes that `text` stands for. Text with other characters stands for itself, as in
  /// Hugging Face's decoder.
  static func bytes(of text: String) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(text.utf8.count)
    for scalar in text.unicodeScalars {
      guard scalar.value < byteOfScalar.count, byteOfScalar[Int(scalar.value)] >= 0 else {
        return Array(text.utf8)
      }
      bytes.append(UInt8(byteOfScalar[Int(scalar.value)]))
    }
    return bytes
  }
}

extension TokenizerVocabulary {
  /// - Parameter path: a `.gguf` file, or a directory with `tokenizer.json`.
  /// - Throws: `ModelFileError`.
  init(path: String) throws {
    if isDirectory(path) {
      try self.init(huggingFaceDirectory: path)
    } else {
      try self.init(try GGUFFile(path: path))
    }
  }

  /// The vocabulary in the metadata of a GGUF file.
  ///
  /// - Throws: `ModelFileError`.
  init(_ file: GGUFFile) throws {
    path = file.path
    func require(_ key: String, _ found: String, _ supported: [String]) throws {
      guard !supported.contains(found) else { return }
      throw ModelFileError.unsupported(
        path: file.path, place: .key(key), found: found,
        supported: supported.joined(separator: ", "))
    }
    let modelKey = "tokenizer.ggml.model"
    try require(modelKey, try file.string(modelKey), ["gpt2"])
    let preKey = "tokenizer.ggml.pre"
    let pre = try file.string(preKey)
    let patterns: [String: WordSplitter.Pattern] = [
      "smollm": .gpt2, "gpt-2": .gpt2, "llama-bpe": .llama3, "qwen2": .qwen2,
    ]
    try require(preKey, pre, patterns.keys.sorted())
    splitter = WordSplitter(isolatesDigits: pre == "smollm", pattern: patterns[pre])
    composesCharacters = pre == "qwen2"
    prefersWholeWords = pre == "llama-bpe"

    let tokensKey = "tokenizer.ggml.tokens"
    let typesKey = "tokenizer.ggml.token_type"
    let texts = try file.strings(tokensKey)
    let types = try file.integers(typesKey)
    guard types.count == texts.count else {
      throw ModelFileError.malformed(
        path: path, place: .key(typesKey),
        problem: "\(types.count) types for \(texts.count) tokens")
    }
    tokens = zip(texts, types).map { text, type in
      let kind: Token.Kind =
        switch type {
        case 2, 3: .control
        case 4: .userDefined
        case 5: .unused
        default: .normal
        }
      return Token(text: text, kind: kind)
    }
    let mergesKey = "tokenizer.ggml.merges"
    merges = try file.strings(mergesKey).enumerated().map { index, text in
      guard let merge = Self.merge(text) else {
        throw ModelFileError.malformed(
          path: file.path, place: .key("\(mergesKey)[\(index)]"),
          problem: "a merge is two tokens with a space between them")
      }
      return merge
    }
    let tokenCount = tokens.count
    func tokenID(_ name: String) throws -> Int32? {
      let key = "tokenizer.ggml.\(name)_token_id"
      guard let id = try file.optionalInteger(key) else { return nil }
      guard (0..<tokenCount).contains(id) else {
        throw ModelFileError.malformed(
          path: file.path, place: .key(key), problem: "there is no token \(id)")
      }
      return Int32(id)
    }
    unknown = nil
    bos = try tokenID("bos")
    guard let eos = try tokenID("eos") else {
      throw ModelFileError.missing(path: path, place: .key("tokenizer.ggml.eos_token_id"))
    }
    self.eos = eos
    endOfTurn = try tokenID("eot")
    // llama.cpp's default for the Llama 3 tokenizer is to begin with it.
    beginsWithBOS =
      try file.optionalBoolean("tokenizer.ggml.add_bos_token") ?? (pre == "llama-bpe")
    chatTemplate = try file.optionalString("tokenizer.chat_template")
  }
}
