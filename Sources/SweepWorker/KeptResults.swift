import Foundation
import SweepCore
import SweepRPC

/// Results of one shard on this machine's disk, from their completion to that of the shard: a worker
/// that dies while no coordinator can be reached does not take them with it. Whoever gets the shard
/// next on this machine reports them instead of computing them again.
///
/// They only save time. What cannot be written is not kept, and a line that is cut off or not of this
/// origin is passed over.
struct KeptResults {
  private let path: String
  private let origin: String

  /// - Parameters:
  ///   - checkpoint: the shard's, beside which the results lie and with which they are removed.
  ///   - version: of the program.
  ///   - inputs: what results depend on besides the sweep.
  init(beside checkpoint: String, version: String, inputs: [String: String]) {
    path = checkpoint + ".results"
    origin =
      ([version] + inputs.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" })
      .joined(separator: "\n")
  }

  func add(_ reports: [Biassweep_V1_TrialReport]) {
    guard !reports.isEmpty else { return }
    var lines = ""
    for report in reports {
      guard let bytes: Data = try? report.serializedBytes() else { continue }
      let text = bytes.base64EncodedString()
      lines += "\(digest(of: text)) \(text)\n"
    }
    let descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { return }
    defer { close(descriptor) }
    // A new line first: what a full disk cut off before stays a line of its own.
    let text = Array(("\n" + lines).utf8)
    _ = text.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
  }

  /// What was kept of these trials, one report of each.
  func reports(of trials: Set<String>) -> [Biassweep_V1_TrialReport] {
    guard let data = FileManager.default.contents(atPath: path) else { return [] }
    var found: [String: Biassweep_V1_TrialReport] = [:]
    for line in data.split(separator: UInt8(ascii: "\n")) {
      let parts = String(decoding: line, as: UTF8.self).split(separator: " ")
      guard parts.count == 2, parts[0] == digest(of: String(parts[1])),
        let bytes = Data(base64Encoded: String(parts[1])),
        let report = try? Biassweep_V1_TrialReport(serializedBytes: bytes),
        trials.contains(report.trial)
      else { continue }
      found[report.trial] = report
    }
    return found.sorted { $0.key < $1.key }.map(\.value)
  }

  func remove() { unlink(path) }

  private func digest(of text: String) -> String {
    ContentDigest(of: "\(origin)\n\(text)".utf8).description
  }
}
