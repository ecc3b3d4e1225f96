/// A small line plot as SVG: one panel, a line per series, whiskers where a point has a range.
/// Series differ by dash pattern and marker as well as by colour.
struct LinePlot: Sendable {
  struct Point: Sendable {
    let value: Double
    let low: Double
    let high: Double
  }

  struct Series: Sendable {
    let name: String
    /// One for each of `positions`; nil interrupts the line.
    let points: [Point?]
  }

  let title: String
  /// For readers who do not see the plot.
  let description: String
  let xLabel: String
  let yLabel: String
  /// Ascending x values that points may have, with their labels; drawn to scale.
  let positions: [Double]
  let positionLabels: [String]
  let series: [Series]
  /// A point that all series begin with, drawn once, with a thin line through its value.
  let shared: Point?
  let yScale: LinearScale

  private static let width = 340.0
  private static let height = 250.0
  private static let left = 50.0
  private static let right = 328.0
  private static let top = 30.0
  private static let bottom = 208.0

  /// - Parameter id: unique within the document; letters, digits and hyphens.
  func panel(id: String) -> Figure.Panel {
    Figure.Panel(svg: svg(id: id), width: Self.width, height: Self.height)
  }

  private func svg(id: String) -> String {
    """
    <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(number(Self.width)) \
    \(number(Self.height))" role="img" aria-labelledby="\(id)-t \(id)-d">
    <title id="\(id)-t">\(title.xmlEscaped)</title>
    <desc id="\(id)-d">\(description.xmlEscaped)</desc>
    <text class="t" x="\(number(Self.left))" y="15">\(title.xmlEscaped)</text>
    \(axes)\(lines)</svg>

    """
  }

  // MARK: Geometry

  func x(_ value: Double) -> Double {
    let first = positions.first ?? 0
    let last = positions.last ?? 1
    // A margin keeps markers off the frame.
    let start = Self.left + 12
    let end = Self.right - 12
    guard last > first else { return (start + end) / 2 }
    return start + (value - first) / (last - first) * (end - start)
  }

  func y(_ value: Double) -> Double {
    yScale.position(value, from: Self.bottom, to: Self.top)
  }

  private func number(_ value: Double) -> String {
    let tenths = (value * 10).rounded() / 10
    return NumberText.plain(tenths == 0 ? 0 : tenths)
  }

  // MARK: Axes

  private var axes: String {
    var text = ""
    for tick in yScale.ticks {
      let position = number(y(tick))
      let isZero = tick.magnitude < (yScale.upper - yScale.lower) * 1e-9
      text += """
        <path class="\(isZero ? "z" : "g")" d="M\(number(Self.left)) \(position)\
        H\(number(Self.right))"/>
        <text class="e" x="\(number(Self.left - 6))" y="\(number(y(tick) + 3.5))">\
        \(NumberText.fixed(tick, decimals: yScale.decimals))</text>

        """
    }
    if let shared {
      let position = number(y(shared.value))
      text += """
        <path class="o" d="M\(number(Self.left)) \(position)H\(number(Self.right))"/>

        """
    }
    var labelEnd = -Double.infinity
    for (value, label) in zip(positions, positionLabels) {
      let position = x(value)
      text += """
        <path class="a" d="M\(number(position)) \(number(Self.bottom))v4"/>

        """
      let half = Double(label.count) * 3.2
      // A label that would touch the one before it is left out; its tick stays.
      guard position - half > labelEnd + 3 else { continue }
      labelEnd = position + half
      text += """
        <text class="m" x="\(number(position))" y="\(number(Self.bottom + 17))">\
        \(label.xmlEscaped)</text>

        """
    }
    let middle = number((Self.top + Self.bottom) / 2)
    text += """
      <path class="a" d="M\(number(Self.left)) \(number(Self.bottom))H\(number(Self.right))"/>
      <text class="m" x="\(number((Self.left + Self.right) / 2))" y="\(number(Self.height - 8))">\
      \(xLabel.xmlEscaped)</text>
      <text class="m" transform="translate(11 \(middle)) rotate(-90)">\(yLabel.xmlEscaped)</text>

      """
    return text
  }

  // MARK: Data

