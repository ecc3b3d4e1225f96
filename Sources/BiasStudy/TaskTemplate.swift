import SweepCore

/// A text with placeholders, `{field}`. Braces around anything but a field's name stand for
/// themselves.
package struct TaskTemplate: Hashable, Sendable {
  private enum Part: Hashable, Sendable {
    case text(String)
    case field(String)
  }
  private let parts: [Part]

  package init(_ text: String) {
    var parts: [Part] = []
    var literal = ""
    var rest = Substring(text)
    while let open = rest.firstIndex(of: "{") {
      let after = rest.index(after: open)
      guard let close = rest[after...].firstIndex(of: "}"), after < close,
        rest[after..<close].utf8.allSatisfy(Self.isNameByte)
      else {
        literal += rest[..<after]
        rest = rest[after...]
        continue
      }
      literal += rest[..<open]
      if !literal.isEmpty { parts.append(.text(literal)) }
      literal = ""
      parts.append(.field(String(rest[after..<close])))
      rest = rest[rest.index(after: close)...]
    }
    literal += rest
    if !literal.isEmpty { parts.append(.text(literal)) }
    self.parts = parts
  }

  private static func isNameByte(_ byte: UInt8) -> Bool {
    (97...122).contains(byte) || (65...90).contains(byte) || (48...57).contains(byte)
      || byte == UInt8(ascii: "_") || byte == UInt8(ascii: "-")
  }

  package var fields: [String] {
    parts.compactMap { if case .field(let name) = $0 { name } else { nil } }
  }

  /// The text with `value` in place of each field; nil where `value` has none, with its name.
  package func filled(
    missing: inout String?, _ value: (String) -> String?
  ) -> String {
    var text = ""
    for part in parts {
      switch part {
      case .text(let literal): text += literal
      case .field(let name):
        if let value = value(name) { text += value } else { missing = missing ?? name }
      }
    }
    return text
  }
}
