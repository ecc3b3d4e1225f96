import Foundation
import Synchronization
import TransformerKernels

/// Outputs of frozen layers on disk, shared by all processes of a machine.
///
/// A directory of *segments*, files that one process appends entries to and all may read:
///
///     header   "biassweep trunk segment 1\n", padded with zeros to 64 bytes
///     entry*   marker (8 bytes), key (32), payload bytes (8), checksum of the payload (8),
///              checksum of the entry's header (8); then the payload, float32, padded to 8 bytes
///
/// all little-endian. Nothing is locked and nothing synchronised to the disk, because nothing rests
/// on it: an entry counts if its checksums, which include the key, are right, and is computed again
/// otherwise, be it cut off, damaged or foreign. Processes learn of each other's entries by looking
/// at the directory when they miss one. When all segments together exceed the limit, whole segments
/// are removed, those not used for longest first; a process that still reads one of them keeps it
/// open, and one that still appends to it notices and begins another.
package final class TrunkStore: Sendable {
  /// Numbers since the store was opened.
  package struct Statistics: Sendable, Hashable {
    package var hits = 0
    package var misses = 0
    /// Entries that were found and whose checksums were wrong.
    package var damaged = 0
    /// Entries appended.
    package var stored = 0
    /// Segments removed because of the limit.
    package var evictions = 0
    /// Bytes of all segments, as last seen.
    package var bytes = 0
    /// Whether new entries are written; not after the disk was found full or unwritable.
    package var isWritable = true
  }

  /// Where an entry lies.
  private struct Location {
    let segment: TrunkSegment
    /// Of the entry's header.
    let offset: Int
    /// Bytes without padding.
    let payload: Int
  }

  private struct State {
    var segments: [String: TrunkSegment] = [:]
    var index: [TrunkKey: Location] = [:]
    /// The segment that this process appends to.
    var own: TrunkSegment?
    var statistics = Statistics()
  }

  package let directory: String
  /// Most bytes of all segments; each process may exceed it by what it appends at a time.
  package let byteLimit: Int
  private let segmentBytes: Int
  private let warn: @Sendable (String) -> Void
  private let state: Mutex<State>

  /// Free bytes that are left to others.
  static let freeBytesMin = 256 << 20

  /// A quarter of the disk space that is free or held by the store, at most 16 GiB.
  package static func defaultByteLimit(directory: String) -> Int {
    let held = TrunkSegment.names(in: directory).reduce(0) {
      $0 + TrunkSegment.status(of: directory + "/" + $1).size
    }
    return min(16 << 30, ((freeBytes(directory) ?? 0) + held) / 4)
  }

  /// - Parameters:
  ///   - directory: made if it does not exist.
  ///   - byteLimit: most bytes of all segments.
  ///   - warn: called once if nothing more can be written, with the reason. Reading goes on.
  package init(
    directory: String, byteLimit: Int, warn: @escaping @Sendable (String) -> Void = { _ in }
  ) {
    self.directory = directory
    self.byteLimit = byteLimit
    self.warn = warn
    segmentBytes = max(1 << 10, min(64 << 20, byteLimit / 8))
    state = Mutex(State())
    state.withLock { state in
      refresh(&state)
      if state.statistics.bytes > byteLimit { evict(&state) }
    }
  }

  package var statistics: Statistics { state.withLock { $0.statistics } }

  /// Entries by key and number of floats; nil where there is none that is intact.
  func read(_ wanted: [(key: TrunkKey, count: Int)]) -> [FloatBuffer?] {
    var locations = state.withLock { state in
      if wanted.contains(where: { state.index[$0.key] == nil }) { refresh(&state) }
      return wanted.map { state.index[$0.key] }
    }
    // Reading is outside the lock; a removed segment stays readable while it is held.
    let found = wanted.indices.map { index -> FloatBuffer? in
      let (key, count) = wanted[index]
      guard let location = locations[index] else { return nil }
      guard location.payload == count * MemoryLayout<Float>.stride else {
        locations[index] = nil
        return nil
      }
      return location.segment.read(key, at: location.offset, count: count)
    }
    state.withLock { state in
      for (index, rows) in found.enumerated() {
        if rows != nil {
          state.statistics.hits += 1
        } else {
          state.statistics.misses += 1
          if locations[index] != nil {
            state.statistics.damaged += 1
            state.index[wanted[index].key] = nil
          }
        }
      }
    }
    return found
  }

  /// Appends entries that no segment has.
  func append(_ entries: [(key: TrunkKey, rows: FloatBuffer)]) {
    state.withLock { state in
      guard state.statistics.isWritable else { return }
      var seen: Set<TrunkKey> = []
      let new = entries.filter { state.index[$0.key] == nil && seen.insert($0.key).inserted }
      let bytes = new.reduce(0) { $0 + TrunkSegment.entryBytes(floats: $1.rows.count) }
      guard !new.isEmpty, bytes <= byteLimit / 2 else { return }
      do {
        let segment = try segmentToAppend(&state)
        let offsets = try segment.append(new)
        for (entry, offset) in zip(new, offsets) {
          state.index[entry.key] = Location(
            segment: segment, offset: offset,
            payload: entry.rows.count * MemoryLayout<Float>.stride)
        }
        state.statistics.stored += new.count
        state.statistics.bytes += bytes
      } catch {
        // A cache is not worth a failure: what was computed is used all the same.
        state.statistics.isWritable = false
        state.own = nil
        warn(
          "the trunk cache takes no more entries: \(error). Work goes on without; free disk space, "
            + "or choose another directory or a smaller limit")
        return
      }
      if state.statistics.bytes > byteLimit {
        refresh(&state)
        if state.statistics.bytes > byteLimit { evict(&state) }
      }
    }
  }

  private func segmentToAppend(_ state: inout State) throws -> TrunkSegment {
    if let own = state.own, own.size < segmentBytes, !own.isRemoved { return own }
    try makeDirectory(directory)
    if let free = Self.freeBytes(directory), free < Self.freeBytesMin + segmentBytes {
      throw ModelFileError.system(operation: "write", path: directory, code: ENOSPC)
    }
    let segment = try TrunkSegment.create(in: directory)
    state.own = segment
    state.segments[segment.name] = segment
    return segment
  }

  /// Looks at the directory: new segments, longer ones, removed ones.
  private func refresh(_ state: inout State) {
    let names = Set(TrunkSegment.names(in: directory))
    let removed = state.segments.values.filter { !names.contains($0.name) }
    for segment in removed { state.segments[segment.name] = nil }
    if !removed.isEmpty {
      let gone = Set(removed.map(ObjectIdentifier.init))
      state.index = state.index.filter { !gone.contains(ObjectIdentifier($0.value.segment)) }
    }
    var bytes = 0
    for name in names.sorted() {
      if state.segments[name] == nil {
        state.segments[name] = TrunkSegment(reading: directory + "/" + name, name: name)
      }
      guard let segment = state.segments[name] else { continue }
      if segment !== state.own {
        segment.scan { key, offset, payload in
          if state.index[key] == nil {
            state.index[key] = Location(segment: segment, offset: offset, payload: payload)
          }
        }
      }
      bytes += segment.size
    }
    state.statistics.bytes = bytes
  }

  /// Removes segments, least recently used first, down to seven eighths of the limit.
  private func evict(_ state: inout State) {
    let candidates = state.segments.values.filter { $0 !== state.own }
      .map { (segment: $0, used: TrunkSegment.status(of: $0.path).modified) }
      .sorted { ($0.used, $0.segment.name) < ($1.used, $1.segment.name) }
    for (segment, _) in candidates where state.statistics.bytes > byteLimit / 8 * 7 {
      // Another process may have been faster.
      unlink(segment.path)
      state.statistics.bytes -= segment.size
      state.statistics.evictions += 1
    }
    refresh(&state)
  }

  private static func freeBytes(_ directory: String) -> Int? {
    var path = directory
    while !path.isEmpty {
      var status = statvfs()
      if statvfs(path, &status) == 0 { return Int(status.f_bavail) * Int(status.f_frsize) }
      path = (path as NSString).deletingLastPathComponent
    }
    return nil
  }
}
