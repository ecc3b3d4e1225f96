import Crypto
import Foundation
import TransformerKernels

/// The state of a fine-tune after a whole step: all that the rest of its course depends on. The
/// order of the data follows from seed, epoch and step, so no random stream is in flight between
/// steps.
///
/// Used by one thread at a time.
package final class FineTuningState: @unchecked Sendable {
  let values: FloatBuffer
  let firstMoments: FloatBuffer
  let secondMoments: FloatBuffer
  /// Steps done.
  package internal(set) var step = 0
  /// Tokens processed.
  package internal(set) var tokens = 0
  /// Loss of each step.
  package internal(set) var losses: [Float] = []
  /// Running means of the alignment term; nil until an item of the group was seen.
  var originalMean: [Float]?
  var augmentedMean: [Float]?

  init(elementCount: Int) {
    values = FloatBuffer(count: elementCount)
    firstMoments = FloatBuffer(count: elementCount)
    secondMoments = FloatBuffer(count: elementCount)
  }
}

extension FineTuner {
  /// Room for a state of this fine-tune; its content is undefined until `capture` or a checkpoint
  /// fills it.
  package func emptyState() -> FineTuningState {
    FineTuningState(elementCount: trainable.values.count)
  }

  /// Copies the present state. Call between steps only.
  package func capture(into state: FineTuningState) {
    for (from, to) in [
      (trainable.values, state.values), (trainable.firstMoments, state.firstMoments),
      (trainable.secondMoments, state.secondMoments),
    ] { to.base.update(from: from.base, count: from.count) }
    state.step = step
    state.tokens = tokens
    // Copies: a step changes its arrays in place, which is only possible while nobody shares them.
    state.losses.removeAll(keepingCapacity: true)
    state.losses.append(contentsOf: losses)
    state.originalMean = alignment.originalMean?.map { $0 }
    state.augmentedMean = alignment.augmentedMean?.map { $0 }
  }

  /// Goes to a state that a fine-tune of the same identity was in; training goes on from there with
  /// the same bits.
  package func restore(_ state: FineTuningState) {
    for (from, to) in [
      (state.values, trainable.values), (state.firstMoments, trainable.firstMoments),
      (state.secondMoments, trainable.secondMoments),
    ] { to.base.update(from: from.base, count: from.count) }
    step = state.step
    tokens = state.tokens
    losses = state.losses
    alignment = GroupAlignment(
      weight: alignment.weight, originalMean: state.originalMean,
      augmentedMean: state.augmentedMean)
  }
}

