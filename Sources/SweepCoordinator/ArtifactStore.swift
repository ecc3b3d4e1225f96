import Crypto
import Foundation
import SweepCore
import SweepRPC

/// Content-addressed files beside the ledger, named by their SHA-256. A file appears under its name
/// only when it is complete and on disk.
package struct ArtifactStore: Sendable {
  package let directory: URL
  /// A larger upload is refused.
  package static let artifactBytesMax = 4 << 30

  /// - Throws: when the directory cannot be made.
  package init(directory: URL) throws {
    self.directory = directory
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    // What a crash left half written.
    for name in try FileManager.default.contentsOfDirectory(atPath: directory.path)
    where name.hasSuffix(".partial") {
      try FileManager.default.removeItem(at: directory.appendingPathComponent(name))
    }
  }

  package func url(for digest: ContentDigest) -> URL {
    directory.appendingPathComponent(digest.description)
  }

  package func contains(_ digest: ContentDigest) -> Bool {
    FileManager.default.fileExists(atPath: url(for: digest).path)
  }

  /// Starts to store an artifact whose bytes arrive in pieces.
  package func upload(_ digest: ContentDigest) throws -> ArtifactUpload {
    try ArtifactUpload(of: digest, in: self)
  }

  /// - Throws: `SessionRefusal.artifactUnknown`, or `.artifactDamaged` when the file has changed.
  package func read(_ digest: ContentDigest) throws -> Data {
    guard let data = try? Data(contentsOf: url(for: digest)) else {
      throw SessionRefusal.artifactUnknown(digest.description)
    }
    guard ContentDigest(SHA256.hash(data: data)) == digest else {
      throw SessionRefusal.artifactDamaged(
        "the file \(url(for: digest).path) is damaged; remove it and run the sweep again")
    }
    return data
  }
}

/// An artifact that is being written. Unless `finish` succeeds, nothing of it remains.
package final class ArtifactUpload {
  private let digest: ContentDigest
  private let store: ArtifactStore
  private let partial: URL
  private let file: FileHandle
  private var count = 0
  private var hash = SHA256()

  fileprivate init(of digest: ContentDigest, in store: ArtifactStore) throws {
    self.digest = digest
    self.store = store
    partial = store.directory.appendingPathComponent("\(UUID().uuidString).partial")
    guard FileManager.default.createFile(atPath: partial.path, contents: nil) else {
      throw SessionRefusal.storageFailed("cannot create a file in \(store.directory.path)")
    }
    file = try FileHandle(forWritingTo: partial)
  }

  deinit {
    // Best effort: what stays is removed when the store is opened next.
    try? file.close()
    try? FileManager.default.removeItem(at: partial)
  }

  /// - Throws: `SessionRefusal.storageFailed`.
  package func append(_ bytes: Data) throws {
    count += bytes.count
    guard count <= ArtifactStore.artifactBytesMax else {
      throw SessionRefusal.storageFailed(
        "artifact \(digest) has more than \(ArtifactStore.artifactBytesMax) bytes")
    }
    hash.update(data: bytes)
    try translatingErrors { try file.write(contentsOf: bytes) }
  }

  /// Puts the artifact under its name, durably.
  ///
  /// - Returns: number of bytes.
  /// - Throws: `SessionRefusal` when the bytes are not what the digest names, or on disk errors.
  package func finish() throws -> Int {
    guard ContentDigest(hash.finalize()) == digest else {
      throw SessionRefusal.artifactDamaged(
        "the \(count) bytes sent as artifact \(digest) have another digest")
    }
    try translatingErrors { try file.synchronize() }
    guard rename(partial.path, store.url(for: digest).path) == 0 else {
      throw SessionRefusal.storageFailed(
        "cannot name artifact \(digest) in \(store.directory.path): "
          + String(cString: strerror(errno)))
    }
    // Makes the new name survive a loss of power.
    let descriptor = open(store.directory.path, O_RDONLY)
    defer { if descriptor >= 0 { close(descriptor) } }
    guard descriptor >= 0, fsync(descriptor) == 0 else {
      throw SessionRefusal.storageFailed("cannot synchronise \(store.directory.path)")
    }
    return count
  }

  private func translatingErrors(_ body: () throws -> Void) throws {
    do {
      try body()
    } catch {
      throw SessionRefusal.storageFailed(
        "cannot write artifact \(digest) into \(store.directory.path): \(error)")
    }
  }
}
