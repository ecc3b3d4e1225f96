import Foundation

/// `scripts/reference_step.py` in a process of its own, which does a step when asked to.
final class StepPeer {
  private let process = Process()
  private let input = Pipe()
  private let output = Pipe()
  private var pending = Data()

  /// Starts the script and waits until its model is loaded.
  ///
  /// - Throws: `StepPeerError`, or what starting a process throws.
  init(python: String, script: String, arguments: [String]) throws {
    process.executableURL = URL(filePath: "/usr/bin/env")
    process.arguments = [python, script] + arguments
    process.standardInput = input
    process.standardOutput = output
    process.standardError = FileHandle.nullDevice
    try process.run()
    _ = try line()
  }

  /// Seconds of a step on batch `number`.
  func step(_ number: Int) throws -> Double {
    try input.fileHandleForWriting.write(contentsOf: Data("\(number)\n".utf8))
    return try self.number(in: line())
  }

  /// Ends the process. - Returns: its peak resident memory in MiB.
  func finish() throws -> Double {
    try input.fileHandleForWriting.close()
    let peak = try number(in: line())
    process.waitUntilExit()
    return peak
  }

  private func number(in text: String) throws -> Double {
    guard let value = Double(text) else { throw StepPeerError.notANumber(text) }
    return value
  }

  private func line() throws -> String {
    let newline = UInt8(ascii: "\n")
    while true {
      if let end = pending.firstIndex(of: newline) {
        let text = String(decoding: pending[..<end], as: UTF8.self)
        pending = Data(pending[pending.index(after: end)...])
        return text
      }
      let more = output.fileHandleForReading.availableData
      guard !more.isEmpty else {
        process.waitUntilExit()
        throw StepPeerError.ended(
          command: (process.arguments ?? []).joined(separator: " "),
          status: process.terminationStatus)
      }
      pending.append(more)
    }
  }
}

/// Why the reference gave no time.
enum StepPeerError: Error, CustomStringConvertible {
  case ended(command: String, status: Int32)
  case notANumber(String)

  var description: String {
    switch self {
    case .ended(let command, let status):
      """
      the reference ended with status \(status): run `\(command)` by hand to see why; it needs \
      torch, transformers and peft
      """
    case .notANumber(let text):
      "the reference answered \(text), not a number of seconds"
    }
  }
}
