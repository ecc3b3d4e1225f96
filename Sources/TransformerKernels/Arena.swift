#if canImport(Darwin)
  import Darwin
#else
  import Glibc
#endif

/// `count` uninitialised floats at a multiple of 64 bytes, to be freed with `free`.
///
/// Running out of memory is a programmer error here: sizes follow from limits checked before.
func alignedFloats(_ count: Int) -> UnsafeMutablePointer<Float> {
  var pointer: UnsafeMutableRawPointer?
  let bytes = max(count, 16) * MemoryLayout<Float>.stride
  // Large regions start at a huge page, where the system offers them.
  let large = bytes >= 1 << 22
  let status = posix_memalign(&pointer, large ? 1 << 21 : 64, bytes)
  guard status == 0, let pointer else {
    preconditionFailure("no memory for a region of \(bytes) bytes")
  }
  #if os(Linux)
    if large { madvise(pointer, bytes, MADV_HUGEPAGE) }
  #endif
  return pointer.bindMemory(to: Float.self, capacity: count)
}

/// One region of floats at a multiple of 64 bytes, freed with the object.
package final class FloatBuffer: @unchecked Sendable {
  package let base: UnsafeMutablePointer<Float>
  package let count: Int

  /// - Parameter zeroed: whether the floats start as zero rather than uninitialised.
  package init(count: Int, zeroed: Bool = false) {
    base = alignedFloats(count)
    self.count = count
    if zeroed { base.update(repeating: 0, count: count) }
  }

  /// A copy of `count` floats.
  package convenience init(copying source: UnsafePointer<Float>, count: Int) {
    self.init(count: count)
    base.update(from: source, count: count)
  }

  deinit { free(base) }

  /// The floats as an array, for tests and files.
  package var array: [Float] { Array(UnsafeBufferPointer(start: base, count: count)) }
}

/// Cuts one region into consecutive parts that start at multiples of 64 bytes.
///
/// Used twice: first without a base to find the size, then with one.
package struct RegionCutter {
  private let base: UnsafeMutablePointer<Float>?
  /// Floats handed out so far.
  package private(set) var count = 0

  package init(base: UnsafeMutablePointer<Float>?) { self.base = base }

  /// The next `floats` floats. Without a base, an address that must not be read.
  package mutating func take(_ floats: Int) -> UnsafeMutablePointer<Float> {
    defer { count += (floats + 15) / 16 * 16 }
    guard let base else { return UnsafeMutablePointer(bitPattern: 64)! }
    return base + count
  }
}
