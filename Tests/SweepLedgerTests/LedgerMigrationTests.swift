import Foundation
import GRDB
import SweepCore
import SweepLedger
import SweepTestKit
import Testing

/// Ledgers that earlier versions of the schema left behind. `Fixtures/version-N.sqlite` was made by
/// the program whose schema was version N: six completed shards, a lost attempt, a quarantined
/// shard, a stopped and resumed sweep, and one lease that still runs; from version 2 on also what
/// operators do (cancelled and retried shards, a drained worker, a pause); from version 3 on a
/// snapshot of that time's form; from version 4 on values of items, and findings.
struct LedgerMigrationTests {
  static let versions = [1, 2, 3, 4]

  private let directory: TemporaryDirectory
  private let path: String

  init() throws {
    directory = try TemporaryDirectory()
    path = directory.file("sweep.sqlite")
  }

  private func fixture(_ version: Int) throws -> URL {
    let name = "version-\(version)"
    return try #require(
      Bundle.module.url(forResource: name, withExtension: "sqlite", subdirectory: "Fixtures"))
  }

  private func copyFixture(_ version: Int) throws {
    try FileManager.default.copyItem(at: fixture(version), to: URL(fileURLWithPath: path))
  }

  /// Names and SQL of everything that the schema makes, white space aside.
  private func schema(_ path: String) throws -> [String: String] {
    let rows = try rawDatabase(path).read {
      try Row.fetchAll($0, sql: "SELECT type || ' ' || name AS name, sql FROM sqlite_master")
    }
    return Dictionary(
      uniqueKeysWithValues: rows.map { row in
        let sql: String = row["sql"] ?? ""
        return (row["name"], sql.split(whereSeparator: \.isWhitespace).joined(separator: " "))
      })
  }

  @Test(arguments: Self.versions)
  func oldLedgerBecomesOneOfTheNewestVersion(version: Int) throws {
    try copyFixture(version)
    let kept = """
      SELECT 'event' AS source, sequence AS id, at AS number, kind || payload AS text FROM event
      UNION ALL SELECT 'metric', trial, value, name FROM metric
      UNION ALL SELECT 'attempt', token, started_at, shard || coalesce(ending, '') FROM attempt
      UNION ALL SELECT 'shard', id, cost, state FROM shard
      UNION ALL SELECT 'grid_point', ordinal, ratio,
        task || bias || mitigation || seed || trial FROM grid_point
      ORDER BY source, id
      """
    let before = try rawDatabase(path).read { try Row.fetchAll($0, sql: kept) }
    #expect(before.count > 60)
    try Ledger.migrate(path: path)
    #expect(try rawDatabase(path).read { try Row.fetchAll($0, sql: kept) } == before)

    let fresh = directory.file("fresh.sqlite")
    _ = try SampleSweep().ledger(fresh)
    let (old, new) = (try schema(path), try schema(fresh))
    #expect(Set(old.keys) == Set(new.keys))
    for (name, sql) in new { #expect(old[name] == sql, "\(name)") }
    let problems = try rawDatabase(path).read {
      try String.fetchAll($0, sql: "PRAGMA integrity_check")
        + Row.fetchAll($0, sql: "PRAGMA foreign_key_check").map { "\($0)" }
    }
    #expect(problems == ["ok"])
    // What was there before is of the first round.
    for table in ["shard", "trial", "grid_point", "finding", "trial_result", "grid_result"] {
      #expect(try count("SELECT count(*) FROM \(table) WHERE round <> 1", in: path) == 0)
    }
  }

  /// Whoever adds a version of the schema adds a fixture of the one before.
  @Test func everyOlderVersionHasAFixture() throws {
    let fresh = directory.file("fresh.sqlite")
    _ = try SampleSweep().ledger(fresh)
    let known = try rawDatabase(fresh).read {
      try String.fetchAll($0, sql: "SELECT identifier FROM grdb_migrations")
    }.compactMap(Int.init).sorted()
    #expect(known.dropLast() == Self.versions[...])
    for version in Self.versions {
      let path = directory.file("version-\(version).sqlite")
      try FileManager.default.copyItem(at: fixture(version), to: URL(fileURLWithPath: path))
      let found = try rawDatabase(path).read {
        try String.fetchAll($0, sql: "SELECT identifier FROM grdb_migrations")
      }
      #expect(found.compactMap(Int.init).max() == version)
    }
  }

  @Test(arguments: Self.versions)
  func oldLedgerIsReadAsItIs(version: Int) throws {
    try copyFixture(version)
    let before = try bytes(path)
    let reader = try LedgerReader(path: path)
    let status = try reader.status(now: 2_000)
    #expect(status.completed == 2 && status.trials == 36)
    #expect(status.shardsQuarantined == 0 && status.attempts == (version == 1 ? 9 : 10))
    #expect(try reader.trialResults().count == 4)
    #expect(
      try reader.resultDigest().description
        == "8b1411390638fb90e67253221a8255f1fce23ef31aba838fa7ef3d4489fba1fb")
    let results = try reader.recordedResults()
    #expect(results.trials.count == 2 && results.trials.allSatisfy { $0.round == 1 })
    #expect(results.trials.allSatisfy { $0.items.isEmpty == (version < 4) })
    #expect(!results.facts.isEmpty && results.facts.allSatisfy { $0.round == 1 })
    #expect(try reader.augmentations().allSatisfy { $0.round == 1 && $0.writer == nil })
    #expect(try reader.facts().allSatisfy { $0.round == 1 })
    let findings = try reader.findings()
    #expect(findings.count == (version < 4 ? 0 : 2) && findings.allSatisfy { $0.round == 1 })
    #expect(try bytes(path) == before)
  }

  /// Specs of that time do not say what their tasks are, so that their plan cannot be made anew.
  @Test(arguments: Self.versions)
  func oldLedgerIsSound(version: Int) throws {
    try copyFixture(version)
    let before = try bytes(path)
    let old = try LedgerVerification(
      path: path, artifacts: nil, version: SweepLedgerTests.version)
    #expect(old.problems == [])
    #expect(old.events > 20 && old.trialsCompleted == 2 && old.unchecked.count == 1)
    #expect(try bytes(path) == before)
    try Ledger.migrate(path: path)
    let new = try LedgerVerification(
      path: path, artifacts: nil, version: SweepLedgerTests.version)
    #expect(new.problems == [])
    #expect(new.events == old.events && new.resultDigest == old.resultDigest)
  }

  /// Findings of before keep their names, so that nothing is computed anew for the migration.
  @Test func findingsOfVersion4AreKept() throws {
    try copyFixture(4)
    let before = try LedgerReader(path: path).findings()
    try Ledger.migrate(path: path)
    #expect(try LedgerReader(path: path).findings() == before)
    #expect(
      before.map(\.id) == [
        "level/occupation/accuracy/contextual-single-explicit/0.5/none/-",
        "level/occupation/macro_f1/contextual-single-explicit/0.5/none/-",
      ])
  }

  /// The events of every version mean what they meant: replayed, they give the state of the tables.
  @Test(arguments: Self.versions)
  func oldEventsAreUnderstood(version: Int) throws {
    try copyFixture(version)
    try Ledger.migrate(path: path)
    let payloads = try rawDatabase(path).read {
      try String.fetchAll($0, sql: "SELECT payload FROM event ORDER BY sequence")
    }
    let events = try payloads.map {
      try JSONDecoder().decode(SweepEvent.self, from: Data($0.utf8))
    }
    let plan = try SampleSweep().plan
    let known = Set(plan.shards.map(\.id))
    var scheduler = Scheduler(plan: plan, policy: ExecutionPolicy(), seed: 1)
    for event in events {
      if case .shardLeased(let shard, _, _, _) = event { try #require(known.contains(shard)) }
      scheduler.apply(event, now: .zero)
    }
    let tables = try rawDatabase(path).read {
      try Row.fetchAll($0, sql: "SELECT state, count(*) AS shards FROM shard GROUP BY state")
    }
    let counts = Dictionary(
      uniqueKeysWithValues: tables.map { ($0["state"] as String, $0["shards"] as Int) })
    let summary = scheduler.summary
    #expect(summary.shardsCompleted == counts["completed"])
    #expect(summary.shardsRunning == counts["leased"])
    #expect(summary.shardsCancelled == counts["cancelled", default: 0])
    #expect(summary.shardsQuarantined == counts["quarantined", default: 0])
    #expect(scheduler.drained == (version == 1 ? [] : ["worker-2"]))
    let snapshot = try rawDatabase(path).read {
      try Data.fetchOne($0, sql: "SELECT state FROM snapshot")
    }
    #expect((snapshot != nil) == (version >= 3))
    if let snapshot {
      let restored = Scheduler(
        plan: plan, policy: ExecutionPolicy(), seed: 1, snapshot: snapshot, now: .zero)
      #expect(restored == nil, "a snapshot of another form is passed over")
    }
  }
}
