import Foundation
import GRDB
import SweepCore

/// Whether a ledger says the same in all its parts: the file's structure, its plan against the
/// spec, its tables against a replay of its events, its saved state against the events, and what
/// its digests name.
package struct LedgerVerification: Sendable {
  package var events = 0
  package var trialsCompleted = 0
  package var artifacts = 0
  /// The event up to which the scheduler's state is saved; nil if none is.
  package var snapshotSequence: Int64?
  package var resultDigest = ""
  /// What does not fit, in words; empty for a sound ledger.
  package var problems: [String] = []
  /// What could not be checked, and why.
  package var unchecked: [String] = []

  /// Problems of one kind that are reported at most.
  private static let problemsMax = 20
  private static let tables = [
    "input", "worker", "shard", "attempt", "trial", "metric", "note", "fact",
  ]
  /// What no event changes, so that only a plan of the spec can be compared with it.
  private static let plannedTables = ["grid_point"]

  /// Verifies a ledger, also that of a running sweep, as of one instant. Nothing is changed.
  ///
  /// - Parameters:
  ///   - artifacts: directory of the sweep's artifacts, named by their SHA-256; nil skips them.
  ///   - version: of this program; another one may plan other shards.
  /// - Throws: `LedgerError` when the file is not a ledger or cannot be read.
  package init(path: String, artifacts: URL?, version: String) throws {
    let reader = try LedgerReader(path: path)
    try LedgerError.translating(path: path) {
      try reader.queue.inTransaction(.deferred) { database in
        try checkStructure(database)
        // What a damaged file says is not worth comparing.
        if problems.isEmpty { try checkContents(database, path: path, version: version) }
        if problems.isEmpty, let artifacts { try checkArtifacts(database, in: artifacts) }
        return .rollback
      }
    }
  }

  private mutating func report(_ found: [String]) {
    problems += found.prefix(Self.problemsMax)
    if found.count > Self.problemsMax {
      problems.append("… and \(found.count - Self.problemsMax) more of this kind")
    }
  }

  private mutating func checkStructure(_ database: Database) throws {
    let structure = try String.fetchAll(database, sql: "PRAGMA integrity_check")
    report(structure.filter { $0 != "ok" })
    let dangling = try Row.fetchAll(database, sql: "PRAGMA foreign_key_check")
    report(
      dangling.map { row in
        let (table, parent): (String, String) = (row["table"], row["parent"])
        return "a row of \(table) refers to a row of \(parent) that is not there"
      })
  }

  private mutating func checkContents(
    _ database: Database, path: String, version: String
  ) throws {
    guard let sweep = try SweepRow.fetch(database) else {
      problems.append("no sweep was started in it")
      return
    }
    let spec = try sweep.decodedSpec(path: path)
    // Both as it is read and as it stands there: the text may say the same in other bytes.
    if try spec.digest().description != sweep.specDigest
      || ContentDigest(of: sweep.spec.utf8).description != sweep.specDigest
    {
      problems.append("the recorded spec does not have the recorded digest \(sweep.specDigest)")
    }
    if spec.name != sweep.name {
      problems.append("the sweep is named \(sweep.name), and \(spec.name) in its spec")
    }
    let plan = try planFromSpec(spec, of: sweep, version: version, database)
    let recorded = try Self.events(database)
    events = recorded.count
    let replay = try DatabaseQueue()
    try LedgerSchema.migrator.migrate(replay)
    let replayed = try replay.writeWithoutTransaction { copy in
      try copy.inTransaction {
        if let plan {
          try Ledger.insert(
            spec: spec, plan: plan, version: sweep.programVersion, now: sweep.createdAt, into: copy)
        } else {
          try Self.copyPlan(from: database, into: copy)
        }
        return .commit
      }
      return try replayEvents(recorded, into: copy)
    }
    if replayed {
      let tables = Self.tables + (plan == nil ? [] : Self.plannedTables)
      // Costs only order shards and weigh progress, so a version may reckon them otherwise.
      let skipped = sweep.programVersion == version ? [] : ["cost"]
      try replay.read { copy in
        for table in tables {
          report(try Self.differences(of: table, without: skipped, database, copy))
        }
      }
    }
    report(try Self.itemProblems(database, events: recorded.map(\.event)))
    let rows = try Row.fetchAll(database, sql: "SELECT trial, name, value FROM metric")
    resultDigest =
      ContentDigest(
        results: rows.map {
          ResultRow(trial: TrialID($0["trial"]), metric: $0["name"], value: $0["value"])
        }
      ).description
    trialsCompleted =
      try Int.fetchOne(database, sql: "SELECT count(*) FROM trial WHERE completed_by IS NOT NULL")
      ?? 0
    guard sweep.programVersion == version else {
      unchecked.append(
        "costs and saved state, which only BiasSweep \(sweep.programVersion) can make anew")
      return
    }
    guard problems.isEmpty, let plan else { return }
    try checkState(database, plan: plan, events: recorded.map(\.event))
  }

  /// The plan that this program makes of the spec, for the recorded one to be compared with.
  ///
  /// - Returns: nil if there is nothing to compare with; then the replay starts from the recorded
  ///   plan.
  private mutating func planFromSpec(
    _ spec: SweepSpec, of sweep: SweepRow, version: String, _ database: Database
  ) throws -> ShardPlan? {
    // Another spec than the sweep's would plan something else, which the digest says already.
    guard problems.isEmpty else { return nil }
    let tasks = spec.definedTasks.map(\.task)
    guard tasks.count == spec.tasks.count else {
      unchecked.append(
        "plan and saved state, because the spec names tasks without their definitions")
      return nil
    }
    let plan = ShardPlan(spec: spec, tasks: tasks)
    let shards = try String.fetchAll(database, sql: "SELECT id FROM shard ORDER BY ordinal")
    let trials = try String.fetchAll(database, sql: "SELECT id FROM trial ORDER BY ordinal")
    if shards == plan.shards.map(\.id.description),
      trials == plan.grid.trials.map(\.id.description)
    {
      return plan
    }
    if sweep.programVersion == version {
      problems.append("the recorded shards and trials are not those that the spec plans")
    } else {
      unchecked.append("plan, because BiasSweep \(version) makes another one of the spec")
    }
    return nil
  }

  private struct RecordedEvent {
    let sequence: Int64
    let at: Double
    let event: SweepEvent
  }

  private static func events(_ database: Database) throws -> [RecordedEvent] {
    let decoder = JSONDecoder()
    return try Row.fetchAll(
      database, sql: "SELECT sequence, at, payload FROM event ORDER BY sequence"
    ).map { row in
      let payload: String = row["payload"]
      return RecordedEvent(
        sequence: row["sequence"], at: row["at"],
        event: try decoder.decode(SweepEvent.self, from: Data(payload.utf8)))
    }
  }

  /// Shards and trials as they were planned before the first event, where the spec cannot say.
  private static func copyPlan(from database: Database, into copy: Database) throws {
    for (table, columns) in [
      ("shard", "id, ordinal, kind, domain, bias, ratio, mitigation, seed, dependency, cost"),
      ("trial", "id, ordinal, shard, task, bias, ratio, mitigation, seed"),
    ] {
      let marks = columns.split(separator: ",").map { _ in "?, " }.joined()
      let insert = try copy.makeStatement(
        sql: "INSERT INTO \(table) (\(columns), round) VALUES (\(marks)?)")
      let round = try LedgerSchema.round(of: table, in: database)
      let rows = try Row.fetchCursor(
        database, sql: "SELECT \(columns), \(round) FROM \(table) ORDER BY ordinal")
      while let row = try rows.next() {
        try insert.execute(arguments: StatementArguments(row.databaseValues))
      }
    }
  }

  /// - Returns: false if an event cannot follow those before it.
  private mutating func replayEvents(_ events: [RecordedEvent], into copy: Database) throws -> Bool
  {
    var succeeded = true
    try copy.inTransaction {
      for recorded in events {
        do {
          try Ledger.project(recorded.event, now: recorded.at, into: copy)
        } catch let error as DatabaseError {
          problems.append(
            "event \(recorded.sequence) (\(recorded.event.kind)) cannot follow those before it: "
              + (error.message ?? "\(error.resultCode)"))
          succeeded = false
          return .rollback
        }
      }
      return .commit
    }
    return succeeded
  }

  /// Rows of a table that spec and events make otherwise.
  ///
  /// - Parameter skipped: columns that are not compared.
  private static func differences(
    of table: String, without skipped: [String], _ database: Database, _ copy: Database
  ) throws -> [String] {
    let columns = try String.fetchAll(
      database, sql: "SELECT name FROM pragma_table_info(?)", arguments: [table]
    ).filter { !skipped.contains($0) }
    let keys = try String.fetchAll(
      database, sql: "SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk",
      arguments: [table])
    let sql = """
      SELECT \(columns.joined(separator: ", ")) FROM \(table)
      ORDER BY \(keys.joined(separator: ", "))
      """
    let count = "SELECT count(*) FROM \(table)"
    let (here, there) = (
      try Int.fetchOne(database, sql: count) ?? 0, try Int.fetchOne(copy, sql: count) ?? 0
    )
    if here != there {
      return ["\(table) has \(here) rows, a replay of the events makes \(there)"]
    }
    let recorded = try Row.fetchCursor(database, sql: sql)
    let replayed = try Row.fetchCursor(copy, sql: sql)
    var found: [String] = []
    while let row = try recorded.next(), let other = try replayed.next() {
      for column in columns {
        let (value, expected): (DatabaseValue, DatabaseValue) = (row[column], other[column])
        if value != expected {
          let key = keys.map { "\(row[$0] as DatabaseValue)" }.joined(separator: " ")
          found.append("\(table) \(key): \(column) is \(value), a replay makes \(expected)")
        }
      }
    }
    return found
  }

  /// Values of test items that are not those whose digest the trial's event has.
  private static func itemProblems(
    _ database: Database, events: [SweepEvent]
  ) throws -> [String] {
    guard try database.tableExists("trial_items") else { return [] }
    var recorded: [String: [String: [Double]]] = [:]
    let rows = try Row.fetchCursor(
      database, sql: "SELECT trial, measure, \"values\" FROM trial_items")
    while let row = try rows.next() {
      let (trial, measure, bytes): (String, String, Data) = (row[0], row[1], row[2])
      recorded[trial, default: [:]][measure] = TrialItems.decoded(Array(bytes)) ?? []
    }
    var problems: [String] = []
    for case .trialCompleted(let trial, _, _, _, let items?) in events {
      guard let values = recorded.removeValue(forKey: trial.description) else {
        problems.append("trial_items has no values of \(trial)")
        continue
      }
      if TrialItems.digest(of: values) != items.digest {
        problems.append("the values of \(trial) in trial_items are not those that were reported")
      }
    }
    return problems
      + recorded.keys.sorted().map { "trial_items has values of \($0) that nobody reported" }
  }

  /// The scheduler's saved state.
  private mutating func checkState(
    _ database: Database, plan: ShardPlan, events: [SweepEvent]
  ) throws {
    let policy = ExecutionPolicy()
    var replayed = Scheduler(plan: plan, policy: policy, seed: 0)
    for event in events { replayed.apply(event, now: .zero) }
    guard let saved = try LedgerSnapshot.fetch(database) else { return }
    snapshotSequence = saved.sequence
    guard
      var restored = Scheduler(
        plan: plan, policy: policy, seed: 0, snapshot: saved.state, now: .zero)
    else {
      unchecked.append("the saved state, which this program cannot read (it will not use it)")
      return
    }
    let skipped = try Int.fetchOne(
      database, sql: "SELECT count(*) FROM event WHERE sequence <= ?", arguments: [saved.sequence])
    for event in events.dropFirst(skipped ?? 0) { restored.apply(event, now: .zero) }
    if restored.durableState != replayed.durableState {
      problems.append(
        "the state saved at event \(saved.sequence), with the events after it, differs from a "
          + "replay of all events")
    }
  }

  private mutating func checkArtifacts(_ database: Database, in directory: URL) throws {
    let digests = try String.fetchAll(
      database, sql: "SELECT DISTINCT artifact FROM shard WHERE artifact IS NOT NULL ORDER BY 1")
    var found: [String] = []
    for digest in digests {
      let file = directory.appendingPathComponent(digest)
      guard let bytes = FileManager.default.contents(atPath: file.path) else {
        found.append("the artifact \(file.path) is missing")
        continue
      }
      if ContentDigest(of: bytes).description != digest {
        found.append("the artifact \(file.path) has another digest than its name says")
      }
    }
    artifacts = digests.count
    report(found)
  }
}
