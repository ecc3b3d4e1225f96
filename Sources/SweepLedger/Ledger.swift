import Foundation
import GRDB
import SweepCore

/// The one file that remembers a sweep: every event, and tables projected from them, in SQLite.
///
/// The coordinator is its only writer (`LedgerLock`); anybody may read while the sweep runs. When
/// `append` returns, the events survive a loss of power.
package final class Ledger: Sendable {
  package let path: String
  private let pool: DatabasePool
  private let lock: LedgerLock

  /// Opens the ledger of a sweep, or starts one where no file is.
  ///
  /// - Parameters:
  ///   - version: of the program; results of different versions are not mixed.
  ///   - now: wall clock, in seconds since 1970.
  /// - Throws: `LedgerError`; `otherSweep` shows what differs.
  package init(
    path: String, spec: SweepSpec, plan: ShardPlan, version: String, now: Double
  ) throws {
    self.path = path
    lock = try LedgerLock(ledger: path)
    let exists =
      ((try? FileManager.default.attributesOfItem(atPath: path))?[.size] as? Int ?? 0) > 0
    if exists { try Self.checkFormat(path: path) }
    pool = try LedgerError.translating(path: path) {
      var configuration = Configuration()
      configuration.foreignKeysEnabled = true
      configuration.busyMode = .timeout(10)
      let pool = try DatabasePool(path: path, configuration: configuration)
      try LedgerSchema.migrator.migrate(pool)
      // GRDB sets NORMAL when it turns on WAL, so this comes after opening.
      try pool.writeWithoutTransaction { try $0.execute(sql: "PRAGMA synchronous = FULL") }
      return pool
    }
    try LedgerError.translating(path: path) {
      let synchronous = try pool.writeWithoutTransaction {
        try Int.fetchOne($0, sql: "PRAGMA synchronous") ?? -1
      }
      guard synchronous == 2 else {
        throw LedgerError.notDurable(path: path, synchronous: synchronous)
      }
      try pool.write { database in
        if let sweep = try SweepRow.fetch(database) {
          try Self.check(sweep, is: spec, version: version, path: path)
        } else {
          try Self.insert(spec: spec, plan: plan, version: version, now: now, into: database)
        }
      }
    }
  }

  /// Refuses files of others before anything is written to them.
  private static func checkFormat(path: String) throws {
    try LedgerError.translating(path: path) {
      var configuration = Configuration()
      configuration.readonly = true
      let queue = try DatabaseQueue(path: path, configuration: configuration)
      try queue.read { database in
        let tables = try Int.fetchOne(database, sql: "SELECT count(*) FROM sqlite_master") ?? 0
        let id = try Int32.fetchOne(database, sql: "PRAGMA application_id") ?? 0
        if tables > 0 && id != LedgerSchema.applicationID {
          throw LedgerError.notALedger(path: path, detail: "another kind of SQLite database")
        }
        if tables > 0, try LedgerSchema.migrator.hasBeenSuperseded(database) {
          throw LedgerError.newer(path: path)
        }
        let problem = try String.fetchOne(database, sql: "PRAGMA quick_check(1)") ?? "ok"
        if problem != "ok" { throw LedgerError.damaged(path: path, detail: problem) }
      }
    }
  }

  private static func check(
    _ sweep: SweepRow, is spec: SweepSpec, version: String, path: String
  ) throws {
    if try spec.digest().description != sweep.specDigest {
      let recorded = try sweep.decodedSpec(path: path)
      throw LedgerError.otherSweep(path: path, differences: try spec.differences(from: recorded))
    }
    if sweep.programVersion != version {
      throw LedgerError.otherProgram(path: path, found: sweep.programVersion, here: version)
    }
  }

  private static func insert(
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
          (id, ordinal, kind, domain, bias, ratio, mitigation, seed, dependency, cost)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        """)
    var shardOfTrial: [TrialID: ShardID] = [:]
    for (ordinal, shard) in plan.shards.enumerated() {
      let id = shard.id.description
      let dependency = shard.dependency?.description
      switch shard.work {
      case .augmentation(let key, _):
        try insertShard.execute(arguments: [
          id, ordinal, "augmentation", key.domain.rawValue, key.bias.rawValue, nil, nil, nil,
          dependency, shard.cost,
        ])
      case .fineTune(let key, let trials):
        try insertShard.execute(arguments: [
          id, ordinal, "fine_tune", key.domain.rawValue, key.bias?.rawValue, key.ratio,
          key.mitigation.rawValue, Int64(key.seed), dependency, shard.cost,
        ])
        for trial in trials { shardOfTrial[trial.id] = shard.id }
      }
    }
    let insertTrial = try database.makeStatement(
      sql: """
        INSERT INTO trial (id, ordinal, shard, task, bias, ratio, mitigation, seed)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)
        """)
    for (ordinal, trial) in plan.grid.trials.enumerated() {
      try insertTrial.execute(arguments: [
        trial.id.description, ordinal, shardOfTrial[trial.id]?.description, trial.task.id,
        trial.bias?.rawValue, trial.ratio, trial.mitigation.rawValue, Int64(trial.seed),
      ])
    }
    let insertPoint = try database.makeStatement(
      sql: """
        INSERT INTO grid_point (ordinal, task, bias, ratio, mitigation, seed, trial)
        VALUES (?, ?, ?, ?, ?, ?, ?)
        """)
    for (ordinal, point) in plan.grid.points.enumerated() {
      try insertPoint.execute(arguments: [
        ordinal, point.task.id, point.bias.rawValue, point.ratio, point.mitigation.rawValue,
        Int64(point.seed), point.trial.id.description,
      ])
    }
  }

  // MARK: Events

  /// Every event, oldest first.
  package func events() throws -> [SweepEvent] {
    try LedgerError.translating(path: path) {
      try pool.read { database in
        let decoder = JSONDecoder()
        var events: [SweepEvent] = []
        let rows = try Row.fetchCursor(
          database, sql: "SELECT sequence, payload FROM event ORDER BY sequence")
        while let row = try rows.next() {
          let payload: String = row["payload"]
          do {
            events.append(try decoder.decode(SweepEvent.self, from: Data(payload.utf8)))
          } catch {
            let sequence: Int = row["sequence"]
            throw LedgerError.damaged(
              path: path, detail: "event \(sequence) cannot be decoded (\(error))")
          }
        }
        return events
      }
    }
  }

  /// Records events and what follows from them, all or nothing.
  ///
  /// - Parameter now: wall clock, in seconds since 1970.
  /// - Throws: `LedgerError`; then it is unknown only to this process whether the events are
  ///   recorded, so the caller must end and recover from the ledger.
  package func append(_ events: [SweepEvent], now: Double) throws {
    guard !events.isEmpty else { return }
    try LedgerError.translating(path: path) {
      try pool.write { database in
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let insertEvent = try database.cachedStatement(
          sql: "INSERT INTO event (at, kind, payload) VALUES (?, ?, ?)")
        for event in events {
          let payload = String(decoding: try encoder.encode(event), as: UTF8.self)
          try insertEvent.execute(arguments: [now, event.kind, payload])
          try Self.project(event, now: now, into: database)
        }
      }
    }
  }

  /// Ends the use of the ledger, so that another coordinator may open it while this object lives.
  package func close() throws {
    try LedgerError.translating(path: path) { try pool.close() }
    lock.release()
  }

  /// Copies what the write-ahead log holds into the main file, so that it stands alone.
  package func checkpoint() throws {
    try LedgerError.translating(path: path) {
      _ = try pool.writeWithoutTransaction { try $0.checkpoint(.truncate) }
    }
  }
}
