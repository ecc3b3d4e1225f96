import Foundation
import Synchronization
import SweepCore

/// What a worker can do, given by the program that it is part of.
///
/// All three run on threads of their own and may block.
package struct ShardExecutor: Sendable {
  /// Loads what the shards of a sweep need.
  ///
  /// Returns SHA-256s of what results depend on besides the spec, by name. What is missing here can
  /// be had from the source.
  package var prepare: @Sendable (SweepSpec, InputSource) throws -> [String: String]
  /// Runs a shard to its end.
  package var execute: @Sendable (ShardAssignment, ShardControl) throws -> ShardProduct

  package init(
    prepare: @escaping @Sendable (SweepSpec, InputSource) throws -> [String: String],
    execute: @escaping @Sendable (ShardAssignment, ShardControl) throws -> ShardProduct
  ) {
    self.prepare = prepare
    self.execute = execute
  }
}

/// One shard to run.
package struct ShardAssignment: Sendable {
  package let shard: Shard
  package let token: LeaseToken
  package let attempt: Int
  /// The trials to evaluate: those of the shard that have no result yet.
  package let trials: [Trial]
  /// The artifact of the shard that this one depends on.
  package let input: [UInt8]?
  /// Where the shard keeps its progress, and may have some; nil for not at all.
  package let checkpoint: CheckpointFiles?
}

/// What a shard yields besides trial results.
package struct ShardProduct: Sendable {
  /// Bytes that other shards need.
  package var artifact: [UInt8]?
  package var facts: [String: Double]
  package init(artifact: [UInt8]? = nil, facts: [String: Double] = [:]) {
    self.artifact = artifact
    self.facts = facts
  }
}

/// A running shard's connection to its worker: progress and results out, cancellation in.
package final class ShardControl: Sendable {
  struct TrialResult: Sendable {
    let trial: TrialID
    let metrics: [String: Double]
    let notes: [String: String]
    let items: [String: [Double]]
  }

  /// Something about a shard for the log.
  package struct Note: Sendable {
    package let message: String
    package let details: [String: String]
  }

  private struct State {
    var cancelled = false
    var revoked = false
    var fraction = 0.0
    var tokens = 0
    var results: [TrialResult] = []
    var checkpoint: String?
    let started = SuspendingClock.now
  }
  private let state = Mutex(State())
  private let resultsWait: @Sendable () -> Void
  private let checkpointWritten: @Sendable () -> Void
  private let note: @Sendable (Note) -> Void

  /// - Parameters:
  ///   - resultsWait: called from the shard's thread when `takeResults` has something after
  ///     it had nothing.
  ///   - checkpointWritten: called from any thread when `takeCheckpoint` has something.
  ///   - note: called from any thread.
  init(
    resultsWait: @escaping @Sendable () -> Void,
    checkpointWritten: @escaping @Sendable () -> Void,
    note: @escaping @Sendable (Note) -> Void
  ) {
    self.resultsWait = resultsWait
    self.checkpointWritten = checkpointWritten
    self.note = note
  }

  /// True once the shard's result is no longer wanted; the shard should end by throwing
  /// `CancellationError` within a second or so.
  package var isCancelled: Bool { state.withLock { $0.cancelled } }

  /// - Parameters:
  ///   - fraction: completed share of the shard in [0, 1].
  ///   - tokens: processed by the model since the shard's start.
  package func report(fraction: Double, tokens: Int) {
    state.withLock {
      $0.fraction = fraction
      $0.tokens = tokens
    }
  }

  /// Says that the file at `path` holds a new checkpoint, durably.
  package func checkpointed(_ path: String) {
    state.withLock { $0.checkpoint = path }
    checkpointWritten()
  }

  /// The file that was written since the last call.
  func takeCheckpoint() -> String? {
    state.withLock { state in
      defer { state.checkpoint = nil }
      return state.checkpoint
    }
  }

  /// Says something for the worker's log.
  package func log(_ message: String, _ details: [String: String] = [:]) {
    note(Note(message: message, details: details))
  }

  /// Reports one trial's result. Metrics must be finite; `notes` says why one is missing; `items`
  /// are within the limits of `TrialItems`, or empty.
  package func complete(
    _ trial: TrialID, metrics: [String: Double], notes: [String: String],
    items: [String: [Double]] = [:]
  ) {
    let isFirst = state.withLock { state in
      state.results.append(
        TrialResult(trial: trial, metrics: metrics, notes: notes, items: items))
      return state.results.count == 1
    }
    if isFirst { resultsWait() }
  }

  /// The results since the last call, in the order of their completion.
  func takeResults() -> [TrialResult] {
    state.withLock { state in
      defer { state.results = [] }
      return state.results
    }
  }

  func cancel() { state.withLock { $0.cancelled = true } }

  /// Cancels because the lease is over: nothing of the shard is wanted any more.
  func revoke() {
    state.withLock {
      $0.cancelled = true
      $0.revoked = true
    }
  }

  /// Whether the lease is over.
  var isRevoked: Bool { state.withLock { $0.revoked } }

  var progress: (fraction: Double, tokensPerSecond: Double) {
    state.withLock { state in
      let elapsed = state.started.duration(to: .now) / .seconds(1)
      return (state.fraction, elapsed > 0 ? Double(state.tokens) / elapsed : 0)
    }
  }
}
