import Foundation

/// What tells one state of a file from another without reading it.
struct FileIdentity: Codable, Equatable, Sendable {
  var size: Int
  var device: UInt64
  var inode: UInt64
  var modifiedNanoseconds: Int
  var changedNanoseconds: Int
}

/// A regular file, or a file's content in memory, that is read by position; every read is checked
/// against the length.
///
/// Reading with `pread` instead of mapping keeps a file that shrinks meanwhile an error, not a
/// signal.
final class BinaryFile: Sendable {
  let path: String
  let identity: FileIdentity
  private let content: Content

  private enum Content {
    case descriptor(Int32)
    case memory([UInt8])
  }

  /// Bytes in the file when it was opened.
  var size: Int { identity.size }

  /// - Throws: `ModelFileError.notFound`, or `.system` when it cannot be opened or is not a
  ///   regular file.
  init(path: String) throws {
    // Non-blocking, so that a named pipe is refused below and not waited for.
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else {
      let code = errno
      throw code == ENOENT || code == ENOTDIR
        ? ModelFileError.notFound(path: path)
        : ModelFileError.system(operation: "open", path: path, code: code)
    }
    var status = stat()
    guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
      let code = status.st_mode & S_IFMT == S_IFDIR ? EISDIR : (errno == 0 ? EINVAL : errno)
      close(descriptor)
      throw ModelFileError.system(operation: "read", path: path, code: code)
    }
    self.path = path
    content = .descriptor(descriptor)
    identity = FileIdentity(
      size: Int(status.st_size), device: UInt64(status.st_dev), inode: UInt64(status.st_ino),
      modifiedNanoseconds: Int(status.st_mtim.tv_sec) * 1_000_000_000
        + Int(status.st_mtim.tv_nsec),
      changedNanoseconds: Int(status.st_ctim.tv_sec) * 1_000_000_000
        + Int(status.st_ctim.tv_nsec))
  }

  /// - Parameter path: what errors call the content.
  init(content bytes: [UInt8], path: String) {
    self.path = path
    content = .memory(bytes)
    identity = FileIdentity(
      size: bytes.count, device: 0, inode: 0, modifiedNanoseconds: 0, changedNanoseconds: 0)
  }

  deinit { if case .descriptor(let descriptor) = content { close(descriptor) } }

  /// Fills `buffer` with the bytes from `offset` on.
  ///
  /// - Throws: `ModelFileError.malformed` when the file ends before the buffer is full.
  func read(at offset: Int, into buffer: UnsafeMutableRawBufferPointer) throws {
    try checkRange(offset: offset, count: buffer.count)
    let descriptor: Int32
    switch content {
    case .memory(let bytes): return buffer.copyBytes(from: bytes[offset..<offset + buffer.count])
    case .descriptor(let open): descriptor = open
    }
    var done = 0
    while done < buffer.count {
      let count = pread(
        descriptor, buffer.baseAddress! + done, buffer.count - done, off_t(offset + done))
      if count < 0 && errno == EINTR { continue }
      if count < 0 { throw ModelFileError.system(operation: "read", path: path, code: errno) }
      if count == 0 {
        throw ModelFileError.malformed(
          path: path, place: .byte(offset + done), problem: "the file became shorter while read")
      }
      done += count
    }
  }

  /// The `count` bytes from `offset` on.
  func bytes(at offset: Int, count: Int) throws -> [UInt8] {
    try checkRange(offset: offset, count: count)
    return try [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
      try read(
        at: offset, into: UnsafeMutableRawBufferPointer(start: buffer.baseAddress, count: count))
      initialized = count
    }
  }

  /// A second descriptor of the file, which the caller closes; negative on failure, and for content
  /// in memory.
  func duplicateDescriptor() -> Int32 {
    guard case .descriptor(let descriptor) = content else { return -1 }
    return fcntl(descriptor, F_DUPFD_CLOEXEC, 0)
  }

  private func checkRange(offset: Int, count: Int) throws {
    guard offset >= 0, count >= 0, offset <= size, count <= size - offset else {
      throw ModelFileError.malformed(
        path: path, place: .byte(max(0, min(offset, size))),
        problem: "\(count) bytes expected from byte \(offset) on, but the file has \(size)")
    }
  }
}

/// Reads the little-endian values of a file one after the other.
struct BinaryCursor {
  private let file: BinaryFile
  private var window: [UInt8] = []
  private var windowStart = 0
  /// Position of the next value, in bytes from the start of the file.
  private(set) var offset = 0

  private static let windowSize = 1 << 20

  init(_ file: BinaryFile) { self.file = file }

  /// Bytes not yet read.
  var remaining: Int { file.size - offset }

