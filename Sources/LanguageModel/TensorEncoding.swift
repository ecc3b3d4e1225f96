/// How the elements of a stored tensor are encoded, and how they become Float32.
///
/// The quantised encodings are ggml's: blocks of 32 consecutive elements of a row, or of 256 ("K").
/// Reference: https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c
package enum TensorEncoding: String, Sendable, CaseIterable {
  case float32 = "F32"
  case float16 = "F16"
  case bfloat16 = "BF16"
  case q4_0 = "Q4_0"
  case q4_1 = "Q4_1"
  case q5_0 = "Q5_0"
  case q8_0 = "Q8_0"
  case q4_K = "Q4_K"
  case q6_K = "Q6_K"

  /// Elements that are stored together.
  package var blockElements: Int {
    switch self {
    case .float32, .float16, .bfloat16: 1
    case .q4_0, .q4_1, .q5_0, .q8_0: 32
    case .q4_K, .q6_K: 256
    }
  }

  /// Bytes of one block.
  package var blockBytes: Int {
    switch self {
    case .float32: 4
    case .float16, .bfloat16: 2
    case .q4_0: 2 + 16
    case .q4_1: 2 + 2 + 16
    case .q5_0: 2 + 4 + 16
    case .q8_0: 2 + 32
    case .q4_K: 2 + 2 + 12 + 128
    case .q6_K: 128 + 64 + 16 + 2
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
      case .q5_0:
        // w = d · (q − 16); bit 4 of element i is bit i of a word before the nibbles of Q4_0.
        let scale = Self.half(source, at)
        let high = Self.integer(source, at + 2, UInt32.self)
        for i in 0..<16 {
          let byte = UInt32(source[at + 6 + i])
          out[i] = Float(Int32(byte & 15 | ((high >> UInt32(i)) & 1) << 4) - 16) * scale
          out[i + 16] = Float(Int32(byte >> 4 | ((high >> UInt32(i + 16)) & 1) << 4) - 16) * scale
        }
      case .q4_K:
        Self.decodeQ4K(source, at, to: out)
      case .q6_K:
        Self.decodeQ6K(source, at, to: out)
      case .q8_0:
        // w = d · q, q signed
        let scale = Self.half(source, at)
        for i in 0..<32 {
          out[i] = Float(Int8(bitPattern: source[at + 2 + i])) * scale
        }
      }
    }
  }

  /// 8 groups of 32 elements, w = d · s · q − dmin · m, with a scale s and a minimum m of 6 bits for
  /// each group. Two groups share 32 bytes: one in the low halves, the next in the high halves.
  private static func decodeQ4K(
    _ source: UnsafeRawBufferPointer, _ at: Int, to out: UnsafeMutablePointer<Float>
  ) {
    let scale = half(source, at)
    let minimumScale = half(source, at + 2)
    let packed = at + 4
    for group in 0..<8 {
      // Groups 0 to 3: 6 bits of a byte each. Groups 4 to 7: 4 bits, and above them the 2 bits that
      // the bytes of groups 0 to 3 have left.
      let (s, m) =
        group < 4
        ? (source[packed + group] & 63, source[packed + 4 + group] & 63)
        : (
          source[packed + 4 + group] & 15 | (source[packed + group - 4] >> 6) << 4,
          source[packed + 4 + group] >> 4 | (source[packed + group] >> 6) << 4
        )
      let factor = scale * Float(s)
      let minimum = minimumScale * Float(m)
      let quants = at + 16 + group / 2 * 32
      for i in 0..<32 {
        let byte = source[quants + i]
        out[group * 32 + i] = factor * Float(group & 1 == 0 ? byte & 15 : byte >> 4) - minimum
      }
    }
  }

  /// 16 groups of 16 elements, w = d · s · (q − 32), s signed. In each half of 128 elements, element
  /// 32 k + i has its low 4 bits in byte 32 (k & 1) + i (low half of the byte for k < 2) and its high
  /// 2 bits at bit 2 k of byte i.
  private static func decodeQ6K(
    _ source: UnsafeRawBufferPointer, _ at: Int, to out: UnsafeMutablePointer<Float>
  ) {
    let scale = half(source, at + 208)
    for element in 0..<256 {
      let (part, inner) = element.quotientAndRemainder(dividingBy: 128)
      let (k, i) = inner.quotientAndRemainder(dividingBy: 32)
      let lowByte = source[at + part * 64 + (k & 1) * 32 + i]
      let low = k < 2 ? lowByte & 15 : lowByte >> 4
      let high = source[at + 128 + part * 32 + i] >> UInt8(2 * k) & 3
      let group = Int8(bitPattern: source[at + 192 + element / 16])
      out[element] = scale * Float(group) * Float(Int32(low | high << 4) - 32)
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
