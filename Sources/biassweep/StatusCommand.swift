import ArgumentParser
import Foundation
import SweepCore
import SweepLedger

struct StatusCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "status", abstract: "Print where a sweep stands, also while it runs.",
    discussion: """
      EXAMPLES:
        biassweep status --ledger smoke.ledger
        watch -n 2 biassweep status --ledger smoke.ledger
        biassweep status --ledger smoke.ledger --json | jq .eta_seconds
      """)

  @Option(help: "The sweep's ledger.")
  var ledger: String

  @Flag(help: "Print one JSON object.")
  var json = false

  private struct Output: Encodable {
    let trialsDeclared: Int
    let trialsDistinct: Int
    let trialsCompleted: Int
    let trialsFailed: Int
    let running: Int
    let fineTunesRun: Int
    let attempts: Int
    let shards: Int
    let shardsCompleted: Int
    let workers: Int
    let coordinatorRunning: Bool
    let etaSeconds: Double?
    let orchestrationOverhead: Double?
    let resultDigest: String

    enum CodingKeys: String, CodingKey {
      case trialsDeclared = "trials_declared"
      case trialsDistinct = "trials_distinct"
      case trialsCompleted = "trials_completed"
      case trialsFailed = "trials_failed"
      case running
      case fineTunesRun = "fine_tunes_run"
      case attempts, shards
      case shardsCompleted = "shards_completed"
      case workers
      case coordinatorRunning = "coordinator_running"
      case etaSeconds = "eta_seconds"
      case orchestrationOverhead = "orchestration_overhead"
      case resultDigest = "result_digest"
    }

    func encode(to encoder: any Encoder) throws {
      var container = encoder.container(keyedBy: CodingKeys.self)
      try container.encode(trialsDeclared, forKey: .trialsDeclared)
      try container.encode(trialsDistinct, forKey: .trialsDistinct)
      try container.encode(trialsCompleted, forKey: .trialsCompleted)
      try container.encode(trialsFailed, forKey: .trialsFailed)
      try container.encode(running, forKey: .running)
      try container.encode(fineTunesRun, forKey: .fineTunesRun)
      try container.encode(attempts, forKey: .attempts)
      try container.encode(shards, forKey: .shards)
      try container.encode(shardsCompleted, forKey: .shardsCompleted)
      try container.encode(workers, forKey: .workers)
      try container.encode(coordinatorRunning, forKey: .coordinatorRunning)
      // Present even while unknown, as null, so that scripts always find the key.
      try container.encode(etaSeconds, forKey: .etaSeconds)
      try container.encode(orchestrationOverhead, forKey: .orchestrationOverhead)
      try container.encode(resultDigest, forKey: .resultDigest)
    }
  }

  func run() async throws {
    let reader = try LedgerReader(path: ledger)
    let sweep = try reader.sweep()
    let status = try reader.status(now: Date().timeIntervalSince1970)
    if json {
      try Console.output(
        json: Output(
          trialsDeclared: status.declared, trialsDistinct: status.trials,
          trialsCompleted: status.completed, trialsFailed: status.failed,
          running: status.running, fineTunesRun: status.fineTunesRun, attempts: status.attempts,
          shards: status.shards, shardsCompleted: status.shardsCompleted,
          workers: status.workers, coordinatorRunning: status.coordinatorRunning,
          etaSeconds: status.etaSeconds, orchestrationOverhead: status.overhead,
          resultDigest: try reader.resultDigest().description))
      return
    }
    let state =
      if status.completed == status.trials {
        "finished"
      } else if status.coordinatorRunning {
        "running"
      } else {
        "not running; give its run command again to go on"
      }
    Console.output(
      """
      sweep        \(sweep.name), \(state)
      trials       \(status.completed) of \(status.trials) done, \(status.running) running, \
      \(status.failed) failed  (\(status.declared) declared)
      shards       \(status.shardsCompleted) of \(status.shards) done, \
      \(status.shardsQuarantined) quarantined
      fine-tunes   \(status.fineTunesRun) run
      attempts     \(status.attempts)
      workers      \(status.workers)
      time left    \(status.etaSeconds.map { "\(Seconds($0))" } ?? "unknown")
      overhead     \(status.overhead.map { "\(($0 * 10_000).rounded() / 100) % of the shards' time" } ?? "unknown")
      """)
    for failure in try reader.failures() {
      Console.output("quarantined  \(failure.shard): \(failure.reason)")
      for attempt in failure.attempts { Console.output("             \(attempt)") }
    }
  }
}
