import SweepCore

extension SpecNode {
  /// A spec document from a sketch in a small part of YAML, with the lines and columns of the
  /// sketch: `key: scalar`, `key: [a, b]`, and `key:` followed by more deeply indented lines.
  package init(sketch: String) {
    var lines: [(indent: Int, text: Substring, line: Int)] = []
    for (index, line) in sketch.split(separator: "\n", omittingEmptySubsequences: false)
      .enumerated()
    {
      let text = line.drop { $0 == " " }
      if !text.isEmpty { lines.append((line.count - text.count, text, index + 1)) }
    }
    var rest = lines[...]
    self = Self.mapping(&rest)
  }

  private static func mapping(
    _ lines: inout ArraySlice<(indent: Int, text: Substring, line: Int)>
  ) -> SpecNode {
    let indent = lines.first?.indent ?? 0
    let start = SpecPosition(line: lines.first?.line ?? 1, column: indent + 1)
    var entries: [SpecEntry] = []
    while let (_, text, line) = lines.first, lines.first?.indent == indent {
      lines.removeFirst()
      guard let colon = text.firstIndex(of: ":") else {
        preconditionFailure("line \(line) of the sketch has no key: \(text)")
      }
      let key = text[..<colon]
      let after = text[text.index(after: colon)...]
      let value = after.drop { $0 == " " }
      let column = indent + key.count + 2 + (after.count - value.count)
      let position = SpecPosition(line: line, column: column)
      let node: SpecNode =
        if value.isEmpty, let next = lines.first, next.indent > indent {
          mapping(&lines)
        } else if value.hasPrefix("["), value.hasSuffix("]") {
          .sequence(elements(value, line: line, column: column), position)
        } else {
          .scalar(String(value), position)
        }
      entries.append(
        SpecEntry(
          key: String(key), keyPosition: SpecPosition(line: line, column: indent + 1), value: node))
    }
    return .mapping(entries, start)
  }

  private static func elements(_ list: Substring, line: Int, column: Int) -> [SpecNode] {
    var column = column + 1
    return list.dropFirst().dropLast().split(separator: ",").map { element in
      let text = element.drop { $0 == " " }
      defer { column += element.count + 1 }
      return .scalar(
        String(text),
        SpecPosition(line: line, column: column + element.count - text.count))
    }
  }
}
