import ArgumentParser
import Foundation

@main
struct Bench: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "biassweep-bench",
    abstract: "Benchmarks; each prints one JSON line.",
    discussion: """
      Machines differ and are shared: compare ratios measured side by side, not absolute figures.
      """,
    subcommands: [
      StepBenchmark.self, GEMMBenchmark.self, DispatchBenchmark.self, StatusBenchmark.self,
    ])
}

enum BenchmarkOutput {
  /// Prints one JSON line with sorted keys.
  static func print(_ value: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    var line = try encoder.encode(value)
    line.append(UInt8(ascii: "\n"))
    try FileHandle.standardOutput.write(contentsOf: line)
  }

  /// Largest resident set of this process so far.
  static func peakMegabytes() -> Int {
    var usage = rusage()
    getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    return usage.ru_maxrss / 1024
  }
}
