import StudyDocuments
import SweepCore

/// A sweep for benchmarks of everything but the training core.
enum BenchmarkSweep {
  /// As many shards as asked for, with one trial each: one fine-tune for each seed.
  static func definition(shards: Int) throws -> SweepDefinition {
    try SweepDefinition(
      document: document([
        "name": ["bench"], "tasks": ["occupation"], "biases": ["contextual-single-explicit"],
        "ratios": ["0"], "seeds": (1...shards).map(String.init),
      ]), catalogue: .builtIn)
  }

  /// A spec document from dotted keys; several values make a list, as does every axis.
  static func document(_ settings: [String: [String]]) -> SpecNode {
    let nowhere = SpecPosition(line: 0, column: 0)
    let axes: Set<String> = ["tasks", "biases", "ratios", "mitigations", "seeds"]
    var sections: [String: [SpecEntry]] = [:]
    for (key, values) in settings.sorted(by: { $0.key < $1.key }) {
      let parts = key.split(separator: ".").map(String.init)
      let scalars = values.map { SpecNode.scalar($0, nowhere) }
      sections[parts.count == 1 ? "" : parts[0], default: []].append(
        SpecEntry(
          key: parts[parts.count - 1], keyPosition: nowhere,
          value: scalars.count > 1 || axes.contains(key)
            ? .sequence(scalars, nowhere) : scalars[0]))
    }
    let nested = sections.filter { !$0.key.isEmpty }.sorted { $0.key < $1.key }
      .map { SpecEntry(key: $0.key, keyPosition: nowhere, value: .mapping($0.value, nowhere)) }
    return .mapping(sections["", default: []] + nested, nowhere)
  }
}
