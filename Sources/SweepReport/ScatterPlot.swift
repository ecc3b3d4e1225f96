import Foundation

/// A small plot of points as SVG: one panel, a marker for each point, whiskers where a point has a
/// range, ellipses for clouds that are known by mean and covariance.
struct ScatterPlot: Sendable {
  struct Point: Sendable {
    let x: Double
    let y: Double
    /// Of y.
    var low: Double?
    var high: Double?
    /// Shown when pointed at.
    var detail = ""
  }

  struct Series: Sendable {
    let name: String
    /// Its look, shared with other plots of the same figure.
    let style: Int
    let points: [Point]
    /// Many points are small dots without words.
    var isCloud = false
    /// One standard deviation around the mean.
    var ellipse: Ellipse?
  }

  struct Ellipse: Sendable {
    let x: Double
    let y: Double
    let xVariance: Double
    let yVariance: Double
    let covariance: Double
  }

  enum XAxis: Sendable {
    case scale(LinearScale)
    /// Points stand at 0, 1, 2, …
    case categories([String])
  }

  let title: String
  /// For readers who do not see the plot.
  let description: String
  let xLabel: String
  let yLabel: String
  let xAxis: XAxis
  let yScale: LinearScale
  let series: [Series]
  /// Whether x and y are the same quantity, so that points on the diagonal agree.
  var hasDiagonal = false

  private static let width = 340.0
  private static let height = 250.0
  private static let left = 50.0
  private static let right = 328.0
  private static let top = 30.0
  private static let bottom = 208.0

  /// - Parameter id: unique within the document; letters, digits and hyphens.
  func panel(id: String) -> Figure.Panel {
    Figure.Panel(
      svg: """
        <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(number(Self.width)) \
        \(number(Self.height))" role="img" aria-labelledby="\(id)-t \(id)-d">
        <title id="\(id)-t">\(title.xmlEscaped)</title>
        <desc id="\(id)-d">\(description.xmlEscaped)</desc>
        <text class="t" x="\(number(Self.left))" y="15">\(title.xmlEscaped)</text>
        \(axes)\(diagonal)\(series.map(drawn).joined())</svg>

        """, width: Self.width, height: Self.height)
  }

  // MARK: Geometry

  private func x(_ value: Double) -> Double {
    switch xAxis {
    case .scale(let scale): scale.position(value, from: Self.left + 6, to: Self.right - 6)
    case .categories(let names):
      Self.left + (value + 0.5) * (Self.right - Self.left) / Double(max(1, names.count))
    }
  }

