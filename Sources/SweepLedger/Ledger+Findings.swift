import Foundation
import GRDB
import SweepCore

extension Ledger {
  /// Makes the recorded findings these, in one transaction that touches only what differs.
  ///
  /// - Throws: `LedgerError`; the findings are then as they were.
  package func store(findings: [Finding]) throws {
    try writing { try Self.store(findings, into: $0) }
  }

  private static func store(_ findings: [Finding], into database: Database) throws {
    let recorded = Dictionary(
      uniqueKeysWithValues: try Finding.fetchAll(database).map { ($0.id, $0) })
    let wanted = Dictionary(findings.map { ($0.id, $0) }) { first, _ in first }
    for id in recorded.keys.sorted() where wanted[id] == nil {
      try database.cachedStatement(sql: "DELETE FROM finding WHERE id = ?")
        .execute(arguments: [id])
    }
    let insert = try database.cachedStatement(
      sql: """
        INSERT OR REPLACE INTO finding (id, kind, task, metric, bias, ratio, mitigation, round,
          predictor, role, estimate, standard_error, lower, upper, effect_size, p_value, p_adjusted, family,
          seeds, items, note, inputs)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        """)
    for (id, finding) in wanted.sorted(by: { $0.key < $1.key }) where recorded[id] != finding {
      try insert.execute(arguments: [
        id, finding.kind.rawValue, finding.task, finding.metric, finding.bias, finding.ratio,
        finding.mitigation, finding.round, finding.predictor, finding.role?.rawValue,
        finding.estimate,
        finding.standardError, finding.lower, finding.upper, finding.effectSize, finding.pValue,
        finding.adjustedPValue, finding.family, finding.seeds, finding.items, finding.note,
        finding.inputs.description,
      ])
    }
  }

  /// Makes the recorded findings of a ledger that nobody has open these.
  ///
  /// - Throws: `LedgerError`; `inUse` while a coordinator has it.
  package static func repair(path: String, findings: [Finding]) throws {
    let lock = try LedgerLock(ledger: path)
    defer { lock.release() }
    try checkFormat(path: path)
    let pool = try openPool(path: path)
    try LedgerError.translating(path: path) {
      try pool.write { try store(findings, into: $0) }
      try pool.close()
    }
  }

  /// The findings as they were stored last.
  package func findings() throws -> [Finding] {
    try reading { try Finding.fetchAll($0) }
  }

  /// Completed trials with the values of their items, and facts of D_a.
  package func results() throws -> RecordedResults {
    try reading { try RecordedResults($0) }
  }
}

extension LedgerReader {
  /// What the statistics made of the results so far; empty in a ledger from before there were any.
  package func findings() throws -> [Finding] {
    try read { database in
      try database.tableExists("finding") ? Finding.fetchAll(database) : []
    }
  }

  /// Completed trials with the values of their items, and facts of D_a.
  package func recordedResults() throws -> RecordedResults {
    try read { try RecordedResults($0) }
  }
}

/// Everything that the statistics start from, as of one instant.
package struct RecordedResults: Sendable {
  package struct Trial: Sendable {
    package let task: String
    /// Nil at ratio 0.
    package let bias: String?
    package let ratio: Double
    package let mitigation: String
    package let seed: Int64
    package let round: Int
    package let metrics: [String: Double]
    package let items: [String: [Double]]
  }

  package struct Fact: Hashable, Sendable {
    package let domain: String
    package let bias: String
    /// The round whose fine-tunes use the D_a.
    package let round: Int
    /// Of the fine-tune that wrote the D_a; nil in the first round.
    package let ratio: Double?
    package let mitigation: String?
    package let name: String
    package let value: Double
  }

  /// In the grid's order.
  package let trials: [Trial]
  /// Of the shards that made D_a, without what a mitigation made of it.
  package let facts: [Fact]

  init(_ database: Database) throws {
    var metrics: [String: [String: Double]] = [:]
    for row in try Row.fetchAll(database, sql: "SELECT trial, name, value FROM metric") {
      metrics[row[0], default: [:]][row[1]] = row[2]
    }
    var items: [String: [String: [Double]]] = [:]
    if try database.tableExists("trial_items") {
      let rows = try Row.fetchCursor(
        database, sql: "SELECT trial, measure, \"values\" FROM trial_items")
      while let row = try rows.next() {
        let bytes: Data = row[2]
        items[row[0], default: [:]][row[1]] = TrialItems.decoded(Array(bytes))
      }
    }
    let roundOfTrial = try LedgerSchema.round(of: "trial", in: database)
    trials = try Row.fetchAll(
      database,
      sql: """
        SELECT id, task, bias, ratio, mitigation, seed, \(roundOfTrial) AS round FROM trial
        WHERE completed_by IS NOT NULL ORDER BY ordinal
        """
    ).map { row in
      let id: String = row["id"]
      return Trial(
        task: row["task"], bias: row["bias"], ratio: row["ratio"], mitigation: row["mitigation"],
        seed: row["seed"], round: row["round"], metrics: metrics[id] ?? [:], items: items[id] ?? [:]
      )
    }
    let roundOfShard = try LedgerSchema.round(of: "shard", in: database)
    facts = try Row.fetchAll(
      database,
      sql: """
        SELECT shard.domain, shard.bias, \(roundOfShard), shard.ratio, shard.mitigation, fact.name,
          fact.value
        FROM fact JOIN shard ON shard.id = fact.shard
        WHERE shard.kind = 'augmentation' AND shard.bias IS NOT NULL
          AND shard.id NOT LIKE '%/token-decoding'
        ORDER BY shard.ordinal, fact.name
        """
    ).map {
      Fact(
        domain: $0[0], bias: $0[1], round: $0[2], ratio: $0[3], mitigation: $0[4], name: $0[5],
        value: $0[6])
    }
  }
}

extension Finding {
  fileprivate static func fetchAll(_ database: Database) throws -> [Finding] {
    try Row.fetchAll(database, sql: "SELECT * FROM finding ORDER BY id").compactMap { row in
      guard let kind = Kind(rawValue: row["kind"]),
        let inputs = ContentDigest(hex: row["inputs"])
      else { return nil }
      var finding = Finding(kind, inputs: inputs)
      finding.task = row["task"]
      finding.metric = row["metric"]
      finding.role = (row["role"] as String?).flatMap(HeadlineRole.init)
      finding.bias = row["bias"]
      finding.ratio = row["ratio"]
      finding.mitigation = row["mitigation"]
      finding.round = (row["round"] as Int?) ?? 1
      finding.predictor = row["predictor"]
      finding.estimate = row["estimate"]
      finding.standardError = row["standard_error"]
      finding.lower = row["lower"]
      finding.upper = row["upper"]
      finding.effectSize = row["effect_size"]
      finding.pValue = row["p_value"]
      finding.adjustedPValue = row["p_adjusted"]
      finding.family = row["family"]
      finding.seeds = row["seeds"]
      finding.items = row["items"]
      finding.note = row["note"]
      return finding
    }
  }
}
