import Crypto
import Foundation
import SweepCore

/// Files of a worker that are named by what they must hold.
enum LocalFile {
  /// The SHA-256 and size of a file's content; nil when it is not there.
  ///
  /// - Throws: `WorkerError.localStorage` when it cannot be read.
  static func identity(of path: String) throws -> (digest: ContentDigest, bytes: Int)? {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    if descriptor < 0 && errno == ENOENT { return nil }
    guard descriptor >= 0 else { throw failure("read", path) }
    defer { close(descriptor) }
    return try identity(of: descriptor, path: path)
  }

  /// As above, of an open file.
  static func identity(
    of descriptor: Int32, path: String
  ) throws -> (digest: ContentDigest, bytes: Int) {
    var hash = SHA256()
    var count = 0
    while true {
      let piece = try read(descriptor, at: count, count: 1 << 20, path: path)
      if piece.isEmpty { return (ContentDigest(hash.finalize()), count) }
      hash.update(data: piece)
      count += piece.count
    }
  }

  /// Up to `count` bytes from `offset` on; fewer only at the end.
  static func read(
    _ descriptor: Int32, at offset: Int, count: Int, path: String
  ) throws -> Data {
    var data = Data(count: count)
    var done = 0
    while done < count {
      let found = data.withUnsafeMutableBytes {
        pread(descriptor, $0.baseAddress! + done, count - done, off_t(offset + done))
      }
      if found < 0 && errno == EINTR { continue }
      guard found >= 0 else { throw failure("read", path) }
      if found == 0 { break }
      done += found
    }
    return data.prefix(done)
  }

  static func makeDirectory(_ path: String) throws {
    do {
      try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    } catch {
      throw WorkerError.localStorage("cannot make the directory \(path): \(error)")
    }
  }

  static func failure(_ verb: String, _ path: String) -> WorkerError {
    .localStorage("cannot \(verb) \(path): \(String(cString: strerror(errno)))")
  }
}

/// A file that is downloaded: what has arrived stays in `PATH.partial` until it is whole, so that a
/// download goes on after a broken connection or a restart. Of several processes that want the same
/// file, also on a shared directory, one downloads and the others wait for it.
///
/// Blocks; used on one thread at a time.
final class LocalDownload: @unchecked Sendable {
  private let digest: ContentDigest
  private let path: String
  private let partial: String
  private let lock: Int32
  private var descriptor: Int32 = -1
  /// Bytes that are there.
  private(set) var count = 0

  /// Waits for other processes that download the same file.
  ///
  /// - Returns: nil if `path` holds the content already.
  /// - Throws: `WorkerError.localStorage`.
  init?(_ digest: ContentDigest, to path: String) throws {
    self.digest = digest
    self.path = path
    partial = path + ".partial"
    try LocalFile.makeDirectory(URL(fileURLWithPath: path).deletingLastPathComponent().path)
    lock = open(path + ".lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
    guard lock >= 0 else { throw LocalFile.failure("create", path + ".lock") }
    while flock(lock, LOCK_EX) != 0 {
      guard errno == EINTR else { throw LocalFile.failure("lock", path + ".lock") }
    }
    if try LocalFile.identity(of: path)?.digest == digest {
      unlink(path + ".lock")
      return nil
    }
    descriptor = open(partial, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
    var status = stat()
    guard descriptor >= 0, fstat(descriptor, &status) == 0 else {
      throw LocalFile.failure("create", partial)
    }
    count = Int(status.st_size)
  }

  deinit {
    if descriptor >= 0 { close(descriptor) }
    if lock >= 0 { close(lock) }
  }

  /// - Throws: `WorkerError.localStorage`.
  func append(_ data: Data) throws {
    let isWritten = data.withUnsafeBytes { buffer in
      var done = 0
      while done < buffer.count {
        let written = pwrite(
          descriptor, buffer.baseAddress! + done, buffer.count - done, off_t(count + done))
        if written < 0 && errno == EINTR { continue }
        if written <= 0 { return false }
        done += written
      }
      return true
    }
    guard isWritten else { throw LocalFile.failure("write", partial) }
    count += data.count
  }

  /// Puts the file in its place, durably, if it has the right content.
  ///
  /// - Returns: false if it has not; then nothing of it remains, and the download begins again.
  /// - Throws: `WorkerError.localStorage`.
  func finish() throws -> Bool {
    guard try LocalFile.identity(of: descriptor, path: partial).digest == digest else {
      guard ftruncate(descriptor, 0) == 0 else { throw LocalFile.failure("cut", partial) }
      count = 0
      return false
    }
    guard fsync(descriptor) == 0 else { throw LocalFile.failure("synchronise", partial) }
    guard rename(partial, path) == 0 else { throw LocalFile.failure("rename", partial) }
    unlink(path + ".lock")
    return true
  }
}
