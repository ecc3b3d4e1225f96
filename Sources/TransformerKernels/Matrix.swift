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

extension ThreadPool {
  /// `c` = `a` · `b`, or `c` += with `accumulating`.
  ///
  /// `transposingA` (`transposingB`) means that the product takes the transpose of the stored
  /// matrix. Each element is one sum along the inner dimension in increasing order (see
  /// TK_GEMM_CHAIN): it depends neither on the other rows and columns nor on the threads.
  package func multiply(
    _ a: Matrix, transposingA: Bool = false, _ b: Matrix, transposingB: Bool = false,
    into c: MutableMatrix, accumulating: Bool = false
  ) {
    let (m, k) = transposingA ? (a.columns, a.rows) : (a.rows, a.columns)
    let (kOfB, n) = transposingB ? (b.columns, b.rows) : (b.rows, b.columns)
    precondition(
      k == kOfB && c.rows == m && c.columns == n,
      "shapes do not match: (\(m), \(k)) · (\(kOfB), \(n)) into (\(c.rows), \(c.columns))")
    guard m > 0, n > 0 else { return }
    let work = MultiplicationWork(
      m: m, n: n, k: k, a: a, transposingA: transposingA, b: b, transposingB: transposingB, c: c,
      accumulating: accumulating, threadCount: threadCount)
    run(work, count: work.count)
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
  /// Rows and columns of C to a piece.
  let rowBlock: Int
  let columnBlock: Int

  init(
    m: Int, n: Int, k: Int, a: Matrix, transposingA: Bool, b: Matrix, transposingB: Bool,
    c: MutableMatrix, accumulating: Bool, threadCount: Int
  ) {
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
    if MultiplicationBackend.selected == .openBLAS {
      OpenBLAS.multiply(
        m: min(rowBlock, m - row), n: min(columnBlock, n - column), k: k,
        a: a.base + (transposingA ? row : row * a.stride), a.stride, transposingA,
        b: b.base + (transposingB ? column * b.stride : column), b.stride, transposingB,
        c: c.base + row * c.stride + column, c.stride, accumulating)
      return
    }
    tk_gemm(
      min(rowBlock, m - row), min(columnBlock, n - column), k,
      a.base + (transposingA ? row : row * a.stride), a.stride, transposingA ? 1 : 0,
      b.base + (transposingB ? column * b.stride : column), b.stride, transposingB ? 1 : 0,
      c.base + row * c.stride + column, c.stride, accumulating ? 1 : 0, scratch)
  }
}
