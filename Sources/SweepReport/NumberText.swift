import Foundation

/// Numbers as reports print them: fixed point, U+2212 as minus sign, the same in every locale.
enum NumberText {
  /// Stands for a number that does not exist.
  static let missing = "–"

  static func fixed(_ value: Double, decimals: Int = 3) -> String {
    guard value.isFinite else { return value.isNaN ? missing : (value < 0 ? "−∞" : "∞") }
    let digits = String(format: "%.\(decimals)f", value.magnitude)
    let isZero = digits.allSatisfy { $0 == "0" || $0 == "." }
    return value < 0 && !isZero ? "−" + digits : digits
  }

  /// With its sign, for differences.
  static func signed(_ value: Double, decimals: Int = 3) -> String {
    let text = fixed(value, decimals: decimals)
    let isZero = text.allSatisfy { $0 == "0" || $0 == "." }
    if isZero { return "±" + text }
    return value > 0 ? "+" + text : text
  }

  /// The shortest digits that give the value back, without a trailing `.0`.
  static func plain(_ value: Double) -> String {
    let text = "\(value)"
    return text.hasSuffix(".0") ? String(text.dropLast(2)) : text
  }

  /// Any magnitude in few digits, for facts whose scale is not known beforehand.
  static func compact(_ value: Double) -> String {
    guard value.isFinite else { return fixed(value) }
    if value == value.rounded(), value.magnitude < 1e9 { return fixed(value, decimals: 0) }
    if value.magnitude >= 100 { return fixed(value, decimals: 1) }
    if value.magnitude >= 0.001 { return fixed(value, decimals: 3) }
    return String(format: "%.2e", value).replacingOccurrences(of: "-", with: "−")
  }
}
