import GRDB
import SweepCore

extension Ledger {
  /// Records what a sweep is about and everything that it plans, before its first event.
  static func insert(
    spec: SweepSpec, plan: ShardPlan, version: String, now: Double, into database: Database
  ) throws {
    try database.execute(
      sql: """
        INSERT INTO sweep (id, name, spec_digest, spec, program_version, created_at)
        VALUES (1, ?, ?, ?, ?, ?)
        """,
      arguments: [
        spec.name, spec.digest().description, spec.canonicalJSON(), version, now,
      ])
    let insertShard = try database.makeStatement(
      sql: """
        INSERT INTO shard
          (id, ordinal, kind, domain, bias, ratio, mitigation, seed, round, dependency, cost)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        """)
    var shardOfTrial: [TrialID: ShardID] = [:]
    for (ordinal, shard) in plan.shards.enumerated() {
      let id = shard.id.description
      let dependency = shard.dependency?.description
      switch shard.work {
      case .augmentation(let key, _):
        try insertShard.execute(arguments: [
          id, ordinal, "augmentation", key.domain.rawValue, key.bias.rawValue, key.writer?.ratio,
          key.writer?.mitigation.rawValue, key.writer.map { Int64($0.seed) }, key.round,
          dependency, shard.cost,
        ])
      case .fineTune(let key, let trials):
        try insertShard.execute(arguments: [
          id, ordinal, "fine_tune", key.domain.rawValue, key.bias?.rawValue, key.ratio,
          key.mitigation.rawValue, Int64(key.seed), key.round, dependency, shard.cost,
        ])
        for trial in trials { shardOfTrial[trial.id] = shard.id }
      }
    }
    let insertTrial = try database.makeStatement(
      sql: """
        INSERT INTO trial (id, ordinal, shard, task, bias, ratio, mitigation, seed, round)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
        """)
    for (ordinal, trial) in plan.grid.trials.enumerated() {
      try insertTrial.execute(arguments: [
        trial.id.description, ordinal, shardOfTrial[trial.id]?.description, trial.task.id,
        trial.bias?.rawValue, trial.ratio, trial.mitigation.rawValue, Int64(trial.seed),
        trial.round,
      ])
    }
    let insertPoint = try database.makeStatement(
      sql: """
        INSERT INTO grid_point (ordinal, task, bias, ratio, mitigation, seed, round, trial)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)
        """)
    for (ordinal, point) in plan.grid.points.enumerated() {
      try insertPoint.execute(arguments: [
        ordinal, point.task.id, point.bias.rawValue, point.ratio, point.mitigation.rawValue,
        Int64(point.seed), point.round, point.trial.id.description,
      ])
    }
  }
}