  private func y(_ value: Double) -> Double {
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
      let isZero = tick.magnitude < (yScale.upper - yScale.lower) * 1e-9
      text += """
        <path class="\(isZero ? "z" : "g")" d="M\(number(Self.left)) \(number(y(tick)))\
        H\(number(Self.right))"/>
        <text class="e" x="\(number(Self.left - 6))" y="\(number(y(tick) + 3.5))">\
        \(NumberText.fixed(tick, decimals: yScale.decimals))</text>

        """
    }
    let labels: [(Double, String)] =
      switch xAxis {
      case .scale(let scale):
        scale.ticks.map { ($0, NumberText.fixed($0, decimals: scale.decimals)) }
      case .categories(let names): names.enumerated().map { (Double($0.offset), $0.element) }
      }
    for (value, label) in labels {
      text += """
        <path class="a" d="M\(number(x(value))) \(number(Self.bottom))v4"/>
        <text class="m" x="\(number(x(value)))" y="\(number(Self.bottom + 17))">\
        \(label.xmlEscaped)</text>

        """
    }
    let middle = number((Self.top + Self.bottom) / 2)
    return text + """
      <path class="a" d="M\(number(Self.left)) \(number(Self.bottom))H\(number(Self.right))"/>
      <text class="m" x="\(number((Self.left + Self.right) / 2))" y="\(number(Self.height - 8))">\
      \(xLabel.xmlEscaped)</text>
      <text class="m" transform="translate(11 \(middle)) rotate(-90)">\(yLabel.xmlEscaped)</text>

      """
  }

  private var diagonal: String {
    guard hasDiagonal, case .scale(let scale) = xAxis else { return "" }
    let (low, high) = (max(scale.lower, yScale.lower), min(scale.upper, yScale.upper))
    guard low < high else { return "" }
    return """
      <path class="o" d="M\(number(x(low))) \(number(y(low)))L\(number(x(high))) \
      \(number(y(high)))"/>

      """
  }

  // MARK: Data

  private func drawn(_ series: Series) -> String {
    let style = SeriesStyle(series.style)
    let points = series.points.filter { $0.x.isFinite && $0.y.isFinite }
    var text = ""
    if series.isCloud {
      // A path of lines without length: round caps are dots, and a dot is a few bytes.
      let dots = points.map { "M\(number(x($0.x))) \(number(y($0.y)))h0" }.joined()
      if !dots.isEmpty {
        text += """
          <path fill="none" stroke="\(style.color)" stroke-width="3" stroke-linecap="round" \
          stroke-opacity=".45" d="\(dots)"/>

          """
      }
    } else {
      for point in points {
        text += whisker(point, color: style.color)
        let marker = style.marker(x: x(point.x), y: y(point.y), number: number)
        text +=
          point.detail.isEmpty
          ? marker : "<g><title>\(point.detail.xmlEscaped)</title>\(marker)</g>\n"
      }
    }
    if let ellipse = series.ellipse { text += outline(ellipse, color: style.color) }
    return text
  }

  private func whisker(_ point: Point, color: String) -> String {
    guard let low = point.low, let high = point.high, high > low, low.isFinite, high.isFinite else {
      return ""
    }
    return """
      <path class="w" stroke="\(color)" d="M\(number(x(point.x))) \(number(y(high)))\
      V\(number(y(low)))"/>

      """
  }

  /// The ellipse in the plot's units: the covariance is scaled as the axes are, then its axes found.
  private func outline(_ ellipse: Ellipse, color: String) -> String {
    let horizontal = x(1) - x(0)
    let vertical = y(1) - y(0)
    let xx = ellipse.xVariance * horizontal * horizontal
    let yy = ellipse.yVariance * vertical * vertical
    let xy = ellipse.covariance * horizontal * vertical
    let middle = (xx + yy) / 2
    let spread = ((xx - yy) * (xx - yy) / 4 + xy * xy).squareRoot()
    let (major, minor) = (
      max(0, middle + spread).squareRoot(), max(0, middle - spread).squareRoot()
    )
    guard major.isFinite, minor.isFinite else { return "" }
    let degrees = atan2(2 * xy, xx - yy) / 2 * 180 / .pi
    let (cx, cy) = (number(x(ellipse.x)), number(y(ellipse.y)))
    return """
      <ellipse cx="\(cx)" cy="\(cy)" rx="\(number(major))" ry="\(number(minor))" fill="none" \
      stroke="\(color)" stroke-width="1.6" transform="rotate(\(number(degrees)) \(cx) \(cy))"/>
      <path stroke="\(color)" stroke-width="2" d="M\(cx) \(cy)m-4 0h8m-4 -4v8"/>

      """
  }
}

extension SeriesStyle {
  /// The marker alone, for legends of plots without lines.
  var markerSample: String {
    let number = { (value: Double) in NumberText.plain((value * 100).rounded() / 100) }
    return """
      <svg class="k" viewBox="0 0 34 12" aria-hidden="true">\
      \(marker(x: 17, y: 6, number: number))</svg>
      """
  }

  /// A dot of a cloud, for legends.
  var dotSample: String {
    """
    <svg class="k" viewBox="0 0 34 12" aria-hidden="true">\
    <circle cx="17" cy="6" r="3" fill="\(color)"/></svg>
    """
  }
}
