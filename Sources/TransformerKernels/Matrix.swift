import CTransformerKernels

/// A row-major matrix of Float32 in memory owned by someone else.
package struct Matrix {
  package var base: UnsafePointer<Float>
  package var rows: Int
  package var columns: Int
  /// Elements from one row to the next.
  package var stride: Int

  /// - Parameter stride: elements from one row to the next; `columns` unless given.
  package init(
    _ base: UnsafePointer<Float>, rows: Int, columns: Int, stride: Int? = nil
  ) {
    self.base = base
    self.rows = rows
    self.columns = columns
    self.stride = stride ?? columns
  }

  package init(
    _ base: UnsafeMutablePointer<Float>, rows: Int, columns: Int, stride: Int? = nil
  ) {
    self.init(UnsafePointer(base), rows: rows, columns: columns, stride: stride)
  }
}

/// A row-major matrix of Float32 to be written, in memory owned by someone else.
package struct MutableMatrix {
  package var base: UnsafeMutablePointer<Float>
  package var rows: Int
  package var columns: Int
  /// Elements from one row to the next.
  package var stride: Int

  /// - Parameter stride: elements from one row to the next; `columns` unless given.
  package init(
    _ base: UnsafeMutablePointer<Float>, rows: Int, columns: Int, stride: Int? = nil
  ) {
    self.base = base
    self.rows = rows
    self.columns = columns
    self.stride = stride ?? columns
  }
}

/// A product that is added to some columns of a larger one, part by part while these are in a cache:
/// one of low rank takes longer to read and write its result than to compute it.
package struct ProductAddend {
  let a: Matrix
  let b: Matrix
  let transposingB: Bool
  /// Columns of the larger product.
  let columns: Range<Int>

  /// - Parameter column: the first column of the larger product that is added to.
  package init(_ a: Matrix, _ b: Matrix, transposingB: Bool = false, toColumnsFrom column: Int = 0)
  {
    precondition(
      a.columns == (transposingB ? b.columns : b.rows),
      "shapes do not match: (\(a.rows), \(a.columns)) times (\(b.rows), \(b.columns))")
    self.a = a
    self.b = b
    self.transposingB = transposingB
    columns = column..<column + (transposingB ? b.rows : b.columns)
  }

  /// Adds a part to `c`, the whole larger product.
  fileprivate func add(
    rows: Range<Int>, columns wanted: Range<Int>, to c: MutableMatrix,
    scratch: UnsafeMutablePointer<Float>
  ) {
    let part = columns.clamped(to: wanted)
    if part.isEmpty { return }
    let first = part.lowerBound - columns.lowerBound
    tk_gemm(
      rows.count, part.count, a.columns, a.base + rows.lowerBound * a.stride, a.stride, 0,
      b.base + (transposingB ? first * b.stride : first), b.stride, transposingB ? 1 : 0,
      c.base + rows.lowerBound * c.stride + part.lowerBound, c.stride, 1, scratch)
  }
}

/// What else belongs to each element of a product: where it starts from, and addends.
struct ProductSurroundings {
  /// Rows as far apart as those of the product; nil for those of the product itself.
  let base: UnsafePointer<Float>?
  let addends: [ProductAddend]

  init(_ c: MutableMatrix, base: UnsafePointer<Float>?, addends: [ProductAddend]) {
    self.base = base == UnsafePointer(c.base) ? nil : base
    self.addends = addends
    for addend in addends {
      precondition(
        addend.a.rows == c.rows && addend.columns.upperBound <= c.columns,
        "an addend of (\(addend.a.rows), \(addend.columns)) is not within (\(c.rows), \(c.columns))"
      )
    }
  }

  /// Puts a part of the base to `c`, before the product is added to it.
  func begin(rows: Range<Int>, columns: Range<Int>, of c: MutableMatrix) {
    guard let base else { return }
    for row in rows {
      let offset = row * c.stride + columns.lowerBound
      (c.base + offset).update(from: base + offset, count: columns.count)
    }
  }

  func finish(
    rows: Range<Int>, columns: Range<Int>, of c: MutableMatrix,
    scratch: UnsafeMutablePointer<Float>
  ) {
    for addend in addends { addend.add(rows: rows, columns: columns, to: c, scratch: scratch) }
  }
}

