import HeapModule

/// Who gets what.
///
/// Of the shards that a worker may have, it gets one of the highest priority; among these first the
/// one that the longest chain of others waits for; then the longest expected one, where a shard that shares data with the
/// worker's last one counts as longer than it is. Longest first keeps the end of a sweep short;
/// shared data save a download and the computation of cached activations.
extension Scheduler {
  /// How much longer a shard counts for a worker that has its data. Shards that differ by less than
  /// this are taken in the order that saves work, others longest first.
  private static let sharedDataFactor = 1.5
  /// A worker gets a shard only if it has this many times the expected time left.
  private static let lifetimeMargin = 1.25
  /// Entries of a bucket looked at for one that may go to a certain host.
  private static let looksMax = 16

  /// Leases queued shards, and copies of stragglers, to workers that want one.
  mutating func dispatch(_ now: Duration, _ step: inout Step) {
    guard leasesNow, !wanted.isEmpty else { return }
    if let look = nextLook, look <= now {
      nextLook = nil
      hungry = Set(wanted.keys)
    }
    if !ready.isEmpty {
      var idlest = Heap(hungry.compactMap { candidate($0) })
      while let next = idlest.popMin() {
        guard !ready.isEmpty else { break }
        guard let ordinal = takeShard(for: next.id, now) else { continue }
        lease(ordinal, to: next.id, now, &step)
        if let again = candidate(next.id) { idlest.insert(again) }
      }
    }
    hungry = []
    if ready.isEmpty {
      copyStragglers(now, &step)
    } else if !wanted.isEmpty {
      // Whoever is left has too little time for what is queued; expectations change.
      look(at: now + .seconds(policy.leaseSeconds))
    }
  }

  /// A worker that wants a shard; the one with the fewest leases comes first.
  private struct Candidate: Comparable {
    let leases: Int
    let order: Int
    let id: String
    static func < (left: Candidate, right: Candidate) -> Bool {
      (left.leases, left.order) < (right.leases, right.order)
    }
  }

  private func candidate(_ id: String) -> Candidate? {
    guard wanted[id] != nil, let record = workers[id], record.leases.count < capacity(of: record)
    else { return nil }
    return Candidate(leases: record.leases.count, order: record.order, id: id)
  }

  /// Shards that the worker may run at once.
  func capacity(of worker: WorkerRecord) -> Int {
    worker.info.capacity(shardMemoryBytes: policy.shardMemoryBytes)
  }

  private mutating func lease(
    _ ordinal: Int, to worker: String, _ now: Duration, _ step: inout Step
  ) {
    let shard = records[ordinal].shard
    let attempt = records[ordinal].attempts + 1
    let token = LeaseToken(lastToken + 1)
    emit(.shardLeased(shard: shard.id, worker: worker, token: token, attempt: attempt), now, &step)
    wanted[worker] = wanted[worker].flatMap { $0 > 1 ? $0 - 1 : nil }
    let input: ContentDigest? = shard.dependency.flatMap { dependency in
      guard let needed = ordinals[dependency],
        case .completed(_, let artifact) = records[needed].state
      else { return nil }
      return artifact
    }
    step.directives.append(
      .assign(
        worker: worker,
        Assignment(
          shard: shard, token: token, attempt: attempt,
          remainingTrials: shard.trials.filter { !completedTrials.contains($0.id) },
          input: input)))
  }

  /// Whether anything is leased at present.
  var leasesNow: Bool { stopReason == nil && pauseReason == nil && !isEnding }

  // MARK: Choosing

  /// Takes the best shard for a worker from the queue; nil if there is none that it may have.
  private mutating func takeShard(for worker: String, _ now: Duration) -> Int? {
    guard let record = workers[worker], mayWork(record, now) else { return nil }
    var best: (bucket: Int, entry: ReadyQueue.Entry, rank: Rank)?
    for bucket in ready.occupied {
      guard fits(bucket, record, now), let entry = usableHead(of: bucket, record, now) else {
        continue
      }
      let rank = rank(of: bucket, entry, for: record)
      if best.map({ rank < $0.rank }) ?? true { best = (bucket, entry, rank) }
    }
    guard let best else { return nil }
    ready.remove(best.entry, from: best.bucket)
    return best.entry.ordinal
  }

  /// Smaller is better.
  private struct Rank: Comparable {
    let priority: Int
    let followers: Int
    let weight: Double
    /// Workers on the same data, so that those that are free to choose spread over the data.
    let others: Int
    let ordinal: Int

    static func < (left: Rank, right: Rank) -> Bool {
      if left.priority != right.priority { return left.priority > right.priority }
      if left.followers != right.followers { return left.followers > right.followers }
      if left.weight != right.weight { return left.weight > right.weight }
      return (left.others, left.ordinal) < (right.others, right.ordinal)
    }
  }

  private func rank(of number: Int, _ entry: ReadyQueue.Entry, for worker: WorkerRecord) -> Rank {
    let bucket = ready.buckets[number]
    let isShared = worker.data == bucket.data
    return Rank(
      priority: entry.priority, followers: bucket.followers,
      weight: costs.weight(bucket.shardClass, cost: bucket.cost)
        * (isShared ? Self.sharedDataFactor : 1),
      others: workersOnData[bucket.data, default: 0], ordinal: entry.ordinal)
  }

  /// Whether the worker's host is trusted for the time being.
  private mutating func mayWork(_ worker: WorkerRecord, _ now: Duration) -> Bool {
    guard let until = hosts[worker.info.host]?.suspendedUntil, until > now else { return true }
    look(at: until)
    return false
  }

