extension Scheduler {
  /// When `tick` must be called at the latest; nil if only commands can change anything.
  ///
  /// While a lease or grace time runs this is never far off, because the scheduler takes a long
  /// silence for a coordinator that stood still and would put off every deadline.
  package var nextDeadline: Duration? {
    var times = [nextExpiry.map { min($0, lastHandled + silenceMax / 2) }, delayed.min?.time]
    if !wanted.isEmpty && leasesNow {
      times.append(nextLook)
      if ready.isEmpty && !live.isEmpty && policy.stragglerFactor != nil {
        times.append(nextStragglerLook)
      }
    }
    return times.compactMap(\.self).min()
  }

  /// Whether nothing more can happen: every shard is completed, given up, or waits for one that is
  /// given up; or the sweep was stopped and its last lease has ended.
  package var isFinished: Bool {
    stopReason != nil ? live.isEmpty : unsettled == 0
  }

  /// The shard that this one waits for at once.
  func needed(by ordinal: Int) -> Int? {
    records[ordinal].shard.dependency.flatMap { ordinals[$0] }
  }

  /// The shard that was given up and that this one waits for, directly or through others that wait.
  func obstacle(of ordinal: Int) -> ShardRecord? {
    var reached = ordinal
    while records[reached].state == .blocked, let next = needed(by: reached) { reached = next }
    return reached != ordinal && records[reached].state.isGivenUp ? records[reached] : nil
  }

  /// Whether the shard waits, directly or through others, for one that is given up.
  func isStuck(_ ordinal: Int) -> Bool { obstacle(of: ordinal) != nil }

  /// Whether nothing more can happen to the shard unless somebody asks for it.
  func isSettled(_ ordinal: Int) -> Bool { records[ordinal].state.isFinal || isStuck(ordinal) }

  /// Whether each shard is given up, or waits for one that is: in one pass, since a shard comes after
  /// the one that it waits for.
  var hopeless: [Bool] {
    var hopeless = [Bool](repeating: false, count: records.count)
    for ordinal in records.indices {
      switch records[ordinal].state {
      case .quarantined, .cancelled: hopeless[ordinal] = true
      case .blocked: hopeless[ordinal] = needed(by: ordinal).map { hopeless[$0] } ?? false
      case .queued, .leased, .completed: break
      }
    }
    return hopeless
  }

  /// Numbers for progress displays.
  package var summary: SweepSummary {
    var summary = SweepSummary()
    let hopeless = hopeless
    for (ordinal, record) in records.enumerated() {
      let trials = record.shard.trials
      let done = trials.count { completedTrials.contains($0.id) }
      summary.trials += trials.count
      summary.trialsCompleted += done
      summary.attempts += record.attempts
      summary.work += record.shard.cost
      switch record.state {
      case .completed:
        summary.shardsCompleted += 1
        summary.workDone += record.shard.cost
        if !trials.isEmpty { summary.fineTunesCompleted += 1 }
      case .leased(let tokens):
        let leases = tokens.compactMap { live[$0]?.lease }
        summary.shardsRunning += 1
        summary.trialsRunning += trials.count - done
        summary.workDone += record.shard.cost * (leases.map(\.fraction).max() ?? 0)
        summary.tokensPerSecond += leases.reduce(0) { $0 + $1.tokensPerSecond }
      case .quarantined:
        summary.shardsQuarantined += 1
        summary.trialsFailed += trials.count - done
      case .cancelled:
        summary.shardsCancelled += 1
        summary.trialsFailed += trials.count - done
      case .blocked:
        if hopeless[ordinal] { summary.trialsFailed += trials.count - done }
      case .queued: break
      }
    }
    summary.shards = records.count
    summary.workers = workers.values.count { $0.connection != nil }
    return summary
  }

  /// The leases that are alive, by token.
  package var leases: [(shard: ShardID, lease: Lease)] {
    live.sorted { $0.key < $1.key }.map { (records[$1.ordinal].shard.id, $1.lease) }
  }

  package func state(of shard: ShardID) -> ShardState? { ordinals[shard].map { records[$0].state } }

  /// As in `summary`, without looking at all shards.
  package var trialsCompleted: Int { completedTrials.count }

  package func hasResult(_ trial: TrialID) -> Bool { completedTrials.contains(trial) }

  package func priority(of shard: ShardID) -> Int {
    ordinals[shard].map { records[$0].priority } ?? 0
  }

  /// Shards that the worker could run besides those that it has, were it not for its time.
  package func room(of worker: String) -> Int {
    workers[worker].map { capacity(of: $0) - $0.leases.count } ?? 0
  }

  /// Whether the worker said when its time is up.
  package func hasLimitedTime(_ worker: String) -> Bool { workers[worker]?.endsAt != nil }

  /// How often the shard was leased.
  package func attempts(of shard: ShardID) -> Int {
    ordinals[shard].map { records[$0].attempts } ?? 0
  }
}

/// Where a sweep stands.
package struct SweepSummary: Hashable, Sendable {
  package var trials = 0
  package var trialsCompleted = 0
  package var trialsRunning = 0
  /// Trials that will have no result, because their shard or what it waits for was given up.
  package var trialsFailed = 0
  package var shards = 0
  package var shardsCompleted = 0
  package var shardsRunning = 0
  package var shardsQuarantined = 0
  package var shardsCancelled = 0
  package var fineTunesCompleted = 0
  package var attempts = 0
  package var workers = 0
  /// Expected work of all shards, and the part of it that is done, in the plan's cost units.
  package var work = 0.0
  package var workDone = 0.0
  package var tokensPerSecond = 0.0

  package init() {}
}
