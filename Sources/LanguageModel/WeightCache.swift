import Crypto
import Foundation

/// Dequantised weights on disk: one file per model, mapped read-only and so shared by all processes
/// of a machine.
///
/// File `<directory>/<digest>-v1.f32`, little-endian: a header of 4,096 bytes (text, padded with
/// zeros), the Float32 elements in the order of `ParameterLayout`, and the SHA-256 of every 16 MiB
/// block of elements. The header holds all that identifies the content, and the SHA-256 of the
/// block digests. Opening a file checks header, size and block digests; `verify` also the elements.
package struct WeightCache: Sendable {
  /// Created when needed.
  package let directory: String

  private static let headerBytes = 4096
  private static let blockBytes = 1 << 24

  package init(directory: String) { self.directory = directory }

  /// The file that holds the weights of a model.
  ///
  /// - Parameter digest: SHA-256 (hex) of the model's source.
  package func path(digest: String) -> String { "\(directory)/\(digest)-v1.f32" }

  /// Maps the cached weights, after building the file if it is absent, damaged or foreign. Of
  /// several processes that need it at once one builds it, the others wait.
  ///
  /// - Parameter write: hands all tensors to its argument, with their offsets in elements.
  /// - Throws: `ModelFileError`, or what `write` throws.
  package func weights(
    digest: String, configuration: LlamaConfiguration,
    write: ((Int, UnsafeBufferPointer<Float>) throws -> Void) throws -> Void
  ) throws -> ModelWeights {
    if let weights = try cached(digest: digest, configuration: configuration) { return weights }
    try makeDirectory(directory)
    return try withLock(path(digest: digest) + ".lock") {
      if let weights = try cached(digest: digest, configuration: configuration) { return weights }
      try build(digest: digest, configuration: configuration, write: write)
      guard let weights = try cached(digest: digest, configuration: configuration) else {
        throw ModelFileError.malformed(
          path: path(digest: digest), place: .file,
          problem: "the file was written just now and does not read back")
      }
      return weights
    }
  }

  /// Maps the cached weights; nil when the file is absent, or is not what it should be.
  ///
  /// - Throws: `ModelFileError.system` when the file cannot be read.
  package func cached(digest: String, configuration: LlamaConfiguration) throws -> ModelWeights? {
    guard let file = try openFile(digest: digest, configuration: configuration) else { return nil }
    let length = file.elementBytes + Self.headerBytes
    guard
      let base = mmap(nil, length, PROT_READ, MAP_SHARED, file.descriptor, 0), base != MAP_FAILED
    else {
      throw ModelFileError.system(operation: "map", path: file.path, code: errno)
    }
    let address = UInt(bitPattern: base)
    return ModelWeights(
      configuration: configuration, digest: digest,
      base: UnsafePointer((base + Self.headerBytes).assumingMemoryBound(to: Float.self)),
      release: { munmap(UnsafeMutableRawPointer(bitPattern: address), length) })
  }

  /// Reads the whole file and compares every block with its digest. Takes a second for 500 MB.
  ///
  /// - Throws: `ModelFileError.notFound` when there is no file, `.malformed` with the offset of the
  ///   first damaged block. Deleting the file makes the next start rebuild it.
  package func verify(digest: String, configuration: LlamaConfiguration) throws {
    let path = path(digest: digest)
    let binary = try BinaryFile(path: path)
    guard let file = try openFile(digest: digest, configuration: configuration) else {
      throw ModelFileError.malformed(
        path: path, place: .byte(0),
        problem: "this is not the weight cache of \(digest); delete it to have it rebuilt")
    }
    let found = try Self.blockDigests(binary, elementBytes: file.elementBytes)
    for block in 0..<file.blockDigests.count / 32
    where
      found[block * 32..<block * 32 + 32] != file.blockDigests[block * 32..<block * 32 + 32]
    {
      throw ModelFileError.malformed(
        path: path, place: .byte(Self.headerBytes + block * Self.blockBytes),
        problem: "the block does not have its digest; delete the file to have it rebuilt")
    }
  }

  // MARK: - File

  /// A cache file whose header, size and block digests are right.
  private final class OpenFile {
    let path: String
    let descriptor: Int32
    let elementBytes: Int
    let blockDigests: [UInt8]

    init(path: String, descriptor: Int32, elementBytes: Int, blockDigests: [UInt8]) {
      self.path = path
      self.descriptor = descriptor
      self.elementBytes = elementBytes
      self.blockDigests = blockDigests
    }

    deinit { close(descriptor) }
  }

  private func openFile(digest: String, configuration: LlamaConfiguration) throws -> OpenFile? {
    let path = path(digest: digest)
    let elementBytes = ParameterLayout(configuration).elementCount * 4
    let digestBytes = Self.blockCount(elementBytes) * 32
    let binary: BinaryFile
    do {
      binary = try BinaryFile(path: path)
    } catch ModelFileError.notFound {
      return nil
    }
    guard binary.size == Self.headerBytes + elementBytes + digestBytes else { return nil }
    let blockDigests = try binary.bytes(
      at: Self.headerBytes + elementBytes, count: digestBytes)
    let expected = Self.header(
      digest: digest, configuration: configuration, blockDigests: blockDigests)
    guard try binary.bytes(at: 0, count: Self.headerBytes) == expected else { return nil }
    let descriptor = binary.duplicateDescriptor()
    guard descriptor >= 0 else {
      throw ModelFileError.system(operation: "open", path: path, code: errno)
    }
    return OpenFile(
      path: path, descriptor: descriptor, elementBytes: elementBytes, blockDigests: blockDigests)
  }

  private func build(
    digest: String, configuration: LlamaConfiguration,
    write: ((Int, UnsafeBufferPointer<Float>) throws -> Void) throws -> Void
  ) throws {
    let path = path(digest: digest)
    // Left over from processes that were killed; only the holder of the lock writes such files.
    for name in try FileManager.default.contentsOfDirectory(atPath: directory)
    where name.hasPrefix("\(digest)-v1.f32.") && name.hasSuffix(".partial") {
      unlink("\(directory)/\(name)")
    }
    let elementBytes = ParameterLayout(configuration).elementCount * 4
    let size = Self.headerBytes + elementBytes + Self.blockCount(elementBytes) * 32
    try replaceFile(at: path) { descriptor, temporary in
      // Reserves the space, so that a full disk is known before the work.
      let code = posix_fallocate(descriptor, 0, off_t(size))
      guard code == 0 else {
        throw ModelFileError.system(
          operation: "reserve \(size) bytes for", path: path, code: code)
      }
      try write { offset, values in
        try writeAll(
          UnsafeRawBufferPointer(values), to: descriptor, at: Self.headerBytes + offset * 4,
          path: path)
      }
      let blockDigests = try Self.blockDigests(
        try BinaryFile(path: temporary), elementBytes: elementBytes)
      try blockDigests.withUnsafeBytes {
        try writeAll($0, to: descriptor, at: Self.headerBytes + elementBytes, path: path)
      }
      let header = Self.header(
        digest: digest, configuration: configuration, blockDigests: blockDigests)
      try header.withUnsafeBytes { try writeAll($0, to: descriptor, at: 0, path: path) }
    }
  }

  private static func blockCount(_ elementBytes: Int) -> Int {
    (elementBytes + blockBytes - 1) / blockBytes
  }

  private static func blockDigests(_ file: BinaryFile, elementBytes: Int) throws -> [UInt8] {
    var digests: [UInt8] = []
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: blockBytes, alignment: 64)
    defer { buffer.deallocate() }
    for block in 0..<blockCount(elementBytes) {
      let start = block * blockBytes
      let part = UnsafeMutableRawBufferPointer(
        rebasing: buffer[..<min(blockBytes, elementBytes - start)])
      try file.read(at: headerBytes + start, into: part)
      digests.append(contentsOf: SHA256.hash(data: UnsafeRawBufferPointer(part)))
    }
    return digests
  }

  private static func header(
    digest: String, configuration: LlamaConfiguration, blockDigests: [UInt8]
  ) -> [UInt8] {
    let text = """
      biassweep weights 1
      source \(digest)
      vocabulary \(configuration.vocabularySize)
      hidden \(configuration.hiddenSize)
      layers \(configuration.layerCount)
      heads \(configuration.headCount) \(configuration.keyValueHeadCount) \
      \(configuration.headDimension)
      feed-forward \(configuration.feedForwardSize)
      tied \(configuration.tiesEmbeddings)
      elements \(ParameterLayout(configuration).elementCount) float32
      block-bytes \(blockBytes)
      block-digests \(hexadecimal(SHA256.hash(data: blockDigests)))

      """
    var bytes = Array(text.utf8)
    precondition(bytes.count < headerBytes, "header of \(bytes.count) bytes")
    bytes.append(contentsOf: repeatElement(0, count: headerBytes - bytes.count))
    return bytes
  }

  private func withLock<T>(_ lockPath: String, _ body: () throws -> T) throws -> T {
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
