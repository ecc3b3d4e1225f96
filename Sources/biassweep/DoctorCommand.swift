import ArgumentParser
import BiasStudy
import Foundation
import TransformerKernels

struct DoctorCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "doctor",
    abstract: "Check this machine: processor, kernels, speed, memory, disk, model and data.",
    discussion: """
      Measures for a few seconds, reads the converted weights and the data in full, and says what \
      to do about what is missing, damaged or slow. Exit status 1 if a sweep cannot run.

      EXAMPLES:
        biassweep doctor
        biassweep doctor --json | jq .findings
        srun biassweep doctor --threads 8             on a node of a cluster
      """)

  @Option(help: "Threads to measure with. Default: the processors.")
  var threads: Int?

  @Flag(help: "Print one JSON object.")
  var json = false

  func validate() throws {
    guard (threads ?? 1) > 0 else { throw ValidationError("--threads takes a number from 1.") }
  }

  private struct Output: Encodable {
    let setUp: SetUp
    let findings: [Finding]

    enum CodingKeys: String, CodingKey {
      case findings
    }

    func encode(to encoder: any Encoder) throws {
      try setUp.encode(to: encoder)
      var container = encoder.container(keyedBy: CodingKeys.self)
      try container.encode(findings, forKey: .findings)
    }
  }

  func run() throws {
    let setUp = SetUp.found(threads: threads ?? ProcessInfo.processInfo.activeProcessorCount)
    let findings = setUp.findings
    if json {
      try Console.output(json: Output(setUp: setUp, findings: findings))
    } else {
      Console.output(setUp.text)
      for finding in findings {
        Console.output("\n\(finding.level.rawValue): \(finding.problem)\n  \(finding.remedy)")
      }
      if findings.isEmpty { Console.output("\nNothing is wrong.") }
    }
    if findings.contains(where: { $0.level == .error }) {
      throw ExitStatus.failedTrials.code
    }
  }
}

extension SetUp {
  fileprivate var text: String {
    func gigabytes(_ bytes: Int?) -> String {
      bytes.map { String(format: "%.1f GB", Double($0) / 1e9) } ?? "unknown"
    }
    var lines = [
      "processor        \(processor ?? architecture) (\(architecture), "
        + "\(instructionSets.joined(separator: " ")))",
      "kernels          \(kernels); arithmetic \(arithmetic)",
      "OpenBLAS         \(openBLAS)",
      "multiplication   "
        + String(
          format: "%.0f GFLOP/s with 1 thread, %.0f with %d", gigaflopsOneThread, gigaflops,
          threads),
      "memory           \(gigabytes(memoryBytes)), \(gigabytes(availableMemoryBytes)) available, "
        + String(format: "%.0f GB/s", memoryBandwidth),
      "disk             \(gigabytes(freeDiskBytes)) free at \(cacheDirectory)"
        + (syncSeconds.map { String(format: "; a durable write here takes %.1f ms", $0 * 1000) }
          ?? ""),
      "open files       \(openFilesMax.map(String.init) ?? "unknown")",
    ]
    for model in models {
      let parameters = model.parameters.map {
        String(format: ", %.1f million parameters", Double($0) / 1e6)
      }
      lines.append(
        "model            \(model.name)\(parameters ?? ""), converted weights "
          + model.weights.rawValue)
    }
    for state in [Dataset.State.verified, .absent, .damaged] {
      let names = datasets.filter { $0.state == state }.map(\.name)
      guard !names.isEmpty else { continue }
      lines.append(
        "data \(state.rawValue)".padding(toLength: 17, withPad: " ", startingAt: 0)
          + names.joined(separator: ", "))
    }
    if !readyPresets.isEmpty {
      lines.append("presets ready    \(readyPresets.joined(separator: ", "))")
    }
    return lines.joined(separator: "\n")
  }
}
