import ArgumentParser
import Foundation
import Logging
import SweepCoordinator
import SweepCore
import SweepLedger
import UnixSignals

struct CoordinatorCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "coordinator", abstract: "Serve the shards of a sweep to workers over TCP.",
    discussion: """
      Ends when the sweep is over. After a crash the same command goes on: workers reconnect and \
      keep what they have computed. SIGTERM and Ctrl-C lease nothing further, wait for reports, \
      and end; the workers go on, and report to the coordinator that is started next. A second \
      signal ends at once.

      EXAMPLES:
        biassweep coordinator --grid mine.yaml --host 10.0.0.5 --credentials certs/coordinator.pem
        biassweep coordinator --preset smoke --ledger smoke.ledger
        biassweep coordinator --grid mine.yaml --ledger mine.ledger --port 0 --address-file where
      """)

  @OptionGroup var selection: SweepSelection

  @Option(help: "The sweep's ledger; made if it is not there. Default: NAME.ledger.")
  var ledger: String?

  @Option(help: "Address to listen on; others than the loopback address need --credentials.")
  var host = "127.0.0.1"

  @Option(help: "TCP port; 0 for any free one.")
  var port = 7077

  @OptionGroup var credentials: CredentialOptions

  @Option(help: "Seconds to wait for running shards after SIGTERM or Ctrl-C.")
  var grace: Double = 5

  @OptionGroup var cacheOption: CacheOption

  @Option(
    help: ArgumentHelp(
      "Most disk space for workers' checkpoints beside the ledger: 20GB, 500MB; 0 for none.",
      valueName: "size"))
  var checkpointSpace = SweepSession.defaultCheckpointSpace

  @Option(help: "Write HOST:PORT to this file once workers can connect.")
  var addressFile: String?

  @OptionGroup var log: LogOptions

  @OptionGroup var again: ContinuationOptions

  @Flag(help: "Print one JSON object at the end instead of tables.")
  var json = false

  func validate() throws {
    guard (0...65535).contains(port) else {
      throw ValidationError("--port takes a number from 0 to 65535.")
    }
    guard (0...86_400).contains(grace) else {
      throw ValidationError("--grace takes seconds, from 0 to 86400.")
    }
  }

  func run() async throws {
    cacheOption.apply()
    let log = try self.log.open()
    let security = try credentials.security(.coordinator)
    let session = try SweepSession(
      selection: selection, ledger: ledger, keepLeases: true, again: again,
      checkpointSpace: checkpointSpace, logger: log.logger)
    let server = try CoordinatorServer(
      coordinator: session.coordinator, artifacts: session.artifacts,
      inputs: StudyInputs(spec: await session.coordinator.spec).catalogue(logger: session.logger),
      host: host, port: port, security: security, logger: log.logger)
    let signals = await UnixSignalsSequence(trapping: .sigterm, .sigint)
    let interrupted = InterruptFlag()
    let grace = self.grace
    let stopper = Task {
      for await signal in signals {
        if interrupted.set() { _exit(ExitStatus.interrupted.rawValue) }
        log.logger.notice(
          "draining; a second signal ends at once",
          metadata: ["signal": "\(signal)", "grace.seconds": "\(grace)"])
        await session.coordinator.drain()
        Task {
          try await Task.sleep(for: .seconds(grace))
          // Leases stay alive in the ledger: workers go on and report to the next coordinator.
          await session.coordinator.suspend()
        }
      }
    }
    defer { stopper.cancel() }
    var renew: (@Sendable () async throws -> Void)?
    if case .mutualTLS = security {
      let credentials = self.credentials
      renew = { try server.renew(try credentials.security(.coordinator)) }
    }
    let reopener = Task { [renew] in try await log.reopenOnHangup(renewing: renew) }
    defer { reopener.cancel() }
    let host = self.host
    let addressFile = self.addressFile
    let reducing = session.startReducing()
    defer { reducing.cancel() }
    _ = try await server.run { port in
      Console.error("listening on \(host):\(port)")
      if let addressFile {
        try Data("\(host):\(port)\n".utf8).write(
          to: URL(fileURLWithPath: addressFile), options: .atomic)
      }
    }
    try await session.finish(reducing: reducing)
    try session.conclude(json: json, interrupted: interrupted.isSet)
  }
}
