import GRDB

/// What operators ask about a running sweep.
extension LedgerReader {
  /// All workers that ever joined, in that order.
  package func workers() throws -> [WorkerRow] {
    try read { database in
      try Row.fetchAll(database, sql: "SELECT * FROM worker ORDER BY joined_at, id").map { row in
        WorkerRow(
          id: row["id"], host: row["host"], processID: row["process_id"], slots: row["slots"],
          threads: row["threads"], isDrained: row["drained_at"] as Double? != nil,
          joinedAt: row["joined_at"], leftAt: row["left_at"], leftReason: row["left_reason"])
      }
    }
  }

  /// Shards in the plan's order.
  ///
  /// - Parameter state: of the shards to return, as in the view `shard_status`; nil for all.
  package func shards(inState state: String?) throws -> [ShardRow] {
    try read { database in
      try Row.fetchAll(
        database, sql: "SELECT * FROM shard_status WHERE ?1 IS NULL OR state = ?1",
        arguments: [state]
      ).map { row in
        ShardRow(
          id: row["shard_id"], kind: row["kind"], state: row["state"], attempts: row["attempts"],
          trials: row["trials"], trialsCompleted: row["trials_completed"], worker: row["worker"],
          reason: row["reason"])
      }
    }
  }

  /// Attempts in the order of their leases.
  ///
  /// - Parameter shard: whose attempts to return; nil for all.
  package func attempts(at shard: String?) throws -> [AttemptRow] {
    try read { database in
      try Row.fetchAll(
        database,
        sql: """
          SELECT attempt.*, worker.host FROM attempt JOIN worker ON worker.id = attempt.worker
          WHERE ?1 IS NULL OR attempt.shard = ?1 ORDER BY token
          """, arguments: [shard]
      ).map { row in
        let startedAt: Double = row["started_at"]
        let endedAt: Double? = row["ended_at"]
        return AttemptRow(
          token: row["token"], shard: row["shard"], number: row["number"], worker: row["worker"],
          host: row["host"], startedAt: startedAt, seconds: endedAt.map { $0 - startedAt },
          ending: row["ending"] ?? "running", evidence: row["evidence"])
      }
    }
  }
}

/// A worker process as the ledger knows it.
package struct WorkerRow: Sendable, Hashable {
  package let id: String
  package let host: String
  package let processID: Int
  package let slots: Int
  package let threads: Int
  /// Gets no further shard.
  package let isDrained: Bool
  /// Seconds since 1970.
  package let joinedAt: Double
  /// Nil while it belongs to the sweep.
  package let leftAt: Double?
  package let leftReason: String?
}

/// A shard and what became of it so far.
package struct ShardRow: Sendable, Hashable {
  package let id: String
  package let kind: String
  package let state: String
  package let attempts: Int
  package let trials: Int
  package let trialsCompleted: Int
  /// Of the last attempt.
  package let worker: String?
  /// Why it was given up.
  package let reason: String?
}

/// One execution of a shard under one lease.
package struct AttemptRow: Sendable, Hashable {
  package let token: Int64
  package let shard: String
  /// Counted from 1 for each shard.
  package let number: Int
  package let worker: String
  package let host: String
  /// Seconds since 1970.
  package let startedAt: Double
  /// Nil while it runs.
  package let seconds: Double?
  package let ending: String
  package let evidence: String?
}
