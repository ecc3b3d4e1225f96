/// Reads one mapping of a spec key by key and remembers every problem instead of stopping at the
/// first. Keys that nobody asked for are problems too; call `finish()` to have them reported.
struct SpecDecoder {
  private let path: String
  private let position: SpecPosition
  private let entries: [SpecEntry]
  private var asked: [String] = []
  private(set) var problems: [SpecProblem] = []

  /// - Parameter node: nil for a mapping that the document leaves out: every key has its default.
  init(_ node: SpecNode?, path: String) {
    self.path = path
    switch node {
    case .mapping(let entries, let position):
      self.entries = entries
      self.position = position
      var seen: Set<String> = []
      for entry in entries where !seen.insert(entry.key).inserted {
        problems.append(
          SpecProblem(
            path: path.isEmpty ? entry.key : "\(path).\(entry.key)", position: entry.keyPosition,
            message: "the key stands here a second time; remove one of the two"))
      }
    case .none:
      entries = []
      position = SpecPosition(line: 0, column: 0)
    case .some(let other):
      entries = []
      position = other.position
      problems.append(
        SpecProblem(
          path: path, position: other.position,
          message: "expected a mapping of keys to values, found \(other.kind)"))
    }
  }

  private func childPath(_ key: String) -> String { path.isEmpty ? key : "\(path).\(key)" }

  private mutating func value(_ key: String) -> SpecNode? {
    asked.append(key)
    return entries.first { $0.key == key }?.value
  }

  /// - Parameters:
  ///   - key: the key that is wrong, or a path below one of the mapping's keys; empty for the mapping.
  ///   - node: where the problem stands; nil for the value of `key`.
  mutating func report(_ key: String, at node: SpecNode? = nil, _ message: String) {
    let first = key.prefix { $0 != "." && $0 != "[" }
    let place = node ?? entries.first { $0.key == first }?.value
    problems.append(
      SpecProblem(
        path: key.isEmpty ? path : childPath(key), position: place?.position ?? position,
        message: message))
  }

  /// Reports a key that makes no sense beside the other values of the mapping.
  mutating func forbid(_ key: String, _ message: String) {
    if let node = value(key) { report(key, at: node, message) }
  }

  /// A section of its own; merge its problems with `absorb` when it is read.
  mutating func section(_ key: String) -> SpecDecoder {
    SpecDecoder(value(key), path: childPath(key))
  }

  mutating func absorb(_ section: SpecDecoder) {
    var section = section
    section.finish()
    problems += section.problems
  }

  mutating func finish() {
    for entry in entries where !asked.contains(entry.key) {
      let near = asked.min {
        ($0.editDistance(to: entry.key), $0) < ($1.editDistance(to: entry.key), $1)
      }
      let hint =
        if let near, near.editDistance(to: entry.key) <= 3 { "; did you mean \"\(near)\"?" } else {
          "; known keys here: \(asked.sorted().joined(separator: ", "))"
        }
      problems.append(
        SpecProblem(
          path: childPath(entry.key), position: entry.keyPosition, message: "unknown key\(hint)"))
    }
  }

  // MARK: Values

  /// Reads one scalar. On a problem the default (or `fallback`) stands in so that reading goes on.
  private mutating func scalar<Value>(
    _ key: String, default defaultValue: Value?, fallback: Value, expected: String,
    parse: (String) -> Value?
  ) -> Value {
    guard let node = value(key) else {
      if defaultValue == nil { report(key, "is missing; expected \(expected)") }
      return defaultValue ?? fallback
    }
    guard case .scalar(let text, _) = node, let parsed = parse(text) else {
      report(key, at: node, "expected \(expected), found \(node.kind)")
      return defaultValue ?? fallback
    }
    return parsed
  }

  mutating func string(_ key: String, default defaultValue: String? = nil) -> String {
    scalar(key, default: defaultValue, fallback: "", expected: "a text that is not empty") {
      $0.isEmpty ? nil : $0
    }
  }

  /// The keys that stand in the mapping.
  var keys: [String] { entries.map(\.key) }

  /// One of the cases, which has to be named.
  mutating func requiredChoice<Value: RawRepresentable & CaseIterable>(
    _ key: String, fallback: Value
  ) -> Value where Value.RawValue == String {
    scalar(
      key, default: nil, fallback: fallback, expected: "one of \(Self.names(Value.self))",
      parse: { Value(rawValue: $0) })
  }

  /// A text, or nil where the key is left out.
  mutating func optionalString(_ key: String) -> String? {
    entries.contains { $0.key == key } ? string(key) : nil
  }

  /// A number, or nil where the key is left out.
  mutating func optionalNumber(_ key: String, _ expected: String) -> Double? {
    entries.contains { $0.key == key } ? number(key, expected) { _ in true } : nil
  }

  /// A list of texts; empty where the key is left out.
  mutating func texts(_ key: String, limit: Int) -> [String] {
    list(key, of: "texts", default: [], limit: limit, parse: { $0.isEmpty ? nil : $0 })
  }

