import ArgumentParser
import Foundation
import Logging
import SweepCore
import SweepWorker
import UnixSignals

struct WorkerCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "worker", abstract: "Run shards for a coordinator until its sweep is over.",
    discussion: """
      SIGTERM and Ctrl-C give unfinished shards back and end. A lost connection does not stop the \
      work: the worker reconnects and reports.

      EXAMPLES:
        biassweep worker --coordinator 127.0.0.1:7077
        biassweep worker --coordinator 10.0.0.5:7077 --slots 2 --threads 8
        biassweep worker --coordinator 10.0.0.5:7077 --cache /shared/biassweep --local-checkpoints
      """)

  @Option(help: "The coordinator's address, HOST:PORT.")
  var coordinator: String

  @Option(help: "Shards to run at once.")
  var slots = 1

  @Option(help: "Threads of each shard. Default: the processors divided by the slots.")
  var threads: Int?

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

  @Flag(help: .hidden)
  var untilInputEnds = false

  func validate() throws {
    guard Self.address(coordinator) != nil else {
      throw ValidationError("--coordinator takes HOST:PORT, such as 127.0.0.1:7077.")
    }
    guard (1...1024).contains(slots) else {
      throw ValidationError("--slots takes a number from 1 to 1024.")
    }
    guard (1...4096).contains(threads ?? 1) else {
      throw ValidationError("--threads takes a number from 1 to 4096.")
    }
  }

  private static func address(_ text: String) -> (host: String, port: Int)? {
    guard let colon = text.lastIndex(of: ":"), colon != text.startIndex,
      let port = Int(text[text.index(after: colon)...]), (1...65535).contains(port)
    else { return nil }
    return (String(text[..<colon]), port)
  }

  func run() async throws {
    guard let (host, port) = Self.address(coordinator) else { return }
    cacheOption.apply()
    let processors = ProcessInfo.processInfo.activeProcessorCount
    let threads = threads ?? max(1, processors / slots)
    let info = WorkerInfo(
      id: UUID().uuidString.lowercased(), host: ProcessInfo.processInfo.hostName,
      processID: Int(ProcessInfo.processInfo.processIdentifier), slots: slots, threads: threads)
    let logger = Logger.biassweep(level: .info)
    let worker = Worker(
      info: info, host: host, port: port, version: BiasSweep.version,
      executor: StudyExecutor(
        threads: threads, slots: slots, trunkBytes: trunk.byteLimit, kept: keepParameters,
        logger: logger
      ).shardExecutor,
      checkpoints: CheckpointPlace(
        directory: Cache.directory("checkpoints"), uploads: !localCheckpoints),
      patience: .seconds(patience), logger: logger)

    if untilInputEnds { Self.endWithInput() }
    let signals = await UnixSignalsSequence(trapping: .sigterm, .sigint)
    let stopper = Task {
      for await _ in signals { await worker.stop() }
    }
    defer { stopper.cancel() }
    try await worker.run()
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

extension Logger {
  /// Logs to standard error.
  static func biassweep(level: Logger.Level) -> Logger {
    var logger = Logger(label: "biassweep") { StreamLogHandler.standardError(label: $0) }
    logger.logLevel = level
    return logger
  }
}
