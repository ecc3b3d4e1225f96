import ArgumentParser
import Foundation
import SweepCore
import SweepLedger

/// How long it takes to read the status of a large ledger.
struct StatusBenchmark: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "status",
    abstract: "The status of a ledger with many finished trials, opened anew each time.",
    discussion: "EXAMPLE:\n  biassweep-bench status --trials 100000")

  @Option(help: "Trials of the ledger, all with results.")
  var trials = 100_000
  @Option(help: "Measurements.")
  var rounds = 5

  private struct Output: Encodable {
    let benchmark = "status"
    let trials: Int
    let appendSeconds: Double
    let statusMillisecondsMedian: Double
    let ledgerMegabytes: Int

    enum CodingKeys: String, CodingKey {
      case benchmark, trials
      case appendSeconds = "append_s"
      case statusMillisecondsMedian = "status_ms_median"
      case ledgerMegabytes = "ledger_mb"
    }
  }

  func validate() throws {
    guard trials > 0, rounds > 0 else {
      throw ValidationError("--trials and --rounds take numbers from 1.")
    }
  }

  func run() async throws {
    let directory = FileManager.default.temporaryDirectory
      .appendingPathComponent("biassweep-bench-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }  // a left-over file harms nobody
    let path = directory.appendingPathComponent("bench.ledger").path
    let definition = try BenchmarkSweep.definition(shards: trials)
    let plan = definition.plan
    let clock = ContinuousClock()

    let appendStarted = clock.now
    let ledger = try Ledger(
      path: path, spec: definition.spec, plan: plan, version: "bench", now: 0)
    try ledger.append(
      [.workerJoined(WorkerInfo(id: "w", host: "h", processID: 1, slots: 1, threads: 1))], now: 0)
    var token: UInt64 = 0
    for chunk in stride(from: 0, to: plan.shards.count, by: 1000) {
      let events = plan.shards[chunk..<min(chunk + 1000, plan.shards.count)].flatMap { shard in
        token += 1
        return [
          SweepEvent.shardLeased(
            shard: shard.id, worker: "w", token: LeaseToken(token), attempt: 1)
        ]
          + shard.trials.map {
            .trialCompleted(
              trial: $0.id, token: LeaseToken(token),
              metrics: ["accuracy": 0.5, "macro_f1": 0.5, "gap": 0.1], notes: [:])
          }
          + [
            .shardCompleted(
              shard: shard.id, token: LeaseToken(token), artifact: nil, facts: ["loss": 1])
          ]
      }
      try ledger.append(events, now: Double(chunk))
    }
    let appendSeconds = appendStarted.duration(to: clock.now) / .seconds(1)

    var times: [Double] = []
    for _ in 0..<rounds {
      let started = clock.now
      let status = try LedgerReader(path: path).status(now: Double(trials))
      times.append(started.duration(to: clock.now) / .seconds(1))
      guard status.completed == trials else {
        throw ValidationError("the ledger says \(status.completed) of \(trials) trials")
      }
    }
    let size = try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int ?? 0
    try BenchmarkOutput.print(
      Output(
        trials: trials, appendSeconds: appendSeconds,
        statusMillisecondsMedian: times.sorted()[rounds / 2] * 1000,
        ledgerMegabytes: size >> 20))
  }
}
