import Foundation
import GRDB
import SweepCore
import SweepLedger
import SweepTestKit

let version = "1.0.0"

extension SampleSweep {
  /// Opens or starts this sweep's ledger.
  func ledger(_ path: String, version: String = version) throws -> Ledger {
    try Ledger(path: path, spec: spec, plan: plan, version: version, now: 1_000)
  }

  /// A ledger of a run that is over, closed.
  func finishedLedger(_ path: String) throws {
    let ledger = try ledger(path)
    try ledger.append(run, now: 2_000)
    try ledger.checkpoint()
  }
}

/// Direct access, past all of the program's own care.
func rawDatabase(_ path: String) throws -> DatabaseQueue {
  var configuration = Configuration()
  configuration.foreignKeysEnabled = true
  configuration.busyMode = .timeout(10)
  return try DatabaseQueue(path: path, configuration: configuration)
}

func count(_ sql: String, in path: String) throws -> Int {
  try rawDatabase(path).read { try Int.fetchOne($0, sql: sql) ?? -1 }
}

func bytes(_ path: String) throws -> Data { try Data(contentsOf: URL(fileURLWithPath: path)) }
