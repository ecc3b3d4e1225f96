import SweepCore
import Yams

extension SpecNode {
  /// Nodes of a document, aliases expanded; more are refused.
  private static let nodesMax = 100_000
  private static let depthMax = 32

  /// - Throws: `InvalidSpec` for text that is not one YAML document.
  package init(yaml text: String) throws {
    do {
      guard let root = try compose(yaml: text) else {
        throw InvalidSpec(problems: [
          SpecProblem(
            path: "", position: SpecPosition(line: 0, column: 0),
            message: "is empty; expected a mapping of keys to values")
        ])
      }
      var budget = Self.nodesMax
      self = try SpecNode(root, depth: 0, budget: &budget)
    } catch let error as YamlError {
      throw InvalidSpec(problems: [SpecProblem(error)])
    }
  }

  private init(_ node: Node, depth: Int, budget: inout Int) throws {
    let position = SpecPosition(node.mark)
    budget -= 1
    guard depth <= Self.depthMax, budget >= 0 else {
      throw InvalidSpec(problems: [
        SpecProblem(path: "", position: position, message: "is too large or too deeply nested")
      ])
    }
    switch node {
    case .scalar(let scalar):
      self = .scalar(scalar.string, position)
    case .sequence(let sequence):
      self = .sequence(
        try sequence.map { try SpecNode($0, depth: depth + 1, budget: &budget) }, position)
    case .mapping(let mapping):
      self = .mapping(
        try mapping.map { key, value in
          SpecEntry(
            key: key.scalar?.string ?? "?", keyPosition: SpecPosition(key.mark),
            value: try SpecNode(value, depth: depth + 1, budget: &budget))
        }, position)
    case .alias:
      throw InvalidSpec(problems: [
        SpecProblem(path: "", position: position, message: "holds an alias without an anchor")
      ])
    }
  }
}

extension SpecPosition {
  fileprivate init(_ mark: Mark?) {
    self.init(line: mark?.line ?? 0, column: mark?.column ?? 0)
  }
}

extension SpecProblem {
  fileprivate init(_ error: YamlError) {
    switch error {
    case .scanner(_, let problem, let mark, _), .parser(_, let problem, let mark, _),
      .composer(_, let problem, let mark, _):
      self.init(
        path: "", position: SpecPosition(mark), message: "is not valid YAML: \(problem)")
    case .duplicatedKeysInMapping(let duplicates, let context):
      self.init(
        path: duplicates.map { "\($0)" }.sorted().joined(separator: ", "),
        position: SpecPosition(context.mark),
        message: "the same key stands twice in one mapping; remove one of them")
    default:
      self.init(
        path: "", position: SpecPosition(line: 0, column: 0),
        message: "is not valid YAML: \(error)")
    }
  }
}
