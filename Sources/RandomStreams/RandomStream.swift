/// A reproducible stream of random numbers: xoshiro256** (Blackman and Vigna, 2018), seeded through
/// SplitMix64 from a number and a name, so that streams of different purposes are independent.
package struct RandomStream: RandomNumberGenerator, Sendable, Hashable {
  private var state: (UInt64, UInt64, UInt64, UInt64)

  /// - Parameter purpose: names what the numbers are for; another purpose gives another stream.
  package init(seed: UInt64, purpose: String) {
    // FNV-1a of the purpose, mixed into the seed.
    var mixed: UInt64 = 0xcbf2_9ce4_8422_2325
    for byte in purpose.utf8 { mixed = (mixed ^ UInt64(byte)) &* 0x100_0000_01b3 }
    var counter = seed ^ mixed
    func splitMix() -> UInt64 {
      counter &+= 0x9e37_79b9_7f4a_7c15
      var z = counter
      z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
      z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
      return z ^ (z >> 31)
    }
    state = (splitMix(), splitMix(), splitMix(), splitMix())
  }

  package mutating func next() -> UInt64 {
    let result = Self.rotate(state.1 &* 5, 7) &* 9
    let shifted = state.1 << 17
    state.2 ^= state.0
    state.3 ^= state.1
    state.1 ^= state.2
    state.0 ^= state.3
    state.2 ^= shifted
    state.3 = Self.rotate(state.3, 45)
    return result
  }

  /// Uniform in [0, 1), a multiple of 2⁻⁵³.
  package mutating func uniform() -> Double { Double(next() >> 11) * 0x1p-53 }

  /// Uniform in 0..<`bound` (bound > 0), by rejection.
  package mutating func index(below bound: Int) -> Int {
    let bound = UInt64(bound)
    let limit = UInt64.max - UInt64.max % bound
    var draw = next()
    while draw >= limit { draw = next() }
    return Int(draw % bound)
  }

  /// Puts `elements` in random order (Fisher and Yates). Unlike the standard library's shuffle, the
  /// result is part of this type's contract and stays the same for ever.
  package mutating func shuffle<Element>(_ elements: inout [Element]) {
    for i in stride(from: elements.count - 1, to: 0, by: -1) {
      elements.swapAt(i, index(below: i + 1))
    }
  }

  private static func rotate(_ x: UInt64, _ count: UInt64) -> UInt64 {
    x << count | x >> (64 - count)
  }

  package static func == (a: RandomStream, b: RandomStream) -> Bool { a.state == b.state }

  package func hash(into hasher: inout Hasher) {
    hasher.combine(state.0)
    hasher.combine(state.1)
    hasher.combine(state.2)
    hasher.combine(state.3)
  }
}
