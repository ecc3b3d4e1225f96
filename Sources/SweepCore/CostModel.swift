/// Shards of a class take time in proportion to their cost.
package struct ShardClass: Hashable, Sendable, Codable {
  package enum Kind: String, Hashable, Sendable, Codable { case augmentation, fineTune }
  package let kind: Kind
  package let domain: Domain

  package init(_ shard: Shard) {
    switch shard.work {
    case .augmentation(let key, _):
      kind = .augmentation
      domain = key.domain
    case .fineTune(let key, _):
      kind = .fineTune
      domain = key.domain
    }
  }
}

/// How long shards take, learned from those that were finished: seconds per unit of cost for each
/// class of shard, and how much slower than usual each machine is.
///
/// An estimate moves towards each new observation by a weight that falls as 1 / n to a floor, so
/// that it settles and still follows a change. One observation counts for at most four times or a
/// quarter of what was expected, so that a single odd one (a machine that swapped) does little.
/// Only products and sums are used, hence equal events give equal bits on every machine.
package struct CostModel: Codable, Hashable, Sendable {
  struct Estimate: Codable, Hashable, Sendable {
    var value: Double
    var observations = 0

    mutating func observe(ratio: Double, floor: Double) {
      observations += 1
      let weight = max(1 / Double(observations), floor)
      value *= 1 + weight * (min(max(ratio, 0.25), 4) - 1)
    }
  }

  private(set) var classes: [ShardClass: Estimate] = [:]
  private(set) var machines: [String: Estimate] = [:]

  package init() {}

  /// Learns from a shard that a machine worked on from beginning to end.
  ///
  /// - Parameter machine: what speed depends on; see `WorkerInfo.machine`.
  package mutating func learn(_ shard: Shard, machine: String, seconds: Double) {
    let key = ShardClass(shard)
    guard seconds > 0, seconds.isFinite, shard.cost > 0 else { return }
    let rate = seconds / shard.cost
    guard let known = classes[key]?.value else {
      classes[key] = Estimate(value: rate / slowness(of: machine), observations: 1)
      return
    }
    // The machine explains what it can; the class explains the rest.
    var speed = machines[machine] ?? Estimate(value: 1, observations: 1)
    speed.observe(ratio: rate / (known * speed.value), floor: 0.1)
    machines[machine] = speed
    classes[key]?.observe(ratio: rate / (known * speed.value), floor: 0.02)
  }

  /// Time on a machine relative to the usual; 1 for an unknown one.
  package func slowness(of machine: String) -> Double { machines[machine]?.value ?? 1 }

  /// How long the shard is expected to take; nil while no shard of its class was finished.
  package func seconds(_ shard: Shard, machine: String) -> Double? {
    classes[ShardClass(shard)].map { $0.value * shard.cost * slowness(of: machine) }
  }

  /// Expected time on a usual machine, for putting shards in order: in seconds, or, as long as
  /// nothing was finished, in units of cost. A class that is not known yet counts as the mean of
  /// those that are.
  func weight(_ shard: ShardClass, cost: Double) -> Double {
    if let known = classes[shard] { return known.value * cost }
    guard !classes.isEmpty else { return cost }
    // Summed in the order of their sizes, so that hash order does not show.
    return classes.values.map(\.value).sorted().reduce(0, +) / Double(classes.count) * cost
  }
}
