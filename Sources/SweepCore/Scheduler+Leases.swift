/// How leases begin, go on and end.
extension Scheduler {
  /// The shard that `worker` holds under `token`, if that lease is alive.
  func ownedShard(_ token: LeaseToken, worker: String) -> Int? {
    guard let ordinal = live[token], case .leased(let lease) = records[ordinal].state,
      lease.token == token, lease.worker == worker
    else { return nil }
    return ordinal
  }

  mutating func renew(
    _ progress: LeaseProgress, worker: String, _ now: Duration, _ step: inout Step
  ) {
    guard let ordinal = ownedShard(progress.token, worker: worker),
      case .leased(var lease) = records[ordinal].state
    else {
      step.directives.append(.revoke(worker: worker, progress.token))
      return
    }
    lease.deadline = now + .seconds(policy.leaseSeconds)
    if progress.fraction >= 0 { lease.fraction = min(progress.fraction, 1) }
    if progress.tokensPerSecond >= 0 && progress.tokensPerSecond.isFinite {
      lease.tokensPerSecond = progress.tokensPerSecond
    }
    records[ordinal].state = .leased(lease)
  }

  /// Ends the attempt under the shard's lease, and quarantines the shard if it was one too many.
  mutating func end(
    _ ordinal: Int, _ ending: AttemptEnding, evidence: String, _ now: Duration, _ step: inout Step
  ) {
    guard case .leased(let lease) = records[ordinal].state else { return }
    let shard = records[ordinal].shard.id
    let failures = records[ordinal].failures + (ending == .failed ? 1 : 0)
    let delay = ending == .failed ? backoff(failures: failures) : 0
    emit(
      .attemptEnded(
        shard: shard, token: lease.token, ending: ending, evidence: evidence,
        retryAfterSeconds: delay), now, &step)
    let record = records[ordinal]
    if record.failures >= policy.attempts || record.losses >= policy.losses {
      let reason =
        "\(record.failures) failed and \(record.losses) lost attempts; the last one: \(evidence)"
      emit(.shardQuarantined(shard: shard, reason: reason), now, &step)
      guard let limit = policy.maximumFailures, stopReason == nil else { return }
      let quarantined = records.count {
        if case .quarantined = $0.state { true } else { false }
      }
      if quarantined >= limit {
        emit(
          .sweepStopped(reason: "\(quarantined) shards are quarantined (max_failures)"), now,
          &step)
      }
    }
  }

  /// Seconds to wait after the n-th failure: doubling from the policy's value, at most 64 times it,
  /// of which a random half, so that shards that failed together do not return together.
  private mutating func backoff(failures: Int) -> Double {
    randomState &+= 0x9E37_79B9_7F4A_7C15
    var mixed = randomState
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    let uniform = Double((mixed ^ (mixed >> 31)) >> 11) * 0x1p-53
    let longest = policy.retryBackoffSeconds * Double(1 << min(failures - 1, 6))
    return longest / 2 + longest / 2 * uniform
  }

  mutating func expire(_ now: Duration, _ step: inout Step) {
    guard let nextExpiry, nextExpiry <= now else { return }
    self.nextExpiry = nil
    for token in live.keys.sorted() {
      guard let ordinal = live[token], case .leased(let lease) = records[ordinal].state else {
        continue
      }
      if let ends = workers[lease.worker]?.graceEnds, ends <= now {
        end(
          ordinal, .lost,
          evidence: "the connection to worker \(lease.worker) broke and it did not come back", now,
          &step)
      } else if lease.deadline <= now {
        end(
          ordinal, .expired, evidence: "no heartbeat from worker \(lease.worker)", now, &step)
        step.directives.append(.revoke(worker: lease.worker, token))
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

  /// The workers in the order of joining.
  var workerOrder: [String] {
    workers.sorted { $0.value.order < $1.value.order }.map(\.key)
  }

  /// Leases queued shards to workers that want one.
  mutating func dispatch(_ now: Duration, _ step: inout Step) {
    guard stopReason == nil, pauseReason == nil, !isEnding, !wanted.isEmpty else { return }
    while let ordinal = popReady(now: now) {
      guard let worker = nextWorker else {
        ready.insert(ordinal)
        return
      }
      let record = records[ordinal]
      let token = LeaseToken(lastToken + 1)
      emit(
        .shardLeased(
          shard: record.shard.id, worker: worker, token: token, attempt: record.attempts + 1),
        now, &step)
      wanted[worker] = wanted[worker].flatMap { $0 > 1 ? $0 - 1 : nil }
      let input: ContentDigest? = record.shard.dependency.flatMap { dependency in
        guard let needed = ordinals[dependency],
          case .completed(_, let artifact) = records[needed].state
        else { return nil }
        return artifact
      }
      step.directives.append(
        .assign(
          worker: worker,
          Assignment(
            shard: record.shard, token: token, attempt: record.attempts + 1,
            remainingTrials: record.shard.trials.filter { !completedTrials.contains($0.id) },
            input: input)))
    }
  }

  /// Of the workers that want a shard, the one with the fewest leases.
  private var nextWorker: String? {
    wanted.keys.compactMap { id -> (leases: Int, order: Int, id: String)? in
      guard let record = workers[id] else { return nil }
      return (record.leases.count, record.order, id)
    }.min { ($0.leases, $0.order) < ($1.leases, $1.order) }?.id
  }
}
