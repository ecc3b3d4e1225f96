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
    pool = try Self.openPool(path: path)
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

  /// Opens the file and brings its schema to this program's version.
  private static func openPool(path: String) throws -> DatabasePool {
    try LedgerError.translating(path: path) {
      var configuration = Configuration()
      configuration.foreignKeysEnabled = true
      configuration.busyMode = .timeout(10)
      let pool = try DatabasePool(path: path, configuration: configuration)
      try LedgerSchema.migrator.migrate(pool)
      // GRDB sets NORMAL when it turns on WAL, so this comes after opening.
      try pool.writeWithoutTransaction { try $0.execute(sql: "PRAGMA synchronous = FULL") }
      return pool
    }
  }

  /// Converts a ledger of an older version to this program's schema; events and results stay as
  /// they are.
  ///
  /// - Throws: `LedgerError`.
  package static func migrate(path: String) throws {
    let lock = try LedgerLock(ledger: path)
    defer { lock.release() }
    try checkFormat(path: path)
    let pool = try openPool(path: path)
    try LedgerError.translating(path: path) { try pool.close() }
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
        let payload = EventPayload()
        let insertEvent = try database.cachedStatement(
          sql: "INSERT INTO event (at, kind, payload) VALUES (?, ?, ?)")
        for event in events {
          try insertEvent.execute(arguments: [now, event.kind, try payload.text(of: event)])
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
