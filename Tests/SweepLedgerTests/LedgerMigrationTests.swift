import Foundation
import GRDB
import SweepCore
import SweepLedger
import SweepTestKit
import Testing

/// Ledgers that earlier versions of the schema left behind. `Fixtures/version-N.sqlite` was made by
/// the program whose schema was version N: six completed shards, a lost attempt, a quarantined
/// shard, a stopped and resumed sweep, and one lease that still runs.
struct LedgerMigrationTests {
  private let directory: TemporaryDirectory
  private let path: String

  init() throws {
    directory = try TemporaryDirectory()
    path = directory.file("sweep.sqlite")
  }

  private func copyFixture(_ version: Int) throws {
    let name = "version-\(version)"
    let fixture = try #require(
      Bundle.module.url(forResource: name, withExtension: "sqlite", subdirectory: "Fixtures"))
    try FileManager.default.copyItem(at: fixture, to: URL(fileURLWithPath: path))
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

  @Test(arguments: [1])
  func oldLedgerBecomesOneOfTheNewestVersion(version: Int) throws {
    try copyFixture(version)
    let kept = """
      SELECT 'event' AS source, sequence AS id, at AS number, kind || payload AS text FROM event
      UNION ALL SELECT 'metric', trial, value, name FROM metric
      UNION ALL SELECT 'attempt', token, started_at, shard || coalesce(ending, '') FROM attempt
      UNION ALL SELECT 'shard', id, cost, state FROM shard
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
  }

  @Test(arguments: [1])
  func oldLedgerIsReadAsItIs(version: Int) throws {
    try copyFixture(version)
    let before = try bytes(path)
    let reader = try LedgerReader(path: path)
    let status = try reader.status(now: 2_000)
    #expect(status.completed == 2 && status.trials == 36)
    #expect(status.shardsQuarantined == 0 && status.attempts == 9)
    #expect(try reader.trialResults().count == 4)
    #expect(
      try reader.resultDigest().description
        == "8b1411390638fb90e67253221a8255f1fce23ef31aba838fa7ef3d4489fba1fb")
    #expect(try bytes(path) == before)
  }
}
