import CTransformerKernels

/// A matrix of weights (n, k) in the few bits that its checkpoint spends on them, in memory owned by
/// someone else.
///
/// Products expand the elements in registers to the floats that the checkpoint's encoding means, so
/// they read a fraction of the memory and have the same bits as products with the expanded matrix.
package struct CompressedMatrix: @unchecked Sendable {
  /// How elements are kept.
  package enum Encoding: String, Sendable, Hashable, CaseIterable {
    /// Code 0...15, times a float16 scale plus a float16 minimum to 32 elements of a row.
    case nibbles
    /// Code -128...127, times a float16 scale to 32 elements of a row.
    case bytes
    case float16
    case bfloat16

    var kernelForm: tk_encoding {
      switch self {
      case .nibbles: TK_NIBBLES
      case .bytes: TK_BYTES
      case .float16: TK_FLOAT16
      case .bfloat16: TK_BFLOAT16
      }
    }

    /// Elements of a row that share a scale; 1 without scales.
    package var blockElements: Int {
      switch self {
      case .nibbles, .bytes: Int(TK_COMPRESSED_BLOCK)
      case .float16, .bfloat16: 1
      }
    }
  }

  package let encoding: Encoding
  package let rows: Int
  package let columns: Int
  let base: UnsafeRawPointer

  /// A matrix compressed before.
  ///
  /// - Parameter base: `byteCount` bytes at a multiple of 64.
  package init(_ base: UnsafeRawPointer, encoding: Encoding, rows: Int, columns: Int) {
    self.base = base
    self.encoding = encoding
    self.rows = rows
    self.columns = columns
  }

  /// Whether products with compressed matrices are to be had: our kernels multiply.
  package static var isSupported: Bool { MultiplicationBackend.selected == .own }

  /// Bytes of a compressed matrix.
  package static func byteCount(encoding: Encoding, rows: Int, columns: Int) -> Int {
    panels(rows) * tk_compressed_panel_size(encoding.kernelForm, columns)
  }

  private static let panelRows = Int(TK_COMPRESSED_WIDTH)
  private static func panels(_ rows: Int) -> Int { (rows + panelRows - 1) / panelRows }
  private var panelBytes: Int { tk_compressed_panel_size(encoding.kernelForm, columns) }

  /// Compresses codes to `memory`, with the threads of `pool`.
  ///
  /// - Parameters:
  ///   - codes: (rows, columns) bytes, or 16-bit floats for these encodings.
  ///   - scales, minima: (rows, columns / 32) bits of float16, empty where the encoding has none.
  ///   - memory: `byteCount` bytes at a multiple of 64.
  package init(
    encoding: Encoding, rows: Int, columns: Int, codes: UnsafeRawPointer, scales: [UInt16],
    minima: [UInt16], to memory: UnsafeMutableRawPointer, pool: ThreadPool
  ) {
    precondition(
      columns % encoding.blockElements == 0, "\(columns) columns are not whole blocks")
    self.init(memory, encoding: encoding, rows: rows, columns: columns)
    scales.withUnsafeBufferPointer { scales in
      minima.withUnsafeBufferPointer { minima in
        pool.run(
          CompressionWork(
            matrix: self, codes: codes, scales: scales.baseAddress, minima: minima.baseAddress,
            memory: memory),
          count: Self.panels(rows))
      }
    }
  }

  /// Whether every element, expanded, is that of `matrix` (zeros of either sign are the same).
  package func expands(to matrix: Matrix, pool: ThreadPool) -> Bool {
    precondition(
      matrix.rows == rows && matrix.columns == columns,
      "(\(rows), \(columns)) is compared with (\(matrix.rows), \(matrix.columns))")
    pool.reserveScratch(columns * Self.panelRows)
    return withUnsafeTemporaryAllocation(of: Bool.self, capacity: Self.panels(rows)) { agrees in
      guard let base = agrees.baseAddress else { return true }
      pool.run(
        ComparisonWork(compressed: self, matrix: matrix, agrees: base), count: agrees.count)
      return agrees.allSatisfy { $0 }
    }
  }

  private struct CompressionWork: ParallelWork {
    let matrix: CompressedMatrix
    let codes: UnsafeRawPointer
    let scales: UnsafePointer<UInt16>?
    let minima: UnsafePointer<UInt16>?
    let memory: UnsafeMutableRawPointer

    func run(_ index: Int, scratch: UnsafeMutablePointer<Float>) {
      let first = index * panelRows
      let blocks = matrix.columns / matrix.encoding.blockElements
      let codeBytes = matrix.encoding.blockElements > 1 ? 1 : 2
      tk_compress_panel(
        matrix.encoding.kernelForm, matrix.columns, min(panelRows, matrix.rows - first),
        codes + first * matrix.columns * codeBytes, matrix.columns,
        scales.map { $0 + first * blocks }, minima.map { $0 + first * blocks }, blocks,
        memory + index * matrix.panelBytes)
    }
  }

  private struct ComparisonWork: ParallelWork {
    let compressed: CompressedMatrix
    let matrix: Matrix
    let agrees: UnsafeMutablePointer<Bool>

    func run(_ index: Int, scratch: UnsafeMutablePointer<Float>) {
      tk_expand_panel(
        compressed.encoding.kernelForm, compressed.columns,
        compressed.base + index * compressed.panelBytes, scratch)
      var different = false
      for row in 0..<min(panelRows, matrix.rows - index * panelRows) {
        let expected = matrix.base + (index * panelRows + row) * matrix.stride
        for column in 0..<matrix.columns {
          different = different || scratch[column * panelRows + row] != expected[column]
        }
      }
      agrees[index] = !different
    }
  }

  fileprivate struct TransposedProductWork: ParallelWork {
    let a: Matrix
    let weights: CompressedMatrix
    let c: MutableMatrix
    let surroundings: ProductSurroundings
    /// Rows and columns of C to a piece; see `MultiplicationWork`.
    let rowBlock: Int
    let columnBlock: Int

    init(
      a: Matrix, weights: CompressedMatrix, c: MutableMatrix, surroundings: ProductSurroundings,
      threadCount: Int
    ) {
      self.surroundings = surroundings
      self.a = a
      self.weights = weights
      self.c = c
      // Every piece reads all of A, which is too much for the caches below a head.
      let share = (weights.columns + threadCount - 1) / threadCount
      let narrow = Int(TK_GEMM_COLUMNS) / 2
      columnBlock = weights.rows < 8192 ? narrow : max(narrow, (share + 31) / 32 * 32)
      let columnBlocks = (weights.columns + columnBlock - 1) / columnBlock
      let wanted =
        threadCount == 1 || columnBlock > narrow
        ? 1 : max(1, (3 * threadCount + columnBlocks - 1) / columnBlocks)
      rowBlock = max(48, (a.rows + wanted - 1) / wanted)
    }

    private var rowBlocks: Int { (a.rows + rowBlock - 1) / rowBlock }
    var count: Int { rowBlocks * ((weights.columns + columnBlock - 1) / columnBlock) }

    func run(_ index: Int, scratch: UnsafeMutablePointer<Float>) {
      let row = index % rowBlocks * rowBlock
      let column = index / rowBlocks * columnBlock
      let rows = row..<min(row + rowBlock, a.rows)
      let columns = column..<min(column + columnBlock, weights.columns)
      tk_gemm_compressed_transposed(
        rows.count, columns.count, weights.rows,
        a.base + row * a.stride, a.stride, weights.encoding.kernelForm,
        weights.base + tk_compressed_panel_size(weights.encoding.kernelForm, column),
        weights.columns, c.base + row * c.stride + column, c.stride, scratch)
      surroundings.finish(rows: rows, columns: columns, of: c, scratch: scratch)
    }
  }

  fileprivate struct ProductWork: ParallelWork {
    let a: Matrix
    let weights: CompressedMatrix
    let c: MutableMatrix
    let accumulating: Bool
    let surroundings: ProductSurroundings

    /// Few rows take two panels at a time.
    private var panelsPerPiece: Int { a.rows <= 2 ? 2 : 3 }
    var count: Int { (panels(weights.rows) + panelsPerPiece - 1) / panelsPerPiece }

    func run(_ index: Int, scratch: UnsafeMutablePointer<Float>) {
      let panel = index * panelsPerPiece
      let column = panel * panelRows
      let columns = column..<min(column + panelsPerPiece * panelRows, weights.rows)
      surroundings.begin(rows: 0..<a.rows, columns: columns, of: c)
      tk_gemm_compressed(
        a.rows, columns.count, weights.columns,
        a.base, a.stride, weights.encoding.kernelForm, weights.base + panel * weights.panelBytes,
        c.base + column, c.stride, accumulating ? 1 : 0, scratch)
      surroundings.finish(rows: 0..<a.rows, columns: columns, of: c, scratch: scratch)
    }
  }
}

