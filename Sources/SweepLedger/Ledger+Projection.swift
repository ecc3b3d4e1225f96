import Foundation
import GRDB
import SweepCore

extension Ledger {
  /// Changes the tables by one event. Every statement must hit exactly the row it is about.
  static func project(_ event: SweepEvent, now: Double, into database: Database) throws {
    func run(_ sql: String, _ arguments: StatementArguments) throws {
      try database.cachedStatement(sql: sql).execute(arguments: arguments)
      guard database.changesCount == 1 else {
        throw DatabaseError(message: "the event \(event) is about a row that does not exist")
      }
    }
    switch event {
    case .inputsFixed(let inputs):
      for (name, digest) in inputs.sorted(by: { $0.key < $1.key }) {
        try run("INSERT INTO input (name, digest) VALUES (?, ?)", [name, digest])
      }

    case .workerJoined(let info):
      try run(
        """
        INSERT INTO worker (id, host, process_id, slots, threads, joined_at)
        VALUES (?, ?, ?, ?, ?, ?)
        ON CONFLICT (id) DO UPDATE SET host = excluded.host, process_id = excluded.process_id,
          slots = excluded.slots, threads = excluded.threads, left_at = NULL, left_reason = NULL
        """, [info.id, info.host, info.processID, info.slots, info.threads, now])

    case .workerLeft(let worker, let reason):
      try run(
        "UPDATE worker SET left_at = ?, left_reason = ? WHERE id = ?", [now, reason, worker])

    case .shardLeased(let shard, let worker, let token, let attempt):
      try run(
        "INSERT INTO attempt (token, shard, worker, number, started_at) VALUES (?, ?, ?, ?, ?)",
        [Int64(token.value), shard.description, worker, attempt, now])
      try run("UPDATE shard SET state = 'leased' WHERE id = ?", [shard.description])

    case .trialCompleted(let trial, let token, let metrics, let notes, let items):
      try run(
        "UPDATE trial SET completed_by = ?, completed_at = ? WHERE id = ?",
        [Int64(token.value), now, trial.description])
      for (name, value) in metrics.sorted(by: { $0.key < $1.key }) {
        try run(
          "INSERT INTO metric (trial, name, value) VALUES (?, ?, ?)",
          [trial.description, name, value])
      }
      for (metric, reason) in notes.sorted(by: { $0.key < $1.key }) {
        try run(
          "INSERT INTO note (trial, metric, reason) VALUES (?, ?, ?)",
          [trial.description, metric, reason])
      }
      for (measure, values) in (items?.values ?? [:]).sorted(by: { $0.key < $1.key }) {
        try run(
          "INSERT INTO trial_items (trial, measure, count, \"values\") VALUES (?, ?, ?, ?)",
          [trial.description, measure, values.count, Data(TrialItems.encoded(values))])
      }

    case .shardCompleted(let shard, let token, let artifact, let facts, _):
      try run(
        """
        UPDATE attempt SET ended_at = ?, ending = 'completed'
        WHERE token = ? AND ended_at IS NULL
        """,
        [now, Int64(token.value)])
      try run(
        "UPDATE shard SET state = 'completed', completed_by = ?, artifact = ? WHERE id = ?",
        [Int64(token.value), artifact?.description, shard.description])
      for (name, value) in facts.sorted(by: { $0.key < $1.key }) {
        try run(
          "INSERT INTO fact (shard, name, value) VALUES (?, ?, ?)",
          [shard.description, name, value])
      }

    case .attemptEnded(let shard, let token, let ending, let evidence, _):
      try run(
        """
        UPDATE attempt SET ended_at = ?, ending = ?, evidence = ?
        WHERE token = ? AND ended_at IS NULL
        """,
        [now, ending.rawValue, evidence, Int64(token.value)])
      try run(
        """
        UPDATE shard SET state = CASE WHEN EXISTS (
            SELECT 1 FROM attempt WHERE attempt.shard = shard.id AND ended_at IS NULL)
          THEN 'leased' ELSE 'queued' END
        WHERE id = ?
        """, [shard.description])

    case .shardQuarantined(let shard, let reason):
      try run(
        "UPDATE shard SET state = 'quarantined', reason = ? WHERE id = ?",
        [reason, shard.description])

    case .sweepResumed:
      try database.execute(
        sql: "UPDATE shard SET state = 'queued', reason = NULL WHERE state = 'quarantined'")

    case .shardCancelled(let shard, let reason):
      try run(
        "UPDATE shard SET state = 'cancelled', reason = ? WHERE id = ?",
        [reason, shard.description])

    case .shardRetried(let shard):
      try run(
        "UPDATE shard SET state = 'queued', reason = NULL WHERE id = ?", [shard.description])

    case .workerDrained(let worker, _):
      try run("UPDATE worker SET drained_at = ? WHERE id = ?", [now, worker])

    case .sweepStopped, .sweepCancelled, .leasingPaused, .leasingContinued, .shardPrioritised,
      .hostSuspended:
      break
    }
  }
}
