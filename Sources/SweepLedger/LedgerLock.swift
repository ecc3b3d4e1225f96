#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// The right to be the one coordinator of a ledger: an advisory lock on a file beside it. The
/// kernel drops it with the process, so a crash never leaves a stale one.
package final class LedgerLock: Sendable {
  private let descriptor: Int32

  /// - Throws: `LedgerError.inUse` when another process holds the lock.
  package init(ledger path: String) throws {
    descriptor = open(Self.file(of: path), O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else {
      let code = errno
      switch code {
      case ENOSPC, EDQUOT: throw LedgerError.diskFull(path: path)
      case EACCES, EPERM, EROFS: throw LedgerError.readOnly(path: path)
      default:
        throw LedgerError.failed(
          path: path,
          detail: "cannot create \(Self.file(of: path)): \(String(cString: strerror(code)))")
      }
    }
    // A reader that asks `isHeld` has a shared lock for an instant; a coordinator keeps its own.
    for _ in 0..<20 {
      if flock(descriptor, LOCK_EX | LOCK_NB) == 0 { return }
      usleep(5_000)
    }
    close(descriptor)
    throw LedgerError.inUse(path: path)
  }

  deinit { close(descriptor) }

  /// One file for all names that lead to the ledger by symbolic links.
  private static func file(of ledger: String) -> String {
    guard let resolved = realpath(ledger, nil) else { return "\(ledger)-lock" }
    defer { free(resolved) }
    return "\(String(cString: resolved))-lock"
  }

  /// Gives the right up while the object lives.
  func release() { _ = flock(descriptor, LOCK_UN) }

  /// Whether a coordinator works on the ledger now.
  package static func isHeld(ledger path: String) -> Bool {
    let descriptor = open(file(of: path), O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return false }
    defer { close(descriptor) }
    return flock(descriptor, LOCK_SH | LOCK_NB) != 0
  }
}
