import SweepCore
import SweepLedger

/// How much of a sweep's grid has results, by mitigation and ratio.
package struct ResultCoverage: Sendable {
  package enum Extent: Hashable, Sendable {
    case none, part, whole
  }

  /// At ratio 0, where all mitigations are the same trials; nil in a sweep without it.
  package let original: Extent?
  /// The other ratios, ascending, for each mitigation in the spec's order.
  package let mitigations: [(mitigation: String, extents: [(ratio: Double, extent: Extent)])]

  /// - Parameter rows: results of the spec's grid points (`LedgerReader.gridResults()`).
  package init(spec: SweepSpec, rows: [TrialResultRow]) {
    struct Condition: Hashable {
      let mitigation: String
      let ratio: Double
    }
    struct Point: Hashable {
      let task: String
      let bias: String
      let seed: Int64
      let round: Int
    }
    var points: [Condition: Set<Point>] = [:]
    for row in rows {
      points[Condition(mitigation: row.mitigation, ratio: row.ratio), default: []].insert(
        Point(task: row.task, bias: row.bias, seed: row.seed, round: row.round))
    }
    let all = spec.tasks.count * spec.biases.count * spec.seeds.count * spec.rounds
    func extent(_ mitigation: Mitigation, _ ratio: Double) -> Extent {
      let count = points[Condition(mitigation: mitigation.rawValue, ratio: ratio)]?.count ?? 0
      return count == 0 ? .none : count < all ? .part : .whole
    }
    original = spec.ratios.contains(0) ? spec.mitigations.first.map { extent($0, 0) } : nil
    let ratios = spec.ratios.filter { $0 > 0 }.sorted()
    mitigations = spec.mitigations.map { mitigation in
      (mitigation.rawValue, ratios.map { (ratio: $0, extent: extent(mitigation, $0)) })
    }
  }
}
