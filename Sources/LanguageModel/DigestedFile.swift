import Crypto
import Foundation

/// A file that is built once, mapped read-only, and so shared by all processes of a machine.
///
/// It holds a header of 4,096 bytes (text, padded with zeros), the content, and the SHA-256 of
/// every 16 MiB block of content. The header holds all that identifies the content, and the SHA-256
/// of the block digests.
struct DigestedFile: Sendable {
  let directory: String
  let name: String
  /// What the file holds and for what, in lines.
  let header: String
  /// Bytes of content.
  let byteCount: Int

  var path: String { "\(directory)/\(name)" }

  /// Hands over bytes of content and their offset in it.
  typealias Sink = (_ offset: Int, _ bytes: UnsafeRawBufferPointer) throws -> Void

  private static let headerBytes = 4096
  private static let blockBytes = 1 << 24

  /// The content of a file in memory, unmapped with the object.
  final class Mapping: @unchecked Sendable {
    /// At a multiple of 4,096 bytes. Immutable, hence Sendable.
    let base: UnsafeRawPointer
    private let start: UnsafeMutableRawPointer
    private let length: Int

    fileprivate init(_ start: UnsafeMutableRawPointer, length: Int) {
      self.start = start
      self.length = length
      base = UnsafeRawPointer(start + headerBytes)
    }

    deinit { munmap(start, length) }
  }

  /// Maps the file, after building it if it is absent, damaged or foreign. Of several processes
  /// that need it at once one builds it, the others wait.
  ///
  /// - Parameters:
  ///   - verifying: see `mapped(verifying:)`.
  ///   - write: hands all content that is not zero to its argument.
  /// - Throws: `ModelFileError`, or what `write` throws.
  func mappedOrBuilt(verifying: Bool, write: (@escaping Sink) throws -> Void) throws -> Mapping {
    if let mapping = try mapped(verifying: verifying) { return mapping }
    try makeDirectory(directory)
    return try withLock {
      if let mapping = try mapped(verifying: verifying) { return mapping }
      try build(write)
      guard let mapping = try mapped(verifying: false) else {
        throw ModelFileError.malformed(
          path: path, place: .file, problem: "the file was written just now and does not read back")
      }
      return mapping
    }
  }

  /// Maps the file; nil when it is absent, or is not what it should be. Checks header, size and
  /// block digests.
  ///
  /// - Parameter verifying: whether to check the content too, which reads all of it.
  /// - Throws: `ModelFileError.system` when the file cannot be read.
  func mapped(verifying: Bool) throws -> Mapping? {
    guard let file = try opened() else { return nil }
    let length = Self.headerBytes + byteCount
    guard
      let start = mmap(nil, length, PROT_READ, MAP_SHARED, file.descriptor, 0), start != MAP_FAILED
    else {
      throw ModelFileError.system(operation: "map", path: path, code: errno)
    }
    let mapping = Mapping(start, length: length)
    guard verifying else { return mapping }
    for block in 0..<Self.blockCount(byteCount) {
      let first = block * Self.blockBytes
      let bytes = UnsafeRawBufferPointer(
        start: mapping.base + first, count: min(Self.blockBytes, byteCount - first))
      if !file.blockDigests[block * 32..<block * 32 + 32].elementsEqual(
        SHA256.hash(data: bytes))
      {
        return nil
      }
    }
    return mapping
  }

  /// Reads the whole file and compares every block with its digest.
  ///
  /// - Throws: `ModelFileError.notFound` when there is no file, `.malformed` with the offset of the
  ///   first damaged block. Deleting the file makes the next start rebuild it.
  func verify() throws {
    let binary = try BinaryFile(path: path)
    guard let file = try opened() else {
      throw ModelFileError.malformed(
        path: path, place: .byte(0),
        problem: "this is not the file that belongs here; delete it to have it rebuilt")
    }
    let found = try blockDigests(of: binary)
    for block in 0..<Self.blockCount(byteCount)
    where
      found[block * 32..<block * 32 + 32] != file.blockDigests[block * 32..<block * 32 + 32]
    {
      throw ModelFileError.malformed(
        path: path, place: .byte(Self.headerBytes + block * Self.blockBytes),
        problem: "the block does not have its digest; delete the file to have it rebuilt")
    }
  }

  /// A file whose header, size and block digests are right.
  private final class OpenFile {
    let descriptor: Int32
    let blockDigests: [UInt8]

