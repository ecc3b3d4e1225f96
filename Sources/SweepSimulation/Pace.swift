import Foundation
import SweepCore

/// How long shards take in a simulation.
package struct Pace: Hashable, Sendable {
  /// Median time of a unit of cost on a usual host.
  package var secondsPerCost: Double
  /// Standard deviation of the time's logarithm (log-normal times); 0 for none.
  package var spread: Double
  /// Work that a lost attempt loses at most; nil if an attempt always starts anew.
  package var checkpointSeconds: Double?
  /// Longest evaluation of one trial after the fine-tune; nil if the cost covers it.
  package var trialSeconds: Double?

  package init(
    secondsPerCost: Double, spread: Double, checkpointSeconds: Double?, trialSeconds: Double? = nil
  ) {
    self.secondsPerCost = secondsPerCost
    self.spread = spread
    self.checkpointSeconds = checkpointSeconds
    self.trialSeconds = trialSeconds
  }

  func seconds(of shard: Shard, using random: inout SeededGenerator) -> Double {
    guard spread > 0 else { return shard.cost * secondsPerCost }
    // Box and Muller, 1958.
    let normal =
      (-2 * log(1 - random.uniform(0, 1))).squareRoot() * cos(2 * .pi * random.uniform(0, 1))
    return shard.cost * secondsPerCost * exp(spread * normal)
  }
}
