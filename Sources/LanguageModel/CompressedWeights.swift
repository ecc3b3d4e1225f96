import Crypto
import Foundation
import TransformerKernels

/// The matrices of a decoder in the bits that the checkpoint spends on them, for forward passes of
/// the unchanged model; read-only and shared like `ModelWeights`.
///
/// A matrix is here when all tensors in it have the same encoding of a kind that products can
/// expand. Each was compared with the Float32 weights when it was made: it stands for the same
/// floats.
package final class CompressedWeights: @unchecked Sendable {
  struct Layer {
    var queryKeyValue: CompressedMatrix?
    var attentionOutput: CompressedMatrix?
    var gateUp: CompressedMatrix?
    var down: CompressedMatrix?
  }

  let layers: [Layer]
  let head: CompressedMatrix?
  /// Bytes of all compressed matrices.
  package let byteCount: Int
  private let release: @Sendable () -> Void

  /// - Parameters:
  ///   - base: `plan.byteCount` bytes. Immutable for the lifetime of the object, hence Sendable.
  ///   - release: frees or unmaps them; called once.
  fileprivate init(
    _ plan: CompressionPlan, configuration: LlamaConfiguration, base: UnsafeRawPointer,
    release: @escaping @Sendable () -> Void
  ) {
    var matrices: [Int: CompressedMatrix] = [:]
    for (index, item) in plan.items.enumerated()
    where base.load(fromByteOffset: index, as: UInt8.self) == 1 {
      matrices[item.matrix.offset] = CompressedMatrix(
        base + item.byteOffset, encoding: item.encoding, rows: item.matrix.rows,
        columns: item.matrix.columns)
    }
    let layout = ParameterLayout(configuration)
    layers = layout.layers.map {
      Layer(
        queryKeyValue: matrices[$0.queryKeyValue], attentionOutput: matrices[$0.attentionOutput],
        gateUp: matrices[$0.gateUp], down: matrices[$0.down])
    }
    head = matrices[layout.head]
    byteCount = plan.byteCount
    self.release = release
  }

  deinit { release() }

  /// Maps or makes the compressed form of `weights`, which came from `source`; nil when no matrix
  /// can be compressed.
  ///
  /// - Parameter directory: where the file `<digest>-v1.packed` is kept (see `DigestedFile`), which
  ///   is read and compared with its digests each time; nil makes it in memory of this process. So
  ///   does a directory that cannot be written.
  /// - Throws: `ModelFileError`.
  static func load(
    _ source: ParameterSource, weights: ModelWeights, directory: String?
  ) throws -> CompressedWeights? {
    guard CompressedMatrix.isSupported else { return nil }
    let plan = try CompressionPlan(source)
    guard !plan.items.isEmpty else { return nil }
    if let directory {
      let file = DigestedFile(
        directory: directory, name: "\(weights.digest)-v1.packed",
        header: """
          biassweep packed weights 1
          source \(weights.digest)
          \(source.configuration.shapeLines)
          matrices \(plan.digest)
          """, byteCount: plan.byteCount)
      do {
        let mapping = try file.mappedOrBuilt(verifying: true) { sink in
          try plan.compress(source, weights: weights, to: sink)
        }
        return CompressedWeights(
          plan, configuration: source.configuration, base: mapping.base,
          release: { withExtendedLifetime(mapping) {} })
      } catch ModelFileError.system(_, _, let code)
        where [EACCES, EROFS, ENOSPC, EDQUOT, EPERM].contains(code)
      {
        // Only the sharing between processes is lost.
        return try inMemory(plan, source, weights)
      }
    }
    return try inMemory(plan, source, weights)
  }

  private static func inMemory(
    _ plan: CompressionPlan, _ source: ParameterSource, _ weights: ModelWeights
  ) throws -> CompressedWeights {
    let memory = FloatBuffer(count: (plan.byteCount + 3) / 4)
    let base = UnsafeMutableRawPointer(memory.base)
    try plan.compress(source, weights: weights) { offset, bytes in
      guard let from = bytes.baseAddress else { return }
      (base + offset).copyMemory(from: from, byteCount: bytes.count)
    }
    return CompressedWeights(
      plan, configuration: source.configuration, base: UnsafeRawPointer(base),
      release: { withExtendedLifetime(memory) {} })
  }
}

/// Which matrices of a model are compressed, how, and where in the file.
///
/// The file begins with a byte for each matrix, 1 if it can be used; the matrices follow at
/// multiples of 64 bytes.
private struct CompressionPlan {
  struct Item {
    var matrix: ParameterMatrix
    var encoding: CompressedMatrix.Encoding
    var byteOffset: Int
    var byteCount: Int
  }

  private(set) var items: [Item] = []
  private(set) var byteCount = 0

