import GRDB
import SweepCore

/// A set of augmented data of a sweep, finished or not.
package struct AugmentationRecord: Sendable, Hashable {
  /// The shard's name.
  package let id: String
  package let domain: String
  package let bias: String
  /// The round whose fine-tunes use the set.
  package let round: Int
  /// The shard of the fine-tune that writes the set; nil in the first round.
  package let writer: String?
  /// As in the table `shard`; an unfinished sweep's ledger has shards that are queued.
  package let state: String
  /// SHA-256 of the set; nil until it is there.
  package let artifact: String?
  /// Facts of the shard by name, such as its dose and its rejection rate.
  package let facts: [String: Double]
}

extension LedgerReader {
  /// The sets of augmented data, in the plan's order.
  package func augmentations() throws -> [AugmentationRecord] {
    try read { database in
      var facts: [String: [String: Double]] = [:]
      let rows = try Row.fetchCursor(
        database,
        sql: """
          SELECT fact.shard, fact.name, fact.value
          FROM fact JOIN shard ON shard.id = fact.shard WHERE shard.kind = 'augmentation'
          """)
      while let row = try rows.next() {
        facts[row["shard"], default: [:]][row["name"]] = row["value"]
      }
      let round = try LedgerSchema.round(of: "shard", in: database)
      return try Row.fetchAll(
        database,
        sql: """
          SELECT id, domain, bias, \(round) AS round, dependency, state, artifact FROM shard
          WHERE kind = 'augmentation' ORDER BY ordinal
          """
      ).map { row in
        let id: String = row["id"]
        return AugmentationRecord(
          id: id, domain: row["domain"], bias: row["bias"], round: row["round"],
          writer: row["dependency"], state: row["state"], artifact: row["artifact"],
          facts: facts[id] ?? [:])
      }
    }
  }
}
