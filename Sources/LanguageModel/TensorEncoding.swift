/// How the elements of a stored tensor are encoded, and how they become Float32.
///
/// The quantised encodings are ggml's: blocks of 32 consecutive elements of a row.
/// Reference: https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c
package enum TensorEncoding: String, Sendable, CaseIterable {
  case float32 = "F32"
  case float16 = "F16"
  case bfloat16 = "BF16"
  case q4_0 = "Q4_0"
  case q4_1 = "Q4_1"
  case q8_0 = "Q8_0"

  /// Elements that are stored together.
  package var blockElements: Int {
    switch self {
    case .float32, .float16, .bfloat16: 1
    case .q4_0, .q4_1, .q8_0: 32
    }
  }

  /// Bytes of one block.
  package var blockBytes: Int {
    switch self {
    case .float32: 4
    case .float16, .bfloat16: 2
    case .q4_0: 2 + 16
    case .q4_1: 2 + 2 + 16
    case .q8_0: 2 + 32
    }
  }

  /// Bytes of `count` elements; nil when they are not whole blocks or too many for an `Int`.
  func byteCount(of count: Int) -> Int? {
    guard count >= 0, count % blockElements == 0 else { return nil }
    let (bytes, overflow) = (count / blockElements).multipliedReportingOverflow(by: blockBytes)
    return overflow ? nil : bytes
  }

  /// Decodes the whole blocks of `source` to `destination`, which has room for their elements.
  func decode(_ source: UnsafeRawBufferPointer, to destination: UnsafeMutablePointer<Float>) {
    precondition(source.count % blockBytes == 0, "\(self): \(source.count) bytes are not blocks")
    if self == .float32 {
      UnsafeMutableRawBufferPointer(start: destination, count: source.count).copyMemory(
        from: source)
      return
    }
    let blockCount = source.count / blockBytes
    for block in 0..<blockCount {
      let at = block * blockBytes
      let out = destination + block * blockElements
      switch self {
      case .float32:
        preconditionFailure("copied as a whole above")
      case .float16:
        out[0] = Self.half(source, at)
      case .bfloat16:
        out[0] = Float(bitPattern: UInt32(Self.integer(source, at, UInt16.self)) << 16)
      case .q4_0:
        // w = d · (q − 8); element i is in the low, i + 16 in the high half of byte i.
        let scale = Self.half(source, at)
        for i in 0..<16 {
          let byte = source[at + 2 + i]
          out[i] = Float(Int32(byte & 15) - 8) * scale
          out[i + 16] = Float(Int32(byte >> 4) - 8) * scale
        }
      case .q4_1:
        // w = d · q + m
        let scale = Self.half(source, at)
        let minimum = Self.half(source, at + 2)
        for i in 0..<16 {
          let byte = source[at + 4 + i]
          out[i] = Float(byte & 15) * scale + minimum
          out[i + 16] = Float(byte >> 4) * scale + minimum
        }
      case .q8_0:
        // w = d · q, q signed
        let scale = Self.half(source, at)
        for i in 0..<32 {
          out[i] = Float(Int8(bitPattern: source[at + 2 + i])) * scale
        }
      }
    }
  }

  @inline(__always)
  private static func integer<T: FixedWidthInteger>(
    _ source: UnsafeRawBufferPointer, _ offset: Int, _ type: T.Type
  ) -> T {
    T(littleEndian: source.loadUnaligned(fromByteOffset: offset, as: type))
  }

  @inline(__always)
  private static func half(_ source: UnsafeRawBufferPointer, _ offset: Int) -> Float {
    Float(Float16(bitPattern: integer(source, offset, UInt16.self)))
  }
}

/// A tensor in a model file: where its bytes lie and what they mean.
struct StoredTensor: Sendable {
  var name: String
  /// Row-major, outermost dimension first.
  var shape: [Int]
  var encoding: TensorEncoding
  /// Bytes from the start of the file.
  var offset: Int
  var elementCount: Int
}

extension BinaryFile {
  /// Decodes a tensor to Float32.
  ///
  /// - Parameter destination: `tensor.elementCount` elements.
  /// - Throws: `ModelFileError.malformed` when the file is too short, or when an element is not
  ///   finite: no trained model has such weights, a damaged file has.
  func decode(_ tensor: StoredTensor, to destination: UnsafeMutableBufferPointer<Float>) throws {
    precondition(destination.count == tensor.elementCount, "\(tensor): \(destination.count)")
    guard tensor.elementCount > 0 else { return }
    let encoding = tensor.encoding
    let chunkBlocks = (1 << 20) / encoding.blockBytes
    let blockCount = tensor.elementCount / encoding.blockElements
    let chunk = UnsafeMutableRawBufferPointer.allocate(
      byteCount: min(chunkBlocks, blockCount) * encoding.blockBytes, alignment: 16)
    defer { chunk.deallocate() }
    var block = 0
    while block < blockCount {
      let count = min(chunkBlocks, blockCount - block)
      let raw = UnsafeMutableRawBufferPointer(rebasing: chunk[..<(count * encoding.blockBytes)])
      try read(at: tensor.offset + block * encoding.blockBytes, into: raw)
      encoding.decode(
        UnsafeRawBufferPointer(raw),
        to: destination.baseAddress! + block * encoding.blockElements)
      block += count
    }
    // x − x is 0 for every finite x and NaN otherwise; a sum of them vectorises.
    var probe: Float = 0
    for value in destination { probe += value - value }
    guard probe == 0 else {
      let index = destination.firstIndex { !$0.isFinite } ?? 0
      throw ModelFileError.malformed(
        path: path, place: .tensor(tensor.name),
        problem: "element \(index) is \(destination[index]), not a finite number")
    }
  }
}
