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
      keep what they have computed.

      EXAMPLES:
        biassweep coordinator --preset smoke --ledger smoke.ledger
        biassweep coordinator --grid mine.yaml --ledger mine.ledger --port 0 --address-file where
      """)

  @OptionGroup var selection: SweepSelection

  @Option(help: "The sweep's ledger; made if it is not there. Default: NAME.ledger.")
  var ledger: String?

  @Option(help: "IPv4 address to listen on.")
  var host = "127.0.0.1"

  @Option(help: "TCP port; 0 for any free one.")
  var port = 7077

  @Flag(help: "Listen on addresses other than loopback, without encryption or authentication.")
  var plaintext = false

  @Option(help: "Write HOST:PORT to this file once workers can connect.")
  var addressFile: String?

  @Flag(help: "Go on with a sweep that was cancelled.")
  var revive = false

  @Flag(help: "Print one JSON object at the end instead of tables.")
  var json = false

  func validate() throws {
    guard (0...65535).contains(port) else {
      throw ValidationError("--port takes a number from 0 to 65535.")
    }
    if !host.hasPrefix("127.") && !plaintext {
      throw ValidationError(
        """
        The protocol is not encrypted: anybody who reaches \(host) could send results. Listen on \
        127.0.0.1 and forward the port (ssh -L), or say --plaintext on a network that you trust.
        """)
    }
  }

  func run() async throws {
    let session = try SweepSession(
      selection: selection, ledger: ledger, keepLeases: true, revive: revive,
      logLevel: .info)
    let server = CoordinatorServer(
      coordinator: session.coordinator, artifacts: session.artifacts, host: host, port: port)
    let signals = await UnixSignalsSequence(trapping: .sigterm, .sigint)
    let interrupted = InterruptFlag()
    let stopper = Task {
      for await _ in signals {
        // Leases stay alive in the ledger: workers go on and report to the next coordinator.
        interrupted.set()
        await session.coordinator.suspend()
      }
    }
    defer { stopper.cancel() }
    let host = self.host
    let addressFile = self.addressFile
    _ = try await server.run { port in
      Console.error("listening on \(host):\(port)")
      if let addressFile {
        try Data("\(host):\(port)\n".utf8).write(
          to: URL(fileURLWithPath: addressFile), options: .atomic)
      }
    }
    try session.conclude(json: json, interrupted: interrupted.isSet)
  }
}
