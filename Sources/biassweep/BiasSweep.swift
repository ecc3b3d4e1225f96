import ArgumentParser
import Foundation
import LanguageModel
import StudyDocuments
import SweepCore
import SweepCoordinator
import SweepLedger
import SweepLog
import SweepSecurity
import SweepWorker

@main
struct BiasSweep: AsyncParsableCommand {
  static let version = "0.1.0"

  static let configuration = CommandConfiguration(
    commandName: "biassweep",
    abstract: "Sweeps of bias-inheritance experiments on language models.",
    discussion: """
      A language model is fine-tuned on mixtures of original data and data that a language model \
      wrote; downstream tasks then show how much bias it inherited, by bias type, ratio and \
      mitigation.

      EXAMPLES:
        biassweep run --preset smoke                  a small real sweep on this machine
        biassweep plan --grid mine.yaml               what a sweep would run
        biassweep run --grid mine.yaml --workers 2    run it, or go on with it
        biassweep status --ledger mine.ledger         where it stands, also while it runs
        biassweep report --ledger mine.ledger         the results as one HTML file
        biassweep export --ledger mine.ledger         kept adapters, for PEFT and transformers
        biassweep augmentations --ledger mine.ledger  generated data with their dose

      For several machines: `certs` makes credentials, `coordinator` and `worker` run a sweep, \
      `workers`, `shards`, `attempts`, `pause`, `resume`, `drain`, `retry` and `cancel` look at it \
      and steer it.

      EXIT STATUS:
        0 done   1 finished with failed trials   2 infrastructure   64 usage or a wrong spec
        130 interrupted; the same command goes on
      """,
    version: version,
    subcommands: [
      RunCommand.self, PlanCommand.self, StatusCommand.self, ReportCommand.self,
      ExportCommand.self, AugmentationsCommand.self, CoordinatorCommand.self, WorkerCommand.self,
      LedgerCommand.self, VerifyCommand.self,
      TasksCommand.self, DoctorCommand.self, CertsCommand.self, WorkersCommand.self,
      ShardsCommand.self, AttemptsCommand.self, PauseCommand.self, ResumeCommand.self,
      DrainCommand.self, RetryCommand.self, PrioritiseCommand.self, CancelCommand.self,
      SimulateCommand.self,
    ])

  /// Parses and runs the command, and maps every error to one message and an exit status.
  static func main() async {
    do {
      var command = try parseAsRoot()
      if var command = command as? any AsyncParsableCommand {
        try await command.run()
      } else {
        try command.run()
      }
    } catch {
      exit(reporting: error)
    }
  }

  private static func exit(reporting error: any Error) -> Never {
    switch error {
    case let code as ExitCode:
      // The command has said what there is to say.
      Foundation.exit(code.rawValue)
    case is InvalidSpec, is InvalidTaskFile, is TaskLibraryError, LedgerError.otherSweep,
      is UsageError:
      fail("\(error)", status: .usage)
    case is LedgerError, is ServerError, is WorkerError, is InfrastructureError,
      is ModelFileError, is TrainedParametersError, is CredentialError, is LogOutput.CannotOpen:
      fail("\(error)", status: .infrastructure)
    default:
      // ArgumentParser's own errors and help requests.
      if exitCode(for: error) == .failure { fail("\(error)", status: .infrastructure) }
      exit(withError: error)
    }
  }

  private static func fail(_ message: String, status: ExitStatus) -> Never {
    Console.error("biassweep: \(message)")
    Foundation.exit(status.rawValue)
  }
}

/// What the exit status tells scripts (docs/OPERATIONS.md).
enum ExitStatus: Int32 {
  case done = 0
  case failedTrials = 1
  case infrastructure = 2
  case usage = 64
  case interrupted = 130

  var code: ExitCode { ExitCode(rawValue) }
}

/// The command line or a file named on it is wrong.
struct UsageError: Error, CustomStringConvertible {
  let description: String
}

/// Something that the command needs is missing or broken.
struct InfrastructureError: Error, CustomStringConvertible {
  let description: String
}

/// The one place that prints.
enum Console {
  static func error(_ text: String) {
    FileHandle.standardError.write(Data((text + "\n").utf8))
  }

  static func output(_ text: String) {
    FileHandle.standardOutput.write(Data((text + "\n").utf8))
  }

  /// Prints a value as JSON on one line, keys in snake_case and sorted.
  static func output(json value: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.keyEncodingStrategy = .convertToSnakeCase
    encoder.dateEncodingStrategy = .iso8601
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    output(String(decoding: try encoder.encode(value), as: UTF8.self))
  }
}
