import Foundation
import SweepCore
import SweepRPC
import Synchronization

/// The newest checkpoint of each shard in work, as files `SHARD@DIGEST` in a directory beside the
/// ledger, where SHARD is the shard's name, percent-encoded.
///
/// The directory is all there is to know: a checkpoint is not part of the sweep's state, because
/// the loss of one costs time and nothing else. So none is recorded in the ledger, and replay does
/// not know of them.
package final class CheckpointStore: Sendable {
  package let directory: URL
  private let bytesMax: Int

  private struct Entry {
    var digest: ContentDigest
    var bytes: Int
  }

  private struct State {
    var newest: [ShardID: Entry] = [:]
    /// Bytes that uploads under way, or broken off, may take.
    var reserved: [ShardID: Int] = [:]

    /// Bytes of all shards but one.
    func bytes(without shard: ShardID) -> Int {
      newest.reduce(0) { $0 + ($1.key == shard ? 0 : $1.value.bytes) }
        + reserved.reduce(0) { $0 + ($1.key == shard ? 0 : $1.value) }
    }
  }

  private let state: Mutex<State>

  /// Takes over what an earlier coordinator left; uploads that broke off begin again.
  ///
  /// - Parameter bytesMax: of all checkpoints together; what goes beyond is refused.
  /// - Throws: when the directory cannot be made or read.
  package init(directory: URL, bytesMax: Int) throws {
    self.directory = directory
    self.bytesMax = bytesMax
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    var state = State()
    for name in try FileManager.default.contentsOfDirectory(atPath: directory.path).sorted() {
      let url = directory.appendingPathComponent(name)
      let parts = name.split(separator: "@").map(String.init)
      if parts.count == 2, let shard = parts[0].removingPercentEncoding.map(ShardID.init),
        let digest = ContentDigest(hex: parts[1]), state.newest[shard] == nil,
        let bytes = PartialFiles.size(of: url)
      {
        state.newest[shard] = Entry(digest: digest, bytes: bytes)
      } else {
        unlink(url.path)
      }
    }
    self.state = Mutex(state)
  }

  /// The newest checkpoint of a shard.
  package func newest(of shard: ShardID) -> ContentDigest? {
    state.withLock { $0.newest[shard]?.digest }
  }

  /// The file of a checkpoint; nil if it is not the newest of any shard.
  func url(for digest: ContentDigest) -> URL? {
    let shard = state.withLock { $0.newest.first { $0.value.digest == digest }?.key }
    return shard.map { file($0, digest) }
  }

  /// How much of a checkpoint of `shard` is here.
  func position(_ digest: ContentDigest, of shard: ShardID) -> (bytes: Int, isComplete: Bool) {
    if let entry = state.withLock({ $0.newest[shard] }), entry.digest == digest {
      return (entry.bytes, true)
    }
    return (PartialFiles.size(of: partial(shard, digest)) ?? 0, false)
  }

  /// Starts to store a checkpoint, or goes on with it.
  ///
  /// - Parameters:
  ///   - bytes: its whole size.
  ///   - offset: position of the bytes to come.
  /// - Throws: `SessionRefusal`: `.storageFailed` beyond the limit of all checkpoints; see
  ///   `IncomingFile`.
  func upload(
    _ digest: ContentDigest, of shard: ShardID, bytes: Int, from offset: Int
  ) throws(SessionRefusal) -> IncomingFile {
    let fits = state.withLock { state in
      guard (0...ArtifactStore.artifactBytesMax).contains(bytes),
        state.bytes(without: shard) + bytes <= bytesMax
      else { return false }
      state.reserved[shard] = bytes
      return true
    }
    guard fits else {
      throw .storageFailed(
        "a checkpoint of \(bytes) bytes does not fit beside the others into \(bytesMax) bytes")
    }
    removeFiles(of: shard) { $0.hasSuffix(PartialFiles.suffix) && !$0.contains("\(digest)") }
    return try IncomingFile(
      digest, partial: partial(shard, digest), destination: file(shard, digest), offset: offset,
      bytesMax: bytes)
  }

  /// Makes a sealed upload the newest checkpoint of its shard, in place of the one before.
  ///
  /// - Throws: `SessionRefusal.storageFailed`.
  func accept(_ upload: IncomingFile, of shard: ShardID, bytes: Int) throws(SessionRefusal) {
    try upload.place()
    let previous = state.withLock { state in
      state.reserved[shard] = nil
      return state.newest.updateValue(Entry(digest: upload.digest, bytes: bytes), forKey: shard)
    }
    if let previous, previous.digest != upload.digest { unlink(file(shard, previous.digest).path) }
  }

  /// Forgets a shard that needs no checkpoint any more.
  package func remove(_ shard: ShardID) {
    let isKnown = state.withLock { state in
      let newest = state.newest.removeValue(forKey: shard)
      let reserved = state.reserved.removeValue(forKey: shard)
      return newest != nil || reserved != nil
    }
    if isKnown { removeFiles(of: shard) { _ in true } }
  }

  /// Forgets all shards but these.
  package func retain(_ shards: some Sequence<ShardID>) {
    let known = state.withLock { Set($0.newest.keys).union($0.reserved.keys) }
    if known.isEmpty { return }
    for shard in known.subtracting(shards) { remove(shard) }
  }

  private func removeFiles(of shard: ShardID, where matches: (String) -> Bool) {
    // A directory that cannot be read holds nothing that could be removed.
    let names = (try? FileManager.default.contentsOfDirectory(atPath: directory.path)) ?? []
    let prefix = Self.name(shard) + "@"
    for name in names where name.hasPrefix(prefix) && matches(name) {
      unlink(directory.appendingPathComponent(name).path)
    }
  }

  /// The shard's name as the start of a file's: without "/", and without "@", which ends it.
  private static func name(_ shard: ShardID) -> String {
    let plain = CharacterSet(
      charactersIn: "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
    // Text always has an encoding.
    return shard.description.addingPercentEncoding(withAllowedCharacters: plain) ?? ""
  }

  private func file(_ shard: ShardID, _ digest: ContentDigest) -> URL {
    directory.appendingPathComponent("\(Self.name(shard))@\(digest)")
  }

  private func partial(_ shard: ShardID, _ digest: ContentDigest) -> URL {
    directory.appendingPathComponent("\(Self.name(shard))@\(digest).\(PartialFiles.suffix)")
  }
}
