import Crypto
import Foundation
import TransformerKernels

/// What decides the course of a fine-tune, so that a checkpoint continues no other.
///
/// Threads, the trunk cache and the recomputation of activations are not part of it: they change no
/// bit.
package struct FineTuningIdentity: Hashable, Sendable {
  /// Each thing that a checkpoint must agree with, by the name it has in messages and in the file.
  let entries: [String: String]

  /// - Parameters:
  ///   - purpose: what the caller trains for; one line.
  ///   - arithmetic: names the order and rounding of sums; see `MultiplicationBackend`.
  init(purpose: String, model: String, arithmetic: String, options: String, data: String) {
    entries = [
      "purpose": purpose, "model": model, "arithmetic": arithmetic, "options": options,
      "data": data,
    ]
  }

  /// Names of the entries that `other` has otherwise, sorted.
  func differences(from other: [String: String]) -> [String] {
    entries.keys.filter { entries[$0] != other[$0] }.sorted()
  }
}

extension FineTuner {
  /// The identity of training on `sequences` with this tuner's weights and options.
  ///
  /// - Parameter purpose: what the caller trains for; a checkpoint of another purpose is refused.
  package func identity(of sequences: [TrainingSequence], purpose: String) -> FineTuningIdentity {
    FineTuningIdentity(
      purpose: purpose, model: base.digest, arithmetic: MultiplicationBackend.arithmetic,
      options: digestText("\(options.courseDescription) head-rows=\(headRows)"),
      data: sequences.digest)
  }
}

extension FineTuningOptions {
  /// Every option that decides a bit of the result, as text; floats by their bits.
  package var courseDescription: String {
    let adapterText =
      switch adapter {
      case .full: "full"
      case .upperLayers(let lowest): "layers(from=\(lowest))"
      case .lora(let lora):
        "lora(rank=\(lora.rank) alpha=\(lora.alpha.bitPattern) "
          + "targets=\(lora.targets.sorted().map(\.rawValue).joined(separator: ",")) "
          + "layers=\(lora.layers.lowerBound)..<\(lora.layers.upperBound) "
          + "stabilised=\(lora.rankStabilised))"
      }
    return [
      "adapter=\(adapterText)", "epochs=\(epochs)", "batch=\(batchSize)",
      "accumulation=\(accumulationSteps)", "rate=\(learningRate.bitPattern)",
      "warmup=\(warmupFraction.bitPattern)", "decay=\(weightDecay.bitPattern)",
      "clip=\(gradientClip.map { "\($0.bitPattern)" } ?? "none")",
      "alignment=\(alignmentWeight.bitPattern)", "seed=\(seed)", "beta1=\(beta1.bitPattern)",
      "beta2=\(beta2.bitPattern)", "epsilon=\(epsilon.bitPattern)",
      "reweighting=\(reweightingExponent.bitPattern)",
      "padding=\(paddingToken.map { "\($0)" } ?? "none")", "shares-prefixes=\(sharesPrefixes)",
    ].joined(separator: " ")
  }
}

extension [TrainingSequence] {
  /// SHA-256 (hex) of the sequences in their order.
  fileprivate var digest: String {
    var hash = SHA256()
    for sequence in self {
      hash.update(data: Data("\(sequence.group.rawValue) \(sequence.tokens.count)\n".utf8))
      sequence.tokens.withUnsafeBytes { hash.update(bufferPointer: $0) }
      hash.update(data: Data(sequence.supervised.map { $0 ? 1 : 0 }))
    }
    return hexadecimal(hash.finalize())
  }
}

private func digestText(_ text: String) -> String {
  hexadecimal(SHA256.hash(data: Data(text.utf8)))
}