  private var lines: String {
    var paths = ""
    var marks = ""
    for (index, one) in series.enumerated() {
      let style = SeriesStyle(index)
      // Lines lie beside each other where points have ranges, so that whiskers do not coincide.
      let shift = hasRanges ? (Double(index) - Double(series.count - 1) / 2) * 4 : 0
      var path = ""
      var whiskers = ""
      var penDown = false
      for (position, point) in zip(positions, one.points) {
        guard let point, point.value.isFinite else {
          penDown = false
          continue
        }
        let isShared = shared != nil && position == positions.first
        let px = x(position) + (isShared ? 0 : shift)
        path += "\(penDown ? "L" : "M")\(number(px)) \(number(y(point.value)))"
        penDown = true
        if !isShared {
          whiskers += whisker(point, at: px)
          marks += style.marker(x: px, y: y(point.value), number: number)
        }
      }
      if !whiskers.isEmpty {
        paths += "<path class=\"w\" stroke=\"\(style.color)\" d=\"\(whiskers)\"/>\n"
      }
      if !path.isEmpty {
        paths += """
          <path class="l" stroke="\(style.color)"\(style.dashAttribute) d="\(path)"/>

          """
      }
    }
    if let shared, let first = positions.first {
      let range = whisker(shared, at: x(first))
      if !range.isEmpty { marks += "<path class=\"w\" stroke=\"#222\" d=\"\(range)\"/>\n" }
      marks += """
        <circle cx="\(number(x(first)))" cy="\(number(y(shared.value)))" r="4.5" fill="#fff" \
        stroke="#222" stroke-width="1.8"/>

        """
    }
    return paths + marks
  }

  private var hasRanges: Bool {
    series.contains { $0.points.contains { $0.map { $0.high > $0.low } ?? false } }
  }

  private func whisker(_ point: Point, at px: Double) -> String {
    guard point.high > point.low, point.low.isFinite, point.high.isFinite else { return "" }
    let (high, low) = (number(y(point.high)), number(y(point.low)))
    let start = number(px - 3)
    return "M\(number(px)) \(high)V\(low)M\(start) \(high)h6M\(start) \(low)h6"
  }
}

/// How one series of a plot looks, by its place among the series.
struct SeriesStyle: Sendable {
  let color: String
  private let dash: String
  private let index: Int

  /// Colours that remain apart for colour-blind readers (Okabe and Ito, 2008).
  private static let colors = ["#222222", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00"]
  private static let dashes = ["", "6 3", "2 2.5", "8 3 2 3", "1 3", "10 4"]

  init(_ index: Int) {
    self.index = index
    color = Self.colors[index % Self.colors.count]
    dash = Self.dashes[index % Self.dashes.count]
  }

  var dashAttribute: String { dash.isEmpty ? "" : " stroke-dasharray=\"\(dash)\"" }

  func marker(x: Double, y: Double, number: (Double) -> String) -> String {
    let fill = "fill=\"\(color)\""
    switch index % 4 {
    case 0:
      return "<circle cx=\"\(number(x))\" cy=\"\(number(y))\" r=\"3.4\" \(fill)/>\n"
    case 1:
      return """
        <rect x="\(number(x - 3.2))" y="\(number(y - 3.2))" width="6.4" height="6.4" \(fill)/>

        """
    case 2:
      return """
        <path d="M\(number(x)) \(number(y - 4.4))l4 7h-8z" \(fill)/>

        """
    default:
      return """
        <path d="M\(number(x)) \(number(y - 4.6))l4.6 4.6l-4.6 4.6l-4.6 -4.6z" \(fill)/>

        """
    }
  }

  /// A sample of line and marker for a legend.
  var sample: String {
    let number = { (value: Double) in NumberText.plain((value * 100).rounded() / 100) }
    return """
      <svg class="k" viewBox="0 0 34 12" aria-hidden="true"><path class="l" stroke="\(color)"\
      \(dashAttribute) d="M1 6H33"/>\(marker(x: 17, y: 6, number: number))</svg>
      """
  }

  /// The legend's sample for the point that all series share.
  static let sharedSample = """
    <svg class="k" viewBox="0 0 34 12" aria-hidden="true"><path class="o" d="M1 6H33"/>\
    <circle cx="17" cy="6" r="4.5" fill="#fff" stroke="#222" stroke-width="1.8"/></svg>
    """
}

extension String {
  /// Safe as text and in quoted attributes. Works on scalars: a combining character after `<` or
  /// `"` would hide it from a comparison of characters.
  var xmlEscaped: String {
    var text = ""
    for scalar in unicodeScalars {
      switch scalar {
      case "&": text += "&amp;"
      case "<": text += "&lt;"
      case ">": text += "&gt;"
      case "\"": text += "&quot;"
      case "'": text += "&#39;"
      default: text.unicodeScalars.append(scalar)
      }
    }
    return text
  }
}
