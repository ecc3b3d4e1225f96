import Foundation
import Synchronization

/// Byte-level byte-pair encoding: text to token ids and back.
///
/// Text is cut at recognised tokens, then into words (`WordSplitter`), and the bytes of each word
/// are merged pair by pair in the order of the learned merges. Every method may be called from any
/// thread.
package final class Tokenizer: Sendable {
  /// Number of token ids, those without a token included.
  package let tokenCount: Int
  /// The token that begins a text, if the model has one.
  package let bos: Int32?
  /// The token that ends a text.
  package let eos: Int32
  /// The token that ends a turn of a conversation; `eos` where the model has no other.
  package let endOfTurn: Int32
  /// Whether texts began with `bos` in the model's training. `encode` leaves it to the caller.
  package let beginsWithBOS: Bool

  private let tokens: TokenizerVocabulary.Tokens
  private let ids: [[UInt8]: Int32]
  private let controlIDs: [[UInt8]: Int32]
  private let recognised: RecognisedTokens
  private let recognisedWithControl: RecognisedTokens
  private let splitter: WordSplitter
  private let composesCharacters: Bool
  private let pairs: BytePairMerges
  /// Whether a word that is a token is not built by merges.
  private let prefersWholeWords: Bool
  private let wordCache = Mutex<[[UInt8]: [Int32]]>([:])

  private static let cachedWordCountMax = 1 << 16
  private static let cachedWordBytesMax = 48

  /// Loads the tokenizer of a model without its weights.
  ///
  /// - Parameter path: a `.gguf` file, or a directory with `tokenizer.json`.
  /// - Throws: `ModelFileError`.
  package static func load(from path: String) throws -> Tokenizer {
    try Tokenizer(try TokenizerVocabulary(path: path))
  }

  /// - Throws: `ModelFileError.malformed` when merges and tokens contradict each other.
  init(_ vocabulary: TokenizerVocabulary) throws {
    tokens = vocabulary.tokens
    tokenCount = tokens.count
    var ids: [[UInt8]: Int32] = [:]
    var controlIDs: [[UInt8]: Int32] = [:]
    var textTokens: [(bytes: [UInt8], id: Int32)] = []
    ids.reserveCapacity(tokens.count)
    for (index, token) in tokens.enumerated() {
      let id = Int32(index)
      switch token.kind {
      case .normal:
        // The first of two equal tokens, as both reference tokenizers do.
        if ids[token.bytes] == nil { ids[token.bytes] = id }
      case .control: controlIDs[token.bytes] = id
      case .userDefined: textTokens.append((token.bytes, id))
      case .unused: break
      }
    }
    self.ids = ids
    self.controlIDs = controlIDs
    recognised = RecognisedTokens(textTokens)
    recognisedWithControl = RecognisedTokens(textTokens + controlIDs.map { ($0.key, $0.value) })
    splitter = vocabulary.splitter
    composesCharacters = vocabulary.composesCharacters
    prefersWholeWords = vocabulary.prefersWholeWords
    pairs = try BytePairMerges(
      vocabulary.merges, ids: ids, unknown: vocabulary.unknown, path: vocabulary.path)
    bos = vocabulary.bos
    eos = vocabulary.eos
    beginsWithBOS = vocabulary.beginsWithBOS
    endOfTurn =
      vocabulary.endOfTurn
      ?? ["<|im_end|>", "<|eot_id|>"].lazy.compactMap { controlIDs[Array($0.utf8)] }.first
      ?? vocabulary.eos
  }

  /// The token that stands for exactly this text (a control token, or else an ordinary one).
  package func id(of text: String) -> Int32? {
    let bytes = Array(text.utf8)
    return controlIDs[bytes] ?? recognised.id(of: bytes) ?? ids[bytes]
  }

  /// The tokens of a text.
  ///
  /// - Parameter allowSpecial: whether the text of a control token, such as `<|im_end|>`, becomes
  ///   that token. Leave it off for text from outside, which must not be able to end a turn.
  package func encode(_ text: String, allowSpecial: Bool = false) -> [Int32] {
    let text = composesCharacters ? text.precomposedStringWithCanonicalMapping : text
    let bytes = Array(text.utf8)
    let recognised = allowSpecial ? recognisedWithControl : recognised
    var result: [Int32] = []
    result.reserveCapacity(bytes.count / 3)
    var start = 0
    while start < bytes.count {
      let match = recognised.firstMatch(in: bytes, from: start)
      let end = match?.range.lowerBound ?? bytes.count
      splitter.split(bytes, start..<end) { appendWord(bytes[$0], to: &result) }
      if let match { result.append(match.id) }
      start = match?.range.upperBound ?? bytes.count
    }
    return result
  }

  /// The bytes that tokens stand for. Ids without a token (a model may have more rows than its
  /// tokenizer has tokens) stand for none.
  ///
  /// - Parameter skipControl: leaves control tokens out.
  package func decodeBytes(_ ids: some Sequence<Int32>, skipControl: Bool = false) -> [UInt8] {
    var bytes: [UInt8] = []
    for id in ids {
      guard let token = tokens.token(id), !(skipControl && token.kind == .control) else {
        continue
      }
      bytes.append(contentsOf: token.bytes)
    }
    return bytes
  }

  /// The text that tokens stand for; bytes that are not UTF-8 become U+FFFD.
  package func decode(_ ids: some Sequence<Int32>, skipControl: Bool = false) -> String {
    String(decoding: decodeBytes(ids, skipControl: skipControl), as: UTF8.self)
  }

  private func appendWord(_ slice: ArraySlice<UInt8>, to result: inout [Int32]) {
    let word = Array(slice)
    guard word.count <= Self.cachedWordBytesMax else {
      result.append(contentsOf: encodeWord(word))
      return
    }
    if let cached = wordCache.withLock({ $0[word] }) {
      result.append(contentsOf: cached)
      return
    }
    let encoded = encodeWord(word)
    wordCache.withLock {
      if $0.count < Self.cachedWordCountMax { $0[word] = encoded }
    }
    result.append(contentsOf: encoded)
  }

  private func encodeWord(_ word: [UInt8]) -> [Int32] {
    if prefersWholeWords, let id = ids[word] { return [id] }
    return pairs.encode(word)
  }
}

/// Tokens that are recognised as a whole wherever they occur in a text.
private struct RecognisedTokens: Sendable {
  /// By first byte; longest first.
  private var candidates: [[(bytes: [UInt8], id: Int32)]] = []

  init(_ tokens: [(bytes: [UInt8], id: Int32)]) {
    guard !tokens.isEmpty else { return }
    candidates = Array(repeating: [], count: 256)
    let ordered = tokens.sorted { ($0.bytes.count, $1.id) > ($1.bytes.count, $0.id) }
    for token in ordered where !token.bytes.isEmpty {
      candidates[Int(token.bytes[0])].append(token)
    }
  }

  func id(of bytes: [UInt8]) -> Int32? {
    guard let first = bytes.first, !candidates.isEmpty else { return nil }
    return candidates[Int(first)].first { $0.bytes == bytes }?.id
  }

  /// The leftmost occurrence of a token, the longest of those that begin there.
  func firstMatch(in text: [UInt8], from start: Int) -> (range: Range<Int>, id: Int32)? {
    guard !candidates.isEmpty else { return nil }
    for position in start..<text.count {
      for token in candidates[Int(text[position])]
      where text[position...].starts(with: token.bytes) {
        return (position..<position + token.bytes.count, token.id)
      }
    }
    return nil
  }
}
