import Foundation
import TransformerKernels

/// One file of a `TrunkStore`. Its state is guarded by the store's lock, except for `read`, which
/// changes nothing but the file's time of use.
final class TrunkSegment: @unchecked Sendable {
  let name: String
  let path: String
  private let descriptor: Int32
  /// Bytes known to be there.
  private(set) var size: Int
  /// Up to where entries were looked at; nothing beyond an entry that is no entry.
  private var scanned = TrunkSegment.headerBytes
  private var isBroken = false

  private static let suffix = ".trunk"
  static let headerBytes = 64
  private static let header: [UInt8] = {
    let text = Array("biassweep trunk segment 1\n".utf8)
    return text + [UInt8](repeating: 0, count: headerBytes - text.count)
  }()
  private static let marker: UInt64 = 0x5452_554e_4b45_4e54

  /// Seconds between two notes of a segment's use.
  private static let usageSeconds = 30

  private init(name: String, path: String, descriptor: Int32, size: Int) {
    self.name = name
    self.path = path
    self.descriptor = descriptor
    self.size = size
  }

  deinit { close(descriptor) }

  /// A new empty segment to append to.
  ///
  /// - Throws: `ModelFileError.system`.
  static func create(in directory: String) throws -> TrunkSegment {
    let random = String(UInt64.random(in: 0...UInt64.max), radix: 16)
    let name = "\(getpid())-\(random)\(suffix)"
    let path = directory + "/" + name
    let descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else {
      throw ModelFileError.system(operation: "create", path: path, code: errno)
    }
    let segment = TrunkSegment(name: name, path: path, descriptor: descriptor, size: 0)
    do {
      try header.withUnsafeBytes { try writeAll($0, to: descriptor, at: 0, path: path) }
    } catch {
      unlink(path)
      throw error
    }
    segment.size = headerBytes
    return segment
  }

  /// A segment to read; nil if it cannot be opened. A file that is no segment has no entries, but
  /// its size counts and it may be evicted.
  init?(reading path: String, name: String) {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else { return nil }
    self.name = name
    self.path = path
    self.descriptor = descriptor
    size = 0
  }

  /// Names of the segments in a directory.
  static func names(in directory: String) -> [String] {
    // No directory, no segments.
    let all = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
    return all.filter { $0.hasSuffix(suffix) }
  }

  /// Size of a file and when it was last used, in nanoseconds; zeros if it is gone.
  static func status(of path: String) -> (size: Int, modified: Int) {
    var status = stat()
    guard stat(path, &status) == 0 else { return (0, 0) }
    return (
      Int(status.st_size), Int(status.st_mtim.tv_sec) * 1_000_000_000 + Int(status.st_mtim.tv_nsec)
    )
  }

  /// Whether the file's name is gone.
  var isRemoved: Bool {
    var status = stat()
    return fstat(descriptor, &status) != 0 || status.st_nlink == 0
  }

  // MARK: Entries

  private struct EntryHeader {
    static let bytes = 64
    var key: TrunkKey
    var payload: Int
    var checksum: UInt64

    init(key: TrunkKey, payload: Int, checksum: UInt64) {
      self.key = key
      self.payload = payload
      self.checksum = checksum
    }

