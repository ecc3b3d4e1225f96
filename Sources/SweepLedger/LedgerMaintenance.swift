import Foundation
import GRDB

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Care of a ledger as a file.
package enum LedgerMaintenance {
  /// Copies a ledger, also that of a running sweep, into a file of its own. The copy holds the state
  /// of one instant and appears under its name only when it is whole and on the disk; neither the
  /// coordinator nor readers wait for it.
  ///
  /// - Returns: bytes of the copy.
  /// - Throws: `LedgerError`; `targetExists` rather than overwriting anything.
  package static func backup(path: String, to target: String) throws -> Int {
    guard !FileManager.default.fileExists(atPath: target) else {
      throw LedgerError.targetExists(path: target)
    }
    let reader = try LedgerReader(path: path)
    let partial = "\(target).\(getpid()).partial"
    defer { unlink(partial) }
    try LedgerError.translating(path: target) {
      try reader.queue.inDatabase { database in
        try database.execute(sql: "VACUUM INTO ?", arguments: [partial])
      }
    }
    let copied = try LedgerReader(path: partial)
    try LedgerError.translating(path: partial) {
      let problem = try copied.queue.read { try String.fetchOne($0, sql: "PRAGMA quick_check(1)") }
      if let problem, problem != "ok" {
        throw LedgerError.damaged(path: path, detail: "its copy is not whole: \(problem)")
      }
      try copied.queue.close()
    }
    try synchronize(partial, of: target)
    guard link(partial, target) == 0 else {
      if errno == EEXIST { throw LedgerError.targetExists(path: target) }
      throw systemError(target, "cannot name the copy")
    }
    let directory = (target as NSString).deletingLastPathComponent
    try synchronize(directory.isEmpty ? "." : directory, of: target)
    return try size(of: target)
  }

  /// Rewrites a ledger without the gaps that grew in it. No coordinator may be at work on it.
  ///
  /// - Returns: bytes before and after.
  /// - Throws: `LedgerError`; whatever happens, the ledger keeps all that it held.
  package static func vacuum(path: String) throws -> (before: Int, after: Int) {
    // Refuses what is no ledger before a lock file is left beside it.
    _ = try LedgerReader(path: path)
    let lock = try LedgerLock(ledger: path)
    defer { lock.release() }
    try Ledger.checkFormat(path: path)
    let before = try LedgerError.translating(path: path) {
      let queue = try DatabaseQueue(path: path, configuration: Ledger.configuration)
      let before = try queue.writeWithoutTransaction { database in
        try database.execute(sql: "PRAGMA synchronous = FULL")
        // What the write-ahead log holds counts as before.
        _ = try database.checkpoint(.truncate)
        let before = try size(of: path)
        try database.execute(sql: "VACUUM")
        _ = try database.checkpoint(.truncate)
        return before
      }
      try queue.close()
      return before
    }
    return (before, try size(of: path))
  }

  private static func size(of path: String) throws -> Int {
    var status = stat()
    guard stat(path, &status) == 0 else { throw systemError(path, "cannot be looked at") }
    return Int(status.st_size)
  }

  /// Waits until a file, or the names in a directory, are on the disk.
  private static func synchronize(_ path: String, of target: String) throws {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    defer { if descriptor >= 0 { close(descriptor) } }
    guard descriptor >= 0, fsync(descriptor) == 0 else {
      throw systemError(target, "cannot be written to the disk")
    }
  }

  private static func systemError(_ path: String, _ what: String) -> LedgerError {
    .failed(path: path, detail: "\(what): \(String(cString: strerror(errno)))")
  }
}