  /// An error about the value at the cursor.
  func malformed(_ problem: String) -> ModelFileError {
    .malformed(path: file.path, place: .byte(offset), problem: problem)
  }

  /// The next `count` bytes.
  ///
  /// - Parameter what: names the value in the error when the file ends before it.
  mutating func bytes(_ count: Int, of what: String) throws -> ArraySlice<UInt8> {
    guard count <= remaining else {
      throw malformed("the file ends within \(what): \(count) bytes needed, \(remaining) left")
    }
    if offset < windowStart || offset + count > windowStart + window.count {
      window = try file.bytes(at: offset, count: min(max(count, Self.windowSize), remaining))
      windowStart = offset
    }
    let start = offset - windowStart
    offset += count
    return window[start..<start + count]
  }

  mutating func integer<T: FixedWidthInteger>(_ type: T.Type, of what: String) throws -> T {
    let slice = try bytes(MemoryLayout<T>.size, of: what)
    return slice.withUnsafeBytes { T(littleEndian: $0.loadUnaligned(as: T.self)) }
  }
}

/// Writes a file so that the path holds either what it held before or the complete new content,
/// also after a crash.
///
/// - Parameter body: writes the content to the file descriptor; its second argument is the path
///   until the content is complete.
/// - Throws: `ModelFileError.system`, or what `body` throws; the path is then untouched.
func replaceFile(at path: String, _ body: (Int32, String) throws -> Void) throws {
  let temporary = "\(path).\(getpid())-\(UInt32.random(in: 0...UInt32.max)).partial"
  let descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
  guard descriptor >= 0 else {
    throw ModelFileError.system(operation: "create", path: temporary, code: errno)
  }
  var succeeded = false
  var isOpen = true
  defer {
    if isOpen { close(descriptor) }
    if !succeeded { unlink(temporary) }
  }
  try body(descriptor, temporary)
  guard fsync(descriptor) == 0 else {
    throw ModelFileError.system(operation: "write", path: temporary, code: errno)
  }
  isOpen = false
  guard close(descriptor) == 0 else {
    throw ModelFileError.system(operation: "write", path: temporary, code: errno)
  }
  guard rename(temporary, path) == 0 else {
    throw ModelFileError.system(operation: "rename a new file to", path: path, code: errno)
  }
  succeeded = true
  synchronizeDirectory(of: path)
}

/// Makes a rename durable. A file system that cannot synchronise directories orders renames by
/// itself, hence the ignored result.
private func synchronizeDirectory(of path: String) {
  let directory = (path as NSString).deletingLastPathComponent
  let descriptor = open(directory.isEmpty ? "." : directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
  guard descriptor >= 0 else { return }
  _ = fsync(descriptor)
  close(descriptor)
}

/// Writes all of `bytes` to a file descriptor, from `offset` on.
func writeAll(
  _ bytes: UnsafeRawBufferPointer, to descriptor: Int32, at offset: Int, path: String
) throws {
  var done = 0
  while done < bytes.count {
    let count = pwrite(
      descriptor, bytes.baseAddress! + done, bytes.count - done, off_t(offset + done))
    if count < 0 && errno == EINTR { continue }
    if count <= 0 {
      throw ModelFileError.system(
        operation: "write", path: path, code: count == 0 ? EIO : errno)
    }
    done += count
  }
}

/// Creates a directory and its parents where they do not exist.
func makeDirectory(_ path: String) throws {
  do {
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  } catch {
    throw ModelFileError.system(
      operation: "create the directory", path: path, code: posixCode(of: error))
  }
}

/// The errno behind a Foundation error, EIO when it names none.
func posixCode(of error: any Error) -> Int32 {
  let error = error as NSError
  if error.domain == NSPOSIXErrorDomain { return Int32(truncatingIfNeeded: error.code) }
  if let underlying = error.userInfo[NSUnderlyingErrorKey] as? NSError,
    underlying.domain == NSPOSIXErrorDomain
  {
    return Int32(truncatingIfNeeded: underlying.code)
  }
  switch CocoaError.Code(rawValue: error.code) {
  case .fileWriteNoPermission, .fileReadNoPermission: return EACCES
  case .fileWriteOutOfSpace: return ENOSPC
  case .fileWriteVolumeReadOnly: return EROFS
  case .fileWriteFileExists: return EEXIST
  default: return EIO
  }
}

/// Small files that are replaced as a whole.
package enum DurableFile {
  /// Makes `path` hold `data`, durably; a crash leaves what it held before or all of `data`.
  ///
  /// - Throws: `ModelFileError.system`.
  package static func replace(at path: String, with data: Data) throws {
    try replaceFile(at: path) { descriptor, _ in
      try data.withUnsafeBytes { try writeAll($0, to: descriptor, at: 0, path: path) }
    }
  }
}
