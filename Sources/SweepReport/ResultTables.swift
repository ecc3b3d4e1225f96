import SweepCore
import SweepLedger

/// The results of a sweep as tables: for each task, bias type, round and metric one row per mitigation
/// and one column per bias ratio. Cells without a result (yet) are nil.
package struct ResultTables: Sendable {
  /// One metric under one condition, over the seeds that have a result.
  package struct Cell: Hashable, Sendable {
    package let mean: Double
    package let minimum: Double
    package let maximum: Double
    package let seeds: Int
    /// Of 95 %, over seeds and items; nil where nothing of the kind was computed.
    package var interval: ClosedRange<Double>?
    /// Mean difference from ratio 0 over the seeds that have both; nil at ratio 0 and where no seed
    /// has both.
    package let change: Double?
  }

  /// A bias type in one round of inheritance.
  package struct Variant: Hashable, Sendable {
    package let bias: String
    package let round: Int
    /// The bias type, with the round where it has several.
    package let name: String

    /// Those of a sweep, by bias type and then round. What nobody writes is the same in every round.
    static func all(_ spec: SweepSpec) -> [Variant] {
      spec.biases.flatMap { bias in
        let rounds = bias == .sameSize ? 1 : spec.rounds
        return (1...rounds).map { round in
          Variant(
            bias: bias.rawValue, round: round,
            name: rounds == 1 ? bias.rawValue : "\(bias.rawValue), round \(round)")
        }
      }
    }
  }

  package struct Table: Sendable {
    package let task: String
    package let variant: Variant
    package let metric: MetricDescription
    /// Whether the metric is one of the few that stand for its task.
    package let isHeadline: Bool
    /// `[mitigation][ratio]`, in the order of `ResultTables.mitigations` and `.ratios`.
    package let cells: [[Cell?]]
  }

  /// The axes. Ratios ascend; the others are in the spec's order.
  package let tasks: [String]
  package let biases: [String]
  package let variants: [Variant]
  /// Whether the sweep has more than one round of inheritance.
  package let hasRounds: Bool
  package let ratios: [Double]
  package let mitigations: [String]
  /// Seeds that the spec declares.
  package let seedCount: Int
  /// By task, then metric in display order, then bias, then round.
  package let tables: [Table]

  /// - Parameters:
  ///   - rows: results of the spec's grid points (`LedgerReader.gridResults()`).
  ///   - findings: where the intervals of the cells come from.
  package init(
    spec: SweepSpec, rows: [TrialResultRow], findings: FindingTables = FindingTables([])
  ) {
    tasks = spec.tasks
    biases = spec.biases.map(\.rawValue)
    let variants = Variant.all(spec)
    self.variants = variants
    hasRounds = spec.rounds > 1
    let ratios = spec.ratios.sorted()
    self.ratios = ratios
    let mitigations = spec.mitigations.map(\.rawValue)
    self.mitigations = mitigations
    seedCount = spec.seeds.count

    struct Condition: Hashable {
      let task: String
      let metric: String
      let bias: String
      let mitigation: String
      let ratio: Double
      let round: Int
    }
    var values: [Condition: [Int64: Double]] = [:]
    var metricNames: [String: Set<String>] = [:]
    for row in rows {
      let condition = Condition(
        task: row.task, metric: row.metric, bias: row.bias, mitigation: row.mitigation,
        ratio: row.ratio, round: row.round)
      values[condition, default: [:]][row.seed] = row.value
      metricNames[row.task, default: []].insert(row.metric)
    }

    var tables: [Table] = []
    for task in tasks {
      // The metrics that stand for a task: plotted, and printed at the end of a run.
      let leading = spec.taskDefinitions[task]?.headlines.map(\.metric) ?? []
      let metrics = MetricDescription.ordered(metricNames[task] ?? [], leading: leading)
      let headlines = MetricDescription.headlineCount(of: metrics, leading: leading)
      for (index, metric) in metrics.enumerated() {
        for variant in variants {
          let cells = mitigations.map { mitigation in
            func seeds(_ ratio: Double) -> [Int64: Double] {
              values[
                Condition(
                  task: task, metric: metric.name, bias: variant.bias, mitigation: mitigation,
                  ratio: ratio, round: variant.round)] ?? [:]
            }
            let original = seeds(0)
            return ratios.map { ratio in
              var cell = Cell(seeds(ratio), original: ratio == 0 ? [:] : original)
              let level = findings.level(
                task: task, metric: metric.name, bias: variant.bias, ratio: ratio,
                mitigation: mitigation, round: variant.round)
              if let lower = level?.lower, let upper = level?.upper, lower <= upper {
                cell?.interval = lower...upper
              }
              return cell
            }
          }
          tables.append(
            Table(
              task: task, variant: variant, metric: metric, isHeadline: index < headlines,
              cells: cells))
        }
      }
    }
    self.tables = tables
  }

  /// Tables of one task, bias and round, in display order of their metrics.
  package func tables(task: String, bias: String, round: Int = 1) -> [Table] {
    tables.filter { $0.task == task && $0.variant.bias == bias && $0.variant.round == round }
  }

  /// The metrics of one task with their tables, one per bias and round.
  package func metrics(task: String) -> [(metric: MetricDescription, tables: [Table])] {
    var metrics: [(metric: MetricDescription, tables: [Table])] = []
    for table in tables where table.task == task {
      if metrics.last?.metric.name == table.metric.name {
        metrics[metrics.count - 1].tables.append(table)
      } else {
        metrics.append((table.metric, [table]))
      }
    }
    return metrics
  }
}

extension ResultTables.Cell {
  /// - Parameters:
  ///   - values: by seed.
  ///   - original: the same metric at ratio 0, by seed.
  /// - Returns: nil without values.
  init?(_ values: [Int64: Double], original: [Int64: Double]) {
    // Summed in the order of the seeds, so that the last bit does not depend on hashing.
    let ordered = values.sorted { $0.key < $1.key }
    guard let first = ordered.first?.value else { return nil }
    seeds = ordered.count
    mean = ordered.reduce(0) { $0 + $1.value } / Double(seeds)
    minimum = ordered.reduce(first) { min($0, $1.value) }
    maximum = ordered.reduce(first) { max($0, $1.value) }
    interval = nil
    let differences = ordered.compactMap { seed, value in original[seed].map { value - $0 } }
    change = differences.isEmpty ? nil : differences.reduce(0, +) / Double(differences.count)
  }
}
