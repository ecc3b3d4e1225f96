import CTransformerKernels
import Testing
import TransformerKernels

@Suite struct MatrixTests {
  private let pool = ThreadPool(threadCount: 3)

  struct Shape: Sendable, CustomTestStringConvertible {
    let m: Int
    let n: Int
    let k: Int
    var testDescription: String { "\(m)x\(n)x\(k)" }
  }

  static let shapes = [
    Shape(m: 1, n: 1, k: 1), Shape(m: 1, n: 97, k: 13), Shape(m: 5, n: 3, k: 700),
    Shape(m: 13, n: 33, k: 65), Shape(m: 37, n: 130, k: 1300), Shape(m: 100, n: 8, k: 24),
    Shape(m: 101, n: 200, k: 8), Shape(m: 200, n: 31, k: 641),
  ]

  @Test(arguments: shapes) func productsMatchDoublePrecision(shape: Shape) {
    let (m, n, k) = (shape.m, shape.n, shape.k)
    var numbers = TestNumbers(seed: UInt64(m * 1000 + n))
    let a = numbers.array(m * k)
    let b = numbers.array(n * k)
    let start = numbers.array(m * n)
    let expected = (0..<m * n).map { index in
      (0..<k).reduce(0.0) { $0 + Double(a[index / n * k + $1]) * Double(b[$1 * n + index % n]) }
    }
    let aTransposed = transpose(a, rows: m, columns: k)
    let bTransposed = transpose(b, rows: k, columns: n)
    var first: [Float]?
    for form in 0..<4 {
      let transposingA = form & 1 == 1
      let transposingB = form & 2 == 2
      for accumulating in [false, true] {
        let c = multiply(
          transposingA ? aTransposed : a, transposingA, transposingB ? bTransposed : b,
          transposingB, shape, start: start, accumulating: accumulating)
        let target = accumulating ? zip(expected, start).map { $0 + Double($1) } : expected
        #expect(largestDifference(c, target) < 2e-6 * Double(k).squareRoot() + 2e-6)
        if !accumulating && MultiplicationBackend.selected == .own {
          if let first { #expect(c == first) } else { first = c }
        }
      }
    }
  }

  @Test(
    .enabled(if: MultiplicationBackend.selected == .own, "a BLAS promises no bits"),
    arguments: shapes)
  func narrowVectorsGiveTheSameBits(shape: Shape) throws {
    let (m, n, k) = (shape.m, shape.n, shape.k)
    var numbers = TestNumbers(seed: 8)
    let a = numbers.array(m * k)
    let b = numbers.array(n * k)
    let scratch = FloatBuffer(count: Int(TK_GEMM_SCRATCH))
    let narrow = result(m * n) {
      tk_gemm_narrow(m, n, k, a, k, 0, b, k, 1, $0, n, 0, scratch.base)
    }
    #expect(narrow == multiply(a, false, b, true, shape))
  }

  /// The ground that exact caching and batch-independent texts stand on.
  @Test(.enabled(if: MultiplicationBackend.selected == .own, "a BLAS promises no bits"))
  func aRowDoesNotDependOnTheOthers() {
    let shape = Shape(m: 150, n: 100, k: 700)
    var numbers = TestNumbers(seed: 9)
    let a = numbers.array(shape.m * shape.k)
    let b = numbers.array(shape.n * shape.k)
    let all = multiply(a, false, b, true, shape)
    for first in [0, 1, 11, 12, 63, 149] {
      for count in [1, 2, 5, 13, 64] where first + count <= shape.m {
        let part = multiply(
          Array(a[first * shape.k..<(first + count) * shape.k]), false, b, true,
          Shape(m: count, n: shape.n, k: shape.k))
        #expect(part == Array(all[first * shape.n..<(first + count) * shape.n]))
      }
    }
  }

  @Test func aSumDoesNotDependOnZerosAfterIt() {
    // A sequence that goes on: the probabilities of later keys are zero.
    var numbers = TestNumbers(seed: 10)
    let a = numbers.array(3 * 650)
    let b = numbers.array(900 * 20)
    let short = multiply(a, false, Array(b[..<(650 * 20)]), false, Shape(m: 3, n: 20, k: 650))
    let zeros = [Float](repeating: 0, count: 250)
    var padded: [Float] = []
    for row in 0..<3 { padded += a[row * 650..<(row + 1) * 650] + zeros }
    #expect(multiply(padded, false, b, false, Shape(m: 3, n: 20, k: 900)) == short)
  }

  /// A base and addends, part by part, give what copies and products one after the other give.
  @Test(arguments: shapes) func addendsHaveTheBitsOfProductsOfTheirOwn(shape: Shape) {
    let (m, n, k) = (shape.m, shape.n, shape.k)
    var numbers = TestNumbers(seed: 12)
    let a = numbers.array(m * k)
    let b = numbers.array(n * k)
    let base = numbers.array(m * n)
    let low = numbers.array(m * 7)
    // Beside each other in some columns, and over all.
    let part = n / 3..<max(n / 3 + 1, n * 3 / 4)
    let narrow = numbers.array(part.count * 5)
    let wide = numbers.array(2 * n)
    withMatrix(low, rows: m, columns: 7) { low in
      withMatrix(narrow, rows: part.count, columns: 5) { narrow in
        withMatrix(wide, rows: 2, columns: n) { wide in
          let first = Matrix(low.base, rows: m, columns: 5, stride: 7)
          let second = Matrix(low.base + 5, rows: m, columns: 2, stride: 7)
          let expected = result(
            m * n, start: multiply(a, false, b, true, shape, start: base, accumulating: true)
          ) { c in
            pool.multiply(
              first, narrow, transposingB: true,
              into: MutableMatrix(
                c + part.lowerBound, rows: m, columns: part.count, stride: n), accumulating: true)
            pool.multiply(
              second, wide, into: MutableMatrix(c, rows: m, columns: n), accumulating: true)
          }
          let found = result(m * n, start: [Float](repeating: .nan, count: m * n)) { c in
            withMatrix(a, rows: m, columns: k) { a in
              withMatrix(b, rows: n, columns: k) { b in
                withMatrix(base, rows: m, columns: n) { base in
                  pool.multiply(
                    a, b, transposingB: true, into: MutableMatrix(c, rows: m, columns: n),
                    base: base.base,
                    adding: [
                      ProductAddend(
                        first, narrow, transposingB: true, toColumnsFrom: part.lowerBound),
                      ProductAddend(second, wide),
                    ])
                }
              }
            }
          }
          #expect(found == expected)
        }
      }
    }
  }

  private func transpose(_ x: [Float], rows: Int, columns: Int) -> [Float] {
    (0..<columns * rows).map { x[$0 % rows * columns + $0 / rows] }
  }

  private func withMatrix<Result>(
    _ values: [Float], rows: Int, columns: Int, _ body: (Matrix) -> Result
  ) -> Result {
    let buffer = FloatBuffer(copying: values, count: values.count)
    return withExtendedLifetime(buffer) {
      body(Matrix(buffer.base, rows: rows, columns: columns))
    }
  }

  private func result(
    _ count: Int, start: [Float]? = nil, _ body: (UnsafeMutablePointer<Float>) -> Void
  ) -> [Float] {
    let buffer = FloatBuffer(count: count)
    if let start { buffer.base.update(from: start, count: count) }
    body(buffer.base)
    return buffer.array
  }

  private func multiply(
    _ a: [Float], _ transposingA: Bool, _ b: [Float], _ transposingB: Bool, _ shape: Shape,
    start: [Float]? = nil, accumulating: Bool = false
  ) -> [Float] {
    let (m, n, k) = (shape.m, shape.n, shape.k)
    return result(m * n, start: start) { c in
      withMatrix(a, rows: transposingA ? k : m, columns: transposingA ? m : k) { a in
        withMatrix(b, rows: transposingB ? n : k, columns: transposingB ? k : n) { b in
          pool.multiply(
            a, transposingA: transposingA, b, transposingB: transposingB,
            into: MutableMatrix(c, rows: m, columns: n), accumulating: accumulating)
        }
      }
    }
  }
}