  /// A mapping whose keys are free, in the document's order; empty where the key is left out.
  mutating func namedValues(_ key: String) -> [(name: String, value: SpecNode)] {
    switch value(key) {
    case nil: return []
    case .mapping(let entries, _)?:
      var seen: Set<String> = []
      for entry in entries where !seen.insert(entry.key).inserted {
        problems.append(
          SpecProblem(
            path: "\(childPath(key)).\(entry.key)", position: entry.keyPosition,
            message: "the key stands here a second time; remove one of the two"))
      }
      return entries.map { ($0.key, $0.value) }
    case let other?:
      report(key, at: other, "expected a mapping of names to values, found \(other.kind)")
      return []
    }
  }

  /// The elements of a list; empty where the key is left out.
  mutating func elements(_ key: String) -> [SpecNode] {
    switch value(key) {
    case nil: return []
    case .sequence(let elements, _)?: return elements
    case let other?:
      report(key, at: other, "expected a list, found \(other.kind)")
      return []
    }
  }

  /// A mapping of free names to texts.
  mutating func namedTexts(_ node: SpecNode, at path: String) -> [String: String] {
    guard case .mapping(let entries, _) = node else {
      report(path, at: node, "expected a mapping of fields to texts, found \(node.kind)")
      return [:]
    }
    var texts: [String: String] = [:]
    for entry in entries {
      guard case .scalar(let text, _) = entry.value else {
        report(
          "\(path).\(entry.key)", at: entry.value, "expected a text, found \(entry.value.kind)")
        continue
      }
      texts[entry.key] = text
    }
    return texts
  }

  /// A mapping within a list, as a section of its own; merge its problems with `absorb`.
  func section(_ node: SpecNode, at path: String) -> SpecDecoder {
    SpecDecoder(node, path: childPath(path))
  }

  mutating func integer(
    _ key: String, in range: ClosedRange<Int>, default defaultValue: Int? = nil
  ) -> Int {
    scalar(
      key, default: defaultValue, fallback: range.lowerBound,
      expected: "a whole number from \(range.lowerBound) to \(range.upperBound)"
    ) { Int($0).flatMap { range.contains($0) ? $0 : nil } }
  }

  mutating func flag(_ key: String, default defaultValue: Bool) -> Bool {
    scalar(
      key, default: defaultValue, fallback: defaultValue, expected: "true or false",
      parse: { Bool($0) })
  }

  mutating func seed(_ key: String, default defaultValue: UInt64) -> UInt64 {
    scalar(
      key, default: defaultValue, fallback: 0, expected: "a whole number that is not negative",
      parse: { UInt64($0) })
  }

  mutating func number(
    _ key: String, _ expected: String, default defaultValue: Double? = nil,
    where accepts: (Double) -> Bool
  ) -> Double {
    scalar(key, default: defaultValue, fallback: 0, expected: expected) {
      Double($0).flatMap { $0.isFinite && accepts($0) ? $0 : nil }
    }
  }

  /// A whole number, or `word` for nil.
  mutating func integer(
    _ key: String, in range: ClosedRange<Int>, orNilFor word: String, default defaultValue: Int?
  ) -> Int? {
    scalar(
      key, default: .some(defaultValue), fallback: nil,
      expected: "a whole number from \(range.lowerBound) to \(range.upperBound), or \"\(word)\""
    ) { text -> Int?? in
      if text == word { return .some(nil) }
      return Int(text).flatMap { range.contains($0) ? .some($0) : nil }
    }
  }

  mutating func choice<Value: RawRepresentable & CaseIterable>(
    _ key: String, default defaultValue: Value
  ) -> Value where Value.RawValue == String {
    let known = Value.allCases.map(\.rawValue).joined(separator: ", ")
    return scalar(
      key, default: defaultValue, fallback: defaultValue, expected: "one of \(known)",
      parse: { Value(rawValue: $0) })
  }

  /// An axis or other list: not empty, each element valid, none twice.
  mutating func list<Value: Hashable>(
    _ key: String, of expected: String, default defaultValue: [Value]? = nil, limit: Int,
    parse: (String) -> Value?
  ) -> [Value] {
    guard let node = value(key) else {
      if defaultValue == nil { report(key, "is missing; expected a list of \(expected)") }
      return defaultValue ?? []
    }
    guard case .sequence(let elements, _) = node else {
      report(key, at: node, "expected a list of \(expected), found \(node.kind)")
      return defaultValue ?? []
    }
    if elements.isEmpty { report(key, at: node, "is empty; expected \(expected)") }
    if elements.count > limit {
      report(key, at: node, "has \(elements.count) elements; at most \(limit) are allowed")
      return []
    }
    var values: [Value] = []
    var seen: Set<Value> = []
    for (index, element) in elements.enumerated() {
      guard case .scalar(let text, _) = element, let parsed = parse(text) else {
        report("\(key)[\(index)]", at: element, "expected \(expected), found \(element.kind)")
        continue
      }
      if seen.insert(parsed).inserted {
        values.append(parsed)
      } else {
        report("\(key)[\(index)]", at: element, "\(element.kind) stands in the list twice")
      }
    }
    return values
  }
}
