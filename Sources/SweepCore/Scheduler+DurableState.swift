extension Scheduler {
  /// All that a sweep's events say about its state, and nothing that a restart may forget. A live
  /// scheduler and one that was made from the ledger have equal durable states; a scheduler that is
  /// restored from one continues as the original would after a restart.
  ///
  /// Shards are told by their place in the plan, in columns, which `snapshot` encodes by itself so
  /// that the state of a large sweep is small.
  package struct DurableState: Codable, Hashable, Sendable {
    enum Phase: UInt8, Codable { case blocked, queued, leased, completed, quarantined, cancelled }

    struct HeldLease: Codable, Hashable {
      let token: LeaseToken
      let ordinal: Int
      let worker: String
      let attempt: Int
    }

    struct Joined: Codable, Hashable {
      let info: WorkerInfo
      let order: Int
      let data: Int?
    }

    // One element for each shard.
    var phases: [Phase] = []
    var attempts: [Int] = []
    var failures: [Int] = []
    var losses: [Int] = []
    /// Token of the attempt that completed it; 0 if it is not completed.
    var completedBy: [UInt64] = []

    // What few shards have, by their ordinals.
    var artifacts: [Int: ContentDigest] = [:]
    var reasons: [Int: String] = [:]
    var priorities: [Int: Int] = [:]
    var failedOn: [Int: String] = [:]
    /// Results of shards that are not completed.
    var partialResults: [Int: Set<TrialID>] = [:]

    /// By token.
    var leases: [HeldLease] = []
    /// In the order of joining.
    var workers: [Joined] = []
    var joined = 0
    var drained: Set<String> = []
    var hosts: [String: HostRecord] = [:]
    var costs = CostModel()
    package internal(set) var lastToken: UInt64 = 0
    var inputs: [String: String]?
    var stopReason: String?
    var isCancelled = false
    var pauseReason: String?

    /// All but the columns.
    enum CodingKeys: CodingKey {
      case artifacts, reasons, priorities, failedOn, partialResults, leases, workers, joined
      case drained, hosts, costs, lastToken, inputs, stopReason, isCancelled, pauseReason
    }
  }

  package var durableState: DurableState {
    var state = DurableState()
    for (ordinal, record) in records.enumerated() {
      var completedBy: UInt64 = 0
      switch record.state {
      case .blocked: state.phases.append(.blocked)
      case .queued: state.phases.append(.queued)
      case .leased: state.phases.append(.leased)
      case .completed(let token, let artifact):
        state.phases.append(.completed)
        completedBy = token.value
        state.artifacts[ordinal] = artifact
      case .quarantined(let reason):
        state.phases.append(.quarantined)
        state.reasons[ordinal] = reason
      case .cancelled(let reason):
        state.phases.append(.cancelled)
        state.reasons[ordinal] = reason
      }
      state.completedBy.append(completedBy)
      state.attempts.append(record.attempts)
      state.failures.append(record.failures)
      state.losses.append(record.losses)
      if record.priority != 0 { state.priorities[ordinal] = record.priority }
      state.failedOn[ordinal] = record.failedOn
      // Only a lease brings results.
      if record.attempts > 0, !record.state.isCompleted {
        let done = record.shard.trials.map(\.id).filter { completedTrials.contains($0) }
        if !done.isEmpty { state.partialResults[ordinal] = Set(done) }
      }
    }
    state.leases = live.sorted { $0.key < $1.key }.map { token, held in
      DurableState.HeldLease(
        token: token, ordinal: held.ordinal, worker: held.lease.worker, attempt: held.lease.attempt)
    }
    state.workers = workers.values.sorted { $0.order < $1.order }.map {
      DurableState.Joined(info: $0.info, order: $0.order, data: $0.data)
    }
    state.joined = joined
    state.drained = drained
    state.hosts = hosts.mapValues { host in
      var host = host
      host.suspendedUntil = nil
      return host
    }
    state.costs = costs
    state.lastToken = lastToken
    state.inputs = inputs
    state.stopReason = stopReason
    state.isCancelled = isCancelled
    state.pauseReason = pauseReason
    return state
  }

  /// Continues from a durable state of the same plan: as if its events had been applied.
  /// `finishRecovery` must follow.
  ///
  /// - Parameter delays: seconds until a shard may run again, by its ordinal.
  /// - Returns: nil if the state is not one of this plan.
  init?(
    plan: ShardPlan, planDigest: ContentDigest? = nil, policy: ExecutionPolicy, seed: UInt64,
    restoring state: DurableState, delays: [Int: Double] = [:], now: Duration
  ) {
    let count = plan.shards.count
    guard
      [
        state.phases.count, state.attempts.count, state.failures.count, state.losses.count,
        state.completedBy.count,
      ].allSatisfy({ $0 == count }),
      [
        Array(state.artifacts.keys), Array(state.reasons.keys), Array(state.priorities.keys),
        Array(state.failedOn.keys), Array(state.partialResults.keys), state.leases.map(\.ordinal),
      ].joined().allSatisfy({ (0..<count).contains($0) })
    else { return nil }
    self.init(unqueued: plan, planDigest: planDigest, policy: policy, seed: seed)
    completedTrials.reserveCapacity(plan.grid.trials.count)
    completedBy.reserveCapacity(count)
    for ordinal in records.indices {
      records[ordinal].attempts = state.attempts[ordinal]
      records[ordinal].failures = state.failures[ordinal]
      records[ordinal].losses = state.losses[ordinal]
      records[ordinal].priority = state.priorities[ordinal, default: 0]
      records[ordinal].failedOn = state.failedOn[ordinal]
      let reason = state.reasons[ordinal, default: ""]
      switch state.phases[ordinal] {
      case .blocked: records[ordinal].state = .blocked
      case .queued: enqueue(ordinal, notBefore: now + .seconds(delays[ordinal, default: 0]))
      case .leased: records[ordinal].state = .leased([])
      case .completed:
        let token = LeaseToken(state.completedBy[ordinal])
        records[ordinal].state = .completed(token: token, artifact: state.artifacts[ordinal])
        completedBy.insert(token)
      case .quarantined:
        records[ordinal].state = .quarantined(reason: reason)
        quarantined += 1
      case .cancelled: records[ordinal].state = .cancelled(reason: reason)
      }
      if let done = state.partialResults[ordinal] {
        guard done.isSubset(of: records[ordinal].shard.trials.map(\.id)) else { return nil }
        completedTrials.formUnion(done)
      }
    }
    for (trial, ordinal) in shardOfTrial where records[ordinal].state.isCompleted {
      completedTrials.insert(trial)
    }
    for worker in state.workers {
      workers[worker.info.id] = WorkerRecord(
        info: worker.info, order: worker.order, data: worker.data)
      if let data = worker.data { workersOnData[data, default: 0] += 1 }
    }
    for held in state.leases {
      guard case .leased(let others) = records[held.ordinal].state else { return nil }
      records[held.ordinal].state = .leased(others + [held.token])
      let deadline = now + .seconds(policy.leaseSeconds)
      live[held.token] = LiveLease(
        ordinal: held.ordinal,
        lease: Lease(
          token: held.token, worker: held.worker, attempt: held.attempt, deadline: deadline,
          since: now, isTimed: false))
      workers[held.worker]?.leases.insert(held.token)
      expect(expiryAt: deadline)
    }
    guard !records.contains(where: { $0.state == .leased([]) }) else { return nil }
    let hopeless = hopeless
    unsettled = records.indices.count { !records[$0].state.isCompleted && !hopeless[$0] }
    joined = state.joined
    drained = state.drained
    hosts = state.hosts
    costs = state.costs
    lastToken = state.lastToken
    inputs = state.inputs
    stopReason = state.stopReason
    isCancelled = state.isCancelled
    pauseReason = state.pauseReason
  }
}
