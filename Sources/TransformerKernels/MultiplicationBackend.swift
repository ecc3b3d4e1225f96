import COpenBLAS
import CTransformerKernels

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// What multiplies matrices: our kernels where the processor has fused multiply-add vectors that
/// they are written for (AVX2, AVX-512), OpenBLAS elsewhere.
///
/// Our kernels add the products of an element in one fixed order, so results have the same bits on
/// any such processor, in any batch and with any number of threads. OpenBLAS gives the same bits
/// only on processors for which it chooses the same kernel (docs/NUMERICS.md has the measurements).
/// `BIASSWEEP_GEMM=own` or `openblas` overrides the choice.
package enum MultiplicationBackend: String, Sendable {
  case own, openBLAS = "openblas"

  package static let selected: MultiplicationBackend = {
    let wanted = getenv("BIASSWEEP_GEMM").flatMap {
      MultiplicationBackend(rawValue: String(cString: $0))
    }
    let backend = wanted ?? (String(cString: tk_gemm_kernel()) == "generic" ? .openBLAS : .own)
    if backend == .openBLAS {
      openblas_use_fitting_kernels()
      // Pieces are spread over our own threads.
      openblas_set_num_threads(1)
    }
    return backend
  }()

  /// The kernel in use, for reports: "avx512", "avx2", "generic", "openblas Haswell".
  package static var kernelName: String {
    switch selected {
    case .own: String(cString: tk_gemm_kernel())
    case .openBLAS: "openblas \(String(cString: openblas_get_corename()))"
    }
  }

  /// OpenBLAS's own account of itself, whether or not it is in use.
  package static var libraryDescription: String {
    String(cString: openblas_get_config()).split(separator: " ").joined(separator: " ")
  }

  /// Names the arithmetic of products and of the other loops: equal names, equal bits.
  package static var arithmetic: String {
    let products =
      switch selected {
      case .own: String(cString: tk_gemm_kernel()) == "generic" ? "own-generic" : "own-fma"
      case .openBLAS: "openblas-\(String(cString: openblas_get_corename()))"
      }
    return "\(products), \(tk_fuses() == 1 ? "fused" : "portable") loops"
  }
}

/// Single-threaded products through OpenBLAS.
enum OpenBLAS {
  /// Rows and columns of C to a piece.
  static let rowBlock = 128
  static let columnBlock = 192

  /// C (m, n) = A · B, or C += with `accumulating`; strides in elements between stored rows.
  static func multiply(
    m: Int, n: Int, k: Int, a: UnsafePointer<Float>, _ aStride: Int, _ transposingA: Bool,
    b: UnsafePointer<Float>, _ bStride: Int, _ transposingB: Bool,
    c: UnsafeMutablePointer<Float>, _ cStride: Int, _ accumulating: Bool
  ) {
    if m == 1 {
      // Decoding one text: several times faster than a product of matrices, which packs B first.
      cblas_sgemv(
        CblasRowMajor, transposingB ? CblasNoTrans : CblasTrans,
        blasint(transposingB ? n : k), blasint(transposingB ? k : n), 1, b, blasint(bStride), a,
        blasint(transposingA ? aStride : 1), accumulating ? 1 : 0, c, 1)
      return
    }
    cblas_sgemm(
      CblasRowMajor, transposingA ? CblasTrans : CblasNoTrans,
      transposingB ? CblasTrans : CblasNoTrans, blasint(m), blasint(n), blasint(k), 1, a,
      blasint(aStride), b, blasint(bStride), accumulating ? 1 : 0, c, blasint(cStride))
  }
}
