import SweepCore
import SweepSimulation

/// A scheduler with a clock and short commands; everything it says is kept.
struct SchedulerBench {
  var scheduler: Scheduler
  let plan: ShardPlan
  var now: Duration = .zero
  private(set) var events: [SweepEvent] = []
  private(set) var directives: [Scheduler.Directive] = []

  /// Two domains, one bias: 2 generation shards, 2 fine-tunes at ratio 0, 2 at ratio 0.5.
  static let smallSketch = """
    name: small
    tasks: [occupation, group-bias, story]
    biases: [contextual-single-explicit]
    ratios: [0, 0.5]
    """

  init(_ sketch: String = smallSketch, policy change: (inout ExecutionPolicy) -> Void = { _ in })
    throws
  {
    let definition = try definition(sketch)
    var policy = definition.policy
    change(&policy)
    plan = definition.plan
    scheduler = Scheduler(plan: plan, policy: policy, seed: 1)
  }

  static func worker(_ id: String, slots: Int = 1) -> WorkerInfo {
    WorkerInfo(id: id, host: "host", processID: 1, slots: slots, threads: 1)
  }

  @discardableResult
  mutating func tell(_ command: Scheduler.Command) -> Scheduler.Step {
    let step = scheduler.handle(command, now: now)
    events += step.events
    directives += step.directives
    return step
  }

  @discardableResult
  mutating func control(_ control: Scheduler.Control) -> Scheduler.Reply {
    tell(.control(control)).reply
  }

  /// Lets time pass as a coordinator does: tick by tick.
  mutating func wait(seconds: Double) {
    let end = now + .seconds(seconds)
    while let deadline = scheduler.nextDeadline, deadline < end {
      now = max(now, deadline)
      tell(.tick)
    }
    now = end
    tell(.tick)
  }

  mutating func join(
    _ id: String, slots: Int = 1, connection: UInt64 = 1, holding: [LeaseToken] = [],
    asking: Int? = nil
  ) {
    tell(
      .connect(
        Self.worker(id, slots: slots), connection: connection, holding: holding,
        inputs: ["model": "m"]))
    tell(.requestWork(worker: id, slots: asking ?? slots))
  }

  /// The assignments so far, oldest first.
  var assignments: [(worker: String, assignment: Scheduler.Assignment)] {
    directives.compactMap {
      if case .assign(let worker, let assignment) = $0 { (worker, assignment) } else { nil }
    }
  }

  var revocations: [LeaseToken] {
    directives.compactMap { if case .revoke(_, let token) = $0 { token } else { nil } }
  }

  @discardableResult
  mutating func report(
    _ trial: TrialID, under token: LeaseToken, by worker: String, value: Double = 0.5
  ) -> Scheduler.Reply {
    tell(
      .completeTrial(
        worker: worker, token: token, trial: trial, metrics: ["accuracy": value], notes: [:])
    ).reply
  }

  @discardableResult
  mutating func complete(_ token: LeaseToken, by worker: String, artifact: String? = nil)
    -> Scheduler.Reply
  {
    let digest = artifact.map { ContentDigest(of: $0.utf8) }
    return tell(.completeShard(worker: worker, token: token, artifact: digest, facts: [:])).reply
  }

  /// Reports everything that an assignment asks for.
  mutating func finish(_ assignment: Scheduler.Assignment, by worker: String) {
    for trial in assignment.remainingTrials {
      report(trial.id, under: assignment.token, by: worker)
    }
    complete(assignment.token, by: worker, artifact: assignment.shard.id.description)
  }

  /// Leases, finishes and asks again until nothing more is assigned; returns the order of shards.
  mutating func drainQueue(by worker: String) -> [ShardID] {
    var order: [ShardID] = []
    while let next = assignments.dropFirst(order.count).first {
      order.append(next.assignment.shard.id)
      finish(next.assignment, by: worker)
      tell(.requestWork(worker: worker, slots: 1))
    }
    return order
  }

  /// Fails whatever is leased to the worker, and waits for retries, until `done`.
  mutating func failEverything(
    by worker: String, evidence: String, until done: (SchedulerBench) -> Bool
  ) {
    for _ in 0..<1000 where !done(self) {
      if let lease = scheduler.leases.first {
        tell(.failShard(worker: worker, token: lease.lease.token, evidence: evidence))
      } else {
        wait(seconds: 1)
        tell(.requestWork(worker: worker, slots: 1))
      }
    }
  }

  /// Numbers of events by kind.
  var kinds: [String: Int] {
    events.reduce(into: [:]) { $0[$1.kind, default: 0] += 1 }
  }

  /// A scheduler that has seen only the events.
  func replayed() -> Scheduler {
    var scheduler = Scheduler(plan: plan, policy: scheduler.policy, seed: 99)
    for event in events { scheduler.apply(event, now: .zero) }
    return scheduler
  }
}
