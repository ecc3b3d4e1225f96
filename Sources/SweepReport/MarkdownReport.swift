import SweepCore

/// A sweep as GitHub-flavoured Markdown: what the HTML report says, with the plots as SVG files
/// beside it, or without plots. The same ledger gives the same bytes.
package struct MarkdownReport: Sendable {
  package let text: String
  /// File names and contents.
  package let figures: [(name: String, svg: String)]

  /// - Parameter folder: path from the report to its figures, which it then links; nil for none.
  package init(_ data: ReportData, figures folder: String?) {
    let page = ReportPage(data, style: "")
    var writer = Writer(folder: folder)
    writer.heading(page, data)
    writer.findings(page.findings)
    for section in page.explanations { writer.section(section) }
    writer.results(page, data.tables)
    for section in page.appendices { writer.section(section) }
    writer.failures(page)
    writer.sweep(page)
    text = writer.text
    figures = writer.files
  }

  private struct Writer {
    let folder: String?
    var text = ""
    var files: [(name: String, svg: String)] = []

    // MARK: Parts

    mutating func heading(_ page: ReportPage, _ data: ReportData) {
      text += "# \(MarkdownText.plain(page.name))\n\n"
      text += """
        How much of the bias in generated training data a fine-tuned language model inherits: the \
        metrics of each task against the bias ratio γ, the share of generated data among all training \
        data. \(page.status)

        **Content warning.** The data behind these numbers contain stereotypes, slurs and other \
        offensive text. They are used to measure such bias and do not reflect anybody’s views.


        """
      text += "Spec SHA-256 `\(data.sweep.specDigest)`, results SHA-256 `\(data.resultDigest)`.\n\n"
      text += "| mitigation | what it does |\n| :-- | :-- |\n"
      for mitigation in page.mitigations {
        text += MarkdownText.row([mitigation.name, mitigation.text])
      }
    }

    mutating func findings(_ section: FindingsSection) {
      text += "\n## Findings\n\n"
      if section.isEmpty {
        text += "No findings are recorded yet: a running sweep records them as results arrive, and "
        text += "`biassweep verify --repair` computes and records them.\n\n"
      }
      if section.mayLag {
        text += "The sweep is not complete: the findings are those recorded last, and may be older "
        text += "than the results; `biassweep verify --repair` computes and records them anew.\n\n"
      }
      parts(section.parts)
      text += "\n### Methods, ready for a paper\n\n\(MarkdownText.plain(section.methods))\n"
      if !section.isEmpty { query(section.query) }
    }

    mutating func section(_ section: ReportSection) {
      text += "\n## \(section.title)\n\n\(MarkdownText.plain(section.text))\n"
      if section.isFolded { text += "\n<details><summary>Show them</summary>\n" }
      parts(section.parts)
      if section.isFolded { text += "\n</details>\n" }
    }

    mutating func results(_ page: ReportPage, _ tables: ResultTables) {
      text +=
        "\n## Results\n\n\(page.legend) In brackets 95 % intervals over seeds and test items. "
      text += "\(NumberText.missing) stands for no result. Of each task the metrics that stand for "
      text += "it; `biassweep report --format csv` has all.\n"
      let key = page.key.map { Figure.Key(svg: $0.svg, text: $0.text) }
      for task in page.tasks {
        if !task.isEmpty, folder != nil {
          text += "\n### \(task.name)\n\n"
          if let summary = task.summary { text += "The task: \(MarkdownText.plain(summary)).\n\n" }
          for metric in task.headlines {
            image(
              Figure(
                name: metric.anchor, title: "\(task.name): \(metric.label) (\(metric.meaning))",
                caption: "", panels: metric.panels, key: key, query: ""))
          }
        }
        text += tables.markdown(task: task.name)
        if !task.isEmpty { query(task.headlinesQuery) }
      }
    }

    mutating func failures(_ page: ReportPage) {
      guard page.hasFailures else { return }
      text += "\n## Failures\n\nShards that were given up, with the evidence of each attempt. "
      text += "Their trials have no result. The same command runs them again.\n"
      for failure in page.failures {
        text += "\n### `\(failure.shard)`\n\n\(MarkdownText.plain(failure.reason))\n"
        for attempt in failure.attempts {
          text += "\n" + MarkdownText.fenced(attempt, language: "text")
        }
      }
      query(page.failuresQuery)
    }

    mutating func sweep(_ page: ReportPage) {
      text += "\n## The sweep\n\n"
      text += MarkdownText.table(
        ["", ""], (page.overview + page.settings).map { [$0.name, $0.text] })
      query("\(page.countsQuery)\n\(page.inputsQuery)")
      text += "\n<details><summary>The whole spec as JSON</summary>\n\n"
      text += MarkdownText.fenced(page.specification, language: "json") + "\n</details>\n"
    }

    // MARK: Elements

    private mutating func parts(_ parts: [ReportPart]) {
      for part in parts {
        if let entry = part.table { table(entry) }
        if let entry = part.figure { figure(entry) }
      }
    }

    private mutating func table(_ table: ReportTable) {
      text += "\n### \(table.title)\n\n\(MarkdownText.plain(table.text))\n\n"
      text += MarkdownText.table(table.columns, table.rows.map(\.values))
      query(table.query)
    }

    /// A heading, the plot, its caption and its SQL; nothing where there are no plots.
    private mutating func figure(_ figure: Figure) {
      guard folder != nil else { return }
      text += "\n### \(figure.title)\n\n"
      image(figure)
      text += MarkdownText.plain(figure.caption) + "\n"
      query(figure.query)
    }

    private mutating func image(_ figure: Figure) {
      guard let folder else { return }
      let file = figure.name + ".svg"
      files.append((file, figure.file()))
      text +=
        "![\(MarkdownText.plain(figure.title))](\(MarkdownText.path("\(folder)/\(file)")))\n\n"
    }

    private mutating func query(_ sql: String) {
      text += "\n<details><summary>These numbers by SQL</summary>\n\n"
      text += MarkdownText.fenced(sql, language: "sql") + "\n</details>\n"
    }
  }
}

/// Pieces of Markdown whose text comes from elsewhere.
enum MarkdownText {
  /// A row of a table.
  static func row(_ cells: [String]) -> String {
    "| "
      + cells.map { cell in
        plain(cell).replacing("|", with: "\\|")
      }.joined(separator: " | ") + " |\n"
  }

  /// - Parameter alignedLeft: so many columns, and the others right; nil for all.
  static func table(_ columns: [String], alignedLeft: Int? = nil, _ rows: [[String]]) -> String {
    row(columns)
      + row(columns.indices.map { $0 < alignedLeft ?? columns.count ? ":--" : "--:" })
      + rows.map(row).joined()
  }

  /// Text of one line that is not taken for HTML.
  static func plain(_ text: String) -> String {
    text.split(whereSeparator: \.isNewline).joined(separator: " ")
      .replacing("&", with: "&amp;").replacing("<", with: "&lt;")
  }

  /// A block that ends where it should, whatever stands in it.
  static func fenced(_ text: String, language: String) -> String {
    var fence = "```"
    while text.contains(fence) { fence += "`" }
    return "\(fence)\(language)\n\(text)\n\(fence)\n"
  }

  /// A path as the target of a link.
  static func path(_ text: String) -> String {
    let isPlain = text.unicodeScalars.allSatisfy {
      $0.properties.isAlphabetic || ("0"..."9").contains($0) || "-_./".unicodeScalars.contains($0)
    }
    return isPlain ? text : "<\(text.replacing(">", with: "%3E").replacing("<", with: "%3C"))>"
  }
}
