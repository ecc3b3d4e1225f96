import HeapModule

/// Decides who works on what. A value without clock or I/O: `handle` takes a command and the time
/// and returns what to remember (events) and what to say (directives, reply).
///
/// Durable state changes only in `apply`, live and in recovery alike. What a restart may forget
/// (connections, lease deadlines, progress) is kept beside it.
///
/// Legal transitions of a shard: blocked → queued (dependency completed); queued → leased;
/// leased → completed; leased → queued (attempt ended); queued → quarantined (attempts used up);
/// quarantined → queued (sweep resumed); blocked, queued, quarantined → cancelled (by an operator);
/// quarantined, cancelled → queued or blocked (retried by an operator).
package struct Scheduler: Sendable {
  package struct Lease: Hashable, Sendable {
    package let token: LeaseToken
    package let worker: String
    package let attempt: Int
    /// Time since the coordinator's start at which the lease ends unless it is renewed.
    package var deadline: Duration
    /// Completed share of the shard in [0, 1], as last told by the worker.
    package var fraction: Double
    package var tokensPerSecond: Double
  }

  package enum ShardState: Hashable, Sendable {
    case blocked
    case queued(notBefore: Duration)
    case leased(Lease)
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
  }

  struct ShardRecord: Sendable {
    let shard: Shard
    var state: ShardState
    var failures = 0
    var losses = 0
    var attempts = 0
    var dependents: [Int] = []
  }

  struct WorkerRecord: Sendable {
    let info: WorkerInfo
    /// Place in the order of joining, so that dispatch does not depend on hash order.
    let order: Int
    /// Number of the live connection, the worker's newest; nil while disconnected.
    var connection: UInt64?
    /// When the leases end if the worker stays away; nil while connected.
    var graceEnds: Duration?
    var leases: Set<LeaseToken> = []
  }

  /// What a worker must run.
  package struct Assignment: Hashable, Sendable {
    package let shard: Shard
    package let token: LeaseToken
    package let attempt: Int
    /// The trials of the shard that have no result yet.
    package let remainingTrials: [Trial]
    /// The artifact of the shard's dependency.
    package let input: ContentDigest?
  }

  package enum Directive: Hashable, Sendable {
    case assign(worker: String, Assignment)
    /// The worker's lease is over; what it does for it is wasted.
    case revoke(worker: String, LeaseToken)
  }

  package enum Command: Sendable {
    /// Connections are numbered in the order of their opening.
    case connect(
      WorkerInfo, connection: UInt64, holding: [LeaseToken], inputs: [String: String])
    case disconnect(worker: String, connection: UInt64, reason: String)
    /// The worker can start this many shards besides those that it asked for before; in all never
    /// more than its slots.
    case requestWork(worker: String, slots: Int)
    case heartbeat(worker: String, leases: [LeaseProgress])
    case completeTrial(
      worker: String, token: LeaseToken, trial: TrialID, metrics: [String: Double],
      notes: [String: String], items: TrialItems? = nil)
    case completeShard(
      worker: String, token: LeaseToken, artifact: ContentDigest?, facts: [String: Double])
    case failShard(worker: String, token: LeaseToken, evidence: String)
    case releaseShard(worker: String, token: LeaseToken)
    case stop(reason: String)
    /// What an operator asks for.
    case control(Control)
    /// Time passed.
    case tick
  }

  /// What an operator can ask of a running sweep. All of it is durable. Each is refused with the
  /// reason if it makes no sense, and asking again for what holds already changes nothing.
  package enum Control: Hashable, Sendable {
    /// What runs goes on; nothing further is leased, also after a restart of the coordinator.
    case pause(reason: String)
    case resume
    /// Gives a shard up. Its lease ends at once; results of its trials so far stay.
    case cancelShard(ShardID, reason: String)
    /// Ends the sweep now: all leases end, nothing further is leased. Results stay.
    case cancelSweep(reason: String)
    /// New attempts for a shard that was quarantined, cancelled, or waits after a failure.
    case retry(ShardID)
    /// No new shard for this worker, also when it reconnects; what it runs, it finishes.
    case drain(worker: String, reason: String)
  }

  package struct LeaseProgress: Hashable, Sendable {
    package let token: LeaseToken
    package let fraction: Double
    package let tokensPerSecond: Double

    package init(token: LeaseToken, fraction: Double, tokensPerSecond: Double) {
      self.token = token
      self.fraction = fraction
      self.tokensPerSecond = tokensPerSecond
    }
  }

  /// Answer to a command.
  package enum Reply: Hashable, Sendable {
    /// Done, now or (for a repeated report) before.
    case accepted
    /// The lease is over; retrying cannot help.
    case stale
    /// The command contradicts the protocol or the sweep; retrying cannot help.
    case refused(String)
  }

  package struct Step: Sendable {
    package var events: [SweepEvent] = []
    package var directives: [Directive] = []
    package var reply: Reply = .accepted
  }

  package let policy: ExecutionPolicy
  /// Of the plan, so that a snapshot of another one is recognised.
  let planDigest: ContentDigest
  var records: [ShardRecord]
  let ordinals: [ShardID: Int]
  private let shardOfTrial: [TrialID: Int]
  var completedTrials: Set<TrialID> = []
  var live: [LeaseToken: Int] = [:]
  var workers: [String: WorkerRecord] = [:]
  /// Counts the joinings of workers.
  var joined = 0
  /// Shards that connected workers asked for and have not been given; never 0.
  var wanted: [String: Int] = [:]
  /// Workers that get nothing any more; they stay here when they leave, as they may return.
  package var drained: Set<String> = []
  var lastToken: UInt64 = 0
  /// Shards that may still change: neither completed nor given up nor waiting for one that is given
  /// up. Kept as a count because it is asked after every batch.
  var unsettled: Int
  package var inputs: [String: String]?
  package var stopReason: String?
  /// Set while the process ends: nothing further is leased. A restart forgets it.
  package var isEnding = false
  /// Whether the sweep was stopped for good.
  package var isCancelled = false
  /// Why nothing is leased for the time being.
  package var pauseReason: String?
  /// Ordinals that may be queued; entries whose shard has moved on are skipped when popped.
  var ready = Heap<Int>()
  /// Shards that wait for their time, most urgent first; entries may be outdated too.
  var delayed = Heap<Delayed>()
  /// No lease and no grace time ends before this, so that not every command looks at all of them;
  /// nil if there are none.
  var nextExpiry: Duration?
  var randomState: UInt64
  private(set) var lastHandled: Duration = .zero

  struct Delayed: Comparable {
    let time: Duration
    let ordinal: Int
    static func < (left: Delayed, right: Delayed) -> Bool {
      (left.time, left.ordinal) < (right.time, right.ordinal)
    }
  }

  /// - Parameter seed: of the jitter of retries.
  package init(plan: ShardPlan, policy: ExecutionPolicy, seed: UInt64) {
    self.policy = policy
    planDigest = plan.digest
    records = plan.shards.map { ShardRecord(shard: $0, state: .blocked) }
    ordinals = Dictionary(
      uniqueKeysWithValues: plan.shards.enumerated().map { ($1.id, $0) })
    var shardOfTrial: [TrialID: Int] = [:]
    for (ordinal, shard) in plan.shards.enumerated() {
      for trial in shard.trials { shardOfTrial[trial.id] = ordinal }
    }
    self.shardOfTrial = shardOfTrial
    randomState = seed
    unsettled = plan.shards.count
    for ordinal in records.indices {
      if let dependency = records[ordinal].shard.dependency {
        guard let needed = ordinals[dependency] else {
          preconditionFailure("shard \(records[ordinal].shard.id) needs unknown \(dependency)")
        }
        records[needed].dependents.append(ordinal)
      } else {
        enqueue(ordinal, notBefore: .zero)
      }
    }
  }

  // MARK: Queue

  mutating func enqueue(_ ordinal: Int, notBefore: Duration) {
    records[ordinal].state = .queued(notBefore: notBefore)
    if notBefore <= lastHandled {
      ready.insert(ordinal)
    } else {
      delayed.insert(Delayed(time: notBefore, ordinal: ordinal))
    }
  }

  private mutating func promoteDelayed(now: Duration) {
    while let next = delayed.min, next.time <= now {
      delayed.removeMin()
      ready.insert(next.ordinal)
    }
  }

  /// The next shard to lease, taken from the queue.
  mutating func popReady(now: Duration) -> Int? {
    while let ordinal = ready.popMin() {
      if case .queued(let notBefore) = records[ordinal].state {
        if notBefore <= now { return ordinal }
        delayed.insert(Delayed(time: notBefore, ordinal: ordinal))
      }
    }
    return nil
  }

  // MARK: Commands

  /// Decides about one command and applies the resulting events.
  package mutating func handle(_ command: Command, now: Duration) -> Step {
    forgiveGap(until: now)
    var step = Step()
    switch command {
    case .connect(let info, let connection, let holding, let inputs):
      connect(info, connection: connection, holding: holding, inputs: inputs, now, &step)
    case .disconnect(let worker, let connection, let reason):
      disconnect(worker, connection: connection, reason: reason, now, &step)
    case .requestWork(let worker, let slots):
      if drained.contains(worker) {
        break
      } else if let record = workers[worker], record.connection != nil {
        let free = max(0, record.info.slots - record.leases.count)
        let total = min((wanted[worker] ?? 0) + max(slots, 0), free)
        wanted[worker] = total > 0 ? total : nil
      } else {
        step.reply = .refused("worker \(worker) is not registered")
      }
    case .heartbeat(let worker, let leases):
      for progress in leases { renew(progress, worker: worker, now, &step) }
    case .completeTrial(let worker, let token, let trial, let metrics, let notes, let items):
      completeTrial(worker, token, trial, metrics, notes, items, now, &step)
    case .completeShard(let worker, let token, let artifact, let facts):
      completeShard(worker, token, artifact, facts, now, &step)
    case .failShard(let worker, let token, let evidence):
      if let ordinal = ownedShard(token, worker: worker) {
        end(ordinal, .failed, evidence: evidence, now, &step)
      } else {
        step.reply = .stale
      }
    case .releaseShard(let worker, let token):
      if let ordinal = ownedShard(token, worker: worker) {
        end(ordinal, .released, evidence: "given back by worker \(worker)", now, &step)
      } else {
        step.reply = .stale
      }
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
      for (_, ordinal) in live {
        if case .leased(var lease) = records[ordinal].state {
          lease.deadline += gap
          records[ordinal].state = .leased(lease)
        }
      }
      for id in workers.keys {
        if let ends = workers[id]?.graceEnds { workers[id]?.graceEnds = ends + gap }
      }
    }
    lastHandled = max(lastHandled, now)
  }

  /// A coordinator that handled nothing for longer than this stood still; see `nextDeadline`.
  var silenceMax: Duration { .seconds(policy.leaseSeconds / 2) }

  mutating func expect(expiryAt time: Duration) { nextExpiry = min(nextExpiry ?? time, time) }

  mutating func emit(_ event: SweepEvent, _ now: Duration, _ step: inout Step) {
    apply(event, now: now)
    step.events.append(event)
  }

  private mutating func connect(
    _ info: WorkerInfo, connection: UInt64, holding: [LeaseToken], inputs: [String: String],
    _ now: Duration, _ step: inout Step
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
    if self.inputs == nil { emit(.inputsFixed(inputs), now, &step) }
    if workers[info.id]?.info != info { emit(.workerJoined(info), now, &step) }
    workers[info.id]?.connection = connection
    workers[info.id]?.graceEnds = nil
    wanted[info.id] = nil
    // The worker says which leases it still works on: those that it forgot are free again, those
    // that ended meanwhile it must forget.
    for token in (workers[info.id]?.leases ?? []).sorted() {
      guard let ordinal = live[token] else { continue }
      if holding.contains(token) {
        renew(
          LeaseProgress(token: token, fraction: -1, tokensPerSecond: -1), worker: info.id, now,
          &step)
      } else {
        end(ordinal, .lost, evidence: "worker \(info.id) came back without this lease", now, &step)
      }
    }
    for token in holding where ownedShard(token, worker: info.id) == nil {
      step.directives.append(.revoke(worker: info.id, token))
    }
  }

  private mutating func disconnect(
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
    _ now: Duration, _ step: inout Step
  ) {
    guard let ordinal = ownedShard(token, worker: worker) else {
      let repeated = records.contains {
        if case .completed(let by, _) = $0.state { by == token } else { false }
      }
      step.reply = repeated ? .accepted : .stale
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
    emit(
      .shardCompleted(shard: shard.id, token: token, artifact: artifact, facts: facts), now, &step)
  }
}
