/// How leases go on and end, and how workers come and go.
extension Scheduler {
  /// The shard that `worker` holds under `token`, if that lease is alive.
  func ownedShard(_ token: LeaseToken, worker: String) -> Int? {
    guard let found = live[token], found.lease.worker == worker else { return nil }
    return found.ordinal
  }

  /// The shard that `worker` holds under `token`; nil when that lease is over.
  package func shard(heldBy worker: String, under token: LeaseToken) -> ShardID? {
    ownedShard(token, worker: worker).map { records[$0].shard.id }
  }

  /// The shards that have work left, quarantined ones included: they may be tried again.
  package var unfinishedShards: [ShardID] {
    records.compactMap { $0.state.isCompleted ? nil : $0.shard.id }
  }

  /// The products of completed shards.
  package var artifacts: Set<ContentDigest> {
    Set(
      records.compactMap {
        if case .completed(_, let artifact) = $0.state { artifact } else { nil }
      })
  }

  // MARK: Workers

  mutating func connect(
    _ info: WorkerInfo, connection: UInt64, holding: [LeaseToken], inputs: [String: String],
    lifetime: Duration?, _ now: Duration, _ step: inout Step
  ) {
    // What an abandoned connection still delivers says nothing about the worker.
    if let current = workers[info.id]?.connection, current > connection {
      step.reply = .stale
      return
    }
    if let fixed = self.inputs, fixed != inputs {
      let differing = Set(fixed.keys).union(inputs.keys).sorted()
        .filter { fixed[$0] != inputs[$0] }
        .map { "\($0): \(fixed[$0] ?? "none") in the ledger, \(inputs[$0] ?? "none") here" }
      step.reply = .refused(
        "worker \(info.id) on \(info.host) has other inputs than the sweep's results so far come "
          + "from (\(differing.joined(separator: "; "))); give it the same model and data files")
      return
    }
    if info.capacity(shardMemoryBytes: policy.shardMemoryBytes) < 1 {
      step.reply = .refused(
        "worker \(info.id) on \(info.host) may use \((info.memoryBytes ?? 0) >> 20) MB, and a "
          + "shard needs \((policy.shardMemoryBytes ?? 0) >> 20) MB (execution.shard_memory_mb)")
      return
    }
    if self.inputs == nil { emit(.inputsFixed(inputs), now, &step) }
    if workers[info.id]?.info != info { emit(.workerJoined(info), now, &step) }
    workers[info.id]?.connection = connection
    workers[info.id]?.graceEnds = nil
    workers[info.id]?.endsAt = lifetime.map { now + $0 }
    wanted[info.id] = nil
    // The worker says which leases it still works on: those that it forgot are free again, those
    // that ended meanwhile it must forget.
    for token in (workers[info.id]?.leases ?? []).sorted() {
      if holding.contains(token) {
        renew(
          LeaseProgress(token: token, fraction: -1, tokensPerSecond: -1), worker: info.id, now,
          &step)
      } else {
        end(token, .lost, evidence: "worker \(info.id) came back without this lease", now, &step)
      }
    }
    for token in holding where ownedShard(token, worker: info.id) == nil {
      step.directives.append(.revoke(worker: info.id, token))
    }
  }

  mutating func disconnect(
    _ worker: String, connection: UInt64, reason: String, _ now: Duration, _ step: inout Step
  ) {
    // A late word about a connection that has been replaced says nothing about the worker.
    guard workers[worker]?.connection == connection else { return }
    workers[worker]?.connection = nil
    wanted[worker] = nil
    if workers[worker]?.leases.isEmpty == true {
      emit(.workerLeft(worker: worker, reason: reason), now, &step)
    } else {
      let graceEnds = now + .seconds(policy.disconnectGraceSeconds)
      workers[worker]?.graceEnds = graceEnds
      expect(expiryAt: graceEnds)
    }
  }

  /// The workers in the order of joining.
  var workerOrder: [String] {
    workers.sorted { $0.value.order < $1.value.order }.map(\.key)
  }

  // MARK: Leases

  mutating func renew(
    _ progress: LeaseProgress, worker: String, _ now: Duration, _ step: inout Step
  ) {
    guard ownedShard(progress.token, worker: worker) != nil,
      var lease = live[progress.token]?.lease
    else {
      step.directives.append(.revoke(worker: worker, progress.token))
      return
    }
    lease.deadline = now + .seconds(policy.leaseSeconds)
    // Earlier than before, if the lease was extended because the coordinator had stood still.
    expect(expiryAt: lease.deadline)
    if progress.fraction >= 0 {
      lease.fraction = min(progress.fraction, 1)
      if lease.firstFraction == nil {
        lease.firstFraction = lease.fraction
        lease.firstFractionAt = now
      }
    }
    if progress.tokensPerSecond >= 0 && progress.tokensPerSecond.isFinite {
      lease.tokensPerSecond = progress.tokensPerSecond
    }
    live[progress.token]?.lease = lease
  }

