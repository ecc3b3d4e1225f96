import Foundation
import GRDB
import SweepCore

/// Reads a ledger, also that of a running sweep, without ever writing to it.
package final class LedgerReader: Sendable {
  package let path: String
  let queue: DatabaseQueue

  /// - Throws: `LedgerError`.
  package init(path: String) throws {
    self.path = path
    guard FileManager.default.fileExists(atPath: path) else {
      throw LedgerError.missing(path: path)
    }
    queue = try LedgerError.translating(path: path) {
      var configuration = Configuration()
      configuration.readonly = true
      configuration.busyMode = .timeout(10)
      return try DatabaseQueue(path: path, configuration: configuration)
    }
    try read { database in
      guard
        try Int32.fetchOne(database, sql: "PRAGMA application_id") == LedgerSchema.applicationID
      else { throw LedgerError.notALedger(path: path, detail: "no BiasSweep tables in it") }
      if try LedgerSchema.migrator.hasBeenSuperseded(database) {
        throw LedgerError.newer(path: path)
      }
    }
  }

  func read<Value>(_ body: (Database) throws -> Value) throws -> Value {
    try LedgerError.translating(path: path) { try queue.read(body) }
  }

  /// The sweep that the ledger belongs to.
  package func sweep() throws -> SweepRecord {
    try read { database in
      guard let row = try SweepRow.fetch(database) else {
        throw LedgerError.notALedger(path: path, detail: "no sweep was started in it")
      }
      let inputs = try Row.fetchAll(database, sql: "SELECT name, digest FROM input")
      return SweepRecord(
        name: row.name, spec: try row.decodedSpec(path: path), specDigest: row.specDigest,
        programVersion: row.programVersion, createdAt: row.createdAt,
        inputs: Dictionary(uniqueKeysWithValues: inputs.map { ($0["name"], $0["digest"]) }))
    }
  }

  /// Counts and rates, from aggregate queries only.
  ///
  /// - Parameter now: wall clock, in seconds since 1970.
  package func status(now: Double) throws -> LedgerStatus {
    let running = LedgerLock.isHeld(ledger: path)
    return try read { database in
      func count(_ sql: String) throws -> Int { try Int.fetchOne(database, sql: sql) ?? 0 }
      var status = LedgerStatus()
      status.coordinatorRunning = running
      status.declared = try count("SELECT count(*) FROM grid_point")
      status.trials = try count("SELECT count(*) FROM trial")
      status.completed = try count("SELECT count(*) FROM trial WHERE completed_by IS NOT NULL")
      status.failed = try count(
        """
        -- Given up, or waiting for what is, through however many others.
        WITH RECURSIVE hopeless (id) AS (
          SELECT id FROM shard WHERE state IN ('quarantined', 'cancelled')
          UNION SELECT shard.id FROM shard JOIN hopeless ON shard.dependency = hopeless.id)
        SELECT count(*) FROM trial JOIN shard ON shard.id = trial.shard
        WHERE trial.completed_by IS NULL AND shard.id IN (SELECT id FROM hopeless)
        """)
      status.shards = try count("SELECT count(*) FROM shard")
      status.shardsCompleted = try count("SELECT count(*) FROM shard WHERE state = 'completed'")
      status.shardsQuarantined = try count(
        "SELECT count(*) FROM shard WHERE state = 'quarantined'")
      status.shardsCancelled = try count("SELECT count(*) FROM shard WHERE state = 'cancelled'")
      status.fineTunesRun = try count(
        "SELECT count(*) FROM shard WHERE state = 'completed' AND kind = 'fine_tune'")
      status.attempts = try count("SELECT count(*) FROM attempt")
      if running {
        status.running = try count(
          """
          SELECT count(*) FROM trial JOIN shard ON shard.id = trial.shard
          WHERE shard.state = 'leased' AND trial.completed_by IS NULL
          """)
        status.shardsRunning = try count("SELECT count(*) FROM shard WHERE state = 'leased'")
        status.workers = try count("SELECT count(*) FROM worker WHERE left_at IS NULL")
      }
      let leased = try Row.fetchOne(
        database,
        sql: """
          SELECT sum(attempt.ended_at - attempt.started_at) AS seconds, sum(fact.value) AS work
          FROM fact JOIN shard ON shard.id = fact.shard
            JOIN attempt ON attempt.token = shard.completed_by
          WHERE fact.name = ?
          """, arguments: [Shard.secondsFact])
      if let seconds: Double = leased?["seconds"], let work: Double = leased?["work"], seconds > 0 {
        status.overhead = max(0, 1 - work / seconds)
      }
      // Work left over speed so far: cost units per second of a worker's time, times workers.
      let done = try Row.fetchOne(
        database,
        sql: """
          SELECT coalesce(sum(shard.cost), 0) AS cost,
            coalesce(sum(attempt.ended_at - attempt.started_at), 0) AS seconds
          FROM shard JOIN attempt ON attempt.token = shard.completed_by
          """)
      let costDone: Double = done?["cost"] ?? 0
      let secondsDone: Double = done?["seconds"] ?? 0
      let costLeft =
        try Double.fetchOne(
          database,
          sql: """
            WITH RECURSIVE hopeless (id) AS (
              SELECT id FROM shard WHERE state IN ('quarantined', 'cancelled')
              UNION SELECT shard.id FROM shard JOIN hopeless ON shard.dependency = hopeless.id)
            SELECT coalesce(sum(cost), 0) FROM shard
            WHERE state IN ('queued', 'leased') AND id NOT IN (SELECT id FROM hopeless)
            """)
        ?? 0
      let busy = try Double.fetchOne(
        database,
        sql: "SELECT coalesce(sum(? - started_at), 0) FROM attempt WHERE ended_at IS NULL",
        arguments: [now])
      let parallel = max(1, status.shardsRunning)
      if costLeft == 0 {
        status.etaSeconds = 0
      } else if running, costDone > 0, secondsDone > 0 {
        let total = costLeft * secondsDone / costDone
        status.etaSeconds = max(0, total - (busy ?? 0)) / Double(parallel)
      }
      return status
    }
  }

  /// Results of distinct trials, in the grid's order.
  package func trialResults() throws -> [TrialResultRow] {
    try results(from: "trial_result")
  }

  /// Results of the declared grid points: a trial that several points share stands once for each.
  package func gridResults() throws -> [TrialResultRow] {
    try results(from: "grid_result")
  }

  private func results(from view: String) throws -> [TrialResultRow] {
    try read { database in
      let round = try LedgerSchema.round(of: view, in: database)
      return try Row.fetchAll(
        database,
        sql: """
          SELECT trial_id, task, bias, ratio, mitigation, seed, \(round) AS round, metric, value
          FROM \(view)
          """
      ).map { row in
        TrialResultRow(
          trial: row["trial_id"], task: row["task"], bias: row["bias"], ratio: row["ratio"],
          mitigation: row["mitigation"], seed: row["seed"], round: row["round"],
          metric: row["metric"], value: row["value"])
      }
    }
  }

  /// Digest of all results (`ContentDigest.init(results:)`).
  package func resultDigest() throws -> ContentDigest {
    try read { database in
      let rows = try Row.fetchAll(database, sql: "SELECT trial, name, value FROM metric")
      return ContentDigest(
        results: rows.map {
          ResultRow(trial: TrialID($0["trial"]), metric: $0["name"], value: $0["value"])
        })
    }
  }

  /// Why metrics are missing: (trial, metric, reason).
  package func notes() throws -> [(trial: String, metric: String, reason: String)] {
    try read { database in
      try Row.fetchAll(
        database, sql: "SELECT trial, metric, reason FROM note ORDER BY trial, metric"
      ).map { (trial: $0["trial"], metric: $0["metric"], reason: $0["reason"]) }
    }
  }

  /// Facts of completed shards, such as the dose of a D_a, without the time that they took.
  package func facts() throws -> [ShardFact] {
    try read { database in
      let round = try LedgerSchema.round(of: "shard", in: database)
      return try Row.fetchAll(
        database,
        sql: """
          SELECT fact.shard, shard.kind, shard.domain, shard.bias, \(round) AS round, fact.name,
            fact.value
          FROM fact JOIN shard ON shard.id = fact.shard WHERE fact.name <> ?
          ORDER BY shard.ordinal, fact.name
          """, arguments: [Shard.secondsFact]
      ).map {
        ShardFact(
          shard: $0["shard"], kind: $0["kind"], domain: $0["domain"], bias: $0["bias"],
          round: $0["round"], name: $0["name"], value: $0["value"])
      }
    }
  }

  /// Completed fine-tunes whose trained parameters were kept, in the plan's order.
  package func keptFineTunes() throws -> [KeptFineTune] {
    try read { database in
      let round = try LedgerSchema.round(of: "shard", in: database)
      return try Row.fetchAll(
        database,
        sql: """
          SELECT id, domain, bias, ratio, mitigation, seed, \(round) AS round, artifact FROM shard
          WHERE kind = 'fine_tune' AND state = 'completed' AND artifact IS NOT NULL
          ORDER BY ordinal
          """
      ).map {
        KeptFineTune(
          id: $0["id"], domain: $0["domain"], bias: $0["bias"], ratio: $0["ratio"],
          mitigation: $0["mitigation"], seed: $0["seed"], round: $0["round"],
          artifact: $0["artifact"])
      }
    }
  }

  /// Quarantined and cancelled shards with their attempts' evidence, for people.
  package func failures() throws -> [ShardFailure] {
    try read { database in
      try Row.fetchAll(
        database,
        sql: """
          SELECT id, reason FROM shard WHERE state IN ('quarantined', 'cancelled')
          ORDER BY ordinal
          """
      ).map { shard in
        let id: String = shard["id"]
        let attempts = try Row.fetchAll(
          database,
          sql: """
            SELECT attempt, host, ending, evidence FROM attempt_log
            WHERE shard_id = ? AND ending <> 'completed' ORDER BY token
            """, arguments: [id])
        return ShardFailure(
          shard: id, reason: shard["reason"],
          attempts: attempts.map { row in
            let number: Int = row["attempt"]
            let host: String = row["host"]
            let ending: String = row["ending"]
            let evidence: String = row["evidence"] ?? ""
            return "attempt \(number) on \(host) \(ending): \(evidence)"
          })
      }
    }
  }
}

