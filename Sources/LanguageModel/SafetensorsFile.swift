import Foundation

/// A file of named tensors in Hugging Face's safetensors format.
///
/// Layout: header length (8 bytes, little-endian), a JSON header, the data without gaps.
/// Reference: https://github.com/huggingface/safetensors/blob/main/README.md
package struct SafetensorsFile: Sendable {
  package let path: String
  /// The free-form entries of `__metadata__`.
  package let metadata: [String: String]
  private let tensors: [String: HeaderTensor]
  private let dataStart: Int
  let file: BinaryFile

  private static let headerBytesMax = 100_000_000

  /// Names of all tensors, sorted.
  package var names: [String] { tensors.keys.sorted() }

  /// Reads and checks the header; data are read on demand.
  ///
  /// - Throws: `ModelFileError`.
  package init(path: String) throws { try self.init(BinaryFile(path: path)) }

  /// As above, from a file's content in memory.
  ///
  /// - Parameter path: what errors call the content.
  init(content: [UInt8], path: String) throws {
    try self.init(BinaryFile(content: content, path: path))
  }

  private init(_ file: BinaryFile) throws {
    self.file = file
    path = file.path
    var cursor = BinaryCursor(file)
    let length = try cursor.integer(UInt64.self, of: "the header length")
    guard length <= UInt64(Self.headerBytesMax), Int(length) <= cursor.remaining else {
      throw ModelFileError.malformed(
        path: path, place: .byte(0),
        problem: """
          a header of \(length) bytes is announced, \(cursor.remaining) bytes follow (at most \
          \(Self.headerBytesMax) are allowed)
          """)
    }
    let json = Data(try cursor.bytes(Int(length), of: "the header"))
    dataStart = cursor.offset
    let header = try decodeJSON(Header.self, from: json, path: path)
    metadata = header.metadata
    tensors = header.tensors

    // The data must be covered exactly, so that a cut or mixed-up file cannot pass.
    var end = 0
    let ordered = tensors.sorted { ($0.value.begin, $0.key) < ($1.value.begin, $1.key) }
    for (name, tensor) in ordered {
      guard tensor.begin == end, tensor.end >= tensor.begin else {
        throw ModelFileError.malformed(
          path: path, place: .tensor(name),
          problem: "data_offsets \(tensor.begin)..<\(tensor.end) do not continue byte \(end)")
      }
      end = tensor.end
    }
    guard end == file.size - dataStart else {
      throw ModelFileError.malformed(
        path: path, place: .byte(dataStart),
        problem: "the header describes \(end) bytes of data, \(file.size - dataStart) follow it")
    }
  }

  /// Row-major shape; nil when there is no such tensor.
  package func shape(of name: String) -> [Int]? { tensors[name]?.shape }

  /// A tensor's elements in row-major order, converted from F32, F16 or BF16.
  ///
  /// - Throws: `ModelFileError` when there is no such tensor, or when it is of another type.
  package func floats(_ name: String) throws -> [Float] {
    let tensor = try storedTensor(name)
    return try [Float](unsafeUninitializedCapacity: tensor.elementCount) { buffer, initialized in
      try file.decode(tensor, to: .init(rebasing: buffer[..<tensor.elementCount]))
      initialized = tensor.elementCount
    }
  }

  func storedTensor(_ name: String) throws -> StoredTensor {
    guard let tensor = tensors[name] else {
      throw ModelFileError.missing(path: path, place: .tensor(name))
    }
    let encodings: [TensorEncoding] = [.float32, .float16, .bfloat16]
    guard let encoding = encodings.first(where: { $0.rawValue == tensor.dtype }) else {
      throw ModelFileError.unsupported(
        path: path, place: .tensor(name), found: "elements of type \(tensor.dtype)",
        supported: encodings.map(\.rawValue).joined(separator: ", "))
    }
    var elementCount = 1
    for length in tensor.shape {
      let (product, overflow) = elementCount.multipliedReportingOverflow(by: length)
      guard length >= 0, !overflow else {
        throw ModelFileError.malformed(
          path: path, place: .tensor(name), problem: "shape \(tensor.shape) is impossible")
      }
      elementCount = product
    }
    guard encoding.byteCount(of: elementCount) == tensor.end - tensor.begin else {
      throw ModelFileError.malformed(
        path: path, place: .tensor(name),
        problem: """
          shape \(tensor.shape) of \(tensor.dtype) does not take \
          \(tensor.end - tensor.begin) bytes
          """)
    }
    return StoredTensor(
      name: name, shape: tensor.shape, encoding: encoding, offset: dataStart + tensor.begin,
      elementCount: elementCount)
  }

  private struct HeaderTensor: Codable, Sendable {
    var dtype: String
    var shape: [Int]
    var dataOffsets: [Int]

    enum CodingKeys: String, CodingKey {
      case dtype, shape
      case dataOffsets = "data_offsets"
    }

    var begin: Int { dataOffsets[0] }
    var end: Int { dataOffsets[1] }
  }

  private struct Header: Decodable {
    var metadata: [String: String] = [:]
    var tensors: [String: HeaderTensor] = [:]

    init(from decoder: any Decoder) throws {
      let container = try decoder.container(keyedBy: JSONKey.self)
      for key in container.allKeys {
        if key.stringValue == metadataKey {
          metadata = try container.decode([String: String].self, forKey: key)
          continue
        }
        let tensor = try container.decode(HeaderTensor.self, forKey: key)
        guard tensor.dataOffsets.count == 2, tensor.begin >= 0, tensor.end >= 0 else {
          throw DecodingError.dataCorruptedError(
            forKey: key, in: container, debugDescription: "data_offsets are not two positions")
        }
        tensors[key.stringValue] = tensor
      }
    }
  }
}

