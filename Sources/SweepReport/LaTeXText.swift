/// Tables for LaTeX with the package booktabs; tasks, metrics and all else as plain text.
enum LaTeXText {
  /// - Parameters:
  ///   - title: and `query` stand above the table as comments.
  static func table(
    _ title: String, columns: [String], rows: [[String]], query: String?
  ) -> String {
    // A comment ends at any character that TeX takes for the end of a line.
    let comments = ([title] + (query.map { ["SQL: \($0)"] } ?? []))
      .flatMap { $0.split(whereSeparator: \.isNewline) }.map { "% \($0)\n" }.joined()
    func line(_ cells: [String]) -> String {
      cells.map(escaped).joined(separator: " & ") + " \\\\\n"
    }
    return comments
      + "\\begin{tabular}{\(String(repeating: "l", count: columns.count))}\n\\toprule\n"
      + line(columns) + "\\midrule\n" + rows.map(line).joined() + "\\bottomrule\n\\end{tabular}\n"
  }

  /// Text with what TeX would take for commands, and with the letters and signs of reports in math.
  static func escaped(_ text: String) -> String {
    text.reduce(into: "") { text, character in
      switch character {
      case "&", "%", "$", "#", "_", "{", "}": text += "\\\(character)"
      case "\\": text += "\\textbackslash{}"
      case "~": text += "\\textasciitilde{}"
      case "^": text += "\\textasciicircum{}"
      case "<": text += "$<$"
      case ">": text += "$>$"
      case "−": text += "$-$"
      case "±": text += "$\\pm$"
      case "∞": text += "$\\infty$"
      case "γ": text += "$\\gamma$"
      case "ρ": text += "$\\rho$"
      case "Δ": text += "$\\Delta$"
      case "²": text += "$^2$"
      case "–": text += "--"
      case _ where character.isNewline: text += " "
      default: text.append(character)
      }
    }
  }
}

extension ReportData {
  /// All tables of findings and misalignments, after each other.
  package func latex() -> String {
    let tables = FindingsSection(self).tables + MisalignmentSection(self).tables
    return
      ([FindingTables(findings).latex()]
      + tables.map {
        LaTeXText.table(
          "\($0.title). \($0.text)", columns: $0.columns,
          rows: $0.rows.map { [$0.name] + $0.cells },
          query: $0.query)
      }).joined(separator: "\n")
  }

  /// Facts of all shards, one line each (RFC 4180), numbers with all their digits.
  package func factsCSV() -> String {
    func field(_ text: String) -> String {
      text.contains(where: { ",\"\r\n".contains($0) })
        ? "\"" + text.replacing("\"", with: "\"\"") + "\"" : text
    }
    return
      ([["shard", "kind", "domain", "bias", "name", "value"]]
      + facts.map { [$0.shard, $0.kind, $0.domain, $0.bias ?? "", $0.name, "\($0.value)"] })
      .map { $0.map(field).joined(separator: ",") + "\r\n" }.joined()
  }
}