/// What a ledger says of its sweep.
package struct SweepRecord: Sendable {
  package let name: String
  package let spec: SweepSpec
  package let specDigest: String
  package let programVersion: String
  /// Seconds since 1970.
  package let createdAt: Double
  /// SHA-256 of model and data, by name.
  package let inputs: [String: String]
}

package struct LedgerStatus: Sendable, Hashable {
  package var declared = 0
  package var trials = 0
  package var completed = 0
  package var failed = 0
  package var running = 0
  package var shards = 0
  package var shardsCompleted = 0
  package var shardsRunning = 0
  package var shardsQuarantined = 0
  package var shardsCancelled = 0
  package var fineTunesRun = 0
  package var attempts = 0
  package var workers = 0
  package var coordinatorRunning = false
  /// Share of the completed shards' leases that was not their own work: dispatch, transfers, reports
  /// and commits. Nil before the first.
  package var overhead: Double?
  /// Nil while unknown.
  package var etaSeconds: Double?
}

package struct TrialResultRow: Sendable, Hashable {
  package let trial: String
  package let task: String
  package let bias: String
  package let ratio: Double
  package let mitigation: String
  package let seed: Int64
  package let round: Int
  package let metric: String
  package let value: Double

  package init(
    trial: String, task: String, bias: String, ratio: Double, mitigation: String, seed: Int64,
    round: Int = 1, metric: String, value: Double
  ) {
    self.trial = trial
    self.task = task
    self.bias = bias
    self.ratio = ratio
    self.mitigation = mitigation
    self.seed = seed
    self.round = round
    self.metric = metric
    self.value = value
  }
}

