import SweepCore

/// What must hold in every sweep, whatever fails.
package enum SweepInvariant: String, CaseIterable, Sendable {
  case oneResultPerTrial = "a trial has at most one result"
  case acknowledgedIsKept = "an acknowledged report is durable and stays so"
  case deadLeaseIsRefused = "nothing is accepted under a dead lease"
  case tokensGrow = "lease tokens are unique and grow"
  case copiesAreForStragglers =
    "a shard has at most two live leases, on different workers, the second when nothing is queued"
  case priorityComesFirst = "a shard is leased before those of lower priority"
  case suspendedHostGetsNothing = "a suspended host gets no shard"
  case lifetimeIsRespected = "a shard is leased to a worker that is expected to finish it in time"
  case dependencyComesFirst = "a shard is leased after its dependency is completed"
  case completedHasResults = "a completed shard has all its results"
  case settledIsNotRepeated = "a completed, quarantined or cancelled shard is not leased"
  case attemptsAreBounded = "a shard has as many attempts as the policy allows"
  case slotsAreRespected = "a worker has no more leases than slots"
  case drainedGetsNothing = "a drained worker gets no shard"
  case stoppedLeasesNothing = "a stopped or cancelled sweep leases nothing"
  case pausedLeasesNothing = "a paused sweep leases nothing"
  case honestIsUnderstood = "a correct worker's report is never refused as wrong"
  case replayEqualsLive = "the replayed ledger gives the live state"
  case countsAgree = "the scheduler's counts agree with a recount"
  case sweepEnds = "the sweep ends once faults stop, each trial completed or given up"
}

/// An invariant that did not hold.
package struct InvariantViolation: Error, Hashable, Sendable, CustomStringConvertible {
  package let invariant: SweepInvariant
  package let detail: String

  package init(_ invariant: SweepInvariant, _ detail: String) {
    self.invariant = invariant
    self.detail = detail
  }

  package var description: String { "violated: \(invariant.rawValue): \(detail)" }
}

