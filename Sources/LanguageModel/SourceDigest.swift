import Crypto
import Foundation

/// SHA-256 digests of model files, remembered so that a start does not read the files.
///
/// A digest is remembered together with the file's size, inode and times, in one small file per
/// model file: `<directory>/<SHA-256 of the path>.json`. When any of these differ, or the memory is
/// absent or damaged, the file is read again.
struct SourceDigest {
  /// Where digests are remembered; nil reads the files each time.
  let directory: String?

  private struct Memory: Codable {
    var path: String
    var identity: FileIdentity
    var digest: String
  }

  /// The digest (hex) of one file.
  func digest(ofFile path: String) throws -> String {
    let file = try BinaryFile(path: path)
    let absolute = URL(fileURLWithPath: path).standardizedFileURL.path
    let memoryPath = directory.map {
      "\($0)/\(hexadecimal(SHA256.hash(data: Data(absolute.utf8)).prefix(16))).json"
    }
    if let memoryPath, let memory = recall(memoryPath), memory.path == absolute,
      memory.identity == file.identity
    {
      return memory.digest
    }
    var hash = SHA256()
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 64)
    defer { buffer.deallocate() }
    var offset = 0
    while offset < file.size {
      let part = UnsafeMutableRawBufferPointer(
        rebasing: buffer[..<min(buffer.count, file.size - offset)])
      try file.read(at: offset, into: part)
      hash.update(bufferPointer: UnsafeRawBufferPointer(part))
      offset += part.count
    }
    let digest = hexadecimal(hash.finalize())
    if let directory, let memoryPath {
      try makeDirectory(directory)
      let memory = try JSONEncoder().encode(
        Memory(path: absolute, identity: file.identity, digest: digest))
      try replaceFile(at: memoryPath) { descriptor, _ in
        try memory.withUnsafeBytes { try writeAll($0, to: descriptor, at: 0, path: memoryPath) }
      }
    }
    return digest
  }

  /// The digest (hex) of the files `names` in `directory`: that of the lines "digest name".
  func digest(ofFiles names: [String], in directory: String) throws -> String {
    let lines = try names.map { "\(try digest(ofFile: "\(directory)/\($0)"))  \($0)\n" }
    return hexadecimal(SHA256.hash(data: Data(lines.joined().utf8)))
  }

  /// What was remembered; nil when there is nothing usable, which costs only time.
  private func recall(_ path: String) -> Memory? {
    guard let data = FileManager.default.contents(atPath: path) else { return nil }
    return try? JSONDecoder().decode(Memory.self, from: data)
  }
}