private let metadataKey = "__metadata__"

// MARK: - Writing

extension SafetensorsFile {
  /// A tensor that is to be written: its name and row-major shape.
  package struct Entry: Sendable, Hashable {
    package var name: String
    package var shape: [Int]

    package init(name: String, shape: [Int]) {
      self.name = name
      self.shape = shape
    }

    var elementCount: Int { shape.reduce(1, *) }
  }

  /// Writes tensors in F32, ordered by name: equal content gives equal bytes. The file appears at
  /// `path` only when it is complete and durable.
  ///
  /// - Parameters:
  ///   - entries: names must be distinct.
  ///   - values: the elements of a tensor in row-major order; called once per tensor, by name.
  /// - Throws: `ModelFileError.system`, or what `values` throws.
  package static func write(
    _ entries: [Entry], metadata: [String: String] = [:], to path: String,
    values: (Entry) throws -> [Float]
  ) throws {
    try write(entries, metadata: metadata, to: path) { entry, write in
      try values(entry).withUnsafeBytes(write)
    }
  }

  /// As above, from memory that need not be an array.
  ///
  /// - Parameter body: hands the bytes of a tensor (F32, row-major) to its second argument, once.
  package static func write(
    _ entries: [Entry], metadata: [String: String] = [:], to path: String,
    body: (Entry, _ write: (UnsafeRawBufferPointer) throws -> Void) throws -> Void
  ) throws {
    let (entries, start) = try layout(entries, metadata: metadata)
    try replaceFile(at: path) { descriptor, _ in
      try start.withUnsafeBytes { try writeAll($0, to: descriptor, at: 0, path: path) }
      var offset = start.count
      for entry in entries {
        let start = offset
        try body(entry) { bytes in
          precondition(
            bytes.count == 4 * entry.elementCount, "\(entry): \(bytes.count) bytes")
          try writeAll(bytes, to: descriptor, at: offset, path: path)
          offset += bytes.count
        }
        precondition(offset - start == 4 * entry.elementCount, "\(entry): nothing was written")
      }
    }
  }

  /// What `write` puts into a file, in memory.
  package static func encode(
    _ entries: [Entry], metadata: [String: String] = [:], values: (Entry) throws -> [Float]
  ) throws -> [UInt8] {
    let (entries, start) = try layout(entries, metadata: metadata)
    var bytes = Array(start)
    bytes.reserveCapacity(start.count + entries.reduce(0) { $0 + $1.elementCount * 4 })
    for entry in entries {
      let elements = try values(entry)
      precondition(elements.count == entry.elementCount, "\(entry): \(elements.count) elements")
      elements.withUnsafeBytes { bytes.append(contentsOf: $0) }
    }
    return bytes
  }

  /// The entries in the order of their data, and what precedes the data.
  private static func layout(
    _ entries: [Entry], metadata: [String: String]
  ) throws -> (entries: [Entry], start: Data) {
    let entries = entries.sorted { $0.name < $1.name }
    var header: [String: HeaderValue] = [:]
    if !metadata.isEmpty { header[metadataKey] = .metadata(metadata) }
    var end = 0
    for entry in entries {
      let begin = end
      end += entry.elementCount * 4
      let value = HeaderValue.tensor(
        HeaderTensor(dtype: "F32", shape: entry.shape, dataOffsets: [begin, end]))
      precondition(
        header.updateValue(value, forKey: entry.name) == nil, "two tensors \(entry.name)")
    }
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    var json = try encoder.encode(header)
    json.append(contentsOf: repeatElement(UInt8(ascii: " "), count: (8 - json.count % 8) % 8))
    return (entries, withUnsafeBytes(of: UInt64(json.count).littleEndian) { Data($0) } + json)
  }

  private enum HeaderValue: Encodable {
    case metadata([String: String])
    case tensor(HeaderTensor)

    func encode(to encoder: any Encoder) throws {
      switch self {
      case .metadata(let entries): try entries.encode(to: encoder)
      case .tensor(let tensor): try tensor.encode(to: encoder)
      }
    }
  }
}