  /// Ends an attempt as its worker says.
  mutating func endOwned(
    _ token: LeaseToken, by worker: String, _ ending: AttemptEnding, evidence: String,
    _ now: Duration, _ step: inout Step
  ) {
    if ownedShard(token, worker: worker) != nil {
      end(token, ending, evidence: evidence, now, &step)
    } else {
      step.reply = .stale
    }
  }

  /// Ends an attempt, and tells its worker to stop.
  mutating func revoke(
    _ token: LeaseToken, _ ending: AttemptEnding, evidence: String, _ now: Duration,
    _ step: inout Step
  ) {
    guard let worker = live[token]?.lease.worker else { return }
    end(token, ending, evidence: evidence, now, &step)
    step.directives.append(.revoke(worker: worker, token))
  }

  /// Ends an attempt, quarantines the shard if it was one too many, and suspends the host if too
  /// many different shards failed there.
  mutating func end(
    _ token: LeaseToken, _ ending: AttemptEnding, evidence: String, _ now: Duration,
    _ step: inout Step
  ) {
    guard let ordinal = live[token]?.ordinal, let worker = live[token]?.lease.worker else { return }
    let shard = records[ordinal].shard.id
    let failures = records[ordinal].failures + (ending == .failed ? 1 : 0)
    let delay = ending == .failed ? backoff(failures: failures) : 0
    emit(
      .attemptEnded(
        shard: shard, token: token, ending: ending, evidence: evidence, retryAfterSeconds: delay),
      now, &step)
    if ending == .failed, let host = workers[worker]?.info.host {
      suspendIfBad(host, evidence: evidence, now, &step)
    }
    let record = records[ordinal]
    guard record.state.tokens.isEmpty,
      record.failures >= policy.attempts || record.losses >= policy.losses
    else { return }
    let reason =
      "\(record.failures) failed and \(record.losses) lost attempts; the last one: \(evidence)"
    emit(.shardQuarantined(shard: shard, reason: reason), now, &step)
    if let limit = policy.maximumFailures, stopReason == nil, quarantined >= limit {
      emit(
        .sweepStopped(reason: "\(quarantined) shards are quarantined (max_failures)"), now, &step)
    }
  }

  /// Seconds to wait after the n-th failure: doubling from the policy's value, at most 64 times it,
  /// of which a random half, so that shards that failed together do not return together.
  private mutating func backoff(failures: Int) -> Double {
    let longest = policy.retryBackoffSeconds * Double(1 << min(failures - 1, 6))
    return longest / 2 + longest / 2 * random()
  }

  /// Leaves a host alone for a while on which nothing but failures happens, as long as there is
  /// another one: if all fail, it is not the hosts.
  private mutating func suspendIfBad(
    _ host: String, evidence: String, _ now: Duration, _ step: inout Step
  ) {
    guard let record = hosts[host], record.failed.count >= policy.hostFailures,
      workers.values.contains(where: {
        $0.connection != nil && $0.info.host != host && !isSuspended($0.info.host, now)
          && !drained.contains($0.info.id)
      })
    else { return }
    let longest = policy.hostCoolDownSeconds * Double(1 << min(record.suspensions, 4))
    let names = record.failed.sorted().prefix(10).map(\.description).joined(separator: ", ")
    emit(
      .hostSuspended(
        host: host, seconds: longest / 2 + longest / 2 * random(),
        evidence: "\(record.failed.count) different shards failed (\(names)); the last: \(evidence)"
      ), now, &step)
  }

  /// Whether the host gets nothing for the time being.
  package func isSuspended(_ host: String, _ now: Duration) -> Bool {
    hosts[host]?.suspendedUntil.map { $0 > now } ?? false
  }

  /// Ends what nobody was heard of for too long.
  mutating func expire(_ now: Duration, _ step: inout Step) {
    guard let nextExpiry, nextExpiry <= now else { return }
    self.nextExpiry = nil
    for token in live.keys.sorted() {
      guard let lease = live[token]?.lease else { continue }
      if let ends = workers[lease.worker]?.graceEnds, ends <= now {
        end(
          token, .lost,
          evidence: "the connection to worker \(lease.worker) broke and it did not come back", now,
          &step)
      } else if lease.deadline <= now {
        revoke(token, .expired, evidence: "no heartbeat from worker \(lease.worker)", now, &step)
      } else {
        expect(expiryAt: lease.deadline)
      }
    }
    for id in workerOrder {
      guard let ends = workers[id]?.graceEnds else { continue }
      if ends <= now {
        emit(.workerLeft(worker: id, reason: "connection lost"), now, &step)
      } else {
        expect(expiryAt: ends)
      }
    }
  }
}
