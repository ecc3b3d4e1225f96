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
      StepBenchmark.self, GridBenchmark.self, GEMMBenchmark.self, DispatchBenchmark.self,
      StatusBenchmark.self, RecoveryBenchmark.self, FailoverBenchmark.self, LightClients.self,
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

  /// Processor time of this process so far, of all threads.
  static func cpuSeconds() -> Double {
    var usage = rusage()
    getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }
    return seconds(usage.ru_utime) + seconds(usage.ru_stime)
  }

  /// Largest resident set of this process so far.
  static func peakMegabytes() -> Int {
    var usage = rusage()
    getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    return usage.ru_maxrss / 1024
  }
}
