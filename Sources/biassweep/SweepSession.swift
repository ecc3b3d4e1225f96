import ArgumentParser
import Foundation
import Logging
import SweepCoordinator
import SweepCore
import SweepLedger
import SweepReport
import Synchronization

/// An opened sweep: ledger, artifacts and coordinator, and what is printed when it ends.
struct SweepSession: Sendable {
  let ledgerPath: String
  let plan: ShardPlan
  let ledger: Ledger
  let artifacts: ArtifactStore
  let coordinator: Coordinator
  let logger: Logger
  let reducer: Reducer
  private let started = Date()

  static let defaultCheckpointSpace = ByteSize(bytes: 20 << 30)

  init(
    selection: SweepSelection, ledger path: String?, keepLeases: Bool, again: ContinuationOptions,
    checkpointSpace: ByteSize = defaultCheckpointSpace, logger: Logger
  ) throws {
    var definition = try selection.definition()
    if let limit = again.maxFailures { definition.policy.maximumFailures = limit }
    ledgerPath = path ?? "\(definition.spec.name).ledger"
    let opening = try LedgerOpening(
      path: ledgerPath, spec: definition.spec, version: BiasSweep.version)
    plan = definition.plan
    ledger = try Ledger(opening, plan: plan, now: Date().timeIntervalSince1970)
    let checkpoints: CheckpointStore
    do {
      artifacts = try ArtifactStore(
        directory: URL(
          fileURLWithPath: Self.artifactDirectory(ledger: ledgerPath), isDirectory: true))
      checkpoints = try CheckpointStore(
        directory: URL(fileURLWithPath: ledgerPath + ".checkpoints", isDirectory: true),
        bytesMax: checkpointSpace.bytes)
    } catch {
      throw InfrastructureError(
        description: "Cannot make or read \(ledgerPath).artifacts and \(ledgerPath).checkpoints: "
          + error.localizedDescription)
    }
    self.logger = logger
    reducer = try Reducer(ledger: ledger, spec: definition.spec, logger: logger)
    coordinator = try Coordinator(
      definition: definition, plan: plan, ledger: ledger, checkpoints: checkpoints,
      version: BiasSweep.version, keepLeases: keepLeases, revive: again.revive, logger: logger)
  }

  /// Where the artifacts of a sweep are, each under its SHA-256.
  static func artifactDirectory(ledger path: String) -> String { path + ".artifacts" }

  private struct Output: Encodable {
    let trialsDeclared: Int
    let trialsCompleted: Int
    let trialsFailed: Int
    let fineTunesRun: Int
    let attempts: Int
    let seconds: Double
    let resultDigest: String

    enum CodingKeys: String, CodingKey {
      case trialsDeclared = "trials_declared"
      case trialsCompleted = "trials_completed"
      case trialsFailed = "trials_failed"
      case fineTunesRun = "fine_tunes_run"
      case attempts, seconds
      case resultDigest = "result_digest"
    }
  }

  /// Keeps the findings up to date until `finish(reducing:)`.
  func startReducing() -> Task<Void, Never> {
    let (reducer, coordinator) = (self.reducer, self.coordinator)
    return Task { await reducer.follow { await coordinator.trialsCompleted() } }
  }

  /// Brings the findings to the last result.
  func finish(reducing task: Task<Void, Never>) async throws {
    task.cancel()
    await task.value
    try await reducer.reduce()
  }

  /// Prints results and ends with the status that fits them.
  func conclude(json: Bool, interrupted: Bool) throws {
    try ledger.checkpoint()
    let reader = try LedgerReader(path: ledgerPath)
    let status = try reader.status(now: Date().timeIntervalSince1970)
    if json {
      try Console.output(
        json: Output(
          trialsDeclared: status.declared, trialsCompleted: status.completed,
          trialsFailed: status.failed, fineTunesRun: status.fineTunesRun,
          attempts: status.attempts, seconds: -started.timeIntervalSinceNow,
          resultDigest: try reader.resultDigest().description))
    }
    if interrupted && status.completed + status.failed < status.trials {
      Console.error(
        "interrupted with \(status.completed) of \(status.trials) trials done; the same command "
          + "goes on")
      throw ExitStatus.interrupted.code
    }
    if !json {
      let tables = ResultTables(spec: try reader.sweep().spec, rows: try reader.gridResults())
      Console.output(tables.text())
      Console.output(
        "\(status.completed) trials in \(Seconds(-started.timeIntervalSinceNow)); "
          + "result digest \(try reader.resultDigest())")
      Console.output(
        "report: biassweep report --ledger \(ledgerPath)   "
          + "SQL: sqlite3 \(ledgerPath) 'SELECT * FROM trial_result'")
    }
    guard status.failed == 0, status.completed == status.trials else {
      for failure in try reader.failures() {
        Console.error("quarantined: \(failure.shard): \(failure.reason)")
      }
      Console.error(
        "\(status.trials - status.completed) of \(status.trials) trials have no result; the same "
          + "command tries them again (`biassweep status --ledger \(ledgerPath)` shows why)")
      throw ExitStatus.failedTrials.code
    }
  }
}

/// How far a sweep goes in spite of failures, and whether it goes on after a cancellation.
struct ContinuationOptions: ParsableArguments {
  @Option(help: "Stop the sweep once this many shards are quarantined. Default: the spec's.")
  var maxFailures: Int?

  @Flag(help: "Go on with a sweep that was cancelled.")
  var revive = false

  func validate() throws {
    guard (1...1_000_000).contains(maxFailures ?? 1) else {
      throw ValidationError("--max-failures takes a number from 1 to 1000000.")
    }
  }
}

/// Set by a signal, read at the end.
final class InterruptFlag: Sendable {
  private let flag = Mutex(false)
  var isSet: Bool { flag.withLock { $0 } }
  /// - Returns: whether it was set before.
  @discardableResult
  func set() -> Bool {
    flag.withLock { flag in
      defer { flag = true }
      return flag
    }
  }
}
