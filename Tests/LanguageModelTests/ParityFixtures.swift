import Foundation
import LanguageModel
import Testing
import TransformerKernels

/// Reference values that transformers computed for a tiny random model.
struct NanoModel {
  struct Reference: Decodable {
    struct AdamW: Decodable {
      let lr: Double
      let betas: [Double]
      let eps: Double
      let weight_decay: Double
    }
    let ids: [[Int32]]
    let adamw: AdamW
    /// A token whose embedding transformers gives no gradient.
    let padding_token: Int32?
    let losses_before_each_of_6_steps: [Double]
  }

  let weights: ModelWeights
  let reference: Reference
  let logits: [Float]
  let gradients: SafetensorsFile
  /// Only some of the models come with it.
  let weightsAfterStep1: SafetensorsFile?

  init(_ name: String) throws {
    let directory = try fixture(name).path
    weights = try ModelWeights.load(from: directory, cacheDirectory: nil)
    reference = try JSONDecoder().decode(
      Reference.self, from: Data(contentsOf: URL(filePath: directory + "/reference.json")))
    logits = try SafetensorsFile(path: directory + "/logits.safetensors").floats("logits")
    gradients = try SafetensorsFile(path: directory + "/grads_step1.safetensors")
    let after = directory + "/weights_after_step1.safetensors"
    weightsAfterStep1 =
      FileManager.default.fileExists(atPath: after) ? try SafetensorsFile(path: after) : nil
  }

  /// The reference's rows, every token after the first a target.
  var sequences: [TrainingSequence] { reference.ids.map(wholeSequence) }

  /// The reference's optimizer: constant rate, no clipping.
  func options(_ adapter: Adapter = .full) -> FineTuningOptions {
    FineTuningOptions(
      adapter: adapter, epochs: 1, batchSize: reference.ids.count,
      learningRate: Float(reference.adamw.lr), weightDecay: Float(reference.adamw.weight_decay),
      gradientClip: nil, seed: 1, beta1: reference.adamw.betas[0],
      beta2: reference.adamw.betas[1], epsilon: reference.adamw.eps,
      paddingToken: reference.padding_token)
  }

  static let names = [
    "nano_tied", "nano_untied", "nano_qwen2", "nano_qwen3", "nano_llama3", "nano_linear",
  ]
}

/// Prints how far a result is from the reference: the figures of docs/NUMERICS.md.
func measured(_ what: String, _ error: some BinaryFloatingPoint) {
  print("measured: \(what): \(String(format: "%.2g", Double(error)))")
}

/// A file or directory of the test fixtures.
func fixture(_ name: String) throws -> URL {
  try #require(Bundle.module.resourceURL).appending(path: "Fixtures").appending(path: name)
}

/// Every token after the first is a target.
func wholeSequence(_ tokens: [Int32]) -> TrainingSequence {
  TrainingSequence(
    tokens: tokens, supervised: tokens.map { _ in true }, group: .original)
}

/// Logits of one sequence, (positions, vocabulary).
func logits(_ model: AdaptedModel, _ tokens: [Int32]) throws -> [Float] {
  try logits(model, batch: [tokens])
}

/// Logits of several sequences in one batch, one after the other.
func logits(_ model: AdaptedModel, batch: [[Int32]]) throws -> [Float] {
  var all: [Float] = []
  try model.logits(batch) { _, chunk in
    for row in 0..<chunk.rows {
      all += UnsafeBufferPointer(start: chunk.base + row * chunk.stride, count: chunk.columns)
    }
  }
  return all
}

func maximumDifference(_ a: [Float], _ b: [Float]) -> Float {
  guard a.count == b.count else { return .infinity }
  return zip(a, b).reduce(0) { max($0, abs($1.0 - $1.1)) }
}

func bits(_ values: [Float]) -> [UInt32] { values.map(\.bitPattern) }
