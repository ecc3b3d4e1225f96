import CTransformerKernels
import Testing
import TransformerKernels

@Suite(.enabled(if: CompressedMatrix.isSupported, "products with compressed weights are ours"))
struct CompressedMatrixTests {
  private let pool = ThreadPool(threadCount: 3)

  struct Case: Sendable, CustomTestStringConvertible {
    let encoding: CompressedMatrix.Encoding
    let n: Int
    let k: Int
    var testDescription: String { "\(encoding) \(n)x\(k)" }
  }

  /// Beyond one chain of products, one panel, whole panels; the smallest.
  static let cases = CompressedMatrix.Encoding.allCases.flatMap { encoding in
    [
      Case(encoding: encoding, n: 1, k: 32), Case(encoding: encoding, n: 33, k: 64),
      Case(encoding: encoding, n: 200, k: 1344), Case(encoding: encoding, n: 96, k: 640),
    ] + (encoding.blockElements == 1 ? [Case(encoding: encoding, n: 45, k: 701)] : [])
  }

  /// Random codes, and the floats that they mean by their definition.
  private struct Weights {
    var codes: [UInt8] = []
    var scales: [UInt16] = []
    var minima: [UInt16] = []
    var values: [Float] = []

    init(_ test: Case, seed: UInt64) {
      var numbers = TestNumbers(seed: seed)
      for _ in 0..<test.n * test.k / test.encoding.blockElements {
        switch test.encoding {
        case .nibbles, .bytes:
          let scale = Float16(numbers.next())
          let minimum = Float16(numbers.next())
          scales.append(scale.bitPattern)
          for _ in 0..<32 {
            let random = Int((numbers.next() + 1) * 128)
            if test.encoding == .nibbles {
              codes.append(UInt8(random & 15))
              // In Double nothing is rounded before the end.
              values.append(Float(Double(random & 15) * Double(scale) + Double(minimum)))
            } else {
              let code = Int8(truncatingIfNeeded: random)
              codes.append(UInt8(bitPattern: code))
              values.append(Float(Double(code) * Double(scale)))
            }
          }
          if test.encoding == .nibbles { minima.append(minimum.bitPattern) }
        case .float16:
          let value = Float16(numbers.next())
          withUnsafeBytes(of: value.bitPattern) { codes.append(contentsOf: $0) }
          values.append(Float(value))
        case .bfloat16:
          let bits = numbers.next().bitPattern >> 16
          withUnsafeBytes(of: UInt16(bits)) { codes.append(contentsOf: $0) }
          values.append(Float(bitPattern: bits << 16))
        }
      }
    }
  }

