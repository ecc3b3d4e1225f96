import Foundation
import SweepCore

/// How long a sweep would take on a cluster that fails now and then. Answered by the scheduler that
/// runs real sweeps, in a simulated cluster.
package struct CapacityQuestion: Hashable, Sendable {
  package var workers = 100
  /// Shards that a worker runs at a time.
  package var slots = 1
  /// Mean time of a shard on a usual worker.
  package var shardSeconds = 60.0
  /// Standard deviation of the logarithm of a shard's time among shards of equal cost.
  package var shardSpread = 0.3
  /// Work that a lost attempt loses at most; nil if it starts anew.
  package var checkpointSeconds: Double? = 10
  package var leaseSeconds = 15.0
  /// Mean times in seconds between failures of one worker, preemptions of one worker, and failures
  /// of the coordinator; nil means never.
  package var workerFailures: Double?
  package var preemptions: Double?
  package var coordinatorFailures: Double?
  /// Longest time in seconds until a worker that failed is replaced.
  package var restartSeconds = 60.0
  /// Workers' times relative to the fastest lie between 1 and this.
  package var hostSpread = 1.0
  /// Share of attempts that take six times as long.
  package var stragglerShare = 0.0
  package var seed: UInt64 = 1

  package init() {}

  /// The document of a sweep of at least `trials` trials, alike but for ratio, bias, mitigation and
  /// seed: 20 for each seed.
  package static func syntheticSweep(trials: Int) -> SpecNode {
    let seeds = (1...max(1, (trials + 19) / 20)).map(String.init).joined(separator: ", ")
    return SpecNode(
      sketch: """
        name: simulated
        tasks: [occupation]
        biases: [contextual-single-explicit, contrastive-single-explicit]
        ratios: [0.1, 0.2, 0.3, 0.4, 0.5]
        mitigations: [none, mask]
        seeds: [\(seeds)]
        """)
  }

  package struct Answer: Hashable, Sendable {
    package var trials = 0
    package var shards = 0
    package var trialsCompleted = 0
    package var makespanSeconds = 0.0
    /// Share of all slots' time that became results.
    package var utilisation = 0.0
    package var busySeconds = 0.0
    /// Slot time whose work had to be done again, or was done twice.
    package var lostSeconds = 0.0
    package var leases = 0
    package var attemptsLost = 0
    package var attemptsReleased = 0
    package var copiesSuperseded = 0
    package var shardsQuarantined = 0
    package var workerStarts = 0
    package var coordinatorStarts = 0
    package var steps = 0
    /// Why the simulation ended early; nil if all was right.
    package var problem: String?
  }

  package func answer(_ definition: SweepDefinition) -> Answer {
    let plan = definition.plan
    var policy = definition.policy
    policy.leaseSeconds = leaseSeconds
    policy.heartbeatSeconds = ExecutionPolicy.usualHeartbeat(ofLease: leaseSeconds)
    // Workers fail all the time here, and shards are not to blame.
    policy.losses = 1000
    var faults = FaultPlan.none
    faults.endsAfter = 1e9
    faults.workerCrashes = workerFailures.map { $0 / Double(workers) }
    faults.workerExits = preemptions.map { $0 / Double(workers) }
    faults.coordinatorCrashes = coordinatorFailures
    faults.restartMax = restartSeconds
    faults.stragglerShare = stragglerShare
    var random = SeededGenerator(seed: seed)
    let hosts = (0..<workers).map { _ in
      SimulatedCluster.Host(
        slowness: hostSpread > 1 ? random.uniform(1, hostSpread) : 1, slots: slots)
    }
    let meanCost = plan.shards.map(\.cost).reduce(0, +) / Double(max(1, plan.shards.count))
    let pace = Pace(
      secondsPerCost: shardSeconds / meanCost / exp(shardSpread * shardSpread / 2),
      spread: shardSpread, checkpointSeconds: checkpointSeconds)
    var cluster = SimulatedCluster(
      seed: seed, definition: definition, plan: plan, policy: policy, hosts: hosts, pace: pace,
      faults: faults)
    let outcome = cluster.run()

    let events = outcome.counts.events
    var answer = Answer()
    answer.trials = plan.grid.trials.count
    answer.shards = plan.shards.count
    answer.trialsCompleted = events["trial_completed", default: 0]
    answer.makespanSeconds = outcome.duration / .seconds(1)
    answer.busySeconds = outcome.usage.busySeconds
    answer.lostSeconds = outcome.usage.lostSeconds
    answer.utilisation =
      (answer.busySeconds - answer.lostSeconds)
      / max(1, answer.makespanSeconds * Double(workers * slots))
    answer.leases = events["shard_leased", default: 0]
    answer.attemptsLost =
      events["attempt_lost", default: 0] + events["attempt_expired", default: 0]
    answer.attemptsReleased = events["attempt_released", default: 0]
    answer.copiesSuperseded = events["attempt_superseded", default: 0]
    answer.shardsQuarantined = events["shard_quarantined", default: 0]
    answer.workerStarts = outcome.counts.workerStarts
    answer.coordinatorStarts = outcome.counts.coordinatorStarts
    answer.steps = outcome.counts.steps
    answer.problem = outcome.violation?.description
    return answer
  }
}
