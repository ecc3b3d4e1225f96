import Foundation
import LanguageModel
import Testing

/// The content of a JSON file of the test fixtures.
func decodeFixture<T: Decodable>(_ type: T.Type, _ name: String) throws -> T {
  try JSONDecoder().decode(type, from: Data(contentsOf: fixture(name)))
}

/// The model that `scripts/fetch-model` puts into the cache directory.
enum DefaultModel {
  static let cacheDirectory: String = {
    let environment = ProcessInfo.processInfo.environment
    if let cache = environment["BIASSWEEP_CACHE"], !cache.isEmpty { return cache }
    if let cache = environment["XDG_CACHE_HOME"], !cache.isEmpty { return cache + "/biassweep" }
    return (environment["HOME"] ?? "") + "/.cache/biassweep"
  }()

  static let path = cacheDirectory + "/models/SmolLM2-135M-Instruct.Q4_1.gguf"

  /// False, with a line that says so, when the model was not fetched.
  static let isPresent: Bool = {
    if FileManager.default.fileExists(atPath: path) { return true }
    print("Skipped: tests of the default model; run scripts/fetch-model (no file at \(path))")
    return false
  }()
}

/// A directory that is deleted with the object.
final class ScratchDirectory {
  let path: String

  init() throws {
    path = NSTemporaryDirectory() + "biassweep-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  func file(_ name: String) -> String { "\(path)/\(name)" }

  @discardableResult
  func write(_ bytes: some Sequence<UInt8>, to name: String) throws -> String {
    try Data(bytes).write(to: URL(fileURLWithPath: file(name)))
    return file(name)
  }
}

func bytes(of path: String) throws -> [UInt8] {
  Array(try Data(contentsOf: URL(fileURLWithPath: path)))
}

/// Builds GGUF files byte by byte.
struct GGUFBuilder {
  enum Value {
    case uint32(UInt32)
    case float32(Float)
    case boolean(Bool)
    case string(String)
    case strings([String])
    case int32s([Int32])
    /// Value type and bytes as they are.
    case raw(UInt32, [UInt8])
  }

  struct Tensor {
    var name: String
    /// Row-major, outermost first.
    var shape: [Int]
    var type: UInt32
    var data: [UInt8]
  }

  var version: UInt32 = 3
  var metadata: [(String, Value)] = []
  var tensors: [Tensor] = []

  mutating func add(_ name: String, _ shape: [Int], _ values: [Float]) {
    tensors.append(
      Tensor(name: name, shape: shape, type: 0, data: values.flatMap { little($0.bitPattern) }))
  }

  func build() -> [UInt8] {
    var bytes = Array("GGUF".utf8) + little(version)
    bytes += little(UInt64(tensors.count)) + little(UInt64(metadata.count))
    for (key, value) in metadata {
      bytes += string(key)
      switch value {
      case .uint32(let number): bytes += little(UInt32(4)) + little(number)
      case .float32(let number): bytes += little(UInt32(6)) + little(number.bitPattern)
      case .boolean(let value): bytes += little(UInt32(7)) + [value ? 1 : 0]
      case .string(let text): bytes += little(UInt32(8)) + string(text)
      case .strings(let texts):
        bytes += little(UInt32(9)) + little(UInt32(8)) + little(UInt64(texts.count))
        bytes += texts.flatMap(string)
      case .int32s(let numbers):
        bytes += little(UInt32(9)) + little(UInt32(5)) + little(UInt64(numbers.count))
        bytes += numbers.flatMap { little($0) }
      case .raw(let type, let content): bytes += little(type) + content
      }
    }
    var offset = 0
    for tensor in tensors {
      bytes += string(tensor.name) + little(UInt32(tensor.shape.count))
      bytes += tensor.shape.reversed().flatMap { little(UInt64($0)) }
      bytes += little(tensor.type) + little(UInt64(offset))
      offset += (tensor.data.count + 31) / 32 * 32
    }
    pad(&bytes)
    for tensor in tensors {
      bytes += tensor.data
      pad(&bytes)
    }
    return bytes
  }

  private func pad(_ bytes: inout [UInt8]) {
    bytes += [UInt8](repeating: 0, count: (32 - bytes.count % 32) % 32)
  }

  private func string(_ text: String) -> [UInt8] {
    little(UInt64(text.utf8.count)) + Array(text.utf8)
  }
}

func little<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
  withUnsafeBytes(of: value.littleEndian) { Array($0) }
}

/// A decoder small enough to write in both file formats; all its sizes differ.
struct TinyModel {
  var tied = true
  var configuration: LlamaConfiguration {
    LlamaConfiguration(
      vocabularySize: 40, hiddenSize: 12, layerCount: 2, headCount: 4, keyValueHeadCount: 2,
      headDimension: 6, feedForwardSize: 20, ropeTheta: 5000, normEpsilon: 1e-5,
      maximumPositions: 64, tiesEmbeddings: tied)
  }

