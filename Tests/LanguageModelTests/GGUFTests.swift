import Foundation
import LanguageModel
import RandomStreams
import Testing

@Suite struct GGUFTests {
  private let scratch: ScratchDirectory

  init() throws { scratch = try ScratchDirectory() }

  private func open(_ builder: GGUFBuilder) throws -> GGUFFile {
    try GGUFFile(path: try scratch.write(builder.build(), to: "m.gguf"))
  }

  @Test func everyMetadataTypeIsRead() throws {
    var builder = GGUFBuilder()
    builder.metadata = [
      ("u8", .raw(0, [200])), ("i8", .raw(1, [0xFF])), ("u16", .raw(2, [1, 2])),
      ("i16", .raw(3, [0xFE, 0xFF])), ("u32", .uint32(7)), ("i32", .raw(5, little(Int32(-9)))),
      ("f32", .float32(0.5)), ("bool", .boolean(true)), ("string", .string("é")),
      ("array", .strings(["a", ""])), ("u64", .raw(10, little(UInt64.max))),
      ("i64", .raw(11, little(Int64.min))), ("f64", .raw(12, little((2.5).bitPattern))),
      (
        "nested",
        .raw(
          9,
          little(UInt32(9)) + little(UInt64(1)) + little(UInt32(0))
            + little(UInt64(2)) + [1, 2])
      ),
    ]
    for version: UInt32 in [2, 3] {
      builder.version = version
      let file = try open(builder)
      #expect(file.version == version)
      #expect(file.metadata["u8"] == .unsigned(200))
      #expect(file.metadata["i8"] == .signed(-1))
      #expect(file.metadata["u16"] == .unsigned(0x0201))
      #expect(file.metadata["i16"] == .signed(-2))
      #expect(file.metadata["u32"] == .unsigned(7))
      #expect(file.metadata["i32"] == .signed(-9))
      #expect(file.metadata["f32"] == .float(0.5))
      #expect(file.metadata["bool"] == .boolean(true))
      #expect(file.metadata["string"] == .string("é"))
      #expect(file.metadata["array"] == .array([.string("a"), .string("")]))
      #expect(file.metadata["u64"] == .unsigned(.max))
      #expect(file.metadata["i64"] == .signed(.min))
      #expect(file.metadata["f64"] == .float(2.5))
      #expect(file.metadata["nested"] == .array([.array([.unsigned(1), .unsigned(2)])]))
    }
  }