extension ThreadPool {
  /// `c` = `a` · `b`, or `c` += with `accumulating`, or `base` + `a` · `b`; and then += each addend.
  ///
  /// `transposingA` (`transposingB`) means that the product takes the transpose of the stored
  /// matrix. Each element is one sum along the inner dimension in increasing order (see
  /// TK_GEMM_CHAIN): it depends neither on the other rows and columns nor on the threads.
  package func multiply(
    _ a: Matrix, transposingA: Bool = false, _ b: Matrix, transposingB: Bool = false,
    into c: MutableMatrix, accumulating: Bool = false, base: UnsafePointer<Float>? = nil,
    adding addends: [ProductAddend] = []
  ) {
    let (m, k) = transposingA ? (a.columns, a.rows) : (a.rows, a.columns)
    let (kOfB, n) = transposingB ? (b.columns, b.rows) : (b.rows, b.columns)
    precondition(
      k == kOfB && c.rows == m && c.columns == n,
      "shapes do not match: (\(m), \(k)) · (\(kOfB), \(n)) into (\(c.rows), \(c.columns))")
    guard m > 0, n > 0 else { return }
    // A BLAS may round a part otherwise than the whole, so addends are products of their own there.
    let isOwn = MultiplicationBackend.selected == .own
    let work = MultiplicationWork(
      m: m, n: n, k: k, a: a, transposingA: transposingA, b: b, transposingB: transposingB, c: c,
      accumulating: accumulating || base != nil,
      surroundings: ProductSurroundings(c, base: base, addends: isOwn ? addends : []),
      threadCount: threadCount)
    run(work, count: work.count)
    if isOwn { return }
    for addend in addends {
      multiply(
        addend.a, addend.b, transposingB: addend.transposingB,
        into: MutableMatrix(
          c.base + addend.columns.lowerBound, rows: c.rows, columns: addend.columns.count,
          stride: c.stride), accumulating: true)
    }
  }
}

extension ThreadPool {
  /// `out` (columns, rows) = the transpose of `x` (rows, columns), for small matrices.
  package func transpose(_ x: MutableMatrix, into out: MutableMatrix) {
    precondition(
      x.rows == out.columns && x.columns == out.rows,
      "(\(x.rows), \(x.columns)) does not transpose to (\(out.rows), \(out.columns))")
    tk_transpose(x.rows, x.columns, x.base, x.stride, out.base, out.stride)
  }
}

private struct MultiplicationWork: ParallelWork {
  let m: Int
  let n: Int
  let k: Int
  let a: Matrix
  let transposingA: Bool
  let b: Matrix
  let transposingB: Bool
  let c: MutableMatrix
  let accumulating: Bool
  let surroundings: ProductSurroundings
  /// Rows and columns of C to a piece.
  let rowBlock: Int
  let columnBlock: Int

  init(
    m: Int, n: Int, k: Int, a: Matrix, transposingA: Bool, b: Matrix, transposingB: Bool,
    c: MutableMatrix, accumulating: Bool, surroundings: ProductSurroundings, threadCount: Int
  ) {
    self.surroundings = surroundings
    self.m = m
    self.n = n
    self.k = k
    self.a = a
    self.transposingA = transposingA
    self.b = b
    self.transposingB = transposingB
    self.c = c
    self.accumulating = accumulating
    if MultiplicationBackend.selected == .openBLAS {
      // A BLAS may round differently at the edges of a piece, so pieces follow from the shape alone.
      columnBlock = OpenBLAS.columnBlock
      rowBlock = OpenBLAS.rowBlock
      return
    }
    // Every piece packs its part of B, and of a transposed A, again. So rows are split only where
    // columns do not give every thread a few pieces. The split has no influence on the result.
    // Where there are enough pieces, wide ones: a strip of A then serves more columns.
    let widest = Int(TK_GEMM_COLUMNS)
    columnBlock = transposingA || n >= 4 * threadCount * widest ? widest : widest / 2
    let columnBlocks = (n + columnBlock - 1) / columnBlock
    let wanted = threadCount == 1 ? 1 : max(1, (3 * threadCount + columnBlocks - 1) / columnBlocks)
    rowBlock = max(48, (m + wanted - 1) / wanted)
  }

  private var rowBlocks: Int { (m + rowBlock - 1) / rowBlock }
  var count: Int { rowBlocks * ((n + columnBlock - 1) / columnBlock) }

  func run(_ index: Int, scratch: UnsafeMutablePointer<Float>) {
    let row = index % rowBlocks * rowBlock
    let column = index / rowBlocks * columnBlock
    let rows = row..<min(row + rowBlock, m)
    let columns = column..<min(column + columnBlock, n)
    surroundings.begin(rows: rows, columns: columns, of: c)
    if MultiplicationBackend.selected == .openBLAS {
      OpenBLAS.multiply(
        m: rows.count, n: columns.count, k: k,
        a: a.base + (transposingA ? row : row * a.stride), a.stride, transposingA,
        b: b.base + (transposingB ? column * b.stride : column), b.stride, transposingB,
        c: c.base + row * c.stride + column, c.stride, accumulating)
      return
    }
    tk_gemm(
      rows.count, columns.count, k,
      a.base + (transposingA ? row : row * a.stride), a.stride, transposingA ? 1 : 0,
      b.base + (transposingB ? column * b.stride : column), b.stride, transposingB ? 1 : 0,
      c.base + row * c.stride + column, c.stride, accumulating ? 1 : 0, scratch)
    surroundings.finish(rows: rows, columns: columns, of: c, scratch: scratch)
  }
}
