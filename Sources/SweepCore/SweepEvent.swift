/// Right of one worker to report on one shard. Tokens grow with every lease of the sweep, so that a
/// report under an older lease is recognised and refused (a fencing token).
package struct LeaseToken: Hashable, Sendable, Comparable, Codable, CustomStringConvertible {
  package let value: UInt64
  package init(_ value: UInt64) { self.value = value }
  package init(from decoder: any Decoder) throws {
    value = try decoder.singleValueContainer().decode(UInt64.self)
  }
  package func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(value)
  }
  package static func < (left: LeaseToken, right: LeaseToken) -> Bool { left.value < right.value }
  package var description: String { "\(value)" }
}

/// A worker process. The identifier is made by the worker and stays the same when it reconnects.
package struct WorkerInfo: Hashable, Sendable, Codable {
  package let id: String
  package let host: String
  package let processID: Int
  package let slots: Int
  package let threads: Int
  /// Memory that the worker may use for its shards, in bytes; nil if it does not say.
  package let memoryBytes: Int?

  package init(
    id: String, host: String, processID: Int, slots: Int, threads: Int, memoryBytes: Int? = nil
  ) {
    self.id = id
    self.host = host
    self.processID = processID
    self.slots = slots
    self.threads = threads
    self.memoryBytes = memoryBytes
  }

  /// What the speed of a shard depends on.
  package var machine: String { "\(host) \(slots)x\(threads)" }

  /// Shards that the worker can run at once: its slots, or fewer if its memory ends before.
  package func capacity(shardMemoryBytes: Int?) -> Int {
    guard let memoryBytes, let shardMemoryBytes, shardMemoryBytes > 0 else { return slots }
    return min(slots, memoryBytes / shardMemoryBytes)
  }
}

/// How an attempt ended without completing its shard.
package enum AttemptEnding: String, Codable, Sendable, CaseIterable {
  /// The worker reported an error.
  case failed
  /// The worker's connection broke, and it did not come back in time.
  case lost
  /// The worker was silent for longer than its lease.
  case expired
  /// The worker gave the shard back: drained, or the sweep was interrupted.
  case released
  /// An operator cancelled the shard or the sweep.
  case cancelled
  /// Another copy of the shard was completed first.
  case superseded
}

/// What happened, as the ledger remembers it. The state of a sweep is the fold of its events.
package enum SweepEvent: Codable, Sendable, Hashable {
  /// The digests of model and data that the sweep's results come from; recorded once.
  case inputsFixed([String: String])
  case workerJoined(WorkerInfo)
  case workerLeft(worker: String, reason: String)
  /// If the shard is leased already, this is a second copy of a straggler.
  case shardLeased(shard: ShardID, worker: String, token: LeaseToken, attempt: Int)
  case trialCompleted(
    trial: TrialID, token: LeaseToken, metrics: [String: Double], notes: [String: String],
    items: TrialItems? = nil)
  /// - seconds: from the lease to the completion; nil if that is not known, because the coordinator
  ///   started again meanwhile or an earlier attempt had done part of the work.
  case shardCompleted(
    shard: ShardID, token: LeaseToken, artifact: ContentDigest?, facts: [String: Double],
    seconds: Double? = nil)
  /// - retryAfterSeconds: how long the shard waits before it is leased again.
  case attemptEnded(
    shard: ShardID, token: LeaseToken, ending: AttemptEnding, evidence: String,
    retryAfterSeconds: Double)
  case shardQuarantined(shard: ShardID, reason: String)
  /// The sweep was started again: quarantined shards get new attempts.
  case sweepResumed
  /// No further shard is leased.
  case sweepStopped(reason: String)
  /// An operator ended the sweep; starting the coordinator again does not undo it.
  case sweepCancelled(reason: String)
  /// An operator paused the sweep: what runs goes on, nothing further is leased until
  /// `leasingContinued`, also after a restart.
  case leasingPaused(reason: String)
  case leasingContinued
  /// An operator gave a shard up.
  case shardCancelled(shard: ShardID, reason: String)
  /// An operator gave a shard that failed or was cancelled new attempts.
  case shardRetried(shard: ShardID)
  /// Shards of higher priority are leased first; 0 unless said otherwise.
  case shardPrioritised(shard: ShardID, priority: Int)
  /// The worker gets no further shard, however often it reconnects.
  case workerDrained(worker: String, reason: String)
  /// Different shards failed on the host one after the other: it gets none for a while.
  case hostSuspended(host: String, seconds: Double, evidence: String)

  /// The name of the case, as the ledger's `event` table shows it.
  package var kind: String {
    switch self {
    case .inputsFixed: "inputs_fixed"
    case .workerJoined: "worker_joined"
    case .workerLeft: "worker_left"
    case .shardLeased: "shard_leased"
    case .trialCompleted: "trial_completed"
    case .shardCompleted: "shard_completed"
    case .attemptEnded: "attempt_ended"
    case .shardQuarantined: "shard_quarantined"
    case .sweepResumed: "sweep_resumed"
    case .sweepStopped: "sweep_stopped"
    case .sweepCancelled: "sweep_cancelled"
    case .leasingPaused: "leasing_paused"
    case .leasingContinued: "leasing_continued"
    case .shardCancelled: "shard_cancelled"
    case .shardRetried: "shard_retried"
    case .shardPrioritised: "shard_prioritised"
    case .workerDrained: "worker_drained"
    case .hostSuspended: "host_suspended"
    }
  }
}