  private mutating func look(at time: Duration) { nextLook = min(nextLook ?? time, time) }

  /// Whether the worker can finish a shard of the bucket before its time is up. What was never
  /// finished by anybody has to be tried, but not in a worker's last moments.
  private func fits(_ bucket: Int, _ worker: WorkerRecord, _ now: Duration) -> Bool {
    guard let endsAt = worker.endsAt, let entry = ready.head(of: bucket) else { return true }
    return fits(records[entry.ordinal].shard, worker, endsAt - now)
  }

  private func fits(_ shard: Shard, _ worker: WorkerRecord, _ left: Duration) -> Bool {
    guard left > .zero else { return false }
    guard let seconds = costs.seconds(shard, machine: worker.info.machine) else {
      return left >= .seconds(policy.leaseSeconds)
    }
    return .seconds(seconds * Self.lifetimeMargin) <= left
  }

  /// The first entry of a bucket that is queued and that the worker's host may have.
  private mutating func usableHead(
    of bucket: Int, _ worker: WorkerRecord, _ now: Duration
  ) -> ReadyQueue.Entry? {
    var skipped: [ReadyQueue.Entry] = []
    var found: ReadyQueue.Entry?
    while found == nil, skipped.count < Self.looksMax, let entry = ready.head(of: bucket) {
      guard case .queued(let notBefore) = records[entry.ordinal].state,
        records[entry.ordinal].priority == entry.priority
      else {
        ready.popHead(of: bucket)
        continue
      }
      if notBefore > now {
        ready.popHead(of: bucket)
        delayed.insert(Delayed(time: notBefore, ordinal: entry.ordinal))
      } else if avoids(entry.ordinal, worker.info.host, since: notBefore, now) {
        ready.popHead(of: bucket)
        skipped.append(entry)
      } else {
        found = entry
      }
    }
    for entry in skipped { ready.insert(entry.ordinal, priority: entry.priority) }
    return found
  }

  /// Whether a shard that failed on a host should wait for another one, which it does for two lease
  /// times at most.
  private mutating func avoids(
    _ ordinal: Int, _ host: String, since: Duration, _ now: Duration
  ) -> Bool {
    guard records[ordinal].failedOn == host else { return false }
    let ends = since + .seconds(2 * policy.leaseSeconds)
    guard ends > now,
      workers.values.contains(where: { $0.connection != nil && $0.info.host != host })
    else { return false }
    look(at: ends)
    return true
  }

  // MARK: Stragglers

  /// When nothing is queued, gives second copies of the shards that are expected to run longest to
  /// workers that have nothing to do. The first of two copies to complete the shard wins.
  private mutating func copyStragglers(_ now: Duration, _ step: inout Step) {
    guard let factor = policy.stragglerFactor, now >= nextStragglerLook, !live.isEmpty else {
      return
    }
    nextStragglerLook = now + .seconds(policy.heartbeatSeconds)
    var idlest = Heap(wanted.keys.compactMap { candidate($0) })
    var stragglers: [(token: LeaseToken, seconds: Double)] = []
    let fastest = wanted.keys.map { costs.slowness(of: workers[$0]?.info.machine ?? "") }.min() ?? 1
    for (token, found) in live where mayBeCopied(found.ordinal) {
      if let seconds = secondsLeft(found, now),
        let usual = costs.seconds(records[found.ordinal].shard, machine: ""),
        seconds > factor * usual * fastest
      {
        stragglers.append((token, seconds))
      }
    }
    stragglers.sort { ($1.seconds, $0.token) < ($0.seconds, $1.token) }
    for (token, seconds) in stragglers {
      guard let found = live[token] else { continue }
      let shard = records[found.ordinal].shard
      var others: [Candidate] = []
      while let next = idlest.popMin() {
        guard let record = workers[next.id], next.id != found.lease.worker, mayWork(record, now),
          record.endsAt.map({ fits(shard, record, $0 - now) }) ?? true,
          let fresh = costs.seconds(shard, machine: record.info.machine), seconds > factor * fresh
        else {
          others.append(next)
          continue
        }
        lease(found.ordinal, to: next.id, now, &step)
        if let again = candidate(next.id) { others.append(again) }
        break
      }
      for other in others { idlest.insert(other) }
      if idlest.isEmpty { return }
    }
  }

  /// Even if both copies fail, the shard has had no more attempts than allowed.
  private func mayBeCopied(_ ordinal: Int) -> Bool {
    let record = records[ordinal]
    return record.state.tokens.count == 1 && record.failures + 2 <= policy.attempts
      && record.losses + 2 <= policy.losses
  }

  /// How long a lease is expected to go on: by its progress since it was first told; without any, as
  /// long as was expected at first, and from then on as long again as it has taken.
  private func secondsLeft(_ found: LiveLease, _ now: Duration) -> Double? {
    guard
      let expected = costs.seconds(
        records[found.ordinal].shard,
        machine: workers[found.lease.worker]?.info.machine ?? "")
    else { return nil }
    let elapsed = (now - found.lease.since) / .seconds(1)
    let lease = found.lease
    let gained = lease.fraction - (lease.firstFraction ?? 0)
    guard gained > 0.02 else { return max(expected - elapsed, elapsed) }
    return (now - lease.firstFractionAt) / .seconds(1) * (1 - lease.fraction) / gained
  }
}
