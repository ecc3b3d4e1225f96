extension Scheduler {
  /// Changes the durable state by one event: the only place that does, live and in recovery.
  package mutating func apply(_ event: SweepEvent, now: Duration) {
    switch event {
    case .inputsFixed(let inputs):
      self.inputs = inputs

    case .workerJoined(let info):
      let known = workers[info.id]
      workers[info.id] = WorkerRecord(
        info: info, order: known?.order ?? joined, leases: known?.leases ?? [])
      joined += 1

    case .workerLeft(let worker, _):
      workers[worker] = nil

    case .shardLeased(let shard, let worker, let token, let attempt):
      let ordinal = known(shard)
      precondition(token.value > lastToken, "token \(token) was given out before")
      lastToken = token.value
      let deadline = now + .seconds(policy.leaseSeconds)
      records[ordinal].attempts = attempt
      records[ordinal].state = .leased(
        Lease(
          token: token, worker: worker, attempt: attempt, deadline: deadline, fraction: 0,
          tokensPerSecond: 0))
      expect(expiryAt: deadline)
      live[token] = ordinal
      workers[worker]?.leases.insert(token)

    case .trialCompleted(let trial, _, _, _, _):
      let added = completedTrials.insert(trial).inserted
      precondition(added, "trial \(trial) has two results")

    case .shardCompleted(let shard, let token, let artifact, _):
      let ordinal = known(shard)
      endLease(token, of: ordinal)
      records[ordinal].state = .completed(token: token, artifact: artifact)
      unsettled -= 1
      for dependent in records[ordinal].dependents where records[dependent].state == .blocked {
        enqueue(dependent, notBefore: now)
      }

    case .attemptEnded(let shard, let token, let ending, _, let retryAfterSeconds):
      let ordinal = known(shard)
      endLease(token, of: ordinal)
      switch ending {
      case .failed: records[ordinal].failures += 1
      case .lost, .expired: records[ordinal].losses += 1
      case .released, .cancelled, .superseded: break
      }
      enqueue(ordinal, notBefore: now + .seconds(retryAfterSeconds))

    case .shardQuarantined(let shard, let reason):
      giveUp(known(shard), .quarantined(reason: reason))

    case .shardCancelled(let shard, let reason):
      giveUp(known(shard), .cancelled(reason: reason))

    case .shardRetried(let shard):
      revive(known(shard), now: now)

    case .workerDrained(let worker, _):
      drained.insert(worker)
      wanted[worker] = nil

    case .sweepResumed:
      stopReason = nil
      isCancelled = false
      for ordinal in records.indices {
        if case .quarantined = records[ordinal].state { revive(ordinal, now: now) }
      }

    case .sweepStopped(let reason):
      stopReason = reason

    case .sweepCancelled(let reason):
      stopReason = reason
      isCancelled = true

    case .leasingPaused(let reason):
      pauseReason = reason

    case .leasingContinued:
      pauseReason = nil
    }
  }

  /// Ends a shard without a result; what waits for it waits in vain.
  private mutating func giveUp(_ ordinal: Int, _ state: ShardState) {
    precondition(
      state.isGivenUp && !records[ordinal].state.isCompleted,
      "shard \(records[ordinal].shard.id) is \(records[ordinal].state) and cannot be given up")
    let wasOpen = !isSettled(records[ordinal])
    let wasGivenUp = records[ordinal].state.isGivenUp
    records[ordinal].state = state
    if wasOpen { unsettled -= 1 }
    if !wasGivenUp { unsettled -= waitingDependents(of: ordinal) }
  }

  /// Gives a shard new attempts, and hope to what waits for it.
  private mutating func revive(_ ordinal: Int, now: Duration) {
    let wasGivenUp = records[ordinal].state.isGivenUp
    records[ordinal].failures = 0
    records[ordinal].losses = 0
    let dependency = records[ordinal].shard.dependency.flatMap { ordinals[$0] }
    if let dependency, !records[dependency].state.isCompleted {
      records[ordinal].state = .blocked
    } else {
      enqueue(ordinal, notBefore: now)
    }
    if wasGivenUp {
      if !isSettled(records[ordinal]) { unsettled += 1 }
      unsettled += waitingDependents(of: ordinal)
    }
  }

  private func waitingDependents(of ordinal: Int) -> Int {
    records[ordinal].dependents.count { records[$0].state == .blocked }
  }

  private func known(_ shard: ShardID) -> Int {
    guard let ordinal = ordinals[shard] else {
      preconditionFailure("shard \(shard) is not part of the plan")
    }
    return ordinal
  }

  private mutating func endLease(_ token: LeaseToken, of ordinal: Int) {
    guard case .leased(let lease) = records[ordinal].state, lease.token == token else {
      preconditionFailure(
        "shard \(records[ordinal].shard.id) is \(records[ordinal].state), not leased as \(token)")
    }
    live[token] = nil
    workers[lease.worker]?.leases.remove(token)
  }

  /// Ends recovery after the ledger's events have been applied.
  ///
  /// - Parameters:
  ///   - keepLeases: whether the workers may still be there. Then every worker has a full lease
  ///     time to reconnect and goes on with its shards. Otherwise (the
  ///     workers were children of the coordinator and ended with it) the leases end at once.
  ///   - revive: whether a cancelled sweep is to go on. Otherwise it stays cancelled.
  /// - Returns: events to append.
  package mutating func finishRecovery(
    keepLeases: Bool, revive: Bool = false, now: Duration
  ) -> [SweepEvent] {
    var step = Step()
    let resumable =
      isCancelled
      ? revive
      : stopReason != nil
        || records.contains { if case .quarantined = $0.state { true } else { false } }
    if resumable { emit(.sweepResumed, now, &step) }
    let lastCall = now + .seconds(policy.leaseSeconds)
    for token in live.keys.sorted() {
      guard let ordinal = live[token], case .leased(var lease) = records[ordinal].state else {
        continue
      }
      if keepLeases {
        lease.deadline = lastCall
        records[ordinal].state = .leased(lease)
      } else {
        // Not the shard's fault: it does not count against its attempts.
        emit(
          .attemptEnded(
            shard: records[ordinal].shard.id, token: token, ending: .released,
            evidence: "the coordinator ended and its workers with it", retryAfterSeconds: 0),
          now, &step)
      }
    }
    for id in workerOrder {
      if keepLeases {
        workers[id]?.graceEnds = lastCall
        expect(expiryAt: lastCall)
      } else {
        emit(.workerLeft(worker: id, reason: "the coordinator ended"), now, &step)
      }
    }
    return step.events
  }
}

