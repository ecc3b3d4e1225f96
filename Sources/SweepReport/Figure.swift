/// Plots that belong together, with legend, caption and the SQL that gives their numbers: inline in
/// HTML, or as one SVG file beside a Markdown report.
struct Figure: Sendable {
  struct Panel: Sendable {
    let svg: String
    let width: Double
    let height: Double
  }

  struct Key: Sendable {
    let svg: String
    let text: String
  }

  /// Unique within a report; letters, digits and hyphens: what ids begin with and the file is called.
  let name: String
  let title: String
  let caption: String
  let panels: [Panel]
  let key: [Key]
  let query: String
  // For the template, which sees stored properties only.
  let hasKey: Bool
  /// Whether the panels are small and stand beside each other.
  let isGrid: Bool

  init(
    name: String, title: String, caption: String, panels: [Panel], key: [Key] = [], query: String
  ) {
    self.name = name
    self.title = title
    self.caption = caption
    self.panels = panels
    self.key = key
    self.query = query
    hasKey = !key.isEmpty
    isGrid = panels.allSatisfy { $0.width <= 400 }
  }

  private static let columns = 3
  private static let gap = 14.0
  private static let keyHeight = 20.0

  /// The panels in rows with the legend below, as a file that needs nothing else.
  func file() -> String {
    var body = ""
    var top = Self.gap
    var width = 0.0
    for start in stride(from: 0, to: panels.count, by: Self.columns) {
      let row = panels[start..<min(start + Self.columns, panels.count)]
      var left = Self.gap
      for panel in row {
        body += Self.placed(panel.svg, x: left, y: top, width: panel.width, height: panel.height)
        left += panel.width + Self.gap
      }
      width = max(width, left)
      top += (row.map(\.height).max() ?? 0) + Self.gap
    }
    var left = Self.gap
    for entry in key {
      // No font is known here: letters are taken for wide.
      let room = 34 + 8 + Double(entry.text.count) * 6.6 + 16
      if left > Self.gap, left + room > width {
        left = Self.gap
        top += Self.keyHeight
      }
      body += Self.placed(entry.svg, x: left, y: top, width: 34, height: 12)
      body += """
        <text x="\(NumberText.plain(left + 40))" y="\(NumberText.plain(top + 10))">\
        \(entry.text.xmlEscaped)</text>

        """
      left += room
    }
    let height = key.isEmpty ? top : top + Self.keyHeight
    let size = "width=\"\(NumberText.plain(width))\" height=\"\(NumberText.plain(height))\""
    return """
      <svg xmlns="http://www.w3.org/2000/svg" \(size) \
      viewBox="0 0 \(NumberText.plain(width)) \(NumberText.plain(height))">
      <style>
      \(Self.style)</style>
      <rect \(size) fill="#fff"/>
      \(body)</svg>

      """
  }

  /// An SVG element, whatever its size, in a place of another one.
  private static func placed(
    _ svg: String, x: Double, y: Double, width: Double, height: Double
  ) -> String {
    func plain(_ value: Double) -> String { NumberText.plain((value * 10).rounded() / 10) }
    return "<svg x=\"\(plain(x))\" y=\"\(plain(y))\" width=\"\(plain(width))\" "
      + "height=\"\(plain(height))\" " + svg.dropFirst("<svg ".count)
  }

  /// What the report's style says of plots: the rules that begin with `svg`, and the colours' names.
  private static let style = String(decoding: PackageResources.report_css, as: UTF8.self)
    .split(separator: "\n").filter { $0.hasPrefix(":root") || $0.hasPrefix("svg ") }
    .map { $0 + "\n" }.joined()
}