    /// Nil if these are not the bytes of an entry's header.
    init?(_ bytes: UnsafeRawPointer) {
      func word(_ index: Int) -> UInt64 {
        UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 8 * index, as: UInt64.self))
      }
      guard word(0) == TrunkSegment.marker,
        word(7) == checksum64(bytes, count: 56, seed: .zero), let payload = Int(exactly: word(5)),
        payload >= 0, payload <= 1 << 40
      else { return nil }
      key = TrunkKey(words: SIMD4(word(1), word(2), word(3), word(4)))
      self.payload = payload
      checksum = word(6)
    }

    func write(to bytes: UnsafeMutableRawPointer) {
      let words = [
        TrunkSegment.marker, key.words[0], key.words[1], key.words[2], key.words[3],
        UInt64(payload), checksum,
      ]
      for (index, word) in words.enumerated() {
        bytes.storeBytes(of: word.littleEndian, toByteOffset: 8 * index, as: UInt64.self)
      }
      let own = checksum64(bytes, count: 56, seed: .zero)
      bytes.storeBytes(of: own.littleEndian, toByteOffset: 56, as: UInt64.self)
    }
  }

  private static func padded(_ bytes: Int) -> Int { (bytes + 7) / 8 * 8 }

  /// Bytes that an entry takes.
  static func entryBytes(floats: Int) -> Int {
    EntryHeader.bytes + padded(floats * MemoryLayout<Float>.stride)
  }

  /// Appends entries in one piece and returns where each begins.
  ///
  /// - Throws: `ModelFileError.system`; the segment then is as before, or ends in an entry that
  ///   nobody takes for one.
  func append(_ entries: [(key: TrunkKey, rows: FloatBuffer)]) throws -> [Int] {
    let total = entries.reduce(0) { $0 + Self.entryBytes(floats: $1.rows.count) }
    let block = UnsafeMutableRawBufferPointer.allocate(byteCount: total, alignment: 64)
    defer { block.deallocate() }
    guard let base = block.baseAddress else { return [] }
    var offsets: [Int] = []
    var position = 0
    for (key, rows) in entries {
      let payload = rows.count * MemoryLayout<Float>.stride
      EntryHeader(
        key: key, payload: payload,
        checksum: checksum64(rows.base, count: payload, seed: key.words)
      ).write(to: base + position)
      (base + position + EntryHeader.bytes).copyMemory(from: rows.base, byteCount: payload)
      (base + position + EntryHeader.bytes + payload).initializeMemory(
        as: UInt8.self, repeating: 0, count: Self.padded(payload) - payload)
      offsets.append(size + position)
      position += Self.entryBytes(floats: rows.count)
    }
    do {
      try writeAll(UnsafeRawBufferPointer(block), to: descriptor, at: size, path: path)
    } catch {
      // Gives a full disk its space back; if that fails too, the rest is no entry.
      _ = ftruncate(descriptor, off_t(size))
      throw error
    }
    size += total
    return offsets
  }

  /// Calls `body` for each entry added since the last scan with its key, place and payload bytes.
  func scan(_ body: (TrunkKey, Int, Int) -> Void) {
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { return }
    size = Int(status.st_size)
    guard !isBroken, size >= Self.headerBytes else { return }
    if scanned == Self.headerBytes {
      var found = [UInt8](repeating: 0, count: Self.headerBytes)
      let count = found.withUnsafeMutableBytes { pread(descriptor, $0.baseAddress, $0.count, 0) }
      isBroken = count != Self.headerBytes || found != Self.header
    }
    while !isBroken, scanned + EntryHeader.bytes <= size {
      var bytes = [UInt8](repeating: 0, count: EntryHeader.bytes)
      let header = bytes.withUnsafeMutableBytes { buffer -> EntryHeader? in
        guard let base = buffer.baseAddress,
          pread(descriptor, base, buffer.count, off_t(scanned)) == buffer.count
        else { return nil }
        return EntryHeader(base)
      }
      guard let header else {
        isBroken = true
        return
      }
      let end = scanned + EntryHeader.bytes + Self.padded(header.payload)
      // Its writer is not done with it.
      guard end <= size else { return }
      body(header.key, scanned, header.payload)
      scanned = end
    }
  }

  /// The entry at `offset`; nil unless it is intact and of this key and size.
  func read(_ key: TrunkKey, at offset: Int, count: Int) -> FloatBuffer? {
    let payload = count * MemoryLayout<Float>.stride
    let rows = FloatBuffer(count: count)
    var bytes = [UInt8](repeating: 0, count: EntryHeader.bytes)
    let header = bytes.withUnsafeMutableBytes { buffer -> EntryHeader? in
      guard let base = buffer.baseAddress, fill(base, buffer.count, at: offset) else { return nil }
      return EntryHeader(base)
    }
    guard let header, header.key == key, header.payload == payload,
      fill(rows.base, payload, at: offset + EntryHeader.bytes),
      checksum64(rows.base, count: payload, seed: key.words) == header.checksum
    else { return nil }
    noteUse()
    return rows
  }

  private func fill(_ buffer: UnsafeMutableRawPointer, _ count: Int, at offset: Int) -> Bool {
    var done = 0
    while done < count {
      let step = pread(descriptor, buffer + done, count - done, off_t(offset + done))
      if step < 0 && errno == EINTR { continue }
      if step <= 0 { return false }
      done += step
    }
    return true
  }

  /// Sets the file's time of modification, by which eviction goes, unless it is recent. Failure
  /// makes the segment look older than it is.
  private func noteUse() {
    var status = stat()
    guard fstat(descriptor, &status) == 0,
      time(nil) - Int(status.st_mtim.tv_sec) >= Self.usageSeconds
    else { return }
    _ = futimens(descriptor, nil)
  }
}

/// A checksum of bytes, four words at a time. Finds damage, not intent.
func checksum64(_ bytes: UnsafeRawPointer, count: Int, seed: SIMD4<UInt64>) -> UInt64 {
  let multiplier: UInt64 = 0x9E37_79B9_7F4A_7C15
  var (a, b, c, d) = (seed[0] ^ 1, seed[1] ^ 2, seed[2] ^ 3, seed[3] ^ UInt64(count))
  @inline(__always) func mix(_ lane: UInt64, _ word: UInt64) -> UInt64 {
    let product = (lane ^ word) &* multiplier
    return product ^ (product >> 29)
  }
  @inline(__always) func word(_ offset: Int) -> UInt64 {
    UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }
  var offset = 0
  while offset + 32 <= count {
    a = mix(a, word(offset))
    b = mix(b, word(offset + 8))
    c = mix(c, word(offset + 16))
    d = mix(d, word(offset + 24))
    offset += 32
  }
  while offset < count {
    a = mix(a, UInt64(bytes.load(fromByteOffset: offset, as: UInt8.self)))
    offset += 1
  }
  return [b, c, d, UInt64(count)].reduce(mix(a, 4)) { mix($0, $1) }
}