// MARK: - Reading

extension Scheduler {
  /// When `tick` must be called at the latest; nil if only commands can change anything.
  ///
  /// While a lease or grace time runs this is never far off, because the scheduler takes a long
  /// silence for a coordinator that stood still and would put off every deadline.
  package var nextDeadline: Duration? {
    let expiry = nextExpiry.map { min($0, lastHandled + silenceMax / 2) }
    return [expiry, delayed.min?.time].compactMap(\.self).min()
  }

  /// Whether nothing more can happen: every shard is completed, given up, or waits for one that is
  /// given up; or the sweep was stopped and its last lease has ended.
  package var isFinished: Bool {
    stopReason != nil ? live.isEmpty : unsettled == 0
  }

  /// Whether the shard waits for one that is given up.
  func isStuck(_ record: ShardRecord) -> Bool {
    guard let dependency = record.shard.dependency, let ordinal = ordinals[dependency] else {
      return false
    }
    return record.state == .blocked && records[ordinal].state.isGivenUp
  }

  /// Whether nothing more can happen to the shard unless somebody asks for it.
  func isSettled(_ record: ShardRecord) -> Bool { record.state.isFinal || isStuck(record) }

  /// Numbers for progress displays.
  package var summary: SweepSummary {
    var summary = SweepSummary()
    for record in records {
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
      case .leased(let lease):
        summary.shardsRunning += 1
        summary.trialsRunning += trials.count - done
        summary.workDone += record.shard.cost * lease.fraction
        summary.tokensPerSecond += lease.tokensPerSecond
      case .quarantined:
        summary.shardsQuarantined += 1
        summary.trialsFailed += trials.count - done
      case .cancelled:
        summary.shardsCancelled += 1
        summary.trialsFailed += trials.count - done
      case .blocked:
        if isStuck(record) { summary.trialsFailed += trials.count - done }
      case .queued: break
      }
    }
    summary.shards = records.count
    summary.workers = workers.values.count { $0.connection != nil }
    return summary
  }

  /// The leases that are alive, by token.
  package var leases: [(shard: ShardID, lease: Lease)] {
    live.sorted { $0.key < $1.key }.compactMap { token, ordinal in
      guard case .leased(let lease) = records[ordinal].state else { return nil }
      return (records[ordinal].shard.id, lease)
    }
  }

  package func state(of shard: ShardID) -> ShardState? { ordinals[shard].map { records[$0].state } }

  /// How often the shard was leased.
  package func attempts(of shard: ShardID) -> Int {
    ordinals[shard].map { records[$0].attempts } ?? 0
  }

  /// Durable state alone, for comparing a live scheduler with a replayed one.
  package var durableState: DurableState {
    DurableState(
      shards: records.map { record in
        switch record.state {
        case .blocked: "blocked"
        case .queued: "queued \(record.attempts) \(record.failures) \(record.losses)"
        case .leased(let lease):
          "leased \(lease.token) \(lease.worker) \(lease.attempt) \(record.failures) \(record.losses)"
        case .completed(let token, let artifact):
          "completed \(token) \(artifact?.description ?? "")"
        case .quarantined(let reason): "quarantined \(reason)"
        case .cancelled(let reason): "cancelled \(reason)"
        }
      },
      trials: completedTrials.sorted(), workers: workerOrder, drained: drained,
      lastToken: lastToken, inputs: inputs, stopReason: stopReason, isCancelled: isCancelled,
      pauseReason: pauseReason)
  }

  package struct DurableState: Hashable, Sendable {
    package let shards: [String]
    package let trials: [TrialID]
    package let workers: [String]
    package let drained: Set<String>
    package let lastToken: UInt64
    package let inputs: [String: String]?
    package let stopReason: String?
    package let isCancelled: Bool
    package let pauseReason: String?
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