package struct ShardFact: Sendable, Hashable {
  package let shard: String
  package let kind: String
  package let domain: String
  /// Nil for a fine-tune at ratio 0.
  package let bias: String?
  package let round: Int
  package let name: String
  package let value: Double
}

/// A fine-tune whose trained parameters are among the sweep's artifacts.
package struct KeptFineTune: Sendable, Hashable, Encodable {
  /// The shard's name.
  package let id: String
  package let domain: String
  /// Nil at ratio 0.
  package let bias: String?
  package let ratio: Double
  package let mitigation: String
  package let seed: Int64
  package let round: Int
  /// SHA-256 of the parameters.
  package let artifact: String
}

package struct ShardFailure: Sendable, Hashable {
  package let shard: String
  package let reason: String
  package let attempts: [String]
}

/// The row of the `sweep` table.
struct SweepRow {
  let name: String
  let specDigest: String
  let spec: String
  let programVersion: String
  let createdAt: Double

  static func fetch(_ database: Database) throws -> SweepRow? {
    try Row.fetchOne(database, sql: "SELECT * FROM sweep").map { row in
      SweepRow(
        name: row["name"], specDigest: row["spec_digest"], spec: row["spec"],
        programVersion: row["program_version"], createdAt: row["created_at"])
    }
  }

  func decodedSpec(path: String) throws -> SweepSpec {
    do {
      return try SweepSpec(canonicalJSON: spec)
    } catch {
      throw LedgerError.damaged(path: path, detail: "the recorded spec cannot be read (\(error))")
    }
  }
}
