import SweepCore
import SweepSimulation

/// A small sweep and the events of a run in which one worker does everything, for tests of what
/// comes after scheduling: the ledger and its readers.
package struct SampleSweep: Sendable {
  package let definition: SweepDefinition
  package let plan: ShardPlan

  package static let sketch = """
    name: sample
    tasks: [occupation, story]
    biases: [contextual-single-explicit, contrastive-single-explicit]
    ratios: [0, 0.2, 0.5]
    mitigations: [none, mask]
    seeds: [1, 2]
    """

  package static let worker = WorkerInfo(
    id: "worker-1", host: "host-a", processID: 4711, slots: 1, threads: 2)

  package var spec: SweepSpec { definition.spec }

  /// - Throws: `InvalidSpec`.
  package init(sketch: String = Self.sketch) throws {
    definition = try SweepDefinition(
      document: SpecNode(sketch: sketch), catalogue: .sample)
    plan = definition.plan
  }

  /// What comes before the first lease.
  package var opening: [SweepEvent] {
    [
      .inputsFixed([
        "model": ContentDigest(of: "model".utf8).description,
        "data": ContentDigest(of: "data".utf8).description,
      ]),
      .workerJoined(Self.worker),
    ]
  }

  /// Leasing and completing one shard in its first attempt. The token is the shard's place in the
  /// plan plus one.
  package func completion(
    of ordinal: Int,
    metrics: (Trial) -> [String: Double] = { ["accuracy": value(of: "\($0.id)")] },
    notes: (Trial) -> [String: String] = { _ in [:] }
  ) -> [SweepEvent] {
    let shard = plan.shards[ordinal]
    let token = LeaseToken(UInt64(ordinal + 1))
    let isAugmentation = shard.trials.isEmpty
    let isNeeded = isAugmentation || plan.writers.contains(shard.id)
    return [.shardLeased(shard: shard.id, worker: Self.worker.id, token: token, attempt: 1)]
      + shard.trials.map {
        .trialCompleted(trial: $0.id, token: token, metrics: metrics($0), notes: notes($0))
      }
      + [
        .shardCompleted(
          shard: shard.id, token: token,
          artifact: isNeeded ? ContentDigest(of: shard.id.description.utf8) : nil,
          facts: isAugmentation
            ? ["items": 60, "rejection_rate": Self.value(of: "\(shard.id)"), "work_seconds": 1]
            : ["final_loss": Self.value(of: "\(shard.id)"), "work_seconds": 1])
      ]
  }

  /// Leasing a shard, the failure of its only attempt, and its quarantine.
  package func failure(of ordinal: Int, evidence: String) -> [SweepEvent] {
    let shard = plan.shards[ordinal].id
    let token = LeaseToken(UInt64(ordinal + 1))
    return [
      .shardLeased(shard: shard, worker: Self.worker.id, token: token, attempt: 1),
      .attemptEnded(
        shard: shard, token: token, ending: .failed, evidence: evidence, retryAfterSeconds: 0),
      .shardQuarantined(shard: shard, reason: "1 attempt failed"),
    ]
  }

  /// The whole run.
  package var run: [SweepEvent] {
    opening + plan.shards.indices.flatMap { completion(of: $0) }
  }

  /// A number in [0, 1) that depends on nothing but the text.
  package static func value(of text: String) -> Double {
    let digest = ContentDigest(of: text.utf8).description
    return Double(Int(digest.prefix(8), radix: 16) ?? 0) / 4_294_967_296
  }
}
