import ArgumentParser
import Foundation
import Logging
import SweepCoordinator
import SweepCore
import SweepLedger
import SweepRPC

/// How long a coordinator needs from its start to its first answer when its sweep is large.
struct RecoveryBenchmark: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "recovery",
    abstract: "The restart of a coordinator in the middle of a large sweep.",
    discussion: """
      A ledger is filled by a run that is cut off after nine tenths of its shards; then a process \
      of its own plans, opens the ledger, recovers and listens. Its times and its memory are \
      printed; the ledger is examined beside the planning, and open_s is what is left after it.

      EXAMPLE:
        biassweep-bench recovery --trials 100000
      """)

  @Option(help: "Trials of the sweep.")
  var trials = 100_000

  @Option(help: .hidden)
  var restart: String?

  private struct Output: Encodable {
    let benchmark = "recovery"
    let trials: Int
    let planSeconds: Double
    let openSeconds: Double
    let recoverSeconds: Double
    let servingSeconds: Double
    let ledgerMegabytes: Int
    let peakMegabytes: Int

    enum CodingKeys: String, CodingKey {
      case benchmark, trials
      case planSeconds = "plan_s"
      case openSeconds = "open_s"
      case recoverSeconds = "recover_s"
      case servingSeconds = "start_to_serving_s"
      case ledgerMegabytes = "ledger_mb"
      case peakMegabytes = "peak_rss_mb"
    }
  }

  func validate() throws {
    guard trials > 0 else { throw ValidationError("--trials takes a number from 1.") }
  }

  func run() async throws {
    if let restart { return try await measure(directory: URL(fileURLWithPath: restart)) }
    let directory = FileManager.default.temporaryDirectory
      .appendingPathComponent("biassweep-bench-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }  // a left-over file harms nobody
    try await fill(directory)
    let process = Process()
    process.executableURL = Bundle.main.executableURL
    process.arguments = ["recovery", "--trials", "\(trials)", "--restart", directory.path]
    try process.run()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else { throw ExitCode(process.terminationStatus) }
  }

  private var logger: Logger {
    var logger = Logger(label: "bench") { StreamLogHandler.standardError(label: $0) }
    logger.logLevel = .error
    return logger
  }

  private func ledger(_ definition: SweepDefinition, _ plan: ShardPlan, in directory: URL) throws
    -> Ledger
  {
    try Ledger(
      path: directory.appendingPathComponent("bench.ledger").path, spec: definition.spec,
      plan: plan, version: "bench", now: Date().timeIntervalSince1970)
  }

  /// Completes nine tenths of the shards, with a worker that leaves without a word.
  private func fill(_ directory: URL) async throws {
    let definition = try BenchmarkSweep.definition(shards: trials)
    let plan = definition.plan
    let ledger = try ledger(definition, plan, in: directory)
    let coordinator = try Coordinator(
      definition: definition, plan: plan, ledger: ledger, version: "bench", keepLeases: true,
      logger: logger)
    let (connection, outgoing) = await coordinator.open(
      WorkerInfo(id: "bench", host: "localhost", processID: 0, slots: 64, threads: 1))
    try await coordinator.receive(
      [
        .with { $0.ready = .with { $0.inputs = ["bench": "none"] } },
        .with { $0.workRequest = .with { $0.slots = 64 } },
      ], connection: connection)
    let wanted = trials * 9 / 10
    var assigned = 0
    var acknowledged = 0
    do {
      try await outgoing.drain { messages in
        var reports: [WorkerMessage] = []
        for message in messages {
          switch message.body {
          case .assignment(let assignment) where assigned < wanted:
            assigned += 1
            reports += Self.reports(on: assignment)
          case .acknowledgement: acknowledged += 1
          default: break
          }
        }
        if acknowledged == wanted { throw Filled() }
        try await coordinator.receive(reports, connection: connection)
      }
    } catch is Filled {
      try ledger.close()
    }
  }

  private struct Filled: Error {}

  /// What a worker says of a shard that it completed; only the end is to be acknowledged.
  private static func reports(on assignment: Biassweep_V1_Assignment) -> [WorkerMessage] {
    assignment.trials.map { trial in
      .with {
        $0.trial = .with {
          $0.token = assignment.token
          $0.trial = trial
          $0.metrics = ["accuracy": 0.5, "macro_f1": 0.5, "gap": 0.1]
        }
      }
    } + [
      .with {
        $0.request = 1
        $0.shard = .with {
          $0.token = assignment.token
          $0.facts = ["loss": 1]
        }
      }, .with { $0.workRequest = .with { $0.slots = 1 } },
    ]
  }

  private func measure(directory: URL) async throws {
    let clock = ContinuousClock()
    let start = clock.now
    @Sendable func elapsed() -> Double { start.duration(to: clock.now) / .seconds(1) }
    let definition = try BenchmarkSweep.definition(shards: trials)
    let opening = try LedgerOpening(
      path: directory.appendingPathComponent("bench.ledger").path, spec: definition.spec,
      version: "bench")
    let plan = definition.plan
    let planned = elapsed()
    let ledger = try Ledger(opening, plan: plan, now: Date().timeIntervalSince1970)
    let opened = elapsed()
    let coordinator = try Coordinator(
      definition: definition, plan: plan, ledger: ledger, version: "bench", keepLeases: true,
      logger: logger)
    let recovered = elapsed()
    let server = try CoordinatorServer(
      coordinator: coordinator,
      artifacts: try ArtifactStore(directory: directory.appendingPathComponent("artifacts")),
      host: "127.0.0.1", port: 0)
    let summary = try await server.run { _ in
      let serving = elapsed()
      let path = directory.appendingPathComponent("bench.ledger").path
      let size = try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int ?? 0
      try BenchmarkOutput.print(
        Output(
          trials: trials, planSeconds: planned, openSeconds: opened - planned,
          recoverSeconds: recovered - opened, servingSeconds: serving,
          ledgerMegabytes: size >> 20, peakMegabytes: BenchmarkOutput.peakMegabytes()))
      await coordinator.suspend()
    }
    guard summary.trialsCompleted == trials * 9 / 10 else {
      throw ValidationError("\(summary.trialsCompleted) of \(trials) trials were recovered")
    }
  }
}
