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

  package init(id: String, host: String, processID: Int, slots: Int, threads: Int) {
    self.id = id
    self.host = host
    self.processID = processID
    self.slots = slots
    self.threads = threads
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
  case shardLeased(shard: ShardID, worker: String, token: LeaseToken, attempt: Int)
  case trialCompleted(
    trial: TrialID, token: LeaseToken, metrics: [String: Double], notes: [String: String],
    items: TrialItems? = nil)
  case shardCompleted(
    shard: ShardID, token: LeaseToken, artifact: ContentDigest?, facts: [String: Double])
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
  /// The worker gets no further shard, however often it reconnects.
  case workerDrained(worker: String, reason: String)

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
    case .workerDrained: "worker_drained"
    }
  }
}