  private func withCompressed<Result>(
    _ test: Case, _ weights: Weights, _ body: (CompressedMatrix, UnsafeRawPointer) -> Result
  ) -> Result {
    let bytes = CompressedMatrix.byteCount(
      encoding: test.encoding, rows: test.n, columns: test.k)
    let memory = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 64)
    defer { memory.deallocate() }
    let matrix = weights.codes.withUnsafeBytes {
      CompressedMatrix(
        encoding: test.encoding, rows: test.n, columns: test.k, codes: $0.baseAddress!,
        scales: weights.scales, minima: weights.minima, to: memory, pool: pool)
    }
    return body(matrix, memory)
  }

  private func multiply(
    rows m: Int, columns n: Int, accumulating: Bool, _ body: (MutableMatrix) -> Void
  ) -> [Float] {
    let c = FloatBuffer(count: m * n)
    for index in 0..<m * n { c.base[index] = accumulating ? Float(index % 11) - 5 : .nan }
    body(MutableMatrix(c.base, rows: m, columns: n))
    return c.array
  }

  @Test(arguments: cases) func productsHaveTheBitsOfExpandedWeights(test: Case) {
    let weights = Weights(test, seed: 1)
    var numbers = TestNumbers(seed: 2)
    let scratch = FloatBuffer(count: Int(TK_GEMM_SCRATCH))
    let encoding = test.encoding.tkEncoding
    withCompressed(test, weights) { compressed, memory in
      // Numbers of rows around those at which the kernels change.
      for m in [1, 2, 3, 8, 9, 13, 40] {
        let input = numbers.array(m * test.k)
        input.withUnsafeBufferPointer { input in
          let a = Matrix(input.baseAddress!, rows: m, columns: test.k)
          for accumulating in [false, true] {
            let plain = multiply(rows: m, columns: test.n, accumulating: accumulating) { c in
              weights.values.withUnsafeBufferPointer {
                pool.multiply(
                  a, Matrix($0.baseAddress!, rows: test.n, columns: test.k), transposingB: true,
                  into: c, accumulating: accumulating)
              }
            }
            let ours = multiply(rows: m, columns: test.n, accumulating: accumulating) {
              pool.multiply(a, compressed, into: $0, accumulating: accumulating)
            }
            #expect(ours == plain, "\(m) rows")
            let narrow = multiply(rows: m, columns: test.n, accumulating: accumulating) {
              tk_gemm_compressed_narrow(
                m, test.n, test.k, a.base, test.k, encoding, memory, $0.base, test.n,
                accumulating ? 1 : 0, scratch.base)
            }
            #expect(narrow == plain, "\(m) rows, narrow vectors")
          }
        }
      }
    }
  }

  @Test(arguments: cases) func addendsHaveTheBitsOfThoseOfExpandedWeights(test: Case) {
    let weights = Weights(test, seed: 6)
    var numbers = TestNumbers(seed: 7)
    func buffer(_ count: Int) -> FloatBuffer {
      let values = numbers.array(count)
      return FloatBuffer(copying: values, count: count)
    }
    let expanded = FloatBuffer(copying: weights.values, count: weights.values.count)
    let matrix = Matrix(expanded.base, rows: test.n, columns: test.k)
    withCompressed(test, weights) { compressed, _ in
      for m in [1, 8, 13, 40, 100] {
        let (x, y, u) = (buffer(m * test.k), buffer(m * test.n), buffer(m * 5))
        let (toN, toK, base) = (buffer(test.n * 5), buffer(test.k * 5), buffer(m * test.n))
        withExtendedLifetime((x, y, u, toN, toK, base, expanded)) {
          let low = Matrix(u.base, rows: m, columns: 5)
          let forward = [
            ProductAddend(low, Matrix(toN.base, rows: test.n, columns: 5), transposingB: true)
          ]
          let input = Matrix(x.base, rows: m, columns: test.k)
          let plain = multiply(rows: m, columns: test.n, accumulating: false) {
            pool.multiply(
              input, matrix, transposingB: true, into: $0, base: base.base, adding: forward)
          }
          let ours = multiply(rows: m, columns: test.n, accumulating: false) {
            pool.multiply(input, compressed, into: $0, base: base.base, adding: forward)
          }
          #expect(ours == plain, "\(m) rows")
          let backward = [ProductAddend(low, Matrix(toK.base, rows: 5, columns: test.k))]
          let gradient = Matrix(y.base, rows: m, columns: test.n)
          let plainBack = multiply(rows: m, columns: test.k, accumulating: false) {
            pool.multiply(gradient, matrix, into: $0, adding: backward)
          }
          let oursBack = multiply(rows: m, columns: test.k, accumulating: false) {
            pool.multiplyTransposed(gradient, compressed, into: $0, adding: backward)
          }
          #expect(oursBack == plainBack, "\(m) rows, backwards")
        }
      }
    }
  }

  @Test(arguments: cases) func productsWithTheMatrixItselfHaveTheBitsOfExpandedWeights(test: Case) {
    let weights = Weights(test, seed: 4)
    var numbers = TestNumbers(seed: 5)
    let scratch = FloatBuffer(count: Int(TK_GEMM_SCRATCH))
    withCompressed(test, weights) { compressed, memory in
      for m in [1, 3, 8, 13, 25, 100] {
        let input = numbers.array(m * test.n)
        input.withUnsafeBufferPointer { input in
          let a = Matrix(input.baseAddress!, rows: m, columns: test.n)
          let plain = multiply(rows: m, columns: test.k, accumulating: false) { c in
            weights.values.withUnsafeBufferPointer {
              pool.multiply(
                a, Matrix($0.baseAddress!, rows: test.n, columns: test.k), into: c)
            }
          }
          let ours = multiply(rows: m, columns: test.k, accumulating: false) {
            pool.multiplyTransposed(a, compressed, into: $0)
          }
          #expect(ours == plain, "\(m) rows")
          let narrow = multiply(rows: m, columns: test.k, accumulating: false) {
            tk_gemm_compressed_transposed_narrow(
              m, test.k, test.n, a.base, test.n, compressed.encoding.tkEncoding, memory, test.k,
              $0.base, test.k, scratch.base)
          }
          #expect(narrow == plain, "\(m) rows, narrow vectors")
        }
      }
    }
  }

  @Test(arguments: cases) func aWrongElementIsNoticed(test: Case) {
    var weights = Weights(test, seed: 3)
    withCompressed(test, weights) { compressed, _ in
      func agrees() -> Bool {
        weights.values.withUnsafeBufferPointer {
          compressed.expands(
            to: Matrix($0.baseAddress!, rows: test.n, columns: test.k), pool: pool)
        }
      }
      #expect(agrees())
      for index in [0, test.n * test.k / 2, test.n * test.k - 1] {
        let value = weights.values[index]
        weights.values[index] = value.nextUp
        #expect(!agrees())
        weights.values[index] = value
      }
      #expect(agrees())
    }
  }
}

extension CompressedMatrix.Encoding {
  fileprivate var tkEncoding: tk_encoding {
    switch self {
    case .nibbles: TK_NIBBLES
    case .bytes: TK_BYTES
    case .float16: TK_FLOAT16
    case .bfloat16: TK_BFLOAT16
    }
  }
}
