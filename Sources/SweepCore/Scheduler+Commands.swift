/// What the scheduler is told and what it answers.
extension Scheduler {
  package enum Command: Sendable {
    /// Connections are numbered in the order of their opening.
    ///
    /// - lifetime: how much time the worker has left; nil if it may go on for ever.
    case connect(
      WorkerInfo, connection: UInt64, holding: [LeaseToken], inputs: [String: String],
      lifetime: Duration? = nil)
    case disconnect(worker: String, connection: UInt64, reason: String)
    /// The worker can start this many shards besides those that it asked for before; in all never
    /// more than it has capacity for.
    case requestWork(worker: String, slots: Int)
    case heartbeat(worker: String, leases: [LeaseProgress])
    case completeTrial(
      worker: String, token: LeaseToken, trial: TrialID, metrics: [String: Double],
      notes: [String: String], items: TrialItems? = nil)
    /// - wasResumed: whether a checkpoint of an earlier attempt spared a part of the work.
    case completeShard(
      worker: String, token: LeaseToken, artifact: ContentDigest?, facts: [String: Double],
      wasResumed: Bool = false)
    case failShard(worker: String, token: LeaseToken, evidence: String)
    case releaseShard(worker: String, token: LeaseToken)
    case stop(reason: String)
    /// What an operator asks for.
    case control(Control)
    /// Time passed.
    case tick
  }

  /// What an operator can ask of a running sweep. All of it is durable. Each is refused with the
  /// reason if it makes no sense, and asking again for what holds already changes nothing.
  package enum Control: Hashable, Sendable {
    /// What runs goes on; nothing further is leased, also after a restart of the coordinator.
    case pause(reason: String)
    case resume
    /// Gives a shard up. Its leases end at once; results of its trials so far stay.
    case cancelShard(ShardID, reason: String)
    /// Ends the sweep now: all leases end, nothing further is leased. Results stay.
    case cancelSweep(reason: String)
    /// New attempts for a shard that was quarantined, cancelled, or waits after a failure.
    case retry(ShardID)
    /// Leases the shard, and what it waits for, before those of lower priority.
    case prioritise(ShardID, priority: Int)
    /// No new shard for this worker, also when it reconnects; what it runs, it finishes.
    case drain(worker: String, reason: String)
  }

  package struct LeaseProgress: Hashable, Sendable {
    package let token: LeaseToken
    package let fraction: Double
    package let tokensPerSecond: Double

    package init(token: LeaseToken, fraction: Double, tokensPerSecond: Double) {
      self.token = token
      self.fraction = fraction
      self.tokensPerSecond = tokensPerSecond
    }
  }

  /// What a worker must run.
  package struct Assignment: Hashable, Sendable {
    package let shard: Shard
    package let token: LeaseToken
    package let attempt: Int
    /// The trials of the shard that have no result yet.
    package let remainingTrials: [Trial]
    /// The artifact of the shard's dependency.
    package let input: ContentDigest?
  }

  package enum Directive: Hashable, Sendable {
    case assign(worker: String, Assignment)
    /// The worker's lease is over; what it does for it is wasted.
    case revoke(worker: String, LeaseToken)
  }

  /// Answer to a command.
  package enum Reply: Hashable, Sendable {
    /// Done, now or (for a repeated report) before.
    case accepted
    /// The lease is over; retrying cannot help.
    case stale
    /// The command contradicts the protocol or the sweep; retrying cannot help.
    case refused(String)
  }

  package struct Step: Sendable {
    package var events: [SweepEvent] = []
    package var directives: [Directive] = []
    package var reply: Reply = .accepted
  }
}
