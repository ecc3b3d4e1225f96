/// Columns as wide as their content, for people.
struct TextTable {
  let header: [String]
  let rows: [[String]]

  var text: String {
    let lines = [header] + rows
    let widths = header.indices.map { column in lines.map { $0[column].count }.max() ?? 0 }
    return lines.map { line in
      var text = ""
      for (column, cell) in line.enumerated() {
        text += cell
        // Nothing follows the last column.
        if column < line.count - 1 {
          text += String(repeating: " ", count: widths[column] - cell.count + 2)
        }
      }
      return text
    }.joined(separator: "\n")
  }
}
