import GRDB
import SweepCore

/// Why a ledger could not be opened, read or written.
package enum LedgerError: Error, Sendable, CustomStringConvertible {
  case missing(path: String)
  case notALedger(path: String, detail: String)
  case damaged(path: String, detail: String)
  case newer(path: String)
  /// Another coordinator works on the ledger.
  case inUse(path: String)
  case otherSweep(path: String, differences: [SpecDifference])
  case otherProgram(path: String, found: String, here: String)
  case diskFull(path: String)
  /// A copy would overwrite a file.
  case targetExists(path: String)
  case readOnly(path: String)
  /// SQLite does not wait for the disk as asked.
  case notDurable(path: String, synchronous: Int)
  case failed(path: String, detail: String)

  package var description: String {
    switch self {
    case .missing(let path):
      "There is no ledger at \(path). Start one with `biassweep run --ledger \(path)`."
    case .notALedger(let path, let detail):
      "\(path) is not a BiasSweep ledger (\(detail)). Nothing was changed. Name another file "
        + "with --ledger."
    case .damaged(let path, let detail):
      "The ledger \(path) is damaged: \(detail). Nothing was changed. Restore it from a backup, "
        + "or salvage what is readable with `sqlite3 \(path) .recover` into a new file."
    case .newer(let path):
      "The ledger \(path) was written by a newer version of BiasSweep. Use that version, or "
        + "another ledger file."
    case .inUse(let path):
      "Another coordinator works on the ledger \(path). Wait for it to end or stop it; "
        + "`biassweep status --ledger \(path)` shows where it stands."
    case .otherSweep(let path, let differences):
      "The ledger \(path) holds the results of another spec, so the sweep was not started. "
        + "Settings that differ (ledger → now):\n"
        + differences.map { "  \($0)" }.joined(separator: "\n")
        + "\nUndo the change to go on with this ledger, or name a new file with --ledger."
    case .otherProgram(let path, let found, let here):
      "The ledger \(path) was started by BiasSweep \(found); this is \(here), whose results may "
        + "differ. Go on with version \(found), or name a new file with --ledger."
    case .diskFull(let path):
      "The disk that holds the ledger \(path) is full. What was acknowledged is safe; free some "
        + "space and give the same command again to go on."
    case .targetExists(let path):
      "\(path) is there already and is not overwritten. Name another file for the copy."
    case .readOnly(let path):
      "The ledger \(path) cannot be written. Check the permissions of the file and its directory."
    case .notDurable(let path, let synchronous):
      "SQLite does not write the ledger \(path) durably (PRAGMA synchronous reads "
        + "\(synchronous), not 2). This is a defect of BiasSweep; please report it."
    case .failed(let path, let detail):
      "The ledger \(path) cannot be used: \(detail)"
    }
  }

  /// Runs `body` and translates SQLite's errors.
  static func translating<Value>(path: String, _ body: () throws -> Value) throws -> Value {
    do {
      return try body()
    } catch let error as DatabaseError {
      throw LedgerError(error, path: path)
    }
  }

  init(_ error: DatabaseError, path: String) {
    let detail = error.message ?? "\(error.resultCode)"
    switch error.resultCode {
    case .SQLITE_NOTADB: self = .notALedger(path: path, detail: detail)
    case .SQLITE_CORRUPT: self = .damaged(path: path, detail: detail)
    case .SQLITE_FULL: self = .diskFull(path: path)
    case .SQLITE_READONLY, .SQLITE_PERM: self = .readOnly(path: path)
    case .SQLITE_CANTOPEN: self = .failed(path: path, detail: "it cannot be opened (\(detail))")
    default: self = .failed(path: path, detail: "\(error.resultCode): \(detail)")
    }
  }
}