  init(_ source: ParameterSource) throws {
    let matrices = try source.matrices()
    var next = (matrices.count + 63) / 64 * 64
    for matrix in matrices {
      let encodings = Set(matrix.parts.map(\.tensor.encoding))
      guard encodings.count == 1, let encoding = encodings.first?.compressed,
        matrix.columns % encoding.blockElements == 0
      else { continue }
      let size = CompressedMatrix.byteCount(
        encoding: encoding, rows: matrix.rows, columns: matrix.columns)
      items.append(
        Item(matrix: matrix, encoding: encoding, byteOffset: next, byteCount: size))
      next += (size + 63) / 64 * 64
    }
    byteCount = next
  }

  /// Identifies encodings and places.
  var digest: String {
    let lines = items.map {
      "\($0.matrix.offset) \($0.matrix.rows) \($0.matrix.columns) \($0.encoding) \($0.byteOffset)\n"
    }
    return hexadecimal(SHA256.hash(data: Array(lines.joined().utf8)))
  }

  func compress(
    _ source: ParameterSource, weights: ModelWeights, to sink: DigestedFile.Sink
  ) throws {
    let pool = ThreadPool(threadCount: min(8, ProcessInfo.processInfo.activeProcessorCount))
    let memory = UnsafeMutableRawBufferPointer.allocate(
      byteCount: items.lazy.map(\.byteCount).max() ?? 0, alignment: 64)
    defer { memory.deallocate() }
    guard let base = memory.baseAddress else { return }
    var usable = [UInt8](repeating: 0, count: items.count)
    for (index, item) in items.enumerated() {
      let matrix = item.matrix
      let codes = try StoredCodes(matrix)
      let compressed = codes.bytes.withUnsafeBytes {
        CompressedMatrix(
          encoding: item.encoding, rows: matrix.rows, columns: matrix.columns,
          codes: $0.baseAddress ?? UnsafeRawPointer(base), scales: codes.scales,
          minima: codes.minima, to: base, pool: pool)
      }
      let expected = Matrix(
        weights.base + matrix.offset, rows: matrix.rows, columns: matrix.columns)
      if compressed.expands(to: expected, pool: pool) { usable[index] = 1 }
      try sink(
        item.byteOffset, UnsafeRawBufferPointer(rebasing: memory[..<item.byteCount]))
    }
    try usable.withUnsafeBytes { try sink(0, $0) }
  }
}

/// The codes of a matrix's tensors, their rows in the order of the region.
private struct StoredCodes {
  /// (rows, columns): one byte for each element, or two for 16-bit floats.
  private(set) var bytes: [UInt8]
  /// (rows, columns / 32) bits of float16, where the encoding has them.
  private(set) var scales: [UInt16] = []
  private(set) var minima: [UInt16] = []

  init(_ matrix: ParameterMatrix) throws {
    bytes = []
    for part in matrix.parts {
      let encoding = part.tensor.encoding
      let rowBytes = matrix.columns / encoding.blockElements * encoding.blockBytes
      let stored = try part.file.bytes(
        at: part.tensor.offset, count: part.rowOrder.count * rowBytes)
      bytes.reserveCapacity(
        matrix.rows * matrix.columns * (encoding.blockElements == 1 ? 2 : 1))
      for row in part.rowOrder {
        let first = row * rowBytes
        if encoding.blockElements == 1 {
          bytes.append(contentsOf: stored[first..<first + rowBytes])
          continue
        }
        for block in stride(from: first, to: first + rowBytes, by: encoding.blockBytes) {
          append(stored[block..<block + encoding.blockBytes], encoding)
        }
      }
    }
  }

  private mutating func append(_ block: ArraySlice<UInt8>, _ encoding: TensorEncoding) {
    let start = block.startIndex
    func half(_ offset: Int) -> UInt16 {
      UInt16(block[start + offset]) | UInt16(block[start + offset + 1]) << 8
    }
    switch encoding {
    case .q4_0:
      // d · (q − 8) = d · q − 8 d: the difference is representable, so both round alike.
      scales.append(half(0))
      minima.append((-8 * Float16(bitPattern: half(0))).bitPattern)
      append(nibbles: block.dropFirst(2))
    case .q4_1:
      scales.append(half(0))
      minima.append(half(2))
      append(nibbles: block.dropFirst(4))
    case .q8_0:
      scales.append(half(0))
      bytes.append(contentsOf: block.dropFirst(2))
    default:
      preconditionFailure("\(encoding) has no codes")
    }
  }

  private mutating func append(nibbles: ArraySlice<UInt8>) {
    for byte in nibbles { bytes.append(byte & 15) }
    for byte in nibbles { bytes.append(byte >> 4) }
  }
}

extension TensorEncoding {
  /// The form in which products can use it.
  fileprivate var compressed: CompressedMatrix.Encoding? {
    switch self {
    case .q4_0, .q4_1: .nibbles
    case .q8_0: .bytes
    case .float16: .float16
    case .bfloat16: .bfloat16
    default: nil
    }
  }
}
