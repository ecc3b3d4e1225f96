import SweepCore

/// A sweep for benchmarks of everything but the training core.
enum BenchmarkSweep {
  /// As many shards as asked for, with one trial each: one fine-tune for each seed.
  static func definition(shards: Int) throws -> SweepDefinition {
    let nowhere = SpecPosition(line: 0, column: 0)
    func entry(_ key: String, _ value: SpecNode) -> SpecEntry {
      SpecEntry(key: key, keyPosition: nowhere, value: value)
    }
    func list(_ key: String, _ values: [String]) -> SpecEntry {
      entry(key, .sequence(values.map { .scalar($0, nowhere) }, nowhere))
    }
    return try SweepDefinition(
      document: .mapping(
        [
          entry("name", .scalar("bench", nowhere)),
          list("tasks", ["occupation"]), list("biases", ["contextual-single-explicit"]),
          list("ratios", ["0"]), list("seeds", (1...shards).map(String.init)),
        ], nowhere), catalogue: .builtIn)
  }
}
