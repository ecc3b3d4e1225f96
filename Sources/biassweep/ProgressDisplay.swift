import Foundation
import SweepCore

/// Progress on standard error: one line that is rewritten on a terminal, plain lines elsewhere
/// (whenever a trial is done, and at least every half minute).
struct ProgressDisplay {
  private let isTerminal: Bool
  private let start: SweepSummary
  private let started: Date
  private var lastPrinted: Date?
  private var lastSummary: SweepSummary?
  private var lastLength = 0

  private static let plainIntervalSeconds = 30.0

  init(start: SweepSummary) {
    isTerminal = isatty(2) == 1
    self.start = start
    started = Date()
  }

  mutating func show(_ summary: SweepSummary) {
    if !isTerminal {
      let changed =
        lastSummary?.trialsCompleted != summary.trialsCompleted
        || lastSummary?.trialsFailed != summary.trialsFailed
        || lastSummary?.shardsCompleted != summary.shardsCompleted
      let silent = lastPrinted.map { -$0.timeIntervalSinceNow } ?? .infinity
      guard changed || silent >= Self.plainIntervalSeconds else { return }
    }
    lastSummary = summary
    lastPrinted = Date()
    let line = text(summary)
    if isTerminal {
      let blank = String(repeating: " ", count: max(0, lastLength - line.count))
      FileHandle.standardError.write(Data("\r\(line)\(blank)".utf8))
      lastLength = line.count
    } else {
      Console.error(line)
    }
  }

  /// Ends the rewritten line.
  mutating func finish() {
    if isTerminal && lastLength > 0 { Console.error("") }
    lastLength = 0
  }

  private func text(_ summary: SweepSummary) -> String {
    var parts = [
      "\(summary.trialsCompleted)/\(summary.trials) trials",
      "\(summary.shardsCompleted)/\(summary.shards) shards",
      "\(summary.shardsRunning) running", "\(summary.trialsFailed) failed",
      "\(summary.workers) worker\(summary.workers == 1 ? "" : "s")",
    ]
    if summary.tokensPerSecond > 0 { parts.append("\(Int(summary.tokensPerSecond)) tokens/s") }
    parts.append("\(Seconds(-started.timeIntervalSinceNow)) gone")
    if let left = secondsLeft(summary) { parts.append("\(Seconds(left)) left") }
    return parts.joined(separator: " · ")
  }

  /// From the speed of this run so far; nil while too little is done to say.
  private func secondsLeft(_ summary: SweepSummary) -> Double? {
    let elapsed = -started.timeIntervalSinceNow
    let done = summary.workDone - start.workDone
    guard done > 0.01 * summary.work, elapsed > 1 else { return nil }
    return max(0, summary.work - summary.workDone) * elapsed / done
  }
}
