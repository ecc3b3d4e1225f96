import ArgumentParser
import Foundation
import Logging
import SweepCoordinator
import SweepCore
import Synchronization
import UnixSignals

struct RunCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "run", abstract: "Run a sweep on this machine, or go on with one.",
    discussion: """
      Starts a coordinator and worker processes. Whatever is killed, and at whatever moment: the \
      same command goes on, repeats no finished trial, and ends with the same results.

      EXAMPLES:
        biassweep run --preset smoke
        biassweep run --grid mine.yaml --ledger mine.ledger --workers 4 --threads 8
        biassweep run --preset smoke --json > result.json
        biassweep run --preset smoke --keep-parameters 4    for `biassweep export`
      """)

  @OptionGroup var selection: SweepSelection

  @Option(help: "The sweep's ledger; made if it is not there. Default: NAME.ledger.")
  var ledger: String?

  @Option(help: "Worker processes.")
  var workers = 1

  @Option(help: "Threads of each worker. Default: the processors divided by the workers.")
  var threads: Int?

  @OptionGroup var trunk: TrunkOptions

  @Option(help: KeptFineTunes.help)
  var keepParameters = KeptFineTunes.none

  @OptionGroup var cacheOption: CacheOption

  @OptionGroup var again: ContinuationOptions

  @Flag(help: "Print one JSON object at the end instead of tables.")
  var json = false

  @Flag(name: .shortAndLong, help: "Log every event of the sweep.")
  var verbose = false

  func validate() throws {
    guard (1...1024).contains(workers) else {
      throw ValidationError("--workers takes a number from 1 to 1024.")
    }
    guard (1...4096).contains(threads ?? 1) else {
      throw ValidationError("--threads takes a number from 1 to 4096.")
    }
  }

  func run() async throws {
    cacheOption.apply()
    let session = try SweepSession(
      selection: selection, ledger: ledger, keepLeases: false, again: again,
      logger: Log(path: nil, format: .text, level: verbose ? .info : .warning).logger)
    let coordinator = session.coordinator
    let start = await coordinator.summary()
    let server = try CoordinatorServer(
      coordinator: coordinator, artifacts: session.artifacts, host: "127.0.0.1", port: 0,
      logger: session.logger)
    let processors = ProcessInfo.processInfo.activeProcessorCount
    let threads = threads ?? max(1, processors / workers)
    let logs = URL(fileURLWithPath: session.ledgerPath + ".logs", isDirectory: true)

    let local = Mutex<LocalWorkers?>(nil)
    let surrender = Mutex<String?>(nil)
    let interrupted = InterruptFlag()
    let signals = await UnixSignalsSequence(trapping: .sigterm, .sigint)
    let stopper = Task {
      for await _ in signals {
        if interrupted.set() { _exit(ExitStatus.interrupted.rawValue) }
        Console.error("\nstopping; once more ends at once")
        await coordinator.stop(reason: "interrupted")
        local.withLock { $0 }?.stop()
      }
    }
    defer { stopper.cancel() }
    let progress = Task {
      var display = ProgressDisplay(start: start)
      defer { display.finish() }
      while !Task.isCancelled {
        display.show(await coordinator.summary())
        try? await Task.sleep(for: .milliseconds(500))
      }
      display.show(await coordinator.summary())
    }

    let (workers, trunk) = (self.workers, self.trunk)
    do {
      let reducing = session.startReducing()
      defer { reducing.cancel() }
      _ = try await server.run { port in
        let group = LocalWorkers(
          count: workers,
          // Whoever stops a local run does not want to wait for its shards; and credentials for
          // other coordinators, which the environment may name, are of no use here.
          arguments: [
            "--coordinator", "127.0.0.1:\(port)", "--threads", "\(threads)", "--grace", "0",
            "--credentials", "",
            "--keep-parameters", keepParameters.description, "--local-checkpoints",
          ] + trunk.arguments,
          logs: logs, logger: session.logger
        ) { reason in
          surrender.withLock { $0 = reason }
          Task { await coordinator.stop(reason: reason) }
        }
        local.withLock { $0 = group }
        if await !coordinator.isFinished { try group.start() }
      }
      try await session.finish(reducing: reducing)
    } catch {
      progress.cancel()
      await progress.value
      local.withLock { $0 }?.waitUntilEnded(seconds: 0)
      throw error
    }
    progress.cancel()
    await progress.value
    local.withLock { $0 }?.waitUntilEnded(seconds: 5)
    if let reason = surrender.withLock({ $0 }) { throw InfrastructureError(description: reason) }
    try session.conclude(json: json, interrupted: interrupted.isSet)
  }
}
