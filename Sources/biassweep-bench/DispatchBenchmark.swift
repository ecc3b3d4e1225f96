import ArgumentParser
import Foundation
import Logging
import SweepCoordinator
import SweepCore
import SweepLedger
import SweepWorker
import Synchronization

/// How fast a coordinator hands out shards that do nothing: real TCP, durable ledger.
struct DispatchBenchmark: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "dispatch",
    abstract: "Shards that do nothing, over TCP on loopback, into a durable ledger.",
    discussion: """
      p99_lease_ms is the 99th percentile of the time from the end of one shard on a slot of a \
      worker to the start of the next on any of its slots: report, commit, lease and assignment.

      EXAMPLE:
        biassweep-bench dispatch --shards 10000 --workers 4 --slots 4
      """)

  @Option(help: "Shards to dispatch.")
  var shards = 5000
  @Option(help: "Workers, in this process, each with a connection of its own.")
  var workers = 2
  @Option(help: "Slots of each worker.")
  var slots = 4

  private struct Output: Encodable {
    let benchmark = "dispatch"
    let shards: Int
    let workers: Int
    let slots: Int
    let seconds: Double
    let shardsPerSecond: Double
    let cpuMillisecondsPerShard: Double
    let p99LeaseMilliseconds: Double
    let peakMegabytes: Int

    enum CodingKeys: String, CodingKey {
      case benchmark, shards, workers, slots, seconds
      case shardsPerSecond = "shards_per_s"
      case cpuMillisecondsPerShard = "cpu_ms_per_shard"
      case p99LeaseMilliseconds = "p99_lease_ms"
      case peakMegabytes = "peak_rss_mb"
    }
  }

  func validate() throws {
    guard shards > 0, workers > 0, slots > 0 else {
      throw ValidationError("--shards, --workers and --slots take numbers from 1.")
    }
  }

  func run() async throws {
    let directory = FileManager.default.temporaryDirectory
      .appendingPathComponent("biassweep-bench-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }  // a left-over file harms nobody

    let definition = try BenchmarkSweep.definition(shards: shards)
    let plan = definition.plan
    var logger = Logger(label: "bench") { StreamLogHandler.standardError(label: $0) }
    logger.logLevel = .error
    let quiet = logger
    let ledger = try Ledger(
      path: directory.appendingPathComponent("bench.ledger").path, spec: definition.spec,
      plan: plan, version: "bench", now: Date().timeIntervalSince1970)
    let coordinator = try Coordinator(
      definition: definition, plan: plan, ledger: ledger, version: "bench", keepLeases: false,
      logger: quiet)
    let server = CoordinatorServer(
      coordinator: coordinator,
      artifacts: try ArtifactStore(directory: directory.appendingPathComponent("artifacts")),
      host: "127.0.0.1", port: 0)

    let cpuBefore = Self.cpuSeconds()
    let clock = ContinuousClock()
    let started = clock.now
    let gaps = Mutex<[Double]>([])
    let workerCount = workers
    let slotCount = slots
    let tasks = Mutex<[Task<Void, any Error>]>([])
    _ = try await server.run { port in
      for index in 0..<workerCount {
        let box = EndTimes()
        let worker = Worker(
          info: WorkerInfo(
            id: "bench-\(index)", host: "localhost", processID: 0, slots: slotCount, threads: 1),
          host: "127.0.0.1", port: port, version: "bench",
          executor: ShardExecutor(
            prepare: { _ in ["bench": "none"] },
            execute: { assignment, control in
              if let gap = box.gap(until: clock.now) { gaps.withLock { $0.append(gap) } }
              for trial in assignment.trials {
                control.complete(trial.id, metrics: ["value": 1], notes: [:])
              }
              box.ended(at: clock.now)
              return ShardProduct()
            }), patience: .seconds(10), logger: quiet)
        tasks.withLock { $0.append(Task { try await worker.run() }) }
      }
    }
    let seconds = started.duration(to: clock.now) / .seconds(1)
    for task in tasks.withLock({ $0 }) { try await task.value }
    let cpu = Self.cpuSeconds() - cpuBefore
    let sorted = gaps.withLock { $0.sorted() }
    let p99 = sorted.isEmpty ? 0 : sorted[min(sorted.count - 1, sorted.count * 99 / 100)]
    try BenchmarkOutput.print(
      Output(
        shards: shards, workers: workers, slots: slots, seconds: seconds,
        shardsPerSecond: Double(shards) / seconds,
        cpuMillisecondsPerShard: cpu / Double(shards) * 1000, p99LeaseMilliseconds: p99 * 1000,
        peakMegabytes: BenchmarkOutput.peakMegabytes()))
  }

  private static func cpuSeconds() -> Double {
    var usage = rusage()
    getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }
    return seconds(usage.ru_utime) + seconds(usage.ru_stime)
  }
}

/// When shards of one worker ended, to pair each end with the next start.
private final class EndTimes: Sendable {
  private let ends = Mutex<[ContinuousClock.Instant]>([])

  /// Seconds since the oldest end that no start was paired with.
  func gap(until now: ContinuousClock.Instant) -> Double? {
    ends.withLock { ends in
      ends.isEmpty ? nil : ends.removeFirst().duration(to: now) / .seconds(1)
    }
  }

  func ended(at time: ContinuousClock.Instant) { ends.withLock { $0.append(time) } }
}
