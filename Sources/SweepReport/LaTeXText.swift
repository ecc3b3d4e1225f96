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
  /// All tables after each other: findings, misalignments, results of the metrics that lead each task,
  /// doses, and what trials left out. Inheritance stands in a long form with its p-values. What
  /// fine-tunes record is in the table of facts (`factsCSV()`).
  package func latex() -> String {
    let section = FindingsSection(self)
    let results = tables.tasks.flatMap { tables.reportTables(task: $0) }
    let others: [ReportTable] =
      section.tables + MisalignmentSection(self).tables + results + FactTables.doses(self)
      + FactTables.omissions(self)
    let texts: [String] =
      [section.skill.map(Self.latexText)].compactMap(\.self) + [FindingTables(findings).latex()]
      + others.filter { !$0.rows.isEmpty }.map(Self.latexText)
    return texts.filter { !$0.isEmpty }.joined(separator: "\n")
  }

  private static func latexText(_ table: ReportTable) -> String {
    LaTeXText.table(
      "\(table.title). \(table.text)", columns: table.columns, rows: table.rows.map(\.values),
      query: table.query)
  }

  /// Facts of all shards, one line each (RFC 4180), numbers with all their digits. The round, where
  /// the sweep has several, is that whose fine-tunes use a D_a, or a fine-tune's own.
  package func factsCSV() -> String {
    func field(_ text: String) -> String {
      text.contains(where: { ",\"\r\n".contains($0) })
        ? "\"" + text.replacing("\"", with: "\"\"") + "\"" : text
    }
    let hasRounds = sweep.spec.rounds > 1
    let head = ["shard", "kind", "domain", "bias", "name", "value"] + (hasRounds ? ["round"] : [])
    let lines = facts.map { fact -> [String] in
      [fact.shard, fact.kind, fact.domain, fact.bias ?? "", fact.name, "\(fact.value)"]
        + (hasRounds ? ["\(fact.round)"] : [])
    }
    return ([head] + lines).map { $0.map(field).joined(separator: ",") + "\r\n" }.joined()
  }
}