/// A sweep as its durable events tell it, kept without the scheduler's help, so that each of the
/// scheduler's decisions can be judged.
package struct SweepHistory: Sendable {
  private enum Standing: Hashable {
    case open
    case leased([LeaseToken])
    case completed, quarantined, cancelled

    var isGivenUp: Bool { self == .quarantined || self == .cancelled }
    var tokens: [LeaseToken] { if case .leased(let tokens) = self { tokens } else { [] } }
  }

  private struct Attempts {
    var count = 0
    var failures = 0
    var losses = 0
  }

  private let plan: ShardPlan
  private let policy: ExecutionPolicy
  private let shards: [ShardID: Shard]
  private var standing: [ShardID: Standing] = [:]
  private var attempts: [ShardID: Attempts] = [:]
  private var live: [LeaseToken: (shard: ShardID, worker: String)] = [:]
  private var drained: Set<String> = []
  /// What is known of a worker that may join.
  private struct Expectation {
    let host: String
    let slots: Int
    let hasLimitedTime: Bool
    var leases = 0
  }
  private var workers: [String: Expectation] = [:]
  private var priorities: [ShardID: Int] = [:]
  private var suspendedUntil: [String: Duration] = [:]
  private var lastToken: LeaseToken?
  private var stopped = false
  private var cancelled = false
  private var paused = false
  private var acknowledgedTrials: Set<TrialID> = []
  private var acknowledgedShards: Set<ShardID> = []
  /// The results so far.
  package private(set) var results: [TrialID: [String: Double]] = [:]
  /// The first thing that went wrong.
  package private(set) var violation: InvariantViolation?

  package init(plan: ShardPlan, policy: ExecutionPolicy) {
    self.plan = plan
    self.policy = policy
    shards = Dictionary(uniqueKeysWithValues: plan.shards.map { ($0.id, $0) })
  }

  package mutating func violate(_ invariant: SweepInvariant, _ detail: String) {
    violation = violation ?? InvariantViolation(invariant, detail)
  }

  private mutating func require(_ holds: Bool, _ invariant: SweepInvariant, _ detail: String) {
    if !holds { violate(invariant, detail) }
  }

  // MARK: What happens

  /// Tells of a worker that may join.
  package mutating func expect(worker: WorkerInfo, hasLimitedTime: Bool) {
    workers[worker.id] = Expectation(
      host: worker.host, slots: worker.capacity(shardMemoryBytes: policy.shardMemoryBytes),
      hasLimitedTime: hasLimitedTime)
  }

  /// The coordinator started again and has read the ledger.
  package mutating func restart(recovered: Scheduler) {
    suspendedUntil = [:]
    for trial in acknowledgedTrials.sorted() where !recovered.hasResult(trial) {
      violate(.acknowledgedIsKept, "the result of \(trial) did not survive the restart")
    }
    for shard in acknowledgedShards.sorted() {
      guard case .completed = recovered.state(of: shard) else {
        violate(.acknowledgedIsKept, "the completion of \(shard) did not survive the restart")
        return
      }
    }
  }

  /// A trial's report was answered with "accepted".
  package mutating func acknowledge(trial: TrialID) {
    require(
      results[trial] != nil, .acknowledgedIsKept,
      "the report of \(trial) was acknowledged and is not in the ledger")
    acknowledgedTrials.insert(trial)
  }

  /// A shard's completion was answered with "accepted".
  package mutating func acknowledge(shard: ShardID) {
    require(
      standing[shard] == .completed, .acknowledgedIsKept,
      "the completion of \(shard) was acknowledged and is not in the ledger")
    acknowledgedShards.insert(shard)
  }

  /// An event became durable.
  ///
  /// - Parameter decided: when the coordinator decided it, by its clock.
  package mutating func record(_ event: SweepEvent, decided: Duration) {
    switch event {
    case .shardLeased(let shard, let worker, let token, let attempt):
      recordLease(of: shard, to: worker, token, attempt: attempt, decided: decided)

    case .trialCompleted(let trial, let token, let metrics, _, _):
      require(results[trial] == nil, .oneResultPerTrial, "\(trial) has a second result")
      let owner = live[token].flatMap { shards[$0.shard] }
      require(
        owner?.trials.contains { $0.id == trial } == true, .deadLeaseIsRefused,
        "a result of \(trial) was recorded under \(token), no live lease of its shard")
      results[trial] = metrics

    case .shardCompleted(let shard, let token, _, _, _):
      endLease(token, of: shard)
      require(
        standing[shard] == .open, .copiesAreForStragglers,
        "\(shard) was completed while it was \(standing[shard, default: .open])")
      standing[shard] = .completed
      for trial in shards[shard]?.trials ?? [] where results[trial.id] == nil {
        violate(.completedHasResults, "\(shard) is completed without a result of \(trial.id)")
      }

    case .attemptEnded(let shard, let token, let ending, _, let retryAfterSeconds):
      endLease(token, of: shard)
      switch ending {
      case .failed: attempts[shard, default: Attempts()].failures += 1
      case .lost, .expired: attempts[shard, default: Attempts()].losses += 1
      case .released, .cancelled, .superseded: break
      }
      let made = attempts[shard, default: Attempts()]
      require(
        made.failures <= policy.attempts && made.losses <= policy.losses, .attemptsAreBounded,
        "\(shard) had \(made.failures) failed and \(made.losses) lost attempts")
      require(
        retryAfterSeconds >= 0 && retryAfterSeconds <= policy.retryBackoffSeconds * 64,
        .attemptsAreBounded, "\(shard) waits \(retryAfterSeconds) s for its next attempt")

    case .shardQuarantined(let shard, _):
      let made = attempts[shard, default: Attempts()]
      require(
        standing[shard, default: .open] == .open, .settledIsNotRepeated,
        "\(shard) was \(standing[shard, default: .open]) when it was quarantined")
      require(
        made.failures >= policy.attempts || made.losses >= policy.losses, .attemptsAreBounded,
        "\(shard) was given up after \(made.failures) failed and \(made.losses) lost attempts")
      standing[shard] = .quarantined

    case .shardCancelled(let shard, _):
      let was = standing[shard, default: .open]
      require(
        was == .open || was == .quarantined, .settledIsNotRepeated,
        "\(shard) was \(was) when it was cancelled")
      standing[shard] = .cancelled

    case .shardRetried(let shard):
      let was = standing[shard, default: .open]
      require(
        was == .open || was.isGivenUp, .settledIsNotRepeated,
        "\(shard) was \(was) when it was retried")
      standing[shard] = .open
      attempts[shard]?.failures = 0
      attempts[shard]?.losses = 0

    case .shardPrioritised(let shard, let priority):
      priorities[shard] = priority
      for needed in needs(of: shard) {
        priorities[needed] = max(priorities[needed, default: 0], priority)
      }

    case .hostSuspended(let host, let seconds, _):
      suspendedUntil[host] = decided + .seconds(seconds)

    case .workerDrained(let worker, _): drained.insert(worker)
    case .leasingPaused: paused = true
    case .leasingContinued: paused = false

    case .sweepResumed:
      stopped = false
      cancelled = false
      for (shard, was) in standing where was == .quarantined {
        standing[shard] = .open
        attempts[shard]?.failures = 0
        attempts[shard]?.losses = 0
      }

    case .sweepStopped: stopped = true
    case .sweepCancelled:
      stopped = true
      cancelled = true
      require(
        live.isEmpty, .stoppedLeasesNothing,
        "leases \(live.keys.sorted()) outlive the cancellation")
    case .inputsFixed, .workerJoined, .workerLeft: break
    }
  }

  private mutating func recordLease(
    of shard: ShardID, to worker: String, _ token: LeaseToken, attempt: Int, decided: Duration
  ) {
    require(
      lastToken.map { $0 < token } ?? (token.value > 0), .tokensGrow,
      "\(token) follows \(lastToken?.description ?? "nothing")")
    let others = standing[shard, default: .open].tokens
    if !others.isEmpty {
      require(
        others.count == 1 && live[others[0]]?.worker != worker && policy.stragglerFactor != nil
          && !plan.shards.contains { isFresh($0) }, .copiesAreForStragglers,
        "\(shard) was leased as \(token) while \(others) were alive")
    }
    require(
      standing[shard] != .completed && standing[shard]?.isGivenUp != true, .settledIsNotRepeated,
      "\(shard) was leased as \(token) though it is settled")
    if let dependency = shards[shard]?.dependency {
      require(
        standing[dependency] == .completed, .dependencyComesFirst,
        "\(shard) was leased before \(dependency) was completed")
    }
    require(!paused, .pausedLeasesNothing, "\(shard) was leased while the sweep is paused")
    require(!stopped, .stoppedLeasesNothing, "\(shard) was leased after the sweep was stopped")
    let made = attempts[shard, default: Attempts()]
    require(
      made.failures + others.count < policy.attempts && made.losses + others.count < policy.losses
        && attempt == made.count + 1,
      .attemptsAreBounded,
      "attempt \(attempt) of \(shard) after \(made.count), of which \(made.failures) failed and "
        + "\(made.losses) were lost")
    require(
      !drained.contains(worker), .drainedGetsNothing,
      "\(shard) was leased to \(worker), which is drained")
    if let expected = workers[worker] {
      if !expected.hasLimitedTime && others.isEmpty { judgePriority(of: shard) }
      require(
        expected.leases < expected.slots, .slotsAreRespected,
        "\(worker) got \(shard) and had \(expected.leases) leases for \(expected.slots) slots")
      require(
        suspendedUntil[expected.host].map { $0 <= decided } ?? true, .suspendedHostGetsNothing,
        "\(worker) got \(shard) on \(expected.host), which is suspended")
    } else {
      violate(.slotsAreRespected, "\(worker), which got \(shard), is nobody")
    }
    lastToken = token
    standing[shard] = .leased(others + [token])
    attempts[shard, default: Attempts()].count += 1
    live[token] = (shard, worker)
    workers[worker]?.leases += 1
  }

  /// Whether the shard could be leased at once and never was.
  private func isFresh(_ shard: Shard) -> Bool {
    standing[shard.id, default: .open] == .open
      && attempts[shard.id, default: Attempts()].count == 0
      && (shard.dependency.map { standing[$0] == .completed } ?? true)
  }

  /// The shards that have to be completed before one can be leased, the nearest first.
  private func needs(of shard: ShardID) -> [ShardID] {
    var needs: [ShardID] = []
    while let next = shards[needs.last ?? shard]?.dependency { needs.append(next) }
    return needs
  }

  private mutating func judgePriority(of shard: ShardID) {
    guard !priorities.isEmpty else { return }
    let priority = priorities[shard, default: 0]
    if let passed = plan.shards.first(where: {
      priorities[$0.id, default: 0] > priority && isFresh($0)
    }) {
      violate(
        .priorityComesFirst,
        "\(shard) with priority \(priority) was leased before \(passed.id) with priority "
          + "\(priorities[passed.id, default: 0])")
    }
  }

  private mutating func endLease(_ token: LeaseToken, of shard: ShardID) {
    let tokens = standing[shard, default: .open].tokens
    require(
      tokens.contains(token), .deadLeaseIsRefused,
      "\(shard) ended under \(token) and was \(standing[shard, default: .open])")
    if let held = live.removeValue(forKey: token) { workers[held.worker]?.leases -= 1 }
    let others = tokens.filter { $0 != token }
    standing[shard] = others.isEmpty ? .open : .leased(others)
  }

  // MARK: Judgement

  /// Compares the scheduler's counts with the history's.
  package mutating func recount(_ scheduler: Scheduler) {
    for contradiction in scheduler.contradictions() { violate(.countsAgree, contradiction) }
    let summary = scheduler.summary
    let told = [
      summary.trialsCompleted, summary.shardsCompleted, summary.shardsQuarantined,
      summary.shardsCancelled, summary.shardsRunning, summary.attempts,
    ]
    let counted = [
      results.count, standing.values.count { $0 == .completed },
      standing.values.count { $0 == .quarantined }, standing.values.count { $0 == .cancelled },
      standing.values.count { !$0.tokens.isEmpty },
      attempts.values.reduce(0) { $0 + $1.count },
    ]
    if told != counted {
      violate(
        .countsAgree,
        "trials completed, shards completed, quarantined, cancelled, running, attempts: told \(told), "
          + "counted \(counted)")
    }
  }

  /// Judges a sweep that is said to be finished.
  package mutating func finish() {
    require(live.isEmpty, .sweepEnds, "leases \(live.keys.sorted()) outlive the sweep")
    guard !stopped else { return }
    for shard in plan.shards {
      let gaveUp = ([shard.id] + needs(of: shard.id)).contains {
        standing[$0]?.isGivenUp == true
      }
      require(
        standing[shard.id] == .completed || gaveUp, .sweepEnds,
        "\(shard.id) is \(standing[shard.id, default: .open]) at the end")
    }
  }
}
