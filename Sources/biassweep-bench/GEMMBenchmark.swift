import ArgumentParser
import COpenBLAS
import Foundation
import TransformerKernels

/// Times matrix products of the shapes of a training step: our kernels beside OpenBLAS, which is
/// given the kernels that fit the processor.
struct GEMMBenchmark: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "gemm",
    abstract: "Time matrix products, ours and OpenBLAS's.",
    discussion: """
      Prints one line of JSON: for each product (m x n x k; nn: A B, nt: A B^T, tn: A^T B) the best \
      and the median GFLOP/s.
      """)

  @Option(help: "Threads.") var threads = 1
  @Option(help: "Seconds for each product.") var seconds = 0.2

  func validate() throws {
    guard threads >= 1 else {
      throw ValidationError("--threads must be at least 1, not \(threads)")
    }
  }

  private struct Shape {
    let m: Int
    let n: Int
    let k: Int
  }

  private static let shapes = [
    Shape(m: 512, n: 576, k: 576), Shape(m: 512, n: 960, k: 576), Shape(m: 512, n: 3072, k: 576),
    Shape(m: 512, n: 576, k: 1536), Shape(m: 512, n: 49152, k: 576), Shape(m: 64, n: 960, k: 576),
    Shape(m: 576, n: 1536, k: 512), Shape(m: 2048, n: 344, k: 128), Shape(m: 1, n: 1536, k: 576),
    Shape(m: 8, n: 1536, k: 576),
  ]

  func run() throws {
    let pool = ThreadPool(threadCount: threads)
    openblas_use_fitting_kernels()
    openblas_set_num_threads(Int32(threads))
    var ours: [String: [Double]] = [:]
    var openBLAS: [String: [Double]] = [:]
    for shape in Self.shapes {
      let (m, n, k) = (shape.m, shape.n, shape.k)
      let a = randomMatrix(m * k)
      let b = randomMatrix(n * k)
      let c = FloatBuffer(count: m * n)
      for form in ["nn", "nt", "tn"] {
        let transposingA = form == "tn"
        let transposingB = form == "nt"
        let name = "\(m)x\(n)x\(k) \(form)"
        ours[name] = rates(shape) {
          pool.multiply(
            transposingA
              ? Matrix(a.base, rows: k, columns: m) : Matrix(a.base, rows: m, columns: k),
            transposingA: transposingA,
            transposingB
              ? Matrix(b.base, rows: n, columns: k) : Matrix(b.base, rows: k, columns: n),
            transposingB: transposingB, into: MutableMatrix(c.base, rows: m, columns: n))
        }
        openBLAS[name] = rates(shape) {
          cblas_sgemm(
            CblasRowMajor, transposingA ? CblasTrans : CblasNoTrans,
            transposingB ? CblasTrans : CblasNoTrans, Int32(m), Int32(n), Int32(k), 1, a.base,
            Int32(transposingA ? m : k), b.base, Int32(transposingB ? k : n), 0, c.base, Int32(n))
        }
      }
    }
    try BenchmarkOutput.print(
      Report(
        threads: threads, kernel: MultiplicationBackend.kernelName,
        openblas_core: String(cString: openblas_get_corename()), gflops_best_median: ours,
        openblas_gflops_best_median: openBLAS))
  }

  private struct Report: Encodable {
    let threads: Int
    let kernel: String
    let openblas_core: String
    let gflops_best_median: [String: [Double]]
    let openblas_gflops_best_median: [String: [Double]]
  }

  private func randomMatrix(_ count: Int) -> FloatBuffer {
    let buffer = FloatBuffer(count: count)
    var random = SystemRandomNumberGenerator()
    for index in 0..<count { buffer.base[index] = Float.random(in: -0.5..<0.5, using: &random) }
    return buffer
  }

  /// Best and median rate of repeated calls, in GFLOP/s.
  private func rates(_ shape: Shape, _ body: () -> Void) -> [Double] {
    body()
    var times: [Double] = []
    let start = ContinuousClock.now
    while times.count < 5 || (start.duration(to: .now).seconds < seconds && times.count < 3000) {
      let before = ContinuousClock.now
      body()
      times.append(before.duration(to: .now).seconds)
    }
    times.sort()
    let flops = 2 * Double(shape.m) * Double(shape.n) * Double(shape.k)
    return [times[0], times[times.count / 2]].map { (flops / $0 / 1e9).rounded(to: 1) }
  }
}