  /// Hugging Face names, GGUF names, shapes and values; each value tells tensor and position.
  var tensors: [(huggingFace: String, gguf: String, shape: [Int], values: [Float])] {
    let c = configuration
    var list = [
      ("model.embed_tokens", "token_embd", [c.vocabularySize, c.hiddenSize]),
      ("model.norm", "output_norm", [c.hiddenSize]),
    ]
    if !tied { list.append(("lm_head", "output", [c.vocabularySize, c.hiddenSize])) }
    for layer in 0..<c.layerCount {
      for (huggingFace, gguf, shape) in [
        ("input_layernorm", "attn_norm", [c.hiddenSize]),
        ("self_attn.q_proj", "attn_q", [c.queryWidth, c.hiddenSize]),
        ("self_attn.k_proj", "attn_k", [c.keyValueWidth, c.hiddenSize]),
        ("self_attn.v_proj", "attn_v", [c.keyValueWidth, c.hiddenSize]),
        ("self_attn.o_proj", "attn_output", [c.hiddenSize, c.queryWidth]),
        ("post_attention_layernorm", "ffn_norm", [c.hiddenSize]),
        ("mlp.gate_proj", "ffn_gate", [c.feedForwardSize, c.hiddenSize]),
        ("mlp.up_proj", "ffn_up", [c.feedForwardSize, c.hiddenSize]),
        ("mlp.down_proj", "ffn_down", [c.hiddenSize, c.feedForwardSize]),
      ] {
        list.append(("model.layers.\(layer).\(huggingFace)", "blk.\(layer).\(gguf)", shape))
      }
    }
    return list.enumerated().map { index, entry in
      let count = entry.2.reduce(1, *)
      let values = (0..<count).map { Float(index) + Float($0) / 1024 }
      return (entry.0 + ".weight", entry.1 + ".weight", entry.2, values)
    }
  }

  var configJSON: String {
    """
    {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 40,
     "hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2,
     "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6, "hidden_act": "silu",
     "max_position_embeddings": 64, "rms_norm_eps": 1e-05, "rope_theta": 5000.0,
     "attention_bias": false, "mlp_bias": false, "tie_word_embeddings": \(tied)}
    """
  }

  func writeHuggingFace(to directory: String) throws {
    try Data(configJSON.utf8).write(to: URL(fileURLWithPath: directory + "/config.json"))
    let values = Dictionary(uniqueKeysWithValues: tensors.map { ($0.huggingFace, $0.values) })
    try SafetensorsFile.write(
      tensors.map { .init(name: $0.huggingFace, shape: $0.shape) },
      to: directory + "/model.safetensors"
    ) { values[$0.name]! }
  }

  /// The metadata and tensors of a GGUF file, with query and key rows reordered as llama.cpp does.
  var gguf: GGUFBuilder {
    var builder = GGUFBuilder()
    builder.metadata = [
      ("general.architecture", .string("llama")),
      ("llama.block_count", .uint32(2)),
      ("llama.context_length", .uint32(64)),
      ("llama.embedding_length", .uint32(12)),
      ("llama.feed_forward_length", .uint32(20)),
      ("llama.attention.head_count", .uint32(4)),
      ("llama.attention.head_count_kv", .uint32(2)),
      ("llama.attention.key_length", .uint32(6)),
      ("llama.rope.freq_base", .float32(5000)),
      ("llama.attention.layer_norm_rms_epsilon", .float32(1e-5)),
    ]
    for tensor in tensors {
      var values = tensor.values
      if tensor.gguf.contains("attn_q.") || tensor.gguf.contains("attn_k.") {
        let (rows, columns, half) = (tensor.shape[0], tensor.shape[1], 3)
        for row in 0..<rows {
          // Row p · half + i of a head goes to row 2i + p.
          let (head, inner) = (row / (2 * half), row % (2 * half))
          let target = head * 2 * half + 2 * (inner % half) + inner / half
          for column in 0..<columns {
            values[target * columns + column] = tensor.values[row * columns + column]
          }
        }
      }
      builder.add(tensor.gguf, tensor.shape, values)
    }
    return builder
  }
}

/// Requires that `body` either succeeds or throws a `ModelFileError` that names a path.
func expectClearFailure(_ what: String, mentioning path: String, _ body: () throws -> Void) {
  do {
    try body()
  } catch let error as ModelFileError {
    let message = error.description
    #expect(message.contains(path) && !message.contains("\n"), "\(what): \(message)")
  } catch {
    Issue.record("\(what): \(type(of: error)) \(error)")
  }
}

/// The error that `body` throws, for a look at its parts.
func modelFileError(_ body: () throws -> Void) -> ModelFileError? {
  do {
    try body()
    return nil
  } catch {
    return error as? ModelFileError
  }
}