    init(descriptor: Int32, blockDigests: [UInt8]) {
      self.descriptor = descriptor
      self.blockDigests = blockDigests
    }

    deinit { close(descriptor) }
  }

  private func opened() throws -> OpenFile? {
    let digestBytes = Self.blockCount(byteCount) * 32
    let binary: BinaryFile
    do {
      binary = try BinaryFile(path: path)
    } catch ModelFileError.notFound {
      return nil
    }
    guard binary.size == Self.headerBytes + byteCount + digestBytes else { return nil }
    let blockDigests = try binary.bytes(at: Self.headerBytes + byteCount, count: digestBytes)
    guard
      try binary.bytes(at: 0, count: Self.headerBytes) == headerText(blockDigests: blockDigests)
    else { return nil }
    let descriptor = binary.duplicateDescriptor()
    guard descriptor >= 0 else {
      throw ModelFileError.system(operation: "open", path: path, code: errno)
    }
    return OpenFile(descriptor: descriptor, blockDigests: blockDigests)
  }

  private func build(_ write: (@escaping Sink) throws -> Void) throws {
    // Left over from processes that were killed; only the holder of the lock writes such files.
    for entry in try FileManager.default.contentsOfDirectory(atPath: directory)
    where entry.hasPrefix("\(name).") && entry.hasSuffix(".partial") {
      unlink("\(directory)/\(entry)")
    }
    let size = Self.headerBytes + byteCount + Self.blockCount(byteCount) * 32
    try replaceFile(at: path) { descriptor, temporary in
      // Reserves the space, so that a full disk is known before the work.
      let code = posix_fallocate(descriptor, 0, off_t(size))
      guard code == 0 else {
        throw ModelFileError.system(
          operation: "reserve \(size) bytes for", path: path, code: code)
      }
      try write { offset, bytes in
        try writeAll(bytes, to: descriptor, at: Self.headerBytes + offset, path: path)
      }
      let blockDigests = try blockDigests(of: try BinaryFile(path: temporary))
      try blockDigests.withUnsafeBytes {
        try writeAll($0, to: descriptor, at: Self.headerBytes + byteCount, path: path)
      }
      try headerText(blockDigests: blockDigests).withUnsafeBytes {
        try writeAll($0, to: descriptor, at: 0, path: path)
      }
    }
  }

  private static func blockCount(_ byteCount: Int) -> Int {
    (byteCount + blockBytes - 1) / blockBytes
  }

  private func blockDigests(of file: BinaryFile) throws -> [UInt8] {
    var digests: [UInt8] = []
    let buffer = UnsafeMutableRawBufferPointer.allocate(
      byteCount: Self.blockBytes, alignment: 64)
    defer { buffer.deallocate() }
    for block in 0..<Self.blockCount(byteCount) {
      let start = block * Self.blockBytes
      let part = UnsafeMutableRawBufferPointer(
        rebasing: buffer[..<min(Self.blockBytes, byteCount - start)])
      try file.read(at: Self.headerBytes + start, into: part)
      digests.append(contentsOf: SHA256.hash(data: UnsafeRawBufferPointer(part)))
    }
    return digests
  }

  private func headerText(blockDigests: [UInt8]) -> [UInt8] {
    let text = """
      \(header)
      block-bytes \(Self.blockBytes)
      block-digests \(hexadecimal(SHA256.hash(data: blockDigests)))

      """
    var bytes = Array(text.utf8)
    precondition(bytes.count < Self.headerBytes, "header of \(bytes.count) bytes")
    bytes.append(contentsOf: repeatElement(0, count: Self.headerBytes - bytes.count))
    return bytes
  }

  private func withLock<T>(_ body: () throws -> T) throws -> T {
    let lockPath = path + ".lock"
    let descriptor = open(lockPath, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else {
      throw ModelFileError.system(operation: "create", path: lockPath, code: errno)
    }
    // Closing releases the lock, and so does the death of the process.
    defer { close(descriptor) }
    while flock(descriptor, LOCK_EX) != 0 {
      guard errno == EINTR else {
        throw ModelFileError.system(operation: "lock", path: lockPath, code: errno)
      }
    }
    return try body()
  }
}

/// Lower-case hexadecimal digits of some bytes.
func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
  let digits = Array("0123456789abcdef".utf8)
  var text: [UInt8] = []
  for byte in bytes {
    text.append(digits[Int(byte >> 4)])
    text.append(digits[Int(byte & 15)])
  }
  return String(decoding: text, as: UTF8.self)
}
