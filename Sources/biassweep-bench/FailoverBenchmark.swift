import ArgumentParser
import Foundation
import Logging
import SweepCoordinator
import SweepCore
import SweepLedger
import Synchronization

/// How long a shard stays with a worker that is gone.
struct FailoverBenchmark: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "failover",
    abstract: "From the end of a worker to the next lease of its shard.",
    discussion: """
      A worker process with a lease is killed, or with --silent stopped, so that its connection \
      stays open but nothing comes any more. Another worker waits for the shard. The defaults of a \
      sweep's `execution` settings are in force.

      EXAMPLES:
        biassweep-bench failover
        biassweep-bench failover --silent --rounds 1
      """)

  @Option(help: "Measurements.")
  var rounds = 5
  @Flag(help: "Stop the worker (SIGSTOP) instead of killing it.")
  var silent = false

  private struct Output: Encodable {
    let benchmark = "failover"
    let silent: Bool
    let rounds: Int
    let medianSeconds: Double
    let longestSeconds: Double

    enum CodingKeys: String, CodingKey {
      case benchmark, silent, rounds
      case medianSeconds = "release_s_median"
      case longestSeconds = "release_s_max"
    }
  }

  func validate() throws {
    guard rounds > 0 else { throw ValidationError("--rounds takes a number from 1.") }
  }

  func run() async throws {
    var times: [Double] = []
    for _ in 0..<rounds { times.append(try await measure()) }
    times.sort()
    try BenchmarkOutput.print(
      Output(
        silent: silent, rounds: rounds, medianSeconds: times[rounds / 2],
        longestSeconds: times[rounds - 1]))
  }

  private func measure() async throws -> Double {
    let directory = FileManager.default.temporaryDirectory
      .appendingPathComponent("biassweep-bench-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }  // a left-over file harms nobody
    let definition = try BenchmarkSweep.definition(shards: 1)
    var logger = Logger(label: "bench") { StreamLogHandler.standardError(label: $0) }
    logger.logLevel = .error
    let ledger = try Ledger(
      path: directory.appendingPathComponent("bench.ledger").path, spec: definition.spec,
      plan: definition.plan, version: "bench", now: Date().timeIntervalSince1970)
    let coordinator = try Coordinator(
      definition: definition, plan: definition.plan, ledger: ledger, version: "bench",
      keepLeases: false, logger: logger)
    let server = try CoordinatorServer(
      coordinator: coordinator,
      artifacts: try ArtifactStore(directory: directory.appendingPathComponent("artifacts")),
      host: "127.0.0.1", port: 0)
    let signal = silent ? SIGSTOP : SIGKILL
    let result = Mutex<Task<Double, any Error>?>(nil)
    _ = try await server.run { port in
      result.withLock {
        $0 = Task {
          let seconds = try await Self.loseWorker(of: coordinator, port: port, to: signal)
          await coordinator.suspend()
          return seconds
        }
      }
    }
    try ledger.close()
    guard let task = result.withLock({ $0 }) else { throw CancellationError() }
    return try await task.value
  }

  /// Ends a worker that holds the only shard while another waits for it.
  private static func loseWorker(
    of coordinator: Coordinator, port: Int, to signal: Int32
  ) async throws -> Double {
    let victim = Process()
    victim.executableURL = Bundle.main.executableURL
    victim.arguments = [
      "clients", "--port", "\(port)", "--first", "0", "--workers", "1", "--slots", "1",
      "--shard-seconds", "3600",
    ]
    victim.standardOutput = FileHandle.nullDevice
    try victim.run()
    defer { kill(victim.processIdentifier, SIGKILL) }
    while await coordinator.summary().shardsRunning == 0 {
      try await Task.sleep(for: .milliseconds(10))
    }
    let clock = ContinuousClock()
    let (assignments, assigned) = AsyncStream.makeStream(of: ContinuousClock.Instant.self)
    let heir = LightClient(number: 1, port: port, slots: 1, shardSeconds: 3600) {
      assigned.yield(clock.now)
    }
    let work = Task { try await heir.run() }
    defer { work.cancel() }
    while await coordinator.summary().workers < 2 {
      try await Task.sleep(for: .milliseconds(10))
    }
    let end = clock.now
    kill(victim.processIdentifier, signal)
    for await moment in assignments { return end.duration(to: moment) / .seconds(1) }
    throw CancellationError()
  }
}
