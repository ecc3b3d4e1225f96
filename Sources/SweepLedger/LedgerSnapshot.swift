import Foundation
import GRDB

/// The scheduler's state as it was after one event, saved with that event or later, so that a
/// restart need not replay all of them. The events alone say what holds: a snapshot that cannot be
/// read is passed over.
package struct LedgerSnapshot: Sendable {
  /// Number of the last event that is part of it.
  package let sequence: Int64
  package let state: Data

  package init(sequence: Int64, state: Data) {
    self.sequence = sequence
    self.state = state
  }

  static func fetch(_ database: Database) throws -> LedgerSnapshot? {
    // A reader may look at a ledger from before there were snapshots.
    guard try database.tableExists("snapshot") else { return nil }
    return try Row.fetchOne(database, sql: "SELECT sequence, state FROM snapshot").map { row in
      LedgerSnapshot(sequence: row["sequence"], state: row["state"])
    }
  }

  /// Replaces the one that was saved before.
  func save(_ database: Database) throws {
    try database.cachedStatement(
      sql: "INSERT OR REPLACE INTO snapshot (id, sequence, state) VALUES (1, ?, ?)"
    ).execute(arguments: [sequence, state])
  }
}
