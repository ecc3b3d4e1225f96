/// A table of numbers as colours, with the numbers in them: blue below 0, orange above, white at 0.
struct HeatMap: Sendable {
  struct Cell: Sendable {
    let value: Double
    /// Numbers that are not to be relied on are pale.
    let isFaint: Bool
    /// Shown when pointed at.
    let detail: String
  }

  let title: String
  let description: String
  let rows: [String]
  let columns: [String]
  /// `[row][column]`
  let cells: [[Cell?]]

  private static let top = 118.0
  private static let cellWidth = 74.0
  private static let cellHeight = 26.0

  /// Room for the names of the rows.
  private var left: Double { max(150, 7 * Double(rows.map(\.count).max() ?? 0)) }

  /// - Parameter id: unique within the document; letters, digits and hyphens.
  func panel(id: String) -> Figure.Panel {
    // The slanted names of the last columns need room.
    let overhang = max(90, 4.6 * Double(columns.last?.count ?? 0) - Self.cellWidth / 2)
    let width = left + Self.cellWidth * Double(columns.count) + 8 + overhang
    let height = Self.top + Self.cellHeight * Double(rows.count) + 8
    return Figure.Panel(
      svg: svg(id: id, width: width, height: height), width: width, height: height)
  }

  private func svg(id: String, width: Double, height: Double) -> String {
    let largest = cells.joined().compactMap { $0.map { $0.value.magnitude } }.max() ?? 0
    var body = ""
    for (column, name) in columns.enumerated() {
      let x = left + (Double(column) + 0.5) * Self.cellWidth
      body += """
        <text transform="translate(\(plain(x)) \(plain(Self.top - 8))) rotate(-32)">\
        \(name.xmlEscaped)</text>

        """
    }
    for (row, name) in rows.enumerated() {
      let y = Self.top + Double(row) * Self.cellHeight
      body += """
        <text class="e" x="\(plain(left - 8))" y="\(plain(y + 17))">\(name.xmlEscaped)</text>

        """
      for column in columns.indices {
        body += text(
          of: cells[row][column], x: left + Double(column) * Self.cellWidth, y: y,
          largest: largest)
      }
    }
    return """
      <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(plain(width)) \(plain(height))" \
      role="img" aria-labelledby="\(id)-t \(id)-d">
      <title id="\(id)-t">\(title.xmlEscaped)</title>
      <desc id="\(id)-d">\(description.xmlEscaped)</desc>
      \(body)</svg>

      """
  }

  private func text(of cell: Cell?, x: Double, y: Double, largest: Double) -> String {
    let number = cell.map { NumberText.signed($0.value, decimals: 2) } ?? NumberText.missing
    let color = cell.map { Self.color($0.value, largest: largest, isFaint: $0.isFaint) } ?? "#fff"
    return """
      <g><title>\((cell?.detail ?? "no result").xmlEscaped)</title>\
      <rect x="\(plain(x))" y="\(plain(y))" width="\(plain(Self.cellWidth - 2))" \
      height="\(plain(Self.cellHeight - 2))" fill="\(color)" stroke="#ddd"/>\
      <text class="m" x="\(plain(x + Self.cellWidth / 2 - 1))" y="\(plain(y + 16))"\
      \(cell?.isFaint == true ? " style=\"fill:#999\"" : "")>\(number)</text></g>

      """
  }

  private static func color(_ value: Double, largest: Double, isFaint: Bool) -> String {
    guard largest > 0, value.isFinite else { return "#fff" }
    let share = value.magnitude / largest * (isFaint ? 0.25 : 0.75)
    let end = value < 0 ? (0, 114, 178) : (213, 94, 0)
    func mixed(_ channel: Int) -> Int { 255 - Int((Double(255 - channel) * share).rounded()) }
    return "rgb(\(mixed(end.0)),\(mixed(end.1)),\(mixed(end.2)))"
  }

  private func plain(_ value: Double) -> String {
    NumberText.plain((value * 100).rounded() / 100)
  }
}
