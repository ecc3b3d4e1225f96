#if canImport(Darwin)
  import Darwin
#else
  import Glibc
#endif

/// Cosines and sines of rotary positions: (positions, width), in each row the cosines of the
/// width/2 frequencies theta^(-2i/width), then their sines.
package final class RotaryTable: Sendable {
  /// Elements of one head.
  package let width: Int
  /// Positions 0..<positions are covered.
  package let positions: Int
  let buffer: FloatBuffer

  /// Computed in Double. - Parameter width: even.
  package init(width: Int, positions: Int, theta: Double) {
    precondition(width % 2 == 0, "rotary positions need an even head width, not \(width)")
    self.width = width
    self.positions = positions
    buffer = FloatBuffer(count: positions * width)
    for i in 0..<width / 2 {
      let frequency = pow(theta, -2 * Double(i) / Double(width))
      for position in 0..<positions {
        let angle = Double(position) * frequency
        buffer.base[position * width + i] = Float(cos(angle))
        buffer.base[position * width + width / 2 + i] = Float(sin(angle))
      }
    }
  }
}
