extension Scheduler {
  /// Changes the durable state by one event: the only place that does, live and in recovery.
  package mutating func apply(_ event: SweepEvent, now: Duration) {
    switch event {
    case .inputsFixed(let inputs):
      self.inputs = inputs

    case .workerJoined(let info):
      let known = workers[info.id]
      workers[info.id] = WorkerRecord(
        info: info, order: known?.order ?? joined, leases: known?.leases ?? [], data: known?.data)
      joined += 1

    case .workerLeft(let worker, _):
      moveToData(nil, worker)
      workers[worker] = nil

    case .shardLeased(let shard, let worker, let token, let attempt):
      begin(token, of: known(shard), worker: worker, attempt: attempt, now: now)

    case .trialCompleted(let trial, _, _, _, _):
      let added = completedTrials.insert(trial).inserted
      precondition(added, "trial \(trial) has two results")

    case .shardCompleted(let shard, let token, let artifact, _, let seconds):
      let ordinal = known(shard)
      let lease = endLease(token, of: ordinal)
      precondition(
        records[ordinal].state.tokens == [token], "shard \(shard) is completed while a copy runs")
      records[ordinal].state = .completed(token: token, artifact: artifact)
      completedBy.insert(token)
      unsettled -= 1
      if let info = workers[lease.worker]?.info {
        hosts[info.host]?.failed = []
        hosts[info.host]?.suspensions = 0
        if let seconds {
          costs.learn(records[ordinal].shard, machine: info.machine, seconds: seconds)
        }
      }
      for dependent in records[ordinal].dependents where records[dependent].state == .blocked {
        enqueue(dependent, notBefore: now)
      }

    case .attemptEnded(let shard, let token, let ending, _, let retryAfterSeconds):
      let ordinal = known(shard)
      let lease = endLease(token, of: ordinal)
      switch ending {
      case .failed:
        records[ordinal].failures += 1
        if let host = workers[lease.worker]?.info.host {
          records[ordinal].failedOn = host
          hosts[host, default: HostRecord()].failed.insert(shard)
        }
      case .lost, .expired: records[ordinal].losses += 1
      case .released, .cancelled, .superseded: break
      }
      let others = records[ordinal].state.tokens.filter { $0 != token }
      if others.isEmpty {
        enqueue(ordinal, notBefore: now + .seconds(retryAfterSeconds))
      } else {
        records[ordinal].state = .leased(others)
      }

    case .shardQuarantined(let shard, let reason):
      giveUp(known(shard), .quarantined(reason: reason))

    case .shardCancelled(let shard, let reason):
      giveUp(known(shard), .cancelled(reason: reason))

    case .shardRetried(let shard):
      revive(known(shard), now: now)

    case .shardPrioritised(let shard, let priority):
      let ordinal = known(shard)
      setPriority(priority, of: ordinal)
      var next = needed(by: ordinal)
      while let needed = next {
        if records[needed].priority < priority { setPriority(priority, of: needed) }
        next = self.needed(by: needed)
      }

    case .workerDrained(let worker, _):
      drained.insert(worker)
      wanted[worker] = nil

    case .hostSuspended(let host, let seconds, let evidence):
      var record = hosts[host, default: HostRecord()]
      record.failed = []
      record.suspensions += 1
      record.evidence = evidence
      record.suspendedUntil = now + .seconds(seconds)
      hosts[host] = record

    case .sweepResumed:
      stopReason = nil
      isCancelled = false
      for ordinal in records.indices {
        if case .quarantined = records[ordinal].state { revive(ordinal, now: now) }
      }
      nextLook = .zero

    case .sweepStopped(let reason):
      stopReason = reason

    case .sweepCancelled(let reason):
      stopReason = reason
      isCancelled = true

    case .leasingPaused(let reason):
      pauseReason = reason

    case .leasingContinued:
      pauseReason = nil
      nextLook = .zero
    }
  }

  private func known(_ shard: ShardID) -> Int {
    guard let ordinal = ordinals[shard] else {
      preconditionFailure("shard \(shard) is not part of the plan")
    }
    return ordinal
  }

  // MARK: Leases

