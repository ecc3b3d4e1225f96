/// A parsed configuration document with the place of each part, independent of its syntax.
package indirect enum SpecNode: Sendable {
  case scalar(String, SpecPosition)
  case sequence([SpecNode], SpecPosition)
  case mapping([SpecEntry], SpecPosition)

  package var position: SpecPosition {
    switch self {
    case .scalar(_, let position), .sequence(_, let position), .mapping(_, let position): position
    }
  }

  var kind: String {
    switch self {
    case .scalar(let text, _): "\"\(text.prefix(40))\""
    case .sequence: "a list"
    case .mapping: "a mapping"
    }
  }
}

package struct SpecEntry: Sendable {
  package let key: String
  package let keyPosition: SpecPosition
  package let value: SpecNode

  package init(key: String, keyPosition: SpecPosition, value: SpecNode) {
    self.key = key
    self.keyPosition = keyPosition
    self.value = value
  }
}

/// Line and column of a document, from 1; line 0 means unknown.
package struct SpecPosition: Sendable, Hashable {
  package let line: Int
  package let column: Int

  package init(line: Int, column: Int) {
    self.line = line
    self.column = column
  }
}

/// One thing wrong with a spec.
package struct SpecProblem: Error, Hashable, Sendable, CustomStringConvertible {
  /// Where in the document's structure, such as `training.rank`.
  package let path: String
  package let position: SpecPosition
  package let message: String

  package init(path: String, position: SpecPosition, message: String) {
    self.path = path
    self.position = position
    self.message = message
  }

  package var description: String {
    let place = position.line > 0 ? "line \(position.line): " : ""
    return "\(place)\(path.isEmpty ? "document" : path): \(message)"
  }
}

/// Everything that is wrong with a spec, in the order of its lines.
package struct InvalidSpec: Error, Sendable, CustomStringConvertible {
  package let problems: [SpecProblem]

  package init(problems: [SpecProblem]) {
    self.problems = problems.sorted {
      ($0.position.line, $0.position.column, $0.path, $0.message)
        < ($1.position.line, $1.position.column, $1.path, $1.message)
    }
  }

  package var description: String {
    "\(problems.count) problem\(problems.count == 1 ? "" : "s") in the spec:\n"
      + problems.map { "  \($0)" }.joined(separator: "\n")
  }
}
