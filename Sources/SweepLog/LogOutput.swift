import Foundation
import Synchronization

/// Where log lines go: standard error, or a file that can be opened anew after another program has
/// moved it away (logrotate).
package final class LogOutput: Sendable {
  /// The file cannot be opened.
  package struct CannotOpen: Error, CustomStringConvertible {
    let path: String
    let detail: String
    package var description: String { "Cannot write the log file \(path): \(detail)." }
  }

  private let path: String?
  private let descriptor: Mutex<Int32>

  /// - Parameter path: nil for standard error.
  /// - Throws: `CannotOpen`.
  package init(path: String?) throws {
    self.path = path
    descriptor = Mutex(try path.map(Self.open) ?? STDERR_FILENO)
  }

  deinit {
    if path != nil { descriptor.withLock { _ = close($0) } }
  }

  /// Opens the file anew; lines that are being written go to either file, whole.
  ///
  /// - Throws: `CannotOpen`; the old file stays in use then.
  package func reopen() throws {
    guard let path else { return }
    let opened = try Self.open(path)
    descriptor.withLock { descriptor in
      _ = close(descriptor)
      descriptor = opened
    }
  }

  /// Writes one line, at once. A log that cannot be written is no reason to end a sweep, so errors
  /// are dropped.
  func write(_ line: String) {
    var bytes = Array(line.utf8)
    bytes.append(UInt8(ascii: "\n"))
    descriptor.withLock { descriptor in
      var rest = bytes[...]
      while !rest.isEmpty {
        let count = rest.withUnsafeBytes { Foundation.write(descriptor, $0.baseAddress, $0.count) }
        if count < 0 && errno == EINTR { continue }
        guard count > 0 else { return }
        rest = rest.dropFirst(count)
      }
    }
  }

  private static func open(_ path: String) throws -> Int32 {
    let descriptor = Foundation.open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o640)
    guard descriptor >= 0 else {
      throw CannotOpen(path: path, detail: String(cString: strerror(errno)))
    }
    return descriptor
  }
}