  private mutating func begin(
    _ token: LeaseToken, of ordinal: Int, worker: String, attempt: Int, now: Duration
  ) {
    precondition(token.value > lastToken, "token \(token) was given out before")
    let others = records[ordinal].state.tokens
    precondition(others.count < 2, "shard \(records[ordinal].shard.id) has two leases already")
    lastToken = token.value
    records[ordinal].attempts = attempt
    records[ordinal].state = .leased(others + [token])
    let deadline = now + .seconds(policy.leaseSeconds)
    live[token] = LiveLease(
      ordinal: ordinal,
      lease: Lease(
        token: token, worker: worker, attempt: attempt, deadline: deadline, since: now,
        isTimed: !records[ordinal].shard.trials.contains { completedTrials.contains($0.id) }))
    expect(expiryAt: deadline)
    workers[worker]?.leases.insert(token)
    moveToData(ready.data(of: ordinal), worker)
  }

  /// Takes a token from those that are alive; the shard's state is the caller's to change.
  private mutating func endLease(_ token: LeaseToken, of ordinal: Int) -> Lease {
    guard let ended = live.removeValue(forKey: token), ended.ordinal == ordinal else {
      preconditionFailure(
        "shard \(records[ordinal].shard.id) is \(records[ordinal].state), not leased as \(token)")
    }
    workers[ended.lease.worker]?.leases.remove(token)
    if wanted[ended.lease.worker] != nil { hungry.insert(ended.lease.worker) }
    return ended.lease
  }

  /// Keeps count of the workers that work with the same data.
  private mutating func moveToData(_ data: Int?, _ worker: String) {
    guard let old = workers[worker], old.data != data else { return }
    if let left = old.data { workersOnData[left, default: 0] -= 1 }
    if let data { workersOnData[data, default: 0] += 1 }
    workers[worker]?.data = data
  }

  // MARK: Giving up and trying again

  /// Ends a shard without a result; what waits for it waits in vain.
  private mutating func giveUp(_ ordinal: Int, _ state: ShardState) {
    precondition(
      state.isGivenUp && !records[ordinal].state.isCompleted
        && records[ordinal].state.tokens.isEmpty,
      "shard \(records[ordinal].shard.id) is \(records[ordinal].state) and cannot be given up")
    let wasOpen = !isSettled(ordinal)
    if case .quarantined = records[ordinal].state { quarantined -= 1 }
    if case .quarantined = state { quarantined += 1 }
    records[ordinal].state = state
    if wasOpen { unsettled -= 1 + waiting(for: ordinal) }
  }

  /// Gives a shard new attempts, and hope to what waits for it.
  private mutating func revive(_ ordinal: Int, now: Duration) {
    let wasGivenUp = records[ordinal].state.isGivenUp
    if case .quarantined = records[ordinal].state { quarantined -= 1 }
    records[ordinal].failures = 0
    records[ordinal].losses = 0
    records[ordinal].failedOn = nil
    if let needed = needed(by: ordinal), !records[needed].state.isCompleted {
      records[ordinal].state = .blocked
    } else {
      enqueue(ordinal, notBefore: now)
    }
    if wasGivenUp, !isSettled(ordinal) { unsettled += 1 + waiting(for: ordinal) }
  }

  /// Shards that wait for this one, directly or through others that wait. Behind one that was given
  /// up they wait for that.
  private func waiting(for ordinal: Int) -> Int {
    var count = 0
    var rest = records[ordinal].dependents
    while let next = rest.popLast() {
      guard records[next].state == .blocked else { continue }
      count += 1
      rest += records[next].dependents
    }
    return count
  }

  private mutating func setPriority(_ priority: Int, of ordinal: Int) {
    records[ordinal].priority = priority
    if case .queued(let notBefore) = records[ordinal].state {
      enqueue(ordinal, notBefore: notBefore)
    }
  }

  // MARK: Recovery

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
    lastHandled = max(lastHandled, now)
    var step = Step()
    let resumable = isCancelled ? revive : stopReason != nil || quarantined > 0
    if resumable { emit(.sweepResumed, now, &step) }
    // A local run has no operator who could end a pause that somebody left behind.
    if !keepLeases, pauseReason != nil { emit(.leasingContinued, now, &step) }
    for host in hosts.keys { hosts[host]?.suspendedUntil = nil }
    let lastCall = now + .seconds(policy.leaseSeconds)
    for token in live.keys.sorted() {
      live[token]?.lease.since = now
      live[token]?.lease.isTimed = false
      if keepLeases {
        live[token]?.lease.deadline = lastCall
        expect(expiryAt: lastCall)
      } else if let ordinal = live[token]?.ordinal {
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
