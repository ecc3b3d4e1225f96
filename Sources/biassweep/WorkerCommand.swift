import ArgumentParser
import Foundation
import Logging
import SweepCore
import SweepSecurity
import SweepWorker
import UnixSignals

struct WorkerCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "worker", abstract: "Run shards for a coordinator until its sweep is over.",
    discussion: """
      SIGTERM and Ctrl-C take no further shard and finish those that run; what is not finished \
      after the grace time is given back. A second signal ends at once. A lost connection does not \
      stop the work: the worker reconnects and reports.

      EXAMPLES:
        biassweep worker --coordinator 127.0.0.1:7077
        biassweep worker --coordinator 10.0.0.5:7077 --credentials node7.pem --slots 2 --threads 8
        biassweep worker --coordinator head:7077 --cache /shared/biassweep --local-checkpoints
        biassweep worker --coordinator head:7077 --log-file worker.log --log-format json
        biassweep worker --coordinator head:7077 --lifetime 4h --memory 16GB --slots 4
      """)

  @Option(help: "The coordinator's address, HOST:PORT.")
  var coordinator: Address

  @OptionGroup var credentials: CredentialOptions

  @Option(help: "Shards to run at once.")
  var slots = 1

  @Option(help: "Threads of each shard. Default: the processors divided by the slots.")
  var threads: Int?

  @Option(
    help: """
      Time that the worker has, such as 90m or 4h, or none. It gets only shards that it is expected \
      to finish by then, and begins to end --grace seconds before. Default: what is left of the \
      Slurm job ($SLURM_JOB_END_TIME), else none.
      """)
  var lifetime: TimeSpan?

  @Option(
    help: """
      Memory for shards. A sweep that says what a shard needs (execution.shard_memory_mb) lets no \
      more run at once than fit. Default: the machine's, or the smaller limit of the control group.
      """)
  var memory: ByteSize?

  @Option(help: "Seconds without a coordinator after which to give up.")
  var patience: Double = 600

  @OptionGroup var trunk: TrunkOptions

  @Option(help: KeptFineTunes.help)
  var keepParameters = KeptFineTunes.none

  @OptionGroup var cacheOption: CacheOption

  @Flag(
    help: """
      Keep checkpoints in the cache directory only: for workers that share it, which find each \
      other's there. Without it they are sent to the coordinator too.
      """)
  var localCheckpoints = false

  @Option(help: "Seconds to finish running shards after SIGTERM or Ctrl-C.")
  var grace: Double = 30

  @OptionGroup var log: LogOptions

  @Flag(help: .hidden)
  var untilInputEnds = false

  func validate() throws {
    guard (1...1024).contains(slots) else {
      throw ValidationError("--slots takes a number from 1 to 1024.")
    }
    guard (1...4096).contains(threads ?? 1) else {
      throw ValidationError("--threads takes a number from 1 to 4096.")
    }
    guard (0...86_400).contains(grace) else {
      throw ValidationError("--grace takes seconds, from 0 to 86400.")
    }
  }

  func run() async throws {
    cacheOption.apply()
    let log = try self.log.open()
    let security = try credentials.security(.worker)
    let processors = ProcessInfo.processInfo.activeProcessorCount
    let threads = threads ?? max(1, processors / slots)
    if slots * threads > processors {
      log.logger.warning(
        "more threads than processors: shards will slow each other down",
        metadata: ["slots": "\(slots)", "threads": "\(threads)", "processors": "\(processors)"])
    }
    let info = WorkerInfo(
      id: security.workerID(unique: UUID().uuidString.lowercased()),
      host: ProcessInfo.processInfo.hostName,
      processID: Int(ProcessInfo.processInfo.processIdentifier), slots: slots, threads: threads,
      memoryBytes: memory.map { Int(clamping: $0.bytes) } ?? MachineMemory.usableBytes)
    let lifetime = self.lifetime.map(\.seconds) ?? Self.slurmSecondsLeft
    let worker = Worker(
      info: info, host: coordinator.host, port: coordinator.port, security: security,
      version: BiasSweep.version,
      executor: StudyExecutor(
        threads: threads, slots: slots, trunkBytes: trunk.byteLimit, kept: keepParameters,
        logger: log.logger
      ).shardExecutor,
      checkpoints: CheckpointPlace(
        directory: Cache.directory("checkpoints"), uploads: !localCheckpoints),
      patience: .seconds(patience), lifetime: lifetime.map { .seconds($0) }, logger: log.logger)

    if untilInputEnds { Self.endWithInput() }
    let signals = await UnixSignalsSequence(trapping: .sigterm, .sigint)
    let interrupted = InterruptFlag()
    let grace = self.grace
    let endsWithParent = untilInputEnds
    let timekeeper = Task {
      guard let lifetime else { return }
      try await Task.sleep(for: .seconds(max(0, lifetime - grace)))
      log.logger.notice("the worker's time is nearly up, draining")
      await worker.drain()
      try await Task.sleep(for: .seconds(grace / 2))
      await worker.stop()
    }
    defer { timekeeper.cancel() }
    let stopper = Task {
      for await signal in signals {
        // A terminal sends Ctrl-C to `run` and its workers alike, so these may hear of it twice.
        if interrupted.set() && !endsWithParent { _exit(ExitStatus.interrupted.rawValue) }
        log.logger.notice(
          "draining; a second signal ends at once",
          metadata: ["signal": "\(signal)", "grace.seconds": "\(grace)"])
        await worker.drain()
        Task {
          try await Task.sleep(for: .seconds(grace))
          await worker.stop()
        }
      }
    }
    defer { stopper.cancel() }
    var renew: (@Sendable () async throws -> Void)?
    if case .mutualTLS = security {
      let credentials = self.credentials
      renew = {
        let fresh = try credentials.security(.worker)
        guard fresh.allows(worker: info.id) else {
          throw InfrastructureError(description: "They are not those of worker \(info.id).")
        }
        await worker.renew(fresh)
      }
    }
    let reopener = Task { [renew] in try await log.reopenOnHangup(renewing: renew) }
    defer { reopener.cancel() }
    try await worker.run()
  }

  /// Seconds until Slurm ends the job that this process is part of; nil outside of one.
  private static var slurmSecondsLeft: Double? {
    ProcessInfo.processInfo.environment["SLURM_JOB_END_TIME"].flatMap(Double.init)
      .map { max(0.001, $0 - Date().timeIntervalSince1970) }
  }

  /// Ends the process when standard input does: the parent holds its other end, and when the parent
  /// is gone, however it went, nobody wants this worker's results.
  private static func endWithInput() {
    Thread.detachNewThread {
      var byte: UInt8 = 0
      while read(0, &byte, 1) > 0 {}
      _exit(ExitStatus.infrastructure.rawValue)
    }
  }
}

/// Where models, data and the rest of the cache are.
struct CacheOption: ParsableArguments {
  @Option(
    help: """
      Directory of models, data and checkpoints; machines may share one. Default: \
      $BIASSWEEP_CACHE, or biassweep in the user's cache directory.
      """)
  var cache: String?

  /// Makes it the cache of this process and its children. Call before anything uses the cache.
  func apply() {
    if let cache { setenv("BIASSWEEP_CACHE", cache, 1) }
  }
}
