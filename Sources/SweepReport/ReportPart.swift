/// A table of a report, with what it says and the SQL that gives its numbers.
struct ReportTable {
  struct Row {
    let name: String
    let cells: [String]
    /// Words in a last column, wrapped where they are many.
    var remark: String?

    var values: [String] { [name] + cells + (remark.map { [$0] } ?? []) }
  }

  let title: String
  let text: String
  let columns: [String]
  let rows: [Row]
  /// Gives a row for each of the table's, or, where columns are conditions, one for each filled cell.
  let query: String
}

/// A table or a figure of a report.
struct ReportPart {
  let table: ReportTable?
  let figure: Figure?

  init(_ table: ReportTable) {
    self.table = table
    figure = nil
  }

  init(_ figure: Figure) {
    table = nil
    self.figure = figure
  }
}

/// A section of a report that is the same in every format, under the names that section.mustache
/// uses.
struct ReportSection {
  /// What HTML links to.
  let anchor: String
  let title: String
  let text: String
  /// Whether the section is so long that its parts are shown on demand.
  let isFolded: Bool
  let parts: [ReportPart]
}
