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
  package convenience init(
    path: String, spec: SweepSpec, plan: ShardPlan, version: String, now: Double
  ) throws {
    try self.init(
      LedgerOpening(path: path, spec: spec, version: version), plan: plan, now: now)
  }

  /// The same, once an examination that was begun before has ended.
  package init(_ opening: LedgerOpening, plan: ShardPlan, now: Double) throws {
    path = opening.path
    lock = opening.lock
    try opening.waitForExamination()
    let (path, spec, version) = (opening.path, opening.spec, opening.version)
    pool = try Self.openPool(path: path)
    try LedgerError.translating(path: path) {
      let synchronous = try pool.writeWithoutTransaction {
        try Int.fetchOne($0, sql: "PRAGMA synchronous") ?? -1
      }
      guard synchronous == 2 else {
        throw LedgerError.notDurable(path: path, synchronous: synchronous)
      }
      try pool.write { database in
        if try SweepRow.fetch(database) == nil {
          try Self.insert(spec: spec, plan: plan, version: version, now: now, into: database)
        }
      }
    }
  }

  static var configuration: Configuration {
    var configuration = Configuration()
    configuration.foreignKeysEnabled = true
    configuration.busyMode = .timeout(10)
    return configuration
  }

  /// Opens the file and brings its schema to this program's version.
  static func openPool(path: String) throws -> DatabasePool {
    try LedgerError.translating(path: path) {
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

  /// Refuses damaged files and those of others, and with a spec those of other sweeps, before
  /// anything is written to them.
  static func checkFormat(path: String, of spec: SweepSpec? = nil, version: String = "") throws {
    try LedgerError.translating(path: path) {
      var configuration = Configuration()
      // A start that was cut off in its first moment left a journal, which must be rolled back.
      configuration.readonly = !FileManager.default.fileExists(atPath: "\(path)-journal")
      let queue = try DatabaseQueue(path: path, configuration: configuration)
      try queue.read { database in
        // The list of migrations alone is what a start leaves that was cut off before the first.
        let tables =
          try Int.fetchOne(
            database,
            sql: "SELECT count(*) FROM sqlite_master WHERE tbl_name <> 'grdb_migrations'") ?? 0
        let id = try Int32.fetchOne(database, sql: "PRAGMA application_id") ?? 0
        if tables > 0 && id != LedgerSchema.applicationID {
          throw LedgerError.notALedger(path: path, detail: "another kind of SQLite database")
        }
        if tables > 0, try LedgerSchema.migrator.hasBeenSuperseded(database) {
          throw LedgerError.newer(path: path)
        }
        let problem = try String.fetchOne(database, sql: "PRAGMA quick_check(1)") ?? "ok"
        if problem != "ok" { throw LedgerError.damaged(path: path, detail: problem) }
        if tables > 0, let spec, let sweep = try SweepRow.fetch(database) {
          try check(sweep, is: spec, version: version, path: path)
        }
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

  /// The state that was saved last; nil if none was.
  package func snapshot() throws -> LedgerSnapshot? {
    try LedgerError.translating(path: path) { try pool.read(LedgerSnapshot.fetch) }
  }

  /// The events after one, oldest first; all of them by default.
  package func events(after sequence: Int64 = 0) throws -> [SweepEvent] {
    try LedgerError.translating(path: path) {
      try pool.read { database in
        let decoder = JSONDecoder()
        var events: [SweepEvent] = []
        let rows = try Row.fetchCursor(
          database, sql: "SELECT sequence, payload FROM event WHERE sequence > ? ORDER BY sequence",
          arguments: [sequence])
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
  /// - Parameters:
  ///   - now: wall clock, in seconds since 1970.
  ///   - state: the scheduler's, after these events, to be saved with them.
  /// - Returns: the last event's number; 0 without events.
  /// - Throws: `LedgerError`; then it is unknown only to this process whether the events are
  ///   recorded, so the caller must end and recover from the ledger.
  @discardableResult
  package func append(_ events: [SweepEvent], now: Double, state: Data? = nil) throws -> Int64 {
    guard !events.isEmpty else { return 0 }
    return try LedgerError.translating(path: path) {
      try pool.write { database in
        var last: Int64 = 0
        let payload = EventPayload()
        let insertEvent = try database.cachedStatement(
          sql: "INSERT INTO event (at, kind, payload) VALUES (?, ?, ?)")
        for event in events {
          try insertEvent.execute(arguments: [now, event.kind, try payload.text(of: event)])
          last = database.lastInsertedRowID
          try Self.project(event, now: now, into: database)
        }
        if let state {
          try LedgerSnapshot(sequence: last, state: state).save(database)
        }
        return last
      }
    }
  }

  /// Saves the scheduler's state as it was after an event that is recorded already.
  ///
  /// - Throws: `LedgerError`; then the state that was saved before stands.
  package func save(_ snapshot: LedgerSnapshot) throws {
    try LedgerError.translating(path: path) { try pool.write(snapshot.save) }
  }

  func writing(_ body: (Database) throws -> Void) throws {
    try LedgerError.translating(path: path) { try pool.write(body) }
  }

  func reading<Value>(_ body: (Database) throws -> Value) throws -> Value {
    try LedgerError.translating(path: path) { try pool.read(body) }
  }

  /// Ends the use of the ledger, so that another coordinator may open it while this object lives.
  package func close() throws {
    try LedgerError.translating(path: path) { try pool.close() }
    lock.release()
  }

  /// Copies what the write-ahead log holds into the main file, as far as no reader still needs it
  /// there: readers do not hold up the end of a run.
  package func checkpoint() throws {
    try LedgerError.translating(path: path) {
      _ = try pool.writeWithoutTransaction { try $0.checkpoint(.passive) }
    }
  }
}
