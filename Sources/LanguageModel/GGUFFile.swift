/// A model file of llama.cpp: metadata, and tensors found by name.
///
/// Versions 2 and 3, little-endian. Everything read from the file is checked before use: counts and
/// offsets against its length, so that memory stays proportional to it.
/// Reference: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
package struct GGUFFile: Sendable {
  /// A metadata value.
  package enum Value: Sendable, Equatable {
    case unsigned(UInt64)
    case signed(Int64)
    case float(Double)
    case boolean(Bool)
    case string(String)
    case array([Value])
  }

  package let path: String
  package let version: UInt32
  package let metadata: [String: Value]
  let tensors: [String: StoredTensor]
  let file: BinaryFile

  private static let metadataCountMax: UInt64 = 1 << 16
  private static let tensorCountMax: UInt64 = 1 << 16
  private static let stringBytesMax: UInt64 = 1 << 24
  private static let arrayDepthMax = 4
  private static let arrayCountMax: UInt64 = 1 << 22
  private static let dimensionCountMax: UInt32 = 4

  /// Names of all tensors, sorted.
  package var tensorNames: [String] { tensors.keys.sorted() }

  /// Reads metadata and the tensor directory; tensor data are read on demand.
  ///
  /// - Throws: `ModelFileError`.
  package init(path: String) throws {
    file = try BinaryFile(path: path)
    self.path = path
    var cursor = BinaryCursor(file)
    let magic = try cursor.bytes(4, of: "the magic number")
    guard magic.elementsEqual("GGUF".utf8) else {
      throw ModelFileError.malformed(
        path: path, place: .byte(0), problem: "a GGUF file begins with the letters GGUF")
    }
    version = try cursor.integer(UInt32.self, of: "the version")
    guard version == 2 || version == 3 else {
      let bigEndian = version.byteSwapped == 2 || version.byteSwapped == 3
      throw ModelFileError.unsupported(
        path: path, place: .byte(4),
        found: bigEndian ? "a big-endian file" : "GGUF version \(version)",
        supported: "GGUF versions 2 and 3, little-endian")
    }
    let tensorCount = try Self.count(
      &cursor, of: "the number of tensors", limit: Self.tensorCountMax)
    let metadataCount = try Self.count(
      &cursor, of: "the number of metadata entries", limit: Self.metadataCountMax)

    var metadata: [String: Value] = [:]
    for _ in 0..<metadataCount {
      let start = cursor
      let key = try Self.string(&cursor, of: "a metadata key")
      let type = try cursor.integer(UInt32.self, of: "the type of \(key)")
      let value = try Self.value(&cursor, type: type, key: key, depth: 0)
      guard metadata.updateValue(value, forKey: key) == nil else {
        throw start.malformed("metadata key \(key) occurs twice")
      }
    }
    self.metadata = metadata

    let directory = try (0..<tensorCount).map { _ in
      try Self.directoryEntry(&cursor, path: path)
    }
    let alignment = try Self.alignment(metadata, path: path)
    guard case let (padded, overflow) = cursor.offset.addingReportingOverflow(alignment - 1),
      !overflow
    else { throw cursor.malformed("alignment \(alignment) is too large") }
    let dataStart = padded / alignment * alignment
    var tensors: [String: StoredTensor] = [:]
    for var tensor in directory {
      let size = tensor.encoding.byteCount(of: tensor.elementCount)!
      let (start, overflow) = dataStart.addingReportingOverflow(tensor.offset)
      guard tensor.offset % alignment == 0, !overflow, start <= file.size,
        size <= file.size - start
      else {
        throw ModelFileError.malformed(
          path: path, place: .tensor(tensor.name),
          problem: """
            \(size) bytes at data offset \(tensor.offset) (data begin at byte \(dataStart), \
            alignment \(alignment)) do not fit into a file of \(file.size) bytes
            """)
      }
      tensor.offset = start
      guard tensors.updateValue(tensor, forKey: tensor.name) == nil else {
        throw ModelFileError.malformed(
          path: path, place: .tensor(tensor.name), problem: "two tensors have this name")
      }
    }
    self.tensors = tensors
  }

  /// Row-major shape (outermost dimension first); nil when there is no such tensor.
  package func shape(of name: String) -> [Int]? { tensors[name]?.shape }

  /// A tensor's elements in row-major order, dequantised.
  ///
  /// - Throws: `ModelFileError.missing` when there is no such tensor; read errors.
  package func floats(_ name: String) throws -> [Float] {
    guard let tensor = tensors[name] else {
      throw ModelFileError.missing(path: path, place: .tensor(name))
    }
    return try [Float](unsafeUninitializedCapacity: tensor.elementCount) { buffer, initialized in
      try file.decode(tensor, to: .init(rebasing: buffer[..<tensor.elementCount]))
      initialized = tensor.elementCount
    }
  }

  // MARK: - Typed metadata

  /// - Throws: `ModelFileError` when the entry is absent or is not a string.
  package func string(_ key: String) throws -> String {
    guard let value = try optionalString(key) else {
      throw ModelFileError.missing(path: path, place: .key(key))
    }
    return value
  }

  /// - Throws: `ModelFileError` when the entry exists and is not a string.
  package func optionalString(_ key: String) throws -> String? {
    guard let value = metadata[key] else { return nil }
    guard case .string(let string) = value else { throw wrongType(key, "a string") }
    return string
  }

  /// - Throws: `ModelFileError` when the entry is absent or is not an integer.
  package func integer(_ key: String) throws -> Int {
    guard let value = try optionalInteger(key) else {
      throw ModelFileError.missing(path: path, place: .key(key))
    }
    return value
  }

  /// - Throws: `ModelFileError` when the entry exists and is not an integer.
  package func optionalInteger(_ key: String) throws -> Int? {
    guard let value = metadata[key] else { return nil }
    switch value {
    case .unsigned(let number):
      if let number = Int(exactly: number) { return number }
    case .signed(let number): return Int(number)
    default: break
    }
    throw wrongType(key, "an integer")
  }

  /// - Throws: `ModelFileError` when the entry exists and is not a number.
  package func optionalNumber(_ key: String) throws -> Double? {
    guard let value = metadata[key] else { return nil }
    switch value {
    case .float(let number): return number
    case .unsigned(let number): return Double(number)
    case .signed(let number): return Double(number)
    default: throw wrongType(key, "a number")
    }
  }

  /// - Throws: `ModelFileError` when the entry exists and is not a Boolean.
  package func optionalBoolean(_ key: String) throws -> Bool? {
    guard let value = metadata[key] else { return nil }
    guard case .boolean(let boolean) = value else { throw wrongType(key, "a Boolean") }
    return boolean
  }

  /// - Throws: `ModelFileError` when the entry is absent or is not an array of strings.
  package func strings(_ key: String) throws -> [String] {
    try array(key).map { value in
      guard case .string(let string) = value else { throw wrongType(key, "an array of strings") }
      return string
    }
  }

  /// - Throws: `ModelFileError` when the entry is absent or is not an array of integers.
  package func integers(_ key: String) throws -> [Int] {
    try array(key).map { value in
      switch value {
      case .unsigned(let number):
        if let number = Int(exactly: number) { return number }
      case .signed(let number): return Int(number)
      default: break
      }
      throw wrongType(key, "an array of integers")
    }
  }

  private func array(_ key: String) throws -> [Value] {
    guard let value = metadata[key] else {
      throw ModelFileError.missing(path: path, place: .key(key))
    }
    guard case .array(let values) = value else { throw wrongType(key, "an array") }
    return values
  }

  private func wrongType(_ key: String, _ expected: String) -> ModelFileError {
    .malformed(path: path, place: .key(key), problem: "\(expected) was expected")
  }

  // MARK: - Parsing

  private static func count(
    _ cursor: inout BinaryCursor, of what: String, limit: UInt64
  ) throws -> Int {
    let start = cursor
    let count = try cursor.integer(UInt64.self, of: what)
    guard count <= limit else {
      throw start.malformed("\(what) is \(count), more than \(limit)")
    }
    return Int(count)
  }

  private static func string(_ cursor: inout BinaryCursor, of what: String) throws -> String {
    let start = cursor
    let length = try count(&cursor, of: "the length of \(what)", limit: stringBytesMax)
    let bytes = try cursor.bytes(length, of: what)
    guard let string = String(validating: bytes, as: UTF8.self) else {
      throw start.malformed("\(what) is not UTF-8")
    }
    return string
  }

  private static func value(
    _ cursor: inout BinaryCursor, type: UInt32, key: String, depth: Int
  ) throws -> Value {
    switch type {
    case 0: return .unsigned(UInt64(try cursor.integer(UInt8.self, of: key)))
    case 1: return .signed(Int64(try cursor.integer(Int8.self, of: key)))
    case 2: return .unsigned(UInt64(try cursor.integer(UInt16.self, of: key)))
    case 3: return .signed(Int64(try cursor.integer(Int16.self, of: key)))
    case 4: return .unsigned(UInt64(try cursor.integer(UInt32.self, of: key)))
    case 5: return .signed(Int64(try cursor.integer(Int32.self, of: key)))
    case 6:
      return .float(Double(Float(bitPattern: try cursor.integer(UInt32.self, of: key))))
    case 7:
      let start = cursor
      let byte = try cursor.integer(UInt8.self, of: key)
      guard byte <= 1 else { throw start.malformed("Boolean \(key) is \(byte)") }
      return .boolean(byte == 1)
    case 8: return .string(try string(&cursor, of: key))
    case 9: return .array(try arrayValue(&cursor, key: key, depth: depth))
    case 10: return .unsigned(try cursor.integer(UInt64.self, of: key))
    case 11: return .signed(try cursor.integer(Int64.self, of: key))
    case 12: return .float(Double(bitPattern: try cursor.integer(UInt64.self, of: key)))
    default: throw cursor.malformed("\(key) has the unknown value type \(type)")
    }
  }

  private static func arrayValue(
    _ cursor: inout BinaryCursor, key: String, depth: Int
  ) throws -> [Value] {
    guard depth < arrayDepthMax else { throw cursor.malformed("\(key) is nested too deeply") }
    let type = try cursor.integer(UInt32.self, of: "the element type of \(key)")
    let start = cursor
    let count = try cursor.integer(UInt64.self, of: "the length of \(key)")
    let elementBytesMin =
      switch type {
      case 0, 1, 7: 1
      case 2, 3: 2
      case 4, 5, 6: 4
      case 9: 12
      default: 8
      }
    guard count <= min(arrayCountMax, UInt64(cursor.remaining / elementBytesMin)) else {
      throw start.malformed(
        "\(key) has \(count) elements, more than the rest of the file holds or \(arrayCountMax)")
    }
    var values: [Value] = []
    values.reserveCapacity(Int(count))
    for _ in 0..<count {
      values.append(try value(&cursor, type: type, key: key, depth: depth + 1))
    }
    return values
  }

  /// One entry of the tensor directory; its `offset` is still relative to the data.
  private static func directoryEntry(
    _ cursor: inout BinaryCursor, path: String
  ) throws -> StoredTensor {
    let name = try string(&cursor, of: "a tensor name")
    let start = cursor
    let dimensionCount = try cursor.integer(UInt32.self, of: "the dimensions of \(name)")
    guard (1...dimensionCountMax).contains(dimensionCount) else {
      throw start.malformed("tensor \(name) has \(dimensionCount) dimensions")
    }
    var shape: [Int] = []
    var elementCount = 1
    for _ in 0..<dimensionCount {
      let length = try cursor.integer(UInt64.self, of: "the dimensions of \(name)")
      guard let length = Int(exactly: length),
        case let (product, overflow) = elementCount.multipliedReportingOverflow(by: length),
        !overflow
      else { throw start.malformed("tensor \(name) is too large") }
      elementCount = product
      // The file gives the innermost dimension first.
      shape.insert(length, at: 0)
    }
    let type = try cursor.integer(UInt32.self, of: "the encoding of \(name)")
    guard let encoding = encoding(ofType: type) else {
      throw ModelFileError.unsupported(
        path: path, place: .tensor(name), found: "the encoding \(typeName(type))",
        supported: TensorEncoding.allCases.map(\.rawValue).joined(separator: ", "))
    }
    guard shape[shape.count - 1] % encoding.blockElements == 0,
      encoding.byteCount(of: elementCount) != nil
    else { throw start.malformed("shape \(shape) of \(name) is not made of \(encoding) blocks") }
    let offset = try cursor.integer(UInt64.self, of: "the offset of \(name)")
    guard let offset = Int(exactly: offset) else {
      throw start.malformed("tensor \(name) lies at offset \(offset)")
    }
    return StoredTensor(
      name: name, shape: shape, encoding: encoding, offset: offset, elementCount: elementCount)
  }

  private static func alignment(_ metadata: [String: Value], path: String) throws -> Int {
    switch metadata["general.alignment"] {
    case nil: return 32
    case .unsigned(let value) where value > 0 && value % 8 == 0 && value <= 1 << 20:
      return Int(value)
    case .some(let value):
      throw ModelFileError.malformed(
        path: path, place: .key("general.alignment"),
        problem: "\(value) is not a multiple of 8 up to \(1 << 20)")
    }
  }

  private static func encoding(ofType type: UInt32) -> TensorEncoding? {
    switch type {
    case 0: .float32
    case 1: .float16
    case 2: .q4_0
    case 3: .q4_1
    case 6: .q5_0
    case 8: .q8_0
    case 12: .q4_K
    case 14: .q6_K
    case 30: .bfloat16
    default: nil
    }
  }

  private static func typeName(_ type: UInt32) -> String {
    let names: [UInt32: String] = [
      7: "Q5_1", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 13: "Q5_K", 15: "Q8_K", 16: "IQ2_XXS",
      17: "IQ2_XS", 18: "IQ3_XXS", 20: "IQ4_NL", 23: "IQ4_XS", 28: "F64",
    ]
    return names[type] ?? "number \(type)"
  }
}
