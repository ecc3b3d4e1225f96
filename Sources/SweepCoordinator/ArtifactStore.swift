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
  /// Uploads that broke off and may go on; beyond these the oldest are dropped.
  static let partialsMax = 64
  /// An upload that broke off longer ago than this is not expected to go on, nor is an artifact to be
  /// reported that nobody accounts for.
  static let partialSecondsMax = 86_400.0

  /// - Throws: when the directory cannot be made.
  package init(directory: URL) throws {
    self.directory = directory
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    try PartialFiles.trim(in: directory, keeping: Self.partialsMax)
  }

  /// Removes what is old and not among these: products of attempts that did not complete their shard.
  ///
  /// - Returns: what stays though it is not among these, as it is not old yet.
  @discardableResult
  package func retain(_ digests: Set<ContentDigest>) throws -> (count: Int, bytes: Int) {
    var young = (count: 0, bytes: 0)
    let key = URLResourceKey.contentModificationDateKey
    for url in try FileManager.default.contentsOfDirectory(
      at: directory, includingPropertiesForKeys: [key])
    {
      guard let digest = ContentDigest(hex: url.lastPathComponent), !digests.contains(digest)
      else { continue }
      // A file whose date cannot be read stays.
      let date = try? url.resourceValues(forKeys: [key]).contentModificationDate
      if let date, -date.timeIntervalSinceNow > Self.partialSecondsMax {
        unlink(url.path)
      } else {
        young.count += 1
        young.bytes += PartialFiles.size(of: url) ?? 0
      }
    }
    return young
  }

  package func url(for digest: ContentDigest) -> URL {
    directory.appendingPathComponent(digest.description)
  }

  package func contains(_ digest: ContentDigest) -> Bool {
    FileManager.default.fileExists(atPath: url(for: digest).path)
  }

  /// How much of an artifact is here.
  func position(_ digest: ContentDigest) -> (bytes: Int, isComplete: Bool) {
    if let bytes = PartialFiles.size(of: url(for: digest)) { return (bytes, true) }
    return (PartialFiles.size(of: partial(digest)) ?? 0, false)
  }

  /// Starts to store an artifact whose bytes arrive in pieces, or goes on with it.
  ///
  /// - Parameter offset: position of the bytes to come.
  /// - Throws: `SessionRefusal`; see `IncomingFile`.
  package func upload(_ digest: ContentDigest, from offset: Int = 0) throws -> IncomingFile {
    if offset == 0 { try PartialFiles.trim(in: directory, keeping: Self.partialsMax - 1) }
    return try IncomingFile(
      digest, partial: partial(digest), destination: url(for: digest), offset: offset,
      bytesMax: Self.artifactBytesMax)
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

  private func partial(_ digest: ContentDigest) -> URL {
    directory.appendingPathComponent("\(digest).\(PartialFiles.suffix)")
  }
}

/// Files of uploads that are under way or broke off.
enum PartialFiles {
  static let suffix = "partial"

  /// Bytes in a file; nil if there is none.
  static func size(of url: URL) -> Int? {
    var status = stat()
    return stat(url.path, &status) == 0 ? Int(status.st_size) : nil
  }

  /// Removes those that are too old, and the oldest of those that are too many.
  static func trim(in directory: URL, keeping count: Int) throws {
    let key = URLResourceKey.contentModificationDateKey
    let files = try FileManager.default.contentsOfDirectory(
      at: directory, includingPropertiesForKeys: [key]
    ).filter { $0.pathExtension == suffix }
      .map { url -> (url: URL, date: Date) in
        // A file that went meanwhile needs no removing.
        let date = try? url.resourceValues(forKeys: [key]).contentModificationDate
        return (url, date ?? .distantPast)
      }.sorted { $0.date > $1.date }
    for (index, file) in files.enumerated()
    where index >= count || -file.date.timeIntervalSinceNow > ArtifactStore.partialSecondsMax {
      unlink(file.url.path)
    }
  }
}