  @Test func everyEncodingIsDecoded() throws {
    let half: [UInt8] = little(UInt16(0x3800))  // 0.5
    let minusTwo: [UInt8] = little(UInt16(0xC000))
    let nibbles = (0..<16).map { UInt8($0 | (15 - $0) << 4) }
    let low = (0..<16).map { Float($0) }
    let high = low.reversed()
    var builder = GGUFBuilder()
    func add(_ name: String, _ shape: [Int], _ type: UInt32, _ data: [UInt8]) {
      builder.tensors.append(.init(name: name, shape: shape, type: type, data: data))
    }
    add("f16", [1, 3], 1, little(UInt16(0x3C00)) + little(UInt16(0x0001)) + minusTwo)
    add("bf16", [2], 30, little(UInt16(0x3FC0)) + little(UInt16(0xC120)))
    add("q4_0", [1, 32], 2, half + nibbles)
    add("q4_1", [1, 32], 3, half + minusTwo + nibbles)
    add(
      "q8_0", [2, 32], 8,
      half + (0..<32).map { UInt8(bitPattern: Int8($0 * 8 - 128)) }
        + minusTwo + [UInt8](repeating: 0xFF, count: 32))
    let file = try open(builder)
    #expect(file.shape(of: "f16") == [1, 3])
    #expect(try file.floats("f16") == [1, 0x1p-24, -2])
    #expect(try file.floats("bf16") == [1.5, -10])
    #expect(try file.floats("q4_0") == (low + high).map { ($0 - 8) * 0.5 })
    #expect(try file.floats("q4_1") == (low + high).map { $0 * 0.5 - 2 })
    #expect(
      try file.floats("q8_0")
        == (0..<32).map { Float($0 * 8 - 128) * 0.5 } + [Float](repeating: 2, count: 32))
  }

  @Test func rowsOfQueryAndKeyAreUnpermutedAndEveryTensorHasItsPlace() throws {
    for tied in [true, false] {
      let tiny = TinyModel(tied: tied)
      let path = try scratch.write(tiny.gguf.build(), to: "m.gguf")
      let weights = try ModelWeights.load(from: path, cacheDirectory: nil)
      #expect(weights.configuration == tiny.configuration)
      let layout = weights.layout
      func expect(_ name: String, at offset: Int) {
        let tensor = tiny.tensors.first { $0.huggingFace == name + ".weight" }!
        let found = Array(
          UnsafeBufferPointer(start: weights.base + offset, count: tensor.values.count))
        #expect(found == tensor.values, "\(name)")
      }
      expect("model.embed_tokens", at: layout.embedding)
      expect("model.norm", at: layout.finalNorm)
      if !tied { expect("lm_head", at: layout.head) }
      for (index, layer) in layout.layers.enumerated() {
        let prefix = "model.layers.\(index)."
        expect(prefix + "input_layernorm", at: layer.attentionNorm)
        expect(prefix + "self_attn.q_proj", at: layer.queryKeyValue)
        expect(prefix + "self_attn.k_proj", at: layer.queryKeyValue + 24 * 12)
        expect(prefix + "self_attn.v_proj", at: layer.queryKeyValue + 36 * 12)
        expect(prefix + "self_attn.o_proj", at: layer.attentionOutput)
        expect(prefix + "post_attention_layernorm", at: layer.feedForwardNorm)
        expect(prefix + "mlp.gate_proj", at: layer.gateUp)
        expect(prefix + "mlp.up_proj", at: layer.gateUp + 20 * 12)
        expect(prefix + "mlp.down_proj", at: layer.down)
      }
    }
  }

  @Test func aGGUFAndADirectoryOfTheSameModelGiveTheSameRegion() throws {
    let tiny = TinyModel()
    try tiny.writeHuggingFace(to: scratch.path)
    let gguf = try ModelWeights.load(
      from: scratch.write(tiny.gguf.build(), to: "m.gguf"), cacheDirectory: nil)
    let directory = try ModelWeights.load(from: scratch.path, cacheDirectory: nil)
    #expect(gguf.configuration == directory.configuration)
    #expect(memcmp(gguf.base, directory.base, gguf.layout.elementCount * 4) == 0)
    #expect(gguf.digest != directory.digest)
  }

  @Test func anotherArchitectureIsRefusedByName() throws {
    var builder = TinyModel().gguf
    builder.metadata[0].1 = .string("gpt2")
    let path = try scratch.write(builder.build(), to: "m.gguf")
    let error = modelFileError { _ = try ModelWeights.load(from: path, cacheDirectory: nil) }
    #expect(
      error
        == .unsupported(
          path: path, place: .key("general.architecture"), found: "the architecture gpt2",
          supported: "llama, qwen2, qwen3"))
    #expect("\(error!)".contains("gpt2") && "\(error!)".contains("llama"))
  }

  @Test func anotherEncodingIsRefusedByName() throws {
    var builder = GGUFBuilder()
    builder.tensors = [
      .init(name: "t", shape: [256], type: 11, data: [UInt8](repeating: 0, count: 110))
    ]
    let error = modelFileError { _ = try open(builder) }
    #expect("\(error!)".contains("Q3_K") && "\(error!)".contains("Q4_K"))
  }

  @Test func biasesScaledRotaryPositionsAndMissingTensorsAreRefused() throws {
    var biased = TinyModel().gguf
    biased.add("blk.0.attn_q.bias", [24], [Float](repeating: 0, count: 24))
    var scaled = TinyModel().gguf
    scaled.metadata.append(("llama.rope.scaling.type", .string("yarn")))
    var incomplete = TinyModel().gguf
    incomplete.tensors.removeAll { $0.name == "blk.1.ffn_up.weight" }
    var misshapen = TinyModel().gguf
    misshapen.metadata[4].1 = .uint32(19)
    for (builder, part) in [
      (biased, "blk.0.attn_q.bias"), (scaled, "llama.rope.scaling.type"),
      (incomplete, "blk.1.ffn_up.weight"), (misshapen, "[19, 12]"),
    ] {
      let path = try scratch.write(builder.build(), to: "m.gguf")
      let error = modelFileError { _ = try ModelWeights.load(from: path, cacheDirectory: nil) }
      #expect(error?.description.contains(part) == true, "\(part): \(error as Any)")
    }
  }

  @Test func weightsThatAreNotFiniteAreRefused() throws {
    var builder = GGUFBuilder()
    builder.add("t", [4], [1, 2, .nan, 4])
    let file = try open(builder)
    let error = modelFileError { _ = try file.floats("t") }
    #expect(error?.description.contains("element 2") == true)
  }

  @Test func impossibleCountsAreRefusedBeforeAnythingIsAllocated() throws {
    let huge = little(UInt64(1) << 60)
    let head = Array("GGUF".utf8) + little(UInt32(3))
    let one = little(UInt64(1))
    let key = one + Array("k".utf8)
    let none = little(UInt64(0))
    for (name, bytes) in [
      ("tensors", head + huge + none), ("entries", head + none + huge),
      ("key", head + none + one + huge),
      ("string", head + none + one + key + little(UInt32(8)) + huge),
      ("array", head + none + one + key + little(UInt32(9)) + little(UInt32(0)) + huge),
      (
        "dimensions",
        head + one + none + key + little(UInt32(2)) + huge + huge + little(UInt32(0)) + none
      ),
      (
        "offset",
        head + one + none + key + little(UInt32(1)) + one + little(UInt32(0))
          + little(UInt64(Int64.max - 31))
      ),
    ] {
      let path = try scratch.write(bytes, to: "m.gguf")
      let error = modelFileError { _ = try GGUFFile(path: path) }
      guard case .malformed = error else {
        Issue.record("\(name): \(error as Any)")
        continue
      }
    }
  }

  @Test func aMissingFileSaysHowToGetTheModel() {
    let error = modelFileError {
      _ = try LanguageModel.load(from: "/nonexistent/m.gguf", cacheDirectory: scratch.path)
    }
    #expect(error == .notFound(path: "/nonexistent/m.gguf"))
    #expect("\(error!)".contains("scripts/fetch-model"))
  }

  @Test func everyTruncationIsRefused() throws {
    let whole = TinyModel().gguf.build()
    for length in 0..<whole.count - 32 where length < 2000 || length % 97 == 0 {
      let path = try scratch.write(whole[..<length], to: "m.gguf")
      let error = modelFileError { _ = try GGUFFile(path: path) }
      #expect(error != nil, "length \(length)")
    }
  }

  @Test func damagedBytesNeverCrash() throws {
    let whole = TinyModel().gguf.build()
    var generator = RandomStream(seed: 11, purpose: "damage")
    for round in 0..<1500 {
      var bytes = whole
      for _ in 0..<Int.random(in: 1...3, using: &generator) {
        // Nearly all of the structure is in the first 2,500 bytes.
        let limit = Bool.random(using: &generator) ? 2500 : bytes.count
        bytes[Int.random(in: 0..<limit, using: &generator)] = .random(
          in: 0...255, using: &generator)
      }
      let path = try scratch.write(bytes, to: "m.gguf")
      expectClearFailure("round \(round)", mentioning: path) {
        _ = try ModelWeights.load(from: path, cacheDirectory: nil)
      }
    }
  }

  @Test(.enabled(if: DefaultModel.isPresent)) func theDefaultModelHasItsShape() throws {
    let file = try GGUFFile(path: DefaultModel.path)
    #expect(file.tensorNames.count == 272)
    #expect(file.shape(of: "blk.29.ffn_down.weight") == [576, 1536])
    let model = try LanguageModel.load(
      from: DefaultModel.path, cacheDirectory: DefaultModel.cacheDirectory)
    #expect(
      model.configuration
        == LlamaConfiguration(
          vocabularySize: 49152, hiddenSize: 576, layerCount: 30, headCount: 9,
          keyValueHeadCount: 3, headDimension: 64, feedForwardSize: 1536, ropeTheta: 100_000,
          normEpsilon: 1e-5, maximumPositions: 8192, tiesEmbeddings: true))
    #expect(
      model.weights.digest == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53")
  }
}
