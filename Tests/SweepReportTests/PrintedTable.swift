import Foundation
import GRDB
import Testing

/// A table as a report prints it, with its SQL. Tables that one query is for count as one.
struct PrintedTable: Equatable {
  var title = ""
  var columns: [String] = []
  var rows: [[String]] = []
  var query = ""

  /// Whether it holds the metrics of a task, which HTML has in a form of its own.
  var isOfResults: Bool { columns.prefix(2) == ["metric", "mitigation"] }

  /// Rows that the query should give: those of the table, or its filled cells where columns are
  /// conditions.
  var queriedRows: Int {
    let names: Int
    if columns.first == "fact" || columns.first == "fine-tune" {
      names = 1
    } else if isOfResults || title.contains(/^Change of (bias|skill) metrics/) {
      names = 2
    } else {
      return rows.count
    }
    return rows.reduce(0) { sum, row in
      sum + row.dropFirst(names).count { $0 != "–" && $0 != "--" }
    }
  }

  /// Runs the query of each table on the ledger that the report is of.
  static func check(_ tables: [PrintedTable], ledger path: String) throws {
    try DatabaseQueue(path: path).read { database in
      for table in tables {
        let expected = table.queriedRows
        let found = try Row.fetchAll(database, sql: table.query).count
        #expect(found == expected, "“\(table.title)” has \(expected):\n\(table.query)")
      }
    }
  }

  // MARK: Formats

  static func inMarkdown(_ text: String) -> [PrintedTable] {
    var found: [PrintedTable] = []
    var table = PrintedTable()
    var title = ""
    var section = ""
    var query: [String]?
    var previous = ""
    for line in text.components(separatedBy: "\n") {
      defer { previous = line }
      if let lines = query {
        guard line == "```" else {
          query = lines + [line]
          continue
        }
        table.query = lines.joined(separator: "\n")
        // The list of settings is no table with a row for each of a query's.
        if !table.rows.isEmpty && section != "The sweep" { found.append(table) }
        table = PrintedTable()
        query = nil
      } else if line == "```sql" {
        query = []
      } else if line.hasPrefix("## ") {
        section = String(line.dropFirst(3))
        table = PrintedTable()
      } else if line.hasPrefix("### ") {
        title = unescaped(String(line.dropFirst(4)))
      } else if line.hasPrefix("| ") {
        let cells = line.dropFirst(2).dropLast(2).components(separatedBy: " | ").map(unescaped)
        if !previous.hasPrefix("|") {
          table.columns = cells
          table.title = title
        } else if !cells.allSatisfy({ $0 == ":--" || $0 == "--:" }) {
          table.rows.append(cells)
        }
      }
    }
    return found
  }

  /// Without the metrics of tasks.
  static func inHTML(_ html: String) -> [PrintedTable] {
    html.components(separatedBy: "<h3>").dropFirst().compactMap { block -> PrintedTable? in
      let parts = block.components(separatedBy: "<table class=\"facts\">")
      guard parts.count == 2 else { return nil }
      let body = parts[1].components(separatedBy: "</table>")
      return PrintedTable(
        title: start(of: block, until: "</h3>"),
        columns: body[0].components(separatedBy: "<th scope=\"col\">").dropFirst().map {
          start(of: $0, until: "</th>")
        },
        rows: body[0].components(separatedBy: "<th scope=\"row\">").dropFirst().map { row in
          [start(of: row, until: "</th>")]
            + row.components(separatedBy: "<td").dropFirst().map { cell in
              start(of: String(cell.drop { $0 != ">" }.dropFirst()), until: "</td>")
            }
        },
        query: body[1].components(separatedBy: "<pre>").dropFirst().first.map {
          start(of: $0, until: "</pre>")
        } ?? "")
    }
  }

  static func inLaTeX(_ text: String) -> [PrintedTable] {
    text.components(separatedBy: "\\end{tabular}\n").compactMap { block -> PrintedTable? in
      let lines = block.components(separatedBy: "\n")
      let comments = lines.filter { $0.hasPrefix("% ") }.map { String($0.dropFirst(2)) }
      guard let head = lines.firstIndex(of: "\\toprule"),
        let middle = lines.firstIndex(of: "\\midrule"),
        let bottom = lines.firstIndex(of: "\\bottomrule"),
        let sql = comments.firstIndex(where: { $0.hasPrefix("SQL: ") })
      else { return nil }
      func cells(_ line: String) -> [String] {
        line.dropLast(" \\\\".count).components(separatedBy: " & ")
      }
      return PrintedTable(
        title: comments[0], columns: cells(lines[head + 1]),
        rows: lines[(middle + 1)..<bottom].map(cells),
        query: comments[sql...].joined(separator: "\n").replacing("SQL: ", with: ""))
    }
  }

  private static func start(of text: String, until end: String) -> String {
    unescaped(text.components(separatedBy: end)[0])
  }

  private static func unescaped(_ text: String) -> String {
    text.replacing("\\|", with: "|").replacing("&lt;", with: "<").replacing("&gt;", with: ">")
      .replacing("&#39;", with: "'").replacing("&quot;", with: "\"").replacing("&amp;", with: "&")
  }
}
