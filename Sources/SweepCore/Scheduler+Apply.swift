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

    case .trialCompleted(let trial, _, _, _):
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
      case .released: break
      }
      enqueue(ordinal, notBefore: now + .seconds(retryAfterSeconds))

    case .shardQuarantined(let shard, let reason):
      let ordinal = known(shard)
      records[ordinal].state = .quarantined(reason: reason)
      unsettled -= 1 + records[ordinal].dependents.count

    case .sweepResumed:
      stopReason = nil
      for ordinal in records.indices {
        if case .quarantined = records[ordinal].state {
          records[ordinal].failures = 0
          records[ordinal].losses = 0
          unsettled += 1 + records[ordinal].dependents.count
          enqueue(ordinal, notBefore: now)
        }
      }

    case .sweepStopped(let reason):
      stopReason = reason
    }
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
  /// - Returns: events to append.
  package mutating func finishRecovery(keepLeases: Bool, now: Duration) -> [SweepEvent] {
    var step = Step()
    let resumable =
      stopReason != nil
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

  /// Whether nothing more can happen: every shard is completed, quarantined, or waits for one that
  /// is quarantined; or the sweep was stopped and its last lease has ended.
  package var isFinished: Bool {
    stopReason != nil ? live.isEmpty : unsettled == 0
  }

  /// Whether the shard waits for a quarantined one.
  func isStuck(_ record: ShardRecord) -> Bool {
    guard let dependency = record.shard.dependency, let ordinal = ordinals[dependency] else {
      return false
    }
    if case .quarantined = records[ordinal].state { return true }
    return false
  }

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
        }
      },
      trials: completedTrials.sorted(), workers: workerOrder, lastToken: lastToken,
      inputs: inputs, stopReason: stopReason)
  }

  package struct DurableState: Hashable, Sendable {
    package let shards: [String]
    package let trials: [TrialID]
    package let workers: [String]
    package let lastToken: UInt64
    package let inputs: [String: String]?
    package let stopReason: String?
  }
}

/// Where a sweep stands.
package struct SweepSummary: Hashable, Sendable {
  package var trials = 0
  package var trialsCompleted = 0
  package var trialsRunning = 0
  package var trialsFailed = 0
  package var shards = 0
  package var shardsCompleted = 0
  package var shardsRunning = 0
  package var shardsQuarantined = 0
  package var fineTunesCompleted = 0
  package var attempts = 0
  package var workers = 0
  /// Expected work of all shards, and the part of it that is done, in the plan's cost units.
  package var work = 0.0
  package var workDone = 0.0
  package var tokensPerSecond = 0.0

  package init() {}
}
