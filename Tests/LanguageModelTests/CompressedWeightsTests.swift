import Foundation
import LanguageModel
import RandomStreams
import Testing
import TransformerKernels

/// A model file whose matrices are quantised, and what its compressed form must not change.
@Suite(.enabled(if: CompressedMatrix.isSupported, "products with compressed weights are ours"))
struct CompressedWeightsTests {
  private let scratch: ScratchDirectory

  init() throws { scratch = try ScratchDirectory() }

  /// GGUF's numbers for the encodings of the matrices.
  enum Encoding: UInt32, CaseIterable, Sendable {
    case float16 = 1, q4_0 = 2, q4_1 = 3, q8_0 = 8, bfloat16 = 30
  }

  /// A file with random blocks: hidden size 64, two layers, grouped heads.
  private func write(_ encoding: Encoding, mixing other: Encoding? = nil) throws -> String {
    let (vocabulary, hidden, feedForward, layers) = (90, 64, 96, 2)
    var random = RandomStream(seed: 5, purpose: "quantised test model")
    var builder = GGUFBuilder()
    builder.metadata = [
      ("general.architecture", .string("llama")), ("llama.block_count", .uint32(UInt32(layers))),
      ("llama.context_length", .uint32(700)), ("llama.embedding_length", .uint32(64)),
      ("llama.feed_forward_length", .uint32(96)), ("llama.attention.head_count", .uint32(4)),
      ("llama.attention.head_count_kv", .uint32(2)), ("llama.rope.freq_base", .float32(5000)),
      ("llama.attention.layer_norm_rms_epsilon", .float32(1e-5)),
    ]
    func half(_ value: Double) -> [UInt8] { little(Float16(value).bitPattern) }
    func add(_ name: String, _ rows: Int, _ columns: Int, _ encoding: Encoding) {
      var data: [UInt8] = []
      for _ in 0..<rows * columns / 32 {
        func bytes(_ count: Int) -> [UInt8] {
          (0..<count).map { _ in UInt8(random.index(below: 256)) }
        }
        let scale = 0.005 + 0.01 * random.uniform()
        switch encoding {
        case .q4_0: data += half(scale) + bytes(16)
        case .q4_1: data += half(scale) + half(-8 * scale) + bytes(16)
        case .q8_0: data += half(scale / 16) + bytes(32)
        case .float16: for _ in 0..<32 { data += half(0.2 * random.uniform() - 0.1) }
        case .bfloat16:
          for _ in 0..<32 {
            data += little(UInt16(Float(0.2 * random.uniform() - 0.1).bitPattern >> 16))
          }
        }
      }
      builder.tensors.append(
        .init(name: name + ".weight", shape: [rows, columns], type: encoding.rawValue, data: data))
    }
    add("token_embd", vocabulary, hidden, encoding)
    builder.add("output_norm.weight", [hidden], [Float](repeating: 1, count: hidden))
    for layer in 0..<layers {
      for norm in ["attn_norm", "ffn_norm"] {
        builder.add(
          "blk.\(layer).\(norm).weight", [hidden], [Float](repeating: 1.5, count: hidden))
      }
      for (name, rows, columns) in [
        ("attn_q", hidden, hidden), ("attn_k", hidden / 2, hidden), ("attn_v", hidden / 2, hidden),
        ("attn_output", hidden, hidden), ("ffn_gate", feedForward, hidden),
        ("ffn_up", feedForward, hidden), ("ffn_down", hidden, feedForward),
      ] {
        add("blk.\(layer).\(name)", rows, columns, name == "attn_v" ? other ?? encoding : encoding)
      }
    }
    return try scratch.write(builder.build(), to: "model.gguf")
  }

  /// The same weights without their compressed form.
  private func plain(_ weights: ModelWeights) -> ModelWeights {
    ModelWeights(
      configuration: weights.configuration, digest: weights.digest, base: weights.base,
      release: { withExtendedLifetime(weights) {} })
  }

  private func tokens(_ count: Int, seed: UInt64) -> [Int32] {
    var random = RandomStream(seed: seed, purpose: "test tokens")
    return (0..<count).map { _ in Int32(random.index(below: 90)) }
  }

