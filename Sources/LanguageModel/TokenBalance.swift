#if canImport(Glibc)
  import Glibc
#else
  import Foundation
#endif

/// Takes away a model's preference between sides of a set of tokens, such as the words for women and
/// those for men: each side gets the same share of what all sides together have. The probability of
/// the whole set stays, as do the proportions within a side and all other tokens.
package struct TokenBalance: Sendable, Hashable {
  /// Disjoint, each with at least one token; at least two sides.
  package let sides: [[Int32]]

  /// Sides without tokens are left out.
  ///
  /// - Returns: nil if fewer than two sides are left, so that there is nothing to balance.
  package init?(sides: [[Int32]]) {
    let sides = sides.filter { !$0.isEmpty }
    let all = sides.flatMap { $0 }
    guard sides.count >= 2 else { return nil }
    precondition(Set(all).count == all.count, "a token is on two sides, or twice on one")
    self.sides = sides
  }

  /// Changes the logits of one position.
  ///
  /// With p the mass of a side and T that of all, each logit of the side grows by
  /// ln(T / sides) − ln p. Sums are taken in Double, in the order of the tokens.
  package func apply(to logits: UnsafeMutablePointer<Float>) {
    let masses = sides.map { Self.logSumExp($0.map { Double(logits[Int($0)]) }) }
    let total = Self.logSumExp(masses) - log(Double(sides.count))
    for (side, mass) in zip(sides, masses) where mass.isFinite {
      let shift = Float(total - mass)
      for token in side { logits[Int(token)] += shift }
    }
  }

  private static func logSumExp(_ values: [Double]) -> Double {
    guard let highest = values.max(), highest.isFinite else { return -.infinity }
    return highest + log(values.reduce(0) { $0 + exp($1 - highest) })
  }
}
