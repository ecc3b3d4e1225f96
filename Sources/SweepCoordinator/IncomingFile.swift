import Crypto
import Foundation
import SweepCore
import SweepRPC

/// A file that arrives in pieces, over several connections if one breaks off. What has arrived stays
/// in a partial file, under which the next upload of the same content goes on.
///
/// One upload of a content at a time: the partial file is locked. Used by one task at a time.
package final class IncomingFile: @unchecked Sendable {
  package let digest: ContentDigest
  private let partial: URL
  private let destination: URL
  private let bytesMax: Int
  private let descriptor: Int32
  private var count: Int
  private var hash = SHA256()

  /// - Parameters:
  ///   - offset: where the bytes to come begin; what was there before from this position on is
  ///     dropped.
  ///   - bytesMax: more are refused.
  /// - Throws: `SessionRefusal`: `.unavailable` while another upload of this content runs,
  ///   `.artifactDamaged` when `offset` leaves a gap, `.storageFailed`.
  init(
    _ digest: ContentDigest, partial: URL, destination: URL, offset: Int, bytesMax: Int
  ) throws(SessionRefusal) {
    self.digest = digest
    self.partial = partial
    self.destination = destination
    self.bytesMax = bytesMax
    descriptor = open(partial.path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    count = offset
    guard descriptor >= 0 else { throw Self.failure("create", partial) }
    guard flock(descriptor, LOCK_EX | LOCK_NB) == 0, isInPlace else {
      throw .unavailable("another upload of \(digest) is under way")
    }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw Self.failure("read", partial) }
    guard offset >= 0, offset <= Int(status.st_size) else {
      throw .artifactDamaged(
        "upload of \(digest) from byte \(offset), but only \(status.st_size) have arrived")
    }
    guard ftruncate(descriptor, off_t(offset)) == 0 else { throw Self.failure("cut", partial) }
    try hashArrived()
  }

  deinit { if descriptor >= 0 { close(descriptor) } }

  /// - Throws: `SessionRefusal.storageFailed`.
  package func append(_ bytes: Data) throws(SessionRefusal) {
    guard bytes.count <= bytesMax - count else {
      discard()
      throw .storageFailed("\(digest) has more than the \(bytesMax) bytes that are allowed here")
    }
    let failed = bytes.withUnsafeBytes { buffer in
      var done = 0
      while done < buffer.count {
        let written = pwrite(
          descriptor, buffer.baseAddress! + done, buffer.count - done, off_t(count + done))
        if written < 0 && errno == EINTR { continue }
        if written <= 0 { return true }
        done += written
      }
      return false
    }
    if failed { throw Self.failure("write", partial) }
    hash.update(data: bytes)
    count += bytes.count
  }

  /// Checks that all bytes have arrived and makes them durable; the file is not yet in its place.
  ///
  /// - Returns: number of bytes.
  /// - Throws: `SessionRefusal.artifactDamaged` when the bytes are not what the digest names; then
  ///   nothing remains of them. `.storageFailed`.
  package func seal() throws(SessionRefusal) -> Int {
    guard ContentDigest(hash.finalize()) == digest else {
      discard()
      throw .artifactDamaged("the \(count) bytes sent as \(digest) have another digest")
    }
    guard fsync(descriptor) == 0 else { throw Self.failure("synchronise", partial) }
    return count
  }

  /// Puts a sealed file under its name.
  func place() throws(SessionRefusal) {
    guard isInPlace, rename(partial.path, destination.path) == 0 else {
      throw Self.failure("rename", partial)
    }
  }

  /// Seals the file and puts it under its name, durably.
  ///
  /// - Returns: number of bytes.
  /// - Throws: as `seal`.
  package func finish() throws(SessionRefusal) -> Int {
    let count = try seal()
    try place()
    // Makes the new name survive a loss of power.
    let directory = open(destination.deletingLastPathComponent().path, O_RDONLY | O_CLOEXEC)
    defer { if directory >= 0 { close(directory) } }
    guard directory >= 0, fsync(directory) == 0 else {
      throw Self.failure("synchronise the directory of", destination)
    }
    return count
  }

  /// Nothing remains of an upload that can never be finished.
  func discard() { unlink(partial.path) }

  /// Whether the partial file is still the one that was opened: another upload may have finished,
  /// or the file been removed, since.
  private var isInPlace: Bool {
    var opened = stat()
    var named = stat()
    return fstat(descriptor, &opened) == 0 && stat(partial.path, &named) == 0
      && opened.st_ino == named.st_ino && opened.st_dev == named.st_dev
  }

  /// Takes the bytes of earlier connections into the digest.
  private func hashArrived() throws(SessionRefusal) {
    var buffer = [UInt8](repeating: 0, count: min(count, 1 << 20))
    var done = 0
    while done < count {
      let wanted = min(buffer.count, count - done)
      let read = pread(descriptor, &buffer, wanted, off_t(done))
      if read < 0 && errno == EINTR { continue }
      guard read > 0 else { throw Self.failure("read", partial) }
      hash.update(data: buffer[..<read])
      done += read
    }
  }

  private static func failure(_ verb: String, _ url: URL) -> SessionRefusal {
    .storageFailed("cannot \(verb) \(url.path): \(String(cString: strerror(errno)))")
  }
}
