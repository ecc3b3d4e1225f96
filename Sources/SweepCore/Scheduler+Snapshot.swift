import Foundation

/// The durable state as bytes, so that a coordinator need not replay every event of a large sweep.
///
/// A snapshot only saves time: whoever cannot read it (another version, another plan) replays the
/// events instead, and both ways lead to the same state.
extension Scheduler {
  /// Raise with every change of what follows or of what it means.
  private static let snapshotVersion = 1

  private struct Snapshot: Codable {
    struct Worker: Codable {
      let info: WorkerInfo
      let order: Int
    }
    struct LiveLease: Codable {
      let shard: Int
      let token: LeaseToken
      let worker: String
      let attempt: Int
    }

    var version: Int
    /// Of the plan's shards in their order, because shards are named by their place in it.
    var plan: ContentDigest
    /// State, attempts, failures and losses of each shard, and the token of a completed one, as
    /// variable-length integers: nearly all of the snapshot, so it is kept small.
    var shards: Data
    var artifacts: [Int: ContentDigest] = [:]
    var reasons: [Int: String] = [:]
    /// Seconds until a shard that failed may run again.
    var delays: [Int: Double] = [:]
    var leases: [LiveLease] = []
    /// Trials with a result whose shard is not completed; of the others all have one.
    var partialTrials: [TrialID] = []
    var workers: [Worker] = []
    var joined: Int
    var drained: [String]
    var lastToken: UInt64
    var inputs: [String: String]?
    var stopReason: String?
    var isCancelled: Bool
    var pauseReason: String?
  }

  private enum StateCode: UInt64 {
    case blocked, queued, leased, completed, quarantined, cancelled
  }

  /// - Throws: `EncodingError`, which a correct scheduler never gives rise to.
  package func snapshot(now: Duration) throws -> Data {
    var snapshot = Snapshot(
      version: Self.snapshotVersion, plan: planDigest, shards: Data(), joined: joined,
      drained: drained.sorted(), lastToken: lastToken, inputs: inputs, stopReason: stopReason,
      isCancelled: isCancelled, pauseReason: pauseReason)
    var packed = PackedIntegers()
    for (ordinal, record) in records.enumerated() {
      var code = StateCode.blocked
      var completedBy: LeaseToken?
      switch record.state {
      case .blocked: break
      case .queued(let notBefore):
        code = .queued
        if notBefore > now { snapshot.delays[ordinal] = (notBefore - now) / .seconds(1) }
      case .leased(let lease):
        code = .leased
        snapshot.leases.append(
          .init(
            shard: ordinal, token: lease.token, worker: lease.worker, attempt: lease.attempt))
      case .completed(let token, let artifact):
        code = .completed
        completedBy = token
        snapshot.artifacts[ordinal] = artifact
      case .quarantined(let reason):
        code = .quarantined
        snapshot.reasons[ordinal] = reason
      case .cancelled(let reason):
        code = .cancelled
        snapshot.reasons[ordinal] = reason
      }
      packed.append(code.rawValue)
      packed.append(UInt64(record.attempts))
      packed.append(UInt64(record.failures))
      packed.append(UInt64(record.losses))
      if let completedBy {
        packed.append(completedBy.value)
      } else {
        snapshot.partialTrials += record.shard.trials.map(\.id).filter(completedTrials.contains)
      }
    }
    snapshot.shards = Data(packed.bytes)
    snapshot.workers = workers.values.sorted { $0.order < $1.order }
      .map { .init(info: $0.info, order: $0.order) }
    return try JSONEncoder().encode(snapshot)
  }

  /// The state that a snapshot holds; the events after it are still to be applied.
  ///
  /// - Returns: nil for what is not a snapshot of this version for this plan.
  package init?(
    plan: ShardPlan, policy: ExecutionPolicy, seed: UInt64, snapshot bytes: Data, now: Duration
  ) {
    guard let snapshot = try? JSONDecoder().decode(Snapshot.self, from: bytes),
      snapshot.version == Self.snapshotVersion
    else { return nil }
    self.init(plan: plan, policy: policy, seed: seed)
    guard snapshot.plan == planDigest else { return nil }

    joined = snapshot.joined
    drained = Set(snapshot.drained)
    lastToken = snapshot.lastToken
    inputs = snapshot.inputs
    stopReason = snapshot.stopReason
    isCancelled = snapshot.isCancelled
    pauseReason = snapshot.pauseReason
    for worker in snapshot.workers {
      workers[worker.info.id] = WorkerRecord(info: worker.info, order: worker.order)
    }
    let deadline = now + .seconds(policy.leaseSeconds)
    var leases: [Int: Lease] = [:]
    for lease in snapshot.leases {
      leases[lease.shard] = Lease(
        token: lease.token, worker: lease.worker, attempt: lease.attempt, deadline: deadline,
        fraction: 0, tokensPerSecond: 0)
      live[lease.token] = lease.shard
      workers[lease.worker]?.leases.insert(lease.token)
      expect(expiryAt: deadline)
    }

    var packed = PackedIntegers(bytes: [UInt8](snapshot.shards))
    completedTrials.reserveCapacity(records.count)
    for ordinal in records.indices {
      guard let code = packed.next().flatMap(StateCode.init(rawValue:)),
        let attempts = packed.next(), let failures = packed.next(), let losses = packed.next()
      else { return nil }
      records[ordinal].attempts = Int(attempts)
      records[ordinal].failures = Int(failures)
      records[ordinal].losses = Int(losses)
      switch code {
      case .blocked:
        records[ordinal].state = .blocked
      case .queued:
        enqueue(ordinal, notBefore: now + .seconds(snapshot.delays[ordinal] ?? 0))
      case .leased:
        guard let lease = leases[ordinal] else { return nil }
        records[ordinal].state = .leased(lease)
      case .completed:
        guard let token = packed.next() else { return nil }
        records[ordinal].state = .completed(
          token: LeaseToken(token), artifact: snapshot.artifacts[ordinal])
        completedTrials.formUnion(records[ordinal].shard.trials.map(\.id))
      case .quarantined:
        records[ordinal].state = .quarantined(reason: snapshot.reasons[ordinal] ?? "")
      case .cancelled:
        records[ordinal].state = .cancelled(reason: snapshot.reasons[ordinal] ?? "")
      }
    }
    completedTrials.formUnion(snapshot.partialTrials)
    unsettled = records.count { !isSettled($0) }
  }
}

/// Unsigned integers in seven-bit groups, the lowest first (LEB128).
private struct PackedIntegers {
  private(set) var bytes: [UInt8]
  private var position = 0

  init(bytes: [UInt8] = []) { self.bytes = bytes }

  mutating func append(_ value: UInt64) {
    var rest = value
    while rest >= 0x80 {
      bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
      rest >>= 7
    }
    bytes.append(UInt8(rest))
  }

  /// - Returns: nil at the end, and for what is no integer.
  mutating func next() -> UInt64? {
    var value: UInt64 = 0
    var shift: UInt64 = 0
    while position < bytes.count, shift < 64 {
      let byte = bytes[position]
      position += 1
      value |= UInt64(byte & 0x7F) << shift
      if byte < 0x80 { return value }
      shift += 7
    }
    return nil
  }
}