extension ThreadPool {
  /// `c` = (or +=, or `base` +) `a` · transpose of the expanded matrix, and then += each addend; the
  /// same bits as `multiply(_:_:transposingB:)`.
  package func multiply(
    _ a: Matrix, _ weights: CompressedMatrix, into c: MutableMatrix, accumulating: Bool = false,
    base: UnsafePointer<Float>? = nil, adding addends: [ProductAddend] = []
  ) {
    precondition(
      a.columns == weights.columns && c.rows == a.rows && c.columns == weights.rows,
      """
      shapes do not match: (\(a.rows), \(a.columns)) · (\(weights.columns), \(weights.rows)) into \
      (\(c.rows), \(c.columns))
      """)
    guard a.rows > 0 else { return }
    let work = CompressedMatrix.ProductWork(
      a: a, weights: weights, c: c, accumulating: accumulating || base != nil,
      surroundings: ProductSurroundings(c, base: base, addends: addends))
    run(work, count: work.count)
  }

  /// `c` = `a` · the expanded matrix itself, and then += each addend; the same bits as
  /// `multiply(_:_:)`.
  package func multiplyTransposed(
    _ a: Matrix, _ weights: CompressedMatrix, into c: MutableMatrix,
    adding addends: [ProductAddend] = []
  ) {
    precondition(
      a.columns == weights.rows && c.rows == a.rows && c.columns == weights.columns,
      """
      shapes do not match: (\(a.rows), \(a.columns)) · (\(weights.rows), \(weights.columns)) into \
      (\(c.rows), \(c.columns))
      """)
    guard a.rows > 0 else { return }
    let work = CompressedMatrix.TransposedProductWork(
      a: a, weights: weights, c: c,
      surroundings: ProductSurroundings(c, base: nil, addends: addends), threadCount: threadCount)
    run(work, count: work.count)
  }
}
