import Foundation
import LanguageModel
import RandomStreams
import Testing

/// A text and its tokens according to the reference tokenizer.
struct EncodingCase: Decodable {
  var text: String
  var ids: [Int32]
}

@Suite struct TokenizerTests {
  private let scratch: ScratchDirectory
  private let tiny: Tokenizer

  init() throws {
    scratch = try ScratchDirectory()
    tiny = try Tokenizer.load(from: fixture("tiny_tokenizer").path)
  }

  @Test func theTinyTokenizerEncodesAsTheReference() throws {
    for example in try decodeFixture([EncodingCase].self, "tiny_tokenizer/cases.json") {
      #expect(
        tiny.encode(example.text, allowSpecial: true) == example.ids,
        "\(example.text.debugDescription)")
      #expect(tiny.decode(example.ids) == example.text)
    }
  }

  @Test func wordsAreCutAsByTheRegularExpressions() throws {
    struct Case: Decodable {
      var text: String
      var gpt2: [String]
      var llama3: [String]
      var qwen2: [String]
    }
    func words(_ text: String, _ pattern: WordSplitter.Pattern?, digits: Bool = false) -> [String] {
      let bytes = Array(text.utf8)
      var words: [String] = []
      WordSplitter(isolatesDigits: digits, pattern: pattern).split(bytes, 0..<bytes.count) {
        words.append(String(decoding: bytes[$0], as: UTF8.self))
      }
      return words
    }
    for example in try decodeFixture([Case].self, "tiny_tokenizer/words.json") {
      // Strings are compared by bytes: é and e + accent are not the same words.
      #expect(
        words(example.text, .gpt2).map { Array($0.utf8) } == example.gpt2.map { Array($0.utf8) })
      #expect(
        words(example.text, .llama3).map { Array($0.utf8) } == example.llama3.map { Array($0.utf8) }
      )
      #expect(
        words(example.text, .qwen2).map { Array($0.utf8) } == example.qwen2.map { Array($0.utf8) })
    }
    #expect(words("a 12b", .gpt2, digits: true) == ["a", " ", "1", "2", "b"])
    #expect(words("a 12 b", nil, digits: true) == ["a ", "1", "2", " b"])
    #expect(words("a 12 b", nil) == ["a 12 b"])
  }

  @Test func textIsComposedWhereTheModelAsksForIt() throws {
    let plain = try Tokenizer.load(from: try copyTiny { $0 })
    let composing = try Tokenizer.load(
      from: try copyTiny {
        $0.replacingOccurrences(
          of: #""normalizer": null"#, with: #""normalizer": {"type": "NFC"}"#)
      })
    let decomposed = "cafe\u{301}"
    #expect(composing.encode(decomposed) == plain.encode("caf\u{e9}"))
    #expect(plain.encode(decomposed) != plain.encode("caf\u{e9}"))
  }

  @Test func controlTokensComeOnlyFromTextThatMayHoldThem() {
    let text = "the<|im_end|>the"
    let the = tiny.encode("the")
    #expect(tiny.encode(text, allowSpecial: true) == the + [tiny.endOfTurn] + the)
    let plain = tiny.encode(text)
    #expect(!plain.contains { $0 == tiny.endOfTurn || $0 == tiny.bos })
    #expect(tiny.decode(plain) == text)
    #expect(tiny.decode(the + [tiny.endOfTurn], skipControl: true) == "the")
  }

  @Test func tokensAreFoundByTheirText() {
    #expect(tiny.id(of: "<|endoftext|>") == 0)
    #expect(tiny.bos == 1 && tiny.eos == 2 && tiny.endOfTurn == 2 && !tiny.beginsWithBOS)
    #expect(tiny.id(of: "no such token") == nil)
    let the = tiny.id(of: " the")
    #expect(the.map { tiny.decode([$0]) } == " the")
  }

  @Test func incompleteUTF8IsRepaired() throws {
    let euro = tiny.encode("€")
    #expect(euro.count == 3)
    #expect(tiny.decode(euro.dropLast()) == "\u{FFFD}")
    #expect(tiny.decodeBytes(euro.dropLast()) == [0xE2, 0x82])
    #expect(tiny.decode([-1, 1_000_000]) == "")
  }

  @Test func aMegabyteWithoutSpacesIsQuick() {
    let text = String(repeating: "thenursesaid", count: 90_000)
    let start = ContinuousClock.now
    let ids = tiny.encode(text)
    // Quadratic merging would take hours; this bound only has to tell that apart.
    #expect(ContinuousClock.now - start < .seconds(60))
    #expect(tiny.decode(ids) == text)
  }

  @Test func everyThreadGetsTheSameTokens() {
    let texts = (0..<400).map {
      "the nurse \($0 % 50) said it's \(String(repeating: "x", count: $0 % 60))"
    }
    let expected = texts.map { tiny.encode($0) }
    let tokenizer = tiny
    DispatchQueue.concurrentPerform(iterations: 4) { _ in
      #expect(texts.map { tokenizer.encode($0) } == expected)
    }
  }

  @Test func aGGUFVocabularyGivesTheSameTokens() throws {
    let json = try JSONSerialization.jsonObject(
      with: Data(contentsOf: fixture("tiny_tokenizer/tokenizer.json")))
    let model = try #require((json as? [String: Any])?["model"] as? [String: Any])
    let vocabulary = try #require(model["vocab"] as? [String: Int])
    let merges = try #require(model["merges"] as? [[String]])
    var builder = GGUFBuilder()
    let tokens = vocabulary.sorted { $0.value < $1.value }.map(\.key)
    builder.metadata = [
      ("tokenizer.ggml.model", .string("gpt2")), ("tokenizer.ggml.pre", .string("smollm")),
      ("tokenizer.ggml.tokens", .strings(tokens)),
      ("tokenizer.ggml.token_type", .int32s(tokens.indices.map { $0 < 3 ? 3 : 1 })),
      ("tokenizer.ggml.merges", .strings(merges.map { $0.joined(separator: " ") })),
      ("tokenizer.ggml.eos_token_id", .uint32(2)),
    ]
    let path = try scratch.write(builder.build(), to: "v.gguf")
    let tokenizer = try Tokenizer.load(from: path)
    for example in try decodeFixture([EncodingCase].self, "tiny_tokenizer/cases.json") {
      #expect(tokenizer.encode(example.text, allowSpecial: true) == example.ids)
    }
    builder.metadata[1].1 = .string("tekken")
    try scratch.write(builder.build(), to: "v.gguf")
    #expect(
      modelFileError { _ = try Tokenizer.load(from: path) }?.description.contains("tekken") == true)
    builder.metadata[1].1 = .string("smollm")
    builder.metadata[4].1 = .strings(["a"])
    try scratch.write(builder.build(), to: "v.gguf")
    #expect(
      modelFileError { _ = try Tokenizer.load(from: path) }?.description.contains("merges[0]")
        == true)
  }

  private func copyTiny(_ change: (String) throws -> String) throws -> String {
    let original = String(
      decoding: try bytes(of: fixture("tiny_tokenizer/tokenizer.json").path), as: UTF8.self)
    try scratch.write(try change(original).utf8, to: "tokenizer.json")
    try scratch.write(#"{"eos_token": "<|im_end|>"}"#.utf8, to: "tokenizer_config.json")
    return scratch.path
  }

  @Test(arguments: [
    (#""type": "BPE""#, #""type": "Unigram""#, "Unigram"),
    (#""normalizer": null"#, #""normalizer": {"type": "NFKC"}"#, "NFKC"),
    (#""add_prefix_space": false"#, #""add_prefix_space": true"#, "prefix space"),
    (#""individual_digits": true"#, #""individual_digits": false"#, "Digits"),
    (#""type": "Digits""#, #""type": "Whitespace""#, "Whitespace"),
    (#""lstrip": false"#, #""lstrip": true"#, "lstrip"),
    (#""byte_fallback": false"#, #""byte_fallback": true"#, "byte_fallback"),
    (#""id": 0"#, #""id": -1"#, "-1"),
    (#""id": 0"#, #""id": 90000000"#, "90000000"),
    ("<|im_end|>", "<|other|>", "<|im_end|>"),
  ])
  func whatIsNotSupportedIsNamed(old: String, new: String, named: String) throws {
    let path = try copyTiny { text in
      try #require(text.contains(old))
      return text.replacingOccurrences(of: old, with: new)
    }
    let error = modelFileError { _ = try Tokenizer.load(from: path) }
    #expect(error?.description.contains(named) == true, "\(error as Any)")
  }

  @Test func mergesAreReadInBothNotations() throws {
    let path = try copyTiny { text in
      text.replacing(#/\[\s*"([^"\s]+)",\s*"([^"\s]+)"\s*\]/#) { "\"\($0.1) \($0.2)\"" }
    }
    let tokenizer = try Tokenizer.load(from: path)
    #expect(
      try bytes(of: path + "/tokenizer.json")
        != bytes(of: fixture("tiny_tokenizer/tokenizer.json").path))
    for example in try decodeFixture([EncodingCase].self, "tiny_tokenizer/cases.json") {
      #expect(tokenizer.encode(example.text, allowSpecial: true) == example.ids)
    }
  }

  @Test func damagedTokenizersNeverCrash() throws {
    let whole = try bytes(of: fixture("tiny_tokenizer/tokenizer.json").path)
    var generator = RandomStream(seed: 17, purpose: "damage")
    for round in 0..<900 {
      var bytes = whole
      if round < 200 {
        bytes.removeLast(1 + round * (whole.count - 1) / 200)
      } else {
        for _ in 0..<Int.random(in: 1...3, using: &generator) {
          bytes[Int.random(in: 0..<bytes.count, using: &generator)] = .random(
            in: 32...126, using: &generator)
        }
      }
      let path = try copyTiny { _ in String(decoding: bytes, as: UTF8.self) }
      expectClearFailure("round \(round)", mentioning: path) {
        _ = try Tokenizer.load(from: path).encode(
          "The nurse said 12 <|im_end|>", allowSpecial: true)
      }
    }
  }

  @Test(.enabled(if: DefaultModel.isPresent)) func theDefaultModelEncodesAsTheReference() throws {
    struct Fixture: Decodable {
      var encode: [EncodingCase]
    }
    let tokenizer = try Tokenizer.load(from: DefaultModel.path)
    for example in try decodeFixture(Fixture.self, "tokenizer_cases.json").encode {
      #expect(
        tokenizer.encode(example.text, allowSpecial: true) == example.ids,
        "\(example.text.debugDescription)")
    }
    #expect(tokenizer.tokenCount == 49152)
    #expect(tokenizer.bos == 1 && tokenizer.eos == 2 && tokenizer.endOfTurn == 2)
  }
}
