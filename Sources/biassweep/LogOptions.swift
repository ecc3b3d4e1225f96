import ArgumentParser
import Foundation
import Logging
import SweepLog
import UnixSignals

/// How a long-running process logs.
struct LogOptions: ParsableArguments {
  @Option(help: "Append log lines to this file instead of standard error; SIGHUP opens it anew.")
  var logFile: String?

  @Option(help: "How log lines are written: text or json.")
  var logFormat = LogFormat.text

  @Option(help: "Least severe lines to write: debug, info, warning, error.")
  var logLevel = LogLevel.info

  /// - Throws: `LogOutput.CannotOpen`.
  func open() throws -> Log { try Log(path: logFile, format: logFormat, level: logLevel.level) }
}

/// An opened log.
struct Log: Sendable {
  let logger: Logger
  private let output: LogOutput
  private let path: String?

  init(path: String?, format: LogFormat, level: Logger.Level) throws {
    let output = try LogOutput(path: path)
    self.output = output
    self.path = path
    logger = Logger(label: "biassweep") { _ in
      LineLogHandler(format: format, level: level, output: output)
    }
  }

  /// Opens the log file and reads the credentials anew at each SIGHUP, until cancelled. Without
  /// either SIGHUP keeps its usual meaning: the terminal is gone, and the process ends.
  func reopenOnHangup(renewing renew: (@Sendable () async throws -> Void)?) async throws {
    guard path != nil || renew != nil else { return }
    for await _ in await UnixSignalsSequence(trapping: .sighup) {
      if let renew {
        do {
          try await renew()
          logger.notice("credentials read anew")
        } catch {
          logger.error("the credentials stay as they were", metadata: ["error": "\(error)"])
        }
      }
      guard path != nil else { continue }
      do {
        try output.reopen()
        logger.info("log opened anew")
      } catch {
        logger.error("the log stays in the old file", metadata: ["error": "\(error)"])
      }
    }
  }
}

extension LogFormat: ExpressibleByArgument {}

enum LogLevel: String, CaseIterable, ExpressibleByArgument {
  case debug, info, warning, error

  var level: Logger.Level {
    switch self {
    case .debug: .debug
    case .info: .info
    case .warning: .warning
    case .error: .error
    }
  }
}