/// A `FineTuningState` in a file: safetensors with the flat parameters and moments, the losses and
/// the running means as tensors, and counters, identity and a SHA-256 over all of it as metadata.
package enum FineTuningCheckpoint {
  /// Changes whenever the meaning of the content does; a file of another format is not read.
  static let format = "biassweep-fine-tune-1"

  /// Writes a state. The path holds either what it held before or the whole checkpoint, durably.
  ///
  /// - Throws: `ModelFileError.system`.
  package static func write(
    _ state: FineTuningState, identity: FineTuningIdentity, to path: String
  ) throws {
    var metadata = identity.entries
    metadata["format"] = format
    metadata["step"] = "\(state.step)"
    metadata["tokens"] = "\(state.tokens)"
    try state.losses.withUnsafeBufferPointer { losses in
      try (state.originalMean ?? []).withUnsafeBufferPointer { originalMean in
        try (state.augmentedMean ?? []).withUnsafeBufferPointer { augmentedMean in
          var tensors = [
            Tensor.values.rawValue: state.values.elements,
            Tensor.firstMoments.rawValue: state.firstMoments.elements,
            Tensor.secondMoments.rawValue: state.secondMoments.elements,
            Tensor.losses.rawValue: losses,
          ]
          if state.originalMean != nil { tensors[Tensor.originalMean.rawValue] = originalMean }
          if state.augmentedMean != nil { tensors[Tensor.augmentedMean.rawValue] = augmentedMean }
          var hash = Self.hash(metadata)
          for (_, elements) in tensors.sorted(by: { $0.key < $1.key }) {
            hash.update(bufferPointer: UnsafeRawBufferPointer(elements))
          }
          metadata["content"] = hexadecimal(hash.finalize())
          try SafetensorsFile.write(
            tensors.map { SafetensorsFile.Entry(name: $0.key, shape: [$0.value.count]) },
            metadata: metadata, to: path
          ) { entry, write in
            if let elements = tensors[entry.name] {
              try write(UnsafeRawBufferPointer(elements))
            }
          }
        }
      }
    }
  }

  /// The number of steps that the file at `path` says it holds, without a check of the rest; nil
  /// when it is no checkpoint.
  package static func steps(path: String) -> Int? {
    guard let file = try? SafetensorsFile(path: path), file.metadata["format"] == format else {
      return nil
    }
    return file.metadata["step"].flatMap(Int.init)
  }

  /// Reads a state into `state`, whose content is undefined when this throws.
  ///
  /// - Throws: `CheckpointError`; `ModelFileError` when the file is absent or unreadable.
  package static func read(
    path: String, identity: FineTuningIdentity, into state: FineTuningState
  ) throws {
    let file = try SafetensorsFile(path: path)
    guard let found = file.metadata["format"], found == format else {
      throw CheckpointError.otherFormat(
        path: path, found: file.metadata["format"] ?? "none", expected: format)
    }
    let differences = identity.differences(from: file.metadata)
    guard differences.isEmpty else { throw CheckpointError.foreign(path: path, differences) }
    var metadata = file.metadata
    let content = metadata.removeValue(forKey: "content")
    var hash = Self.hash(metadata)
    var arrays: [Tensor: [Float]] = [:]
    for name in file.names {
      guard let tensor = Tensor(rawValue: name) else {
        throw CheckpointError.damaged(path: path, problem: "there is a tensor \(name)")
      }
      let elements = try file.floats(name)
      elements.withUnsafeBytes { hash.update(bufferPointer: $0) }
      switch tensor {
      case .values: try copy(elements, to: state.values, tensor, path)
      case .firstMoments: try copy(elements, to: state.firstMoments, tensor, path)
      case .secondMoments: try copy(elements, to: state.secondMoments, tensor, path)
      case .losses, .originalMean, .augmentedMean: arrays[tensor] = elements
      }
    }
    guard content == hexadecimal(hash.finalize()) else {
      throw CheckpointError.damaged(path: path, problem: "its content does not have its digest")
    }
    guard Set(file.names).isSuperset(of: Tensor.always.map(\.rawValue)),
      let step = metadata["step"].flatMap(Int.init), step >= 0,
      let tokens = metadata["tokens"].flatMap(Int.init), tokens >= 0,
      let losses = arrays[.losses], losses.count == step
    else {
      throw CheckpointError.damaged(path: path, problem: "tensors or counters are missing")
    }
    state.step = step
    state.tokens = tokens
    state.losses = losses
    state.originalMean = arrays[.originalMean]
    state.augmentedMean = arrays[.augmentedMean]
  }

  private enum Tensor: String {
    case values
    case firstMoments = "first_moments"
    case secondMoments = "second_moments"
    case losses
    case originalMean = "original_mean"
    case augmentedMean = "augmented_mean"

    static let always = [Tensor.values, .firstMoments, .secondMoments, .losses]
  }

  private static func copy(
    _ elements: [Float], to buffer: FloatBuffer, _ tensor: Tensor, _ path: String
  ) throws {
    guard elements.count == buffer.count else {
      throw CheckpointError.damaged(
        path: path,
        problem: "\(tensor.rawValue) has \(elements.count) elements, not \(buffer.count)")
    }
    buffer.base.update(from: elements, count: elements.count)
  }

  private static func hash(_ metadata: [String: String]) -> SHA256 {
    var hash = SHA256()
    for (key, value) in metadata.sorted(by: { $0.key < $1.key }) {
      hash.update(data: Data("\(key)\t\(value)\n".utf8))
    }
    return hash
  }
}

extension FloatBuffer {
  fileprivate var elements: UnsafeBufferPointer<Float> {
    UnsafeBufferPointer(start: base, count: count)
  }
}

/// Why a checkpoint cannot be continued from. The work starts from the beginning instead: a lost
/// checkpoint costs time and nothing else.
package enum CheckpointError: Error, Hashable, CustomStringConvertible {
  case otherFormat(path: String, found: String, expected: String)
  /// It belongs to another fine-tune: the named things differ.
  case foreign(path: String, [String])
  case damaged(path: String, problem: String)

  package var description: String {
    switch self {
    case .otherFormat(let path, let found, let expected):
      "the checkpoint \(path) has the format \(found), not \(expected); it is of another version"
    case .foreign(let path, let differences):
      """
      the checkpoint \(path) belongs to other work: its \(differences.joined(separator: ", ")) \
      \(differences.count == 1 ? "differs" : "differ")
      """
    case .damaged(let path, let problem):
      "the checkpoint \(path) is damaged: \(problem)"
    }
  }
}
