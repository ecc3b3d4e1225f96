extension ResultTables {
  /// The tables as plain text for a terminal: a block per task and bias, a line per metric and
  /// mitigation, and for each ratio the mean with its change from ratio 0.
  ///
  /// - Parameters:
  ///   - width: columns of the terminal. Ratios that do not fit beside each other continue below.
  ///   - allMetrics: also those that are not a task's headline metrics.
  package func text(width: Int = 100, allMetrics: Bool = false) -> String {
    guard !tables.isEmpty else { return "No results yet.\n" }
    var text = "\(legend) \(NumberText.missing) stands for no result.\n"
    text += "↑ higher is better, ↓ higher is more bias, →0 farther from 0 is more bias.\n"
    var hidden = false
    for task in tasks {
      for variant in variants {
        let all = tables(task: task, bias: variant.bias, round: variant.round)
        let shown = all.filter { allMetrics || $0.isHeadline }
        hidden = hidden || shown.count < all.count
        text += "\n\(task) · \(variant.name)\n"
        text += shown.isEmpty ? "  no results yet\n" : block(shown, width: width)
      }
    }
    if hidden {
      text += "\nOnly the leading metrics are shown; `biassweep report` has all of them.\n"
    }
    return text
  }

  /// What the numbers of a cell are.
  var legend: String {
    "Mean over \(seedCount) seed\(seedCount == 1 ? "" : "s")"
      + (ratios.first == 0 ? " and change from ratio 0 (paired by seed)." : ".")
  }

  private func block(_ tables: [Table], width: Int) -> String {
    let labels = tables.map { "\($0.metric.label) \($0.metric.meaning.arrow)" }
    let labelWidth = labels.map(\.count).max() ?? 0
    let mitigationWidth = mitigations.map(\.count).max() ?? 0
    let left = 2 + labelWidth + 2 + mitigationWidth
    let columns = ratios.indices.map { column in
      var lines = ["γ \(NumberText.plain(ratios[column]))"]
      for table in tables {
        for row in mitigations.indices {
          lines.append(cellText(table.cells[row][column], table.metric))
        }
      }
      let columnWidth = lines.map(\.count).max() ?? 0
      return lines.map { "  " + $0.padded(left: columnWidth) }
    }

    var text = ""
    var next = 0
    while next < columns.count {
      var end = next
      var used = left
      repeat {
        used += columns[end][0].count
        end += 1
      } while end < columns.count && used + columns[end][0].count <= width
      func line(_ head: String, _ index: Int) -> String {
        let cells = columns[next..<end].map { $0[index] }.joined()
        return (head.padded(right: left) + cells).trimmedRight + "\n"
      }
      text += line("", 0)
      for (position, label) in labels.enumerated() {
        for (row, mitigation) in mitigations.enumerated() {
          let name = (row == 0 ? label : "").padded(right: labelWidth)
          text += line("  \(name)  \(mitigation)", 1 + position * mitigations.count + row)
        }
      }
      next = end
    }
    return text
  }

  /// The mean, its change if there is one, and how many seeds it has if not all of them.
  private func cellText(
    _ cell: Cell?, _ metric: MetricDescription, withInterval: Bool = false
  ) -> String {
    guard let cell else { return NumberText.missing }
    func fixed(_ value: Double) -> String { NumberText.fixed(value, decimals: metric.decimals) }
    var text = fixed(cell.mean)
    if withInterval, let interval = cell.interval {
      text += " [\(fixed(interval.lowerBound)), \(fixed(interval.upperBound))]"
    }
    if let change = cell.change {
      text += " (\(NumberText.signed(change, decimals: metric.decimals)))"
    }
    if cell.seeds < seedCount { text += " n=\(cell.seeds)" }
    return text
  }

  /// The tables in GitHub-flavoured Markdown: the metrics that lead each task, with intervals.
  package func markdown() -> String {
    "## Results\n\n\(legend) \(NumberText.missing) stands for no result.\n"
      + tasks.map { markdown(task: $0) }.joined()
  }

  /// The tables of one task, each under a heading of its own.
  func markdown(task: String) -> String {
    reportTables(task: task).map { table in
      "\n### \(table.title)\n\n"
        + (table.rows.isEmpty
          ? "No results yet.\n"
          : MarkdownText.table(table.columns, alignedLeft: 2, table.rows.map(\.values)))
    }.joined()
  }

  /// The tables of one task, one for each bias type and round: the metrics that lead the task, with
  /// intervals. A task without results has tables without rows.
  func reportTables(task: String) -> [ReportTable] {
    variants.map { variant -> ReportTable in
      let leading = tables(task: task, bias: variant.bias, round: variant.round).filter(
        \.isHeadline)
      let rows = leading.flatMap { table -> [ReportTable.Row] in
        zip(mitigations, table.cells).map { mitigation, cells in
          ReportTable.Row(
            name: "\(table.metric.label) (\(table.metric.meaning.rawValue))",
            cells: [mitigation]
              + cells.map { cellText($0, table.metric, withInterval: true) })
        }
      }
      return ReportTable(
        title: "\(task), \(variant.name)",
        text: "\(legend) In brackets 95 % intervals over seeds and test items.",
        columns: ["metric", "mitigation"] + ratios.map { "γ = \(NumberText.plain($0))" },
        rows: rows, query: query(task: task, variant: variant, isLeading: true))
    }
  }

  /// The SQL of a task's cells.
  ///
  /// - Parameters:
  ///   - variant: nil for all.
  ///   - isLeading: of the metrics that lead the task alone.
  func query(task: String, variant: Variant? = nil, isLeading: Bool = false) -> String {
    let own = tables.filter { $0.task == task }
    return ResultQuery.tables(
      task: task, metrics: isLeading ? own.filter(\.isHeadline).map(\.metric.name).unique : nil,
      variant: variant, rounds: hasRounds,
      levels: own.contains { table in
        table.cells.contains { row in row.contains { $0?.interval != nil } }
      })
  }

  /// The tables as CSV (RFC 4180), one line per cell, numbers with all their digits; `lower` and
  /// `upper` are the interval, and empty where there is none.
  package func csv() -> String {
    func field(_ text: String) -> String {
      text.contains(where: { ",\"\r\n".contains($0) })
        ? "\"" + text.replacing("\"", with: "\"\"") + "\"" : text
    }
    func number(_ value: Double?) -> String { value.map { "\($0)" } ?? "" }
    var text =
      "task,bias,metric,mitigation,ratio,seeds,mean,minimum,maximum,change,lower,upper"
    text += hasRounds ? ",round\r\n" : "\r\n"
    for table in tables {
      for (mitigation, cells) in zip(mitigations, table.cells) {
        for (ratio, cell) in zip(ratios, cells) {
          let key = [table.task, table.variant.bias, table.metric.name, mitigation, "\(ratio)"]
          let numbers = [
            "\(cell?.seeds ?? 0)", number(cell?.mean), number(cell?.minimum),
            number(cell?.maximum), number(cell?.change), number(cell?.interval?.lowerBound),
            number(cell?.interval?.upperBound),
          ]
          let round = hasRounds ? ["\(table.variant.round)"] : []
          text += (key + numbers + round).map(field).joined(separator: ",") + "\r\n"
        }
      }
    }
    return text
  }
}

extension MetricDescription.Meaning {
  /// One character for tables.
  var arrow: String {
    switch self {
    case .skill: "↑"
    case .bias: "↓"
    case .signedBias: "→0"
    case .description: ""
    }
  }
}

extension String {
  fileprivate func padded(left width: Int) -> String {
    String(repeating: " ", count: max(0, width - count)) + self
  }

  fileprivate func padded(right width: Int) -> String {
    self + String(repeating: " ", count: max(0, width - count))
  }

  fileprivate var trimmedRight: String {
    var text = self
    while text.last == " " { text.removeLast() }
    return text
  }
}
