import Crypto

/// SplitMix64 (Steele, Lea and Flood 2014): the study's only source of chance.
///
/// Swift's own `shuffled(using:)` and `random(in:using:)` may change between releases, so the
/// derived quantities are defined here as well.
package struct StudyGenerator: Sendable {
  private var state: UInt64

  package init(seed: UInt64) {
    state = seed
  }

  /// A stream that depends on nothing but its purpose: the first eight bytes (big-endian) of the
  /// SHA-256 over the parts, each followed by a zero byte.
  package init(purpose parts: String...) {
    self.init(seed: Self.seed(parts))
  }

  /// The seed of the stream for a purpose; see `init(purpose:)`.
  package static func seed(_ parts: [String]) -> UInt64 {
    var hash = SHA256()
    for part in ["biassweep-study-1"] + parts {
      hash.update(data: Array(part.utf8) + [0])
    }
    return hash.finalize().prefix(8).reduce(0) { $0 << 8 | UInt64($1) }
  }

  package mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var word = state
    word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
    word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
    return word ^ (word >> 31)
  }

  /// Uniform in 0..<bound; the bias of the multiplication is below bound / 2⁶⁴.
  package mutating func below(_ bound: Int) -> Int {
    precondition(bound > 0, "no number is below \(bound)")
    return Int(next().multipliedFullWidth(by: UInt64(bound)).high)
  }

  /// Uniform in [0, 1).
  package mutating func unit() -> Double {
    Double(next() >> 11) * 0x1p-53
  }

  package mutating func element<Element>(of items: [Element]) -> Element {
    items[below(items.count)]
  }

  /// Fisher and Yates' shuffle.
  package mutating func shuffled<Element>(_ items: [Element]) -> [Element] {
    var items = items
    for last in stride(from: items.count - 1, to: 0, by: -1) {
      items.swapAt(last, below(last + 1))
    }
    return items
  }
}
