import HeapModule

/// Decides who works on what. A value without clock or I/O: `handle` takes a command and the time
/// and returns what to remember (events) and what to say (directives, reply).
///
/// Durable state (`DurableState`) changes only in `apply`, live and in recovery alike. What a
/// restart may forget (connections, lease deadlines, progress, cool-downs) is kept beside it.
///
/// Legal transitions of a shard: blocked → queued (dependency completed); queued → leased;
/// leased → leased (a second copy of a straggler, or the end of one of two); leased → completed;
/// leased → queued (attempt ended); queued → quarantined (attempts used up); quarantined → queued
/// (sweep resumed); blocked, queued, quarantined → cancelled (by an operator); quarantined,
/// cancelled → queued or blocked (retried by an operator).
package struct Scheduler: Sendable {
  package struct Lease: Hashable, Sendable {
    package let token: LeaseToken
    package let worker: String
    package let attempt: Int
    /// Time since the coordinator's start at which the lease ends unless it is renewed.
    package var deadline: Duration
    /// When it began or, for a lease from before a restart, when the coordinator started.
    package var since: Duration
    /// Completed share of the shard in [0, 1], as last told by the worker.
    package var fraction: Double = 0
    package var tokensPerSecond: Double = 0
    /// The share that the worker told first, and when. An attempt that goes on from a checkpoint
    /// does not begin at 0.
    var firstFraction: Double?
    var firstFractionAt: Duration = .zero
    /// Whether `since` is when work on the shard began that had no result yet.
    var isTimed: Bool
  }

  package enum ShardState: Hashable, Sendable {
    case blocked
    case queued(notBefore: Duration)
    /// The live leases, older first: one, or two if the first is a straggler.
    case leased([LeaseToken])
    case completed(token: LeaseToken, artifact: ContentDigest?)
    case quarantined(reason: String)
    case cancelled(reason: String)

    /// Whether nothing more is done for the shard, and it has no result.
    var isGivenUp: Bool {
      switch self {
      case .quarantined, .cancelled: true
      case .blocked, .queued, .leased, .completed: false
      }
    }

    var isCompleted: Bool { if case .completed = self { true } else { false } }

    /// Completed or given up.
    var isFinal: Bool { isCompleted || isGivenUp }

    var tokens: [LeaseToken] { if case .leased(let tokens) = self { tokens } else { [] } }
  }

  struct ShardRecord: Sendable {
    let shard: Shard
    var state: ShardState
    var failures = 0
    var losses = 0
    var attempts = 0
    var priority = 0
    /// Where it failed last; other hosts are tried first.
    var failedOn: String?
    var dependents: [Int] = []
  }

  struct WorkerRecord: Sendable {
    let info: WorkerInfo
    /// Place in the order of joining, so that dispatch does not depend on hash order.
    let order: Int
    var leases: Set<LeaseToken> = []
    /// Data of the shard that it was last given.
    var data: Int?
    /// Number of the live connection, the worker's newest; nil while disconnected.
    var connection: UInt64?
    /// When the leases end if the worker stays away; nil while connected.
    var graceEnds: Duration?
    /// When the worker's time is up, as it said itself; nil if it may go on for ever.
    var endsAt: Duration?
  }

  /// What is known of a host from its failures.
  struct HostRecord: Codable, Hashable, Sendable {
    /// Shards that failed there since one was completed.
    var failed: Set<ShardID> = []
    /// How often it was suspended since a shard was completed.
    var suspensions = 0
    /// Why it was suspended last.
    var evidence = ""
    /// When it gets shards again; a restart forgets it.
    var suspendedUntil: Duration?

    enum CodingKeys: CodingKey { case failed, suspensions, evidence }
  }

  struct LiveLease: Sendable {
    let ordinal: Int
    var lease: Lease
  }

  package let policy: ExecutionPolicy
  /// Of the plan, so that a snapshot of another one is recognised.
  let planDigest: ContentDigest
  var records: [ShardRecord]
  let ordinals: [ShardID: Int]
  let shardOfTrial: [TrialID: Int]
  var completedTrials: Set<TrialID> = []
  /// Tokens of completed shards, so that a repeated report is known as such.
  var completedBy: Set<LeaseToken> = []
  var live: [LeaseToken: LiveLease] = [:]
  var workers: [String: WorkerRecord] = [:]
  /// Counts the joinings of workers.
  var joined = 0
  /// Workers that get nothing any more; they stay here when they leave, as they may return.
  package internal(set) var drained: Set<String> = []
  var hosts: [String: HostRecord] = [:]
  package internal(set) var costs = CostModel()
  var lastToken: UInt64 = 0
  /// Shards that may still change: neither completed nor given up nor waiting for one that is given
  /// up. Kept as a count because it is asked after every batch.
  var unsettled: Int
  var quarantined = 0
  package internal(set) var inputs: [String: String]?
  package internal(set) var stopReason: String?
  /// Whether the sweep was stopped for good.
  package internal(set) var isCancelled = false
  /// Why nothing is leased for the time being.
  package internal(set) var pauseReason: String?

  // What a restart forgets.

  /// Set while the process ends: nothing further is leased.
  package var isEnding = false
  /// Shards that connected workers asked for and have not been given; never 0. A request that
  /// overtakes the report which makes room for it waits here.
  var wanted: [String: Int] = [:]
  /// Of these workers, those for which there may be something that there was not before.
  var hungry: Set<String> = []
  /// When to look for every worker again: a cool-down or the avoidance of a host ends.
  var nextLook: Duration?
  /// When to look for stragglers again.
  var nextStragglerLook: Duration = .zero
  /// May contain shards that have moved on; they are skipped.
  var ready: ReadyQueue
  /// Workers by the data of the shard that they were last given.
  var workersOnData: [Int: Int] = [:]
  /// Shards that wait for their time, most urgent first; entries may be outdated too.
  var delayed = Heap<Delayed>()
  /// No lease and no grace time ends before this, so that not every command looks at all of them;
  /// nil if there are none.
  var nextExpiry: Duration?
  var randomState: UInt64
  /// The time of the last command.
  package internal(set) var lastHandled: Duration = .zero

  struct Delayed: Comparable {
    let time: Duration
    let ordinal: Int
    static func < (left: Delayed, right: Delayed) -> Bool {
      (left.time, left.ordinal) < (right.time, right.ordinal)
    }
  }

  /// - Parameter seed: of the jitter of retries.
  package init(plan: ShardPlan, policy: ExecutionPolicy, seed: UInt64) {
    self.init(unqueued: plan, planDigest: nil, policy: policy, seed: seed)
    for ordinal in records.indices where records[ordinal].shard.dependency == nil {
      enqueue(ordinal, notBefore: .zero)
    }
  }

  /// All shards are blocked; the caller says which are not.
  ///
  /// - Parameter planDigest: that of the plan, where the caller has it already.
  init(
    unqueued plan: ShardPlan, planDigest: ContentDigest?, policy: ExecutionPolicy, seed: UInt64
  ) {
    self.policy = policy
    self.planDigest = planDigest ?? plan.digest
    records = plan.shards.map { ShardRecord(shard: $0, state: .blocked) }
    ordinals = Dictionary(
      uniqueKeysWithValues: plan.shards.enumerated().map { ($1.id, $0) })
    var shardOfTrial: [TrialID: Int] = [:]
    shardOfTrial.reserveCapacity(plan.grid.trials.count)
    for (ordinal, shard) in plan.shards.enumerated() {
      for trial in shard.trials { shardOfTrial[trial.id] = ordinal }
    }
    self.shardOfTrial = shardOfTrial
    let ordinals = self.ordinals
    let dependencies = plan.shards.map { shard in
      shard.dependency.map { dependency in
        guard let needed = ordinals[dependency] else {
          preconditionFailure("shard \(shard.id) needs unknown \(dependency)")
        }
        return needed
      }
    }
    ready = ReadyQueue(plan.shards, dependencies: dependencies)
    randomState = seed
    unsettled = plan.shards.count
    for ordinal in records.indices {
      if let needed = dependencies[ordinal] { records[needed].dependents.append(ordinal) }
    }
  }

  // MARK: Queue

  mutating func enqueue(_ ordinal: Int, notBefore: Duration) {
    records[ordinal].state = .queued(notBefore: notBefore)
    if notBefore <= lastHandled {
      makeReady(ordinal)
    } else {
      delayed.insert(Delayed(time: notBefore, ordinal: ordinal))
    }
  }

  private mutating func makeReady(_ ordinal: Int) {
    ready.insert(ordinal, priority: records[ordinal].priority)
    nextLook = .zero
  }

  private mutating func promoteDelayed(now: Duration) {
    while let next = delayed.min, next.time <= now {
      delayed.removeMin()
      if case .queued = records[next.ordinal].state { makeReady(next.ordinal) }
    }
  }

  // MARK: Commands

  /// Decides about one command and applies the resulting events.
  ///
  /// - Parameter now: time since the coordinator's start. Should it ever go back, it stands still
  ///   for the scheduler until it has caught up.
  package mutating func handle(_ command: Command, now: Duration) -> Step {
    let now = max(now, lastHandled)
    forgiveGap(until: now)
    var step = Step()
    switch command {
    case .connect(let info, let connection, let holding, let inputs, let lifetime):
      connect(
        info, connection: connection, holding: holding, inputs: inputs, lifetime: lifetime, now,
        &step)
    case .disconnect(let worker, let connection, let reason):
      disconnect(worker, connection: connection, reason: reason, now, &step)
    case .requestWork(let worker, let slots):
      requestWork(worker, slots: slots, &step)
    case .heartbeat(let worker, let leases):
      for progress in leases { renew(progress, worker: worker, now, &step) }
    case .completeTrial(let worker, let token, let trial, let metrics, let notes, let items):
      completeTrial(worker, token, trial, metrics, notes, items, now, &step)
    case .completeShard(let worker, let token, let artifact, let facts, let wasResumed):
      completeShard(worker, token, artifact, facts, wasResumed: wasResumed, now, &step)
    case .failShard(let worker, let token, let evidence):
      endOwned(token, by: worker, .failed, evidence: evidence, now, &step)
    case .releaseShard(let worker, let token):
      endOwned(
        token, by: worker, .released, evidence: "given back by worker \(worker)", now, &step)
    case .control(let control):
      step.reply = carryOut(control, now, &step)
    case .stop(let reason):
      if stopReason == nil { emit(.sweepStopped(reason: reason), now, &step) }
    case .tick:
      break
    }
    expire(now, &step)
    promoteDelayed(now: now)
    dispatch(now, &step)
    return step
  }

  /// A long silence means that the coordinator itself stood still (a suspended laptop, a stopped
  /// process): workers could not be heard meanwhile, so their deadlines move along.
  private mutating func forgiveGap(until now: Duration) {
    let gap = now - lastHandled
    if gap > silenceMax {
      for token in live.keys { live[token]?.lease.deadline += gap }
      for id in workers.keys {
        if let ends = workers[id]?.graceEnds { workers[id]?.graceEnds = ends + gap }
      }
    }
    lastHandled = now
  }

  /// A coordinator that handled nothing for longer than this stood still; see `nextDeadline`.
  var silenceMax: Duration { .seconds(policy.leaseSeconds / 2) }

  mutating func expect(expiryAt time: Duration) { nextExpiry = min(nextExpiry ?? time, time) }

  mutating func emit(_ event: SweepEvent, _ now: Duration, _ step: inout Step) {
    apply(event, now: now)
    step.events.append(event)
  }

  /// In [0, 1), by SplitMix64.
  mutating func random() -> Double {
    randomState &+= 0x9E37_79B9_7F4A_7C15
    var mixed = randomState
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return Double((mixed ^ (mixed >> 31)) >> 11) * 0x1p-53
  }

  private mutating func requestWork(_ worker: String, slots: Int, _ step: inout Step) {
    guard let record = workers[worker], record.connection != nil else {
      step.reply = .refused("worker \(worker) is not registered")
      return
    }
    guard !drained.contains(worker) else { return }
    let total = min((wanted[worker] ?? 0) + max(slots, 0), capacity(of: record))
    wanted[worker] = total > 0 ? total : nil
    if total > 0 { hungry.insert(worker) }
  }

  private mutating func completeTrial(
    _ worker: String, _ token: LeaseToken, _ trial: TrialID, _ metrics: [String: Double],
    _ notes: [String: String], _ items: TrialItems?, _ now: Duration, _ step: inout Step
  ) {
    guard let ordinal = ownedShard(token, worker: worker) else {
      step.reply = .stale
      return
    }
    guard shardOfTrial[trial] == ordinal else {
      step.reply = .refused("trial \(trial) does not belong to shard \(records[ordinal].shard.id)")
      return
    }
    if let bad = metrics.filter({ !$0.value.isFinite }).keys.min() {
      step.reply = .refused("metric \(bad) of trial \(trial) is not a finite number")
      return
    }
    if completedTrials.contains(trial) { return }
    emit(
      .trialCompleted(
        trial: trial, token: token, metrics: metrics, notes: notes, items: items), now, &step)
  }

  private mutating func completeShard(
    _ worker: String, _ token: LeaseToken, _ artifact: ContentDigest?, _ facts: [String: Double],
    wasResumed: Bool, _ now: Duration, _ step: inout Step
  ) {
    guard let ordinal = ownedShard(token, worker: worker), let lease = live[token]?.lease else {
      step.reply = completedBy.contains(token) ? .accepted : .stale
      return
    }
    let shard = records[ordinal].shard
    if let missing = shard.trials.first(where: { !completedTrials.contains($0.id) }) {
      step.reply = .refused("shard \(shard.id) is not complete: no result for \(missing.id)")
      return
    }
    if !records[ordinal].dependents.isEmpty && artifact == nil {
      step.reply = .refused("shard \(shard.id) is not complete: its artifact is missing")
      return
    }
    if let bad = facts.filter({ !$0.value.isFinite }).keys.min() {
      step.reply = .refused("fact \(bad) of shard \(shard.id) is not a finite number")
      return
    }
    for other in records[ordinal].state.tokens where other != token {
      revoke(
        other, .superseded, evidence: "worker \(worker) completed the shard first", now, &step)
    }
    emit(
      .shardCompleted(
        shard: shard.id, token: token, artifact: artifact, facts: facts,
        seconds: lease.isTimed && !wasResumed ? (now - lease.since) / .seconds(1) : nil), now,
      &step)
  }
}