  /// Logits at all positions, and texts, of prompts computed together.
  private func outcome(_ weights: ModelWeights, threads: Int) throws -> ([Float], [[Int32]]) {
    let model = AdaptedModel(weights: weights, pool: ThreadPool(threadCount: threads))
    let prompts = (0..<37).map { tokens(1 + $0 % 7, seed: UInt64($0)) }
    let texts = try model.generate(
      prompts, seeds: prompts.indices.map(UInt64.init),
      options: .init(temperature: 1, topK: 30, maximumTokens: 12))
    return (try logits(model, batch: prompts), texts)
  }

  @Test(arguments: Encoding.allCases)
  func compressedWeightsGiveTheSameBits(encoding: Encoding) throws {
    let weights = try ModelWeights.load(from: try write(encoding), cacheDirectory: nil)
    #expect(weights.compressed != nil)
    let (logits, texts) = try outcome(weights, threads: 2)
    let (plainLogits, plainTexts) = try outcome(plain(weights), threads: 2)
    #expect(bits(logits) == bits(plainLogits))
    #expect(texts == plainTexts)
    let (serialLogits, serialTexts) = try outcome(weights, threads: 1)
    #expect(bits(logits) == bits(serialLogits))
    #expect(texts == serialTexts)
  }

  @Test func matricesOfMixedEncodingsStayFloats() throws {
    let whole = try ModelWeights.load(from: try write(.q4_1), cacheDirectory: nil)
    let mixed = try ModelWeights.load(
      from: try write(.q4_1, mixing: .q8_0), cacheDirectory: nil)
    let wholeBytes = try #require(whole.compressed).byteCount
    #expect(try #require(mixed.compressed).byteCount < wholeBytes)
    #expect(bits(try outcome(mixed, threads: 2).0) == bits(try outcome(plain(mixed), threads: 2).0))
  }

  @Test func trainingBesideCompressedWeightsGivesTheSameBits() throws {
    let weights = try ModelWeights.load(from: try write(.q4_0), cacheDirectory: nil)
    func course(_ weights: ModelWeights) throws -> [Float] {
      let tuner = try FineTuner(
        weights: weights,
        options: options(
          .lora(LoRAConfiguration(rank: 3, alpha: 6, targets: [.query, .down], layers: 0..<2))),
        pool: ThreadPool(threadCount: 2))
      try tuner.train((0..<5).map { wholeSequence(tokens(9 + $0, seed: UInt64($0))) })
      return tuner.allValues
    }
    #expect(bits(try course(weights)) == bits(try course(plain(weights))))
  }

  @Test func theFileIsMadeOnceAndRemadeWhenDamaged() throws {
    let path = try write(.q8_0)
    let directory = scratch.file("cache")
    func load() throws -> [Float] {
      try outcome(try ModelWeights.load(from: path, cacheDirectory: directory), threads: 2).0
    }
    let expected = try load()
    let weights = directory + "/weights/"
    let names = try FileManager.default.contentsOfDirectory(atPath: weights)
    let name = try #require(names.first { $0.hasSuffix(".packed") })
    let packed = URL(fileURLWithPath: weights + name)
    let content = try Data(contentsOf: packed)
    func inode() throws -> Int? {
      try FileManager.default.attributesOfItem(atPath: packed.path)[.systemFileNumber] as? Int
    }
    let first = try inode()
    #expect(bits(try load()) == bits(expected))
    #expect(try inode() == first)

    // Header, flags, codes, the last digest; a foreign file; half a file; none.
    for offset in [3, 4096, 4096 + 64 + 5, content.count - 1] {
      var damaged = content
      damaged[offset] ^= 1
      try FileManager.default.removeItem(at: packed)
      try damaged.write(to: packed)
      #expect(bits(try load()) == bits(expected))
      #expect(try Data(contentsOf: packed) == content, "byte \(offset)")
    }
    for wrong in [Data(), Data(content.dropLast(100)), Data(count: content.count)] {
      try wrong.write(to: packed)
      #expect(bits(try load()) == bits(expected))
      #expect(try Data(contentsOf: packed) == content)
    }
    try FileManager.default.removeItem(at: packed)
    #expect(bits(try load()) == bits(expected))
    #expect(try Data(contentsOf: packed) == content)
  }
}
