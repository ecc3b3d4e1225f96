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
      Without --processes the workers are real ones, in the coordinator's process. With it they are \
      light clients that wait for --shard-seconds instead of working, in processes of their own.

      p50_lease_ms and p99_lease_ms are percentiles of the time from the end of one shard on a slot \
      of a worker to the start of the next on any of its slots: report, commit, lease and \
      assignment. utilisation is the share of the slots' time between their first and last shard \
      that shards took. cpu_ms_per_shard counts all processes, coordinator_cores and peak_rss_mb \
      only the coordinator's.

      With --python it takes turns with the same number of tasks that do nothing in Ray \
      (scripts/reference_dispatch.py), two each; what is printed is the faster one of each.

      EXAMPLES:
        biassweep-bench dispatch --shards 20000 --workers 2 --slots 8 --python venv/bin/python
        biassweep-bench dispatch --shards 20000 --workers 2 --slots 8
        biassweep-bench dispatch --shards 40000 --workers 1000 --slots 1 --processes 2 \
      --shard-seconds 1
      """)

  @Option(help: "Shards to dispatch.")
  var shards = 5000
  @Option(help: "Workers, each with a connection of its own.")
  var workers = 2
  @Option(help: "Slots of each worker.")
  var slots = 4
  @Option(help: "Processes of light clients that share the workers; 0 for real workers.")
  var processes = 0
  @Option(help: "How long a shard of a light client takes.")
  var shardSeconds = 0.0
  @Option(help: "Python with ray; without it Ray does not run.")
  var python: String?
  @Option(help: "scripts/reference_dispatch.py.")
  var script = "scripts/reference_dispatch.py"

  private struct Output: Encodable {
    let benchmark = "dispatch"
    let shards: Int
    let workers: Int
    let slots: Int
    let processes: Int
    let seconds: Double
    let shardsPerSecond: Double
    let cpuMillisecondsPerShard: Double
    let coordinatorCores: Double?
    let utilisation: Double?
    let p50LeaseMilliseconds: Double
    let p99LeaseMilliseconds: Double
    let peakMegabytes: Int
    var ray: RayRun?

    enum CodingKeys: String, CodingKey {
      case benchmark, shards, workers, slots, processes, seconds
      case shardsPerSecond = "shards_per_s"
      case cpuMillisecondsPerShard = "cpu_ms_per_shard"
      case coordinatorCores = "coordinator_cores"
      case utilisation
      case p50LeaseMilliseconds = "p50_lease_ms"
      case p99LeaseMilliseconds = "p99_lease_ms"
      case peakMegabytes = "peak_rss_mb"
      case ray
    }
  }

  /// What `reference_dispatch.py` prints.
  private struct RayRun: Codable {
    let version: String
    let tasksPerSecond: Double
    let cpuMillisecondsPerTask: Double

    enum CodingKeys: String, CodingKey {
      case version
      case tasksPerSecond = "tasks_per_s"
      case cpuMillisecondsPerTask = "cpu_ms_per_task"
    }
  }

  private func runRay() throws -> RayRun? {
    guard let python else { return nil }
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = [python, script, "\(shards)"]
    let pipe = Pipe()
    process.standardOutput = pipe
    try process.run()
    let text = try pipe.fileHandleForReading.readToEnd() ?? Data()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
      throw ValidationError("\(python) \(script) ended with \(process.terminationStatus).")
    }
    // Libraries may print what they like before.
    let last = text.split(separator: UInt8(ascii: "\n")).last ?? Data()
    return try JSONDecoder().decode(RayRun.self, from: last)
  }

  func validate() throws {
    guard shards > 0, workers > 0, slots > 0 else {
      throw ValidationError("--shards, --workers and --slots take numbers from 1.")
    }
    guard (0...workers).contains(processes), shardSeconds >= 0 else {
      throw ValidationError("--processes takes 0 or up to the number of workers.")
    }
    guard processes > 0 || shardSeconds == 0 else {
      throw ValidationError("--shard-seconds is for light clients: say --processes too.")
    }
  }

  func run() async throws {
    var own = [try await runOwn()]
    var ray = [try runRay()]
    if python != nil {
      own.append(try await runOwn())
      ray.append(try runRay())
    }
    guard var fastest = own.max(by: { $0.shardsPerSecond < $1.shardsPerSecond }) else { return }
    fastest.ray = ray.compactMap(\.self).max { $0.tasksPerSecond < $1.tasksPerSecond }
    try BenchmarkOutput.print(fastest)
  }

  private func runOwn() async throws -> Output {
    let directory = FileManager.default.temporaryDirectory
      .appendingPathComponent("biassweep-bench-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }  // a left-over file harms nobody

    let definition = try BenchmarkSweep.definition(shards: shards)
    let plan = definition.plan
    var logger = Logger(label: "bench") { StreamLogHandler.standardError(label: $0) }
    logger.logLevel = .error
    let ledger = try Ledger(
      path: directory.appendingPathComponent("bench.ledger").path, spec: definition.spec,
      plan: plan, version: "bench", now: Date().timeIntervalSince1970)
    let coordinator = try Coordinator(
      definition: definition, plan: plan, ledger: ledger, version: "bench", keepLeases: false,
      logger: logger)
    let server = try CoordinatorServer(
      coordinator: coordinator,
      artifacts: try ArtifactStore(directory: directory.appendingPathComponent("artifacts")),
      host: "127.0.0.1", port: 0)

    let cpuBefore = BenchmarkOutput.cpuSeconds()
    let clock = ContinuousClock()
    let started = clock.now
    let load: any DispatchLoad =
      processes > 0
      ? ClientProcesses(
        processes: processes, workers: workers, slots: slots, shardSeconds: shardSeconds)
      : WorkersInProcess(workers: workers, slots: slots, logger: logger)
    _ = try await server.run { try load.start(port: $0) }
    let seconds = started.duration(to: clock.now) / .seconds(1)
    let cpu = BenchmarkOutput.cpuSeconds() - cpuBefore
    let seen = try await load.finish()
    let gaps = seen.gaps.sorted()
    func percentile(_ share: Int) -> Double {
      gaps.isEmpty ? 0 : gaps[min(gaps.count - 1, gaps.count * share / 100)] * 1000
    }
    let idle = gaps.reduce(0, +)
    return Output(
      shards: shards, workers: workers, slots: slots, processes: processes, seconds: seconds,
      shardsPerSecond: Double(shards) / seconds,
      cpuMillisecondsPerShard: (cpu + seen.cpuSeconds) / Double(shards) * 1000,
      coordinatorCores: processes > 0 ? cpu / seconds : nil,
      utilisation: shardSeconds > 0 ? seen.busySeconds / (seen.busySeconds + idle) : nil,
      p50LeaseMilliseconds: percentile(50), p99LeaseMilliseconds: percentile(99),
      peakMegabytes: BenchmarkOutput.peakMegabytes())
  }
}

/// Who works on the shards of the benchmark.
private protocol DispatchLoad: Sendable {
  func start(port: Int) throws
  /// Waits for the end of all workers.
  func finish() async throws -> LightClients.Output
}

/// Real workers in this process.
private final class WorkersInProcess: DispatchLoad {
  private let workers: Int
  private let slots: Int
  private let logger: Logger
  private let gaps = Mutex<[Double]>([])
  private let tasks = Mutex<[Task<Void, any Error>]>([])

  init(workers: Int, slots: Int, logger: Logger) {
    self.workers = workers
    self.slots = slots
    self.logger = logger
  }

  func start(port: Int) {
    let clock = ContinuousClock()
    for index in 0..<workers {
      let box = EndTimes()
      let worker = Worker(
        info: WorkerInfo(
          id: "bench-\(index)", host: "localhost", processID: 0, slots: slots, threads: 1),
        host: "127.0.0.1", port: port, version: "bench",
        executor: ShardExecutor(
          prepare: { _, _ in ["bench": "none"] },
          execute: { assignment, control in
            if let gap = box.gap(until: clock.now) { self.gaps.withLock { $0.append(gap) } }
            for trial in assignment.trials {
              control.complete(trial.id, metrics: ["value": 1], notes: [:])
            }
            box.ended(at: clock.now)
            return ShardProduct()
          }), patience: .seconds(10), logger: logger)
      tasks.withLock { $0.append(Task { try await worker.run() }) }
    }
  }

  func finish() async throws -> LightClients.Output {
    for task in tasks.withLock({ $0 }) { try await task.value }
    return LightClients.Output(gaps: gaps.withLock { $0 })
  }
}

/// Light clients in processes of their own.
private final class ClientProcesses: DispatchLoad {
  private let processes: Int
  private let workers: Int
  private let slots: Int
  private let shardSeconds: Double
  private let running = Mutex<[Task<LightClients.Output, any Error>]>([])

  /// From one worker to the next, of all processes: connecting costs both sides more than a shard
  /// does, and is not what is measured.
  private static let millisecondsApart = 10

  init(processes: Int, workers: Int, slots: Int, shardSeconds: Double) {
    self.processes = processes
    self.workers = workers
    self.slots = slots
    self.shardSeconds = shardSeconds
  }

  func start(port: Int) throws {
    for index in 0..<processes {
      let first = workers * index / processes
      let process = Process()
      process.executableURL = Bundle.main.executableURL
      process.arguments = [
        "clients", "--port", "\(port)", "--first", "\(first)", "--workers",
        "\(workers * (index + 1) / processes - first)", "--slots", "\(slots)",
        "--shard-seconds", "\(shardSeconds)", "--apart", "\(Self.millisecondsApart * processes)",
      ]
      let pipe = Pipe()
      process.standardOutput = pipe
      try process.run()
      let output = pipe.fileHandleForReading
      running.withLock {
        $0.append(
          Task {
            // On a thread of its own: as many waiting readers as processors would leave none of the
            // async runtime's threads to the coordinator.
            let text = try await withCheckedThrowingContinuation {
              (continuation: CheckedContinuation<Data, any Error>) in
              Thread.detachNewThread {
                continuation.resume(with: Result { try output.readToEnd() ?? Data() })
              }
            }
            return try JSONDecoder().decode(LightClients.Output.self, from: text)
          })
      }
    }
  }

  func finish() async throws -> LightClients.Output {
    var all = LightClients.Output()
    for task in running.withLock({ $0 }) {
      let one = try await task.value
      all.gaps += one.gaps
      all.busySeconds += one.busySeconds
      all.shards += one.shards
      all.cpuSeconds += one.cpuSeconds
    }
    return all
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
