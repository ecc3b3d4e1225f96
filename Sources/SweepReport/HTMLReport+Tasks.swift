import SweepCore

/// One task of the report: its metrics, the leading ones with plots.
struct TaskSection {
  let anchor: String
  let name: String
  let summary: String?
  let isEmpty: Bool
  let headlines: [MetricSection]
  let others: [MetricSection]
  let hasOthers: Bool
  let query: String
  /// The same of the leading metrics alone.
  let headlinesQuery: String

  init(
    _ task: String, definition: TaskDefinition?, index: Int, of results: ResultTables
  ) {
    let anchor = "task-\(index + 1)"
    self.anchor = anchor
    name = task
    summary = definition?.summary
    query = results.query(task: task)
    headlinesQuery = results.query(task: task, isLeading: true)
    let metrics = results.metrics(task: task)
    isEmpty = metrics.isEmpty
    let sections = metrics.enumerated().map { number, entry in
      MetricSection(
        entry.metric, tables: entry.tables, of: results, anchor: "\(anchor)-m\(number + 1)")
    }
    headlines = sections.filter(\.isHeadline)
    others = sections.filter { !$0.isHeadline }
    hasOthers = !others.isEmpty
  }
}

/// One metric of a task: a panel per bias type and a table.
struct MetricSection {
  let label: String
  let name: String
  let meaning: String
  let anchor: String
  let isHeadline: Bool
  let panels: [Figure.Panel]
  let ratios: [String]
  let groups: [Group]

  /// The rows of one bias type.
  struct Group {
    let rows: [Row]
  }

  struct Row {
    /// The bias type and the number of its rows, in the first of them.
    let head: Head?
    let mitigation: String
    let cells: [CellText]
  }

  struct Head {
    let bias: String
    let span: Int
  }

  struct CellText {
    let mean: String
    /// Of 95 %, in brackets; nil where there is none.
    let interval: String?
    /// Nil in columns that have no changes; empty where only this cell has none.
    let change: String?
    let seeds: String?
  }

  init(
    _ metric: MetricDescription, tables: [ResultTables.Table], of results: ResultTables,
    anchor: String
  ) {
    label = metric.label
    name = metric.name
    self.anchor = anchor
    meaning = metric.meaning.rawValue
    isHeadline = tables.first?.isHeadline ?? false
    ratios = results.ratios.map(NumberText.plain)
    groups = tables.map { table in
      Group(
        rows: zip(results.mitigations, table.cells).enumerated().map { index, row in
          Row(
            head: index == 0
              ? Head(bias: table.variant.name, span: results.mitigations.count) : nil,
            mitigation: row.0,
            cells: zip(results.ratios, row.1).map { CellText($1, metric, ratio: $0, of: results) })
        })
    }
    let all = tables.flatMap { $0.cells.joined() }.compactMap(\.self)
    guard isHeadline else {
      panels = []
      return
    }
    // One scale for all panels of a metric, so that they compare.
    let scale = LinearScale(
      covering: all.flatMap { cell in
        [cell.minimum, cell.mean, cell.maximum]
          + (cell.interval.map { [$0.lowerBound, $0.upperBound] } ?? [])
      })
    panels = tables.enumerated().map { index, table in
      let plot = LinePlot(table, of: results, yScale: scale)
      return plot.panel(id: "\(anchor)-p\(index + 1)")
    }
  }
}

extension MetricSection.CellText {
  init(
    _ cell: ResultTables.Cell?, _ metric: MetricDescription, ratio: Double, of results: ResultTables
  ) {
    func fixed(_ value: Double) -> String { NumberText.fixed(value, decimals: metric.decimals) }
    mean = cell.map { fixed($0.mean) } ?? NumberText.missing
    interval = cell?.interval.map { "[\(fixed($0.lowerBound)), \(fixed($0.upperBound))]" }
    change =
      ratio == 0 || results.ratios.first != 0
      ? nil : cell?.change.map { NumberText.signed($0, decimals: metric.decimals) } ?? ""
    seeds = cell.flatMap { $0.seeds < results.seedCount ? "n = \($0.seeds)" : nil }
  }
}

extension LinePlot {
  /// The plot of one table: ratios along x, a series per mitigation, and ratio 0, where all
  /// mitigations are the same trial, as the shared point.
  init(_ table: ResultTables.Table, of results: ResultTables, yScale: LinearScale) {
    title = table.variant.name
    xLabel = "bias ratio γ (%)"
    yLabel = table.metric.label + (table.metric.unit.isEmpty ? "" : " (\(table.metric.unit))")
    positions = results.ratios
    positionLabels = results.ratios.map { NumberText.plain(($0 * 1e6).rounded() / 1e4) }
    series = zip(results.mitigations, table.cells).map { mitigation, cells in
      Series(name: mitigation, points: cells.map { $0.map(Point.init) })
    }
    shared =
      results.ratios.first == 0
      ? table.cells.lazy.compactMap { $0.first ?? nil }.first.map(Point.init) : nil
    self.yScale = yScale
    let readings = zip(results.mitigations, table.cells).map { mitigation, cells in
      let values = zip(results.ratios, cells).map { ratio, cell in
        "\(cell.map { NumberText.fixed($0.mean) } ?? "no result") at \(NumberText.plain(ratio))"
      }
      return "\(mitigation): \(values.joined(separator: ", "))"
    }
    description =
      "Task \(table.task): \(table.metric.label) against the bias ratio, one line per mitigation. "
      + readings.joined(separator: "; ") + "."
  }
}

extension LinePlot.Point {
  init(_ cell: ResultTables.Cell) {
    let range = cell.interval ?? cell.minimum...cell.maximum
    self.init(value: cell.mean, low: range.lowerBound, high: range.upperBound)
  }
}
