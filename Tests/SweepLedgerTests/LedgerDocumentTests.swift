import Foundation
import GRDB
import SweepLedger
import SweepTestKit
import Testing

/// docs/LEDGER.md against a real ledger.
struct LedgerDocumentTests {
  private let directory: TemporaryDirectory
  private let path: String
  private let text: String

  /// A sweep with results, notes, facts, a lost attempt and a quarantined shard.
  init() throws {
    directory = try TemporaryDirectory()
    path = directory.file("sweep.sqlite")
    let sample = try SampleSweep()
    let ledger = try sample.ledger(path)
    let last = sample.plan.shards.count - 1
    try ledger.append(
      sample.opening
        + sample.plan.shards.indices.dropLast().flatMap {
          sample.completion(
            of: $0, metrics: { ["accuracy": SampleSweep.value(of: "\($0.id)"), "macro_f1": 0.5] },
            notes: { _ in ["flip_rate": "only 3 twins, at least 10 are needed"] })
        }
        + sample.failure(of: last, evidence: "the loss is not finite at step 12"), now: 2_000)
    text = try String(
      contentsOf: URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("docs/LEDGER.md"), encoding: .utf8)
  }

  /// The document's blocks of SQL.
  private var queries: [String] {
    text.components(separatedBy: "```sql\n").dropFirst().compactMap {
      $0.components(separatedBy: "```").first
    }
  }

  @Test func everyQueryAnswers() throws {
    #expect(queries.count >= 10)
    for query in queries {
      try rawDatabase(path).read { database in
        let rows = try Row.fetchAll(database, sql: query)
        #expect(!rows.isEmpty, "no rows from:\n\(query)")
      }
    }
  }

  @Test func everyTableColumnAndViewIsDescribed() throws {
    try rawDatabase(path).read { database in
      let names = try String.fetchAll(
        database,
        sql: """
          SELECT name FROM sqlite_master
          WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite%'
          """)
      #expect(names.count > 10)
      for name in names {
        let heading = "### `\(name)`\n"
        guard let start = text.range(of: heading) else {
          Issue.record("docs/LEDGER.md has no section for \(name)")
          continue
        }
        let rest = text[start.upperBound...]
        let section = rest[..<(rest.range(of: "\n#")?.lowerBound ?? rest.endIndex)]
        let columns = try String.fetchAll(
          database, sql: "SELECT name FROM pragma_table_info(?)", arguments: [name])
        for column in columns {
          #expect(section.contains("`\(column)`"), "\(name).\(column) is not described")
        }
      }
    }
  }
}
