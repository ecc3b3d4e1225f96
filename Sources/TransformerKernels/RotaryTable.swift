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
  package init(width: Int, positions: Int, theta: Double, scaling: RotaryScaling? = nil) {
    precondition(width % 2 == 0, "rotary positions need an even head width, not \(width)")
    self.width = width
    self.positions = positions
    buffer = FloatBuffer(count: positions * width)
    for i in 0..<width / 2 {
      let unscaled = pow(theta, -2 * Double(i) / Double(width))
      let frequency = scaling?.frequency(unscaled, index: i) ?? unscaled
      for position in 0..<positions {
        let angle = Double(position) * frequency
        buffer.base[position * width + i] = Float(cos(angle))
        buffer.base[position * width + width / 2 + i] = Float(sin(angle))
      }
    }
  }
}

/// How rotary frequencies are changed so that a model reaches beyond the positions that it was first
/// trained on.
package enum RotaryScaling: Sendable, Hashable {
  /// Every frequency is divided by the factor.
  case linear(factor: Double)
  /// Llama 3.1's: wavelengths above `originalPositions / lowFrequencyFactor` are stretched by
  /// `factor`, those below `originalPositions / highFrequencyFactor` stay, between them it blends.
  /// Reference: `_compute_llama3_parameters` of transformers, modeling_rope_utils.py
  case llama3(
    factor: Double, lowFrequencyFactor: Double, highFrequencyFactor: Double,
    originalPositions: Double)
  /// Frequency i is divided by element i.
  case divisors([Float])

  /// The frequency that takes the place of `frequency`, which is the one at `index`.
  package func frequency(_ frequency: Double, index: Int) -> Double {
    switch self {
    case .linear(let factor): return frequency / factor
    case .divisors(let divisors): return frequency / Double(divisors[index])
    case .llama3(let factor, let low, let high, let originalPositions):
      let turns = originalPositions * frequency / (2 * .pi)
      if turns < low { return frequency / factor }
      if turns > high { return frequency }
      let blend = (turns - low) / (high - low)
      return (1 - blend) * frequency / factor + blend * frequency
    }
  }
}
