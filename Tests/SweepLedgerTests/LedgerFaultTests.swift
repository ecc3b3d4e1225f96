import FaultyStorage
import Foundation
import SweepCore
import SweepLedger
import SweepTestKit
import Testing

/// Writes and syncs that fail, at every place where one happens. The faulty storage is the default
/// of a whole process, so each test has a process of its own.
struct LedgerFaultTests {
  /// The batches of a small run.
  private static func batches(of sample: SampleSweep) -> [[SweepEvent]] {
    [sample.opening] + (0..<6).map { sample.completion(of: $0) }
  }

  /// Appends what is not recorded yet until something fails; `acknowledged` counts the batches.
  private static func appendRest(
    _ sample: SampleSweep, _ path: String, acknowledged: inout Int
  ) throws {
    let ledger = try sample.ledger(path)
    let batches = Self.batches(of: sample)
    var recorded = try ledger.events().count
    for (index, batch) in batches.enumerated() {
      if recorded >= batch.count {
        recorded -= batch.count
        continue
      }
      try require(recorded == 0, "batch \(index) is torn")
      try ledger.append(batch, now: 2_000, state: Data("state \(index)".utf8))
      acknowledged = index + 1
    }
    try ledger.checkpoint()
    try ledger.close()
  }

  /// Lets the n-th operation fail for n = 1, 2, … until a run has fewer of them.
  private static func failEach(_ operation: faulty_operation, forGood: Bool) throws {
    try require(faulty_storage_install() == 0)
    let sample = try SampleSweep()
    let all = batches(of: sample).flatMap { $0 }
    var n = 0
    while true {
      n += 1
      let directory = try TemporaryDirectory()
      let path = directory.file("sweep.sqlite")
      var acknowledged = 0
      faulty_storage_fail(operation, Int32(n), forGood ? 1 : 0)
      var failure: (any Error)?
      do {
        try appendRest(sample, path, acknowledged: &acknowledged)
      } catch {
        try require(error is LedgerError, "\(error)")
        failure = error
      }
      let operations = faulty_storage_count(operation)
      faulty_storage_heal()

      // The coordinator has ended with the error; the next one finds all that was acknowledged.
      var after = 0
      try appendRest(sample, path, acknowledged: &after)
      let ledger = try sample.ledger(path)
      let events = try ledger.events()
      try require(events == all, "\(operation) \(n)")
      try require(
        after == 0 || after > acknowledged,
        "\(operation) \(n): batch \(after) was acknowledged and appended again")
      let state = try ledger.snapshot()
      try require(
        state?.state == Data("state \(batches(of: sample).count - 1)".utf8)
          && state?.sequence == Int64(all.count), "\(operation) \(n): the saved state is another")
      try ledger.close()
      let problems = try LedgerVerification(path: path, artifacts: nil, version: "none").problems
      try require(problems.isEmpty, "\(operation) \(n): \(problems)")
      if operations < n {
        try require(
          failure == nil && n > 10, "only \(n - 1) operations, \(String(describing: failure))")
        return
      }
    }
  }

  @Test func everyWriteMayFail() async {
    await #expect(processExitsWith: .success) {
      Self.recordingErrors { try Self.failEach(FAULTY_WRITE, forGood: false) }
    }
  }

  @Test func everySyncMayFail() async {
    await #expect(processExitsWith: .success) {
      Self.recordingErrors { try Self.failEach(FAULTY_SYNC, forGood: false) }
    }
  }

  @Test func aDiskMayFailForGoodAtAnyWrite() async {
    await #expect(processExitsWith: .success) {
      Self.recordingErrors { try Self.failEach(FAULTY_WRITE, forGood: true) }
    }
  }

  @Test func aDiskMayFailForGoodAtAnySync() async {
    await #expect(processExitsWith: .success) {
      Self.recordingErrors { try Self.failEach(FAULTY_SYNC, forGood: true) }
    }
  }

  /// `synchronous = FULL` as the disk sees it.
  @Test func everyAppendWaitsForTheDisk() async {
    await #expect(processExitsWith: .success) {
      Self.recordingErrors { try Self.countSyncs() }
    }
  }

  private static func countSyncs() throws {
    try require(faulty_storage_install() == 0)
    let sample = try SampleSweep()
    let directory = try TemporaryDirectory()
    let ledger = try sample.ledger(directory.file("sweep.sqlite"))
    for batch in Self.batches(of: sample) {
      faulty_storage_heal()
      try ledger.append(batch, now: 2_000)
      try require(faulty_storage_count(FAULTY_SYNC) >= 1, "an append did not wait for the disk")
    }
  }

  /// What makes it cheap to record many results at once.
  @Test func aBurstOfEventsCostsOneSync() async {
    await #expect(processExitsWith: .success) {
      Self.recordingErrors { try Self.compareSyncs() }
    }
  }

  private static func compareSyncs() throws {
    try require(faulty_storage_install() == 0)
    let sample = try SampleSweep()
    let directory = try TemporaryDirectory()
    let ledger = try sample.ledger(directory.file("sweep.sqlite"))
    var rest = sample.run[...]
    try ledger.append(Array(rest.prefix(sample.opening.count)), now: 2_000)
    rest = rest.dropFirst(sample.opening.count)
    for count in [1, 50] {
      try require(rest.count >= count, "only \(rest.count) events are left")
      faulty_storage_heal()
      try ledger.append(Array(rest.prefix(count)), now: 2_000)
      let syncs = faulty_storage_count(FAULTY_SYNC)
      try require(syncs == 1, "an append of \(count) events cost \(syncs) syncs")
      rest = rest.dropFirst(count)
    }
  }

  private struct Broken: Error, CustomStringConvertible {
    let description: String
  }

  /// A precondition that says in release mode too what is wrong.
  private static func require(_ holds: Bool, _ claim: @autoclosure () -> String = "") throws {
    if !holds { throw Broken(description: claim()) }
  }

  /// Errors of a process of its own, told to the one that waits for it.
  private static func recordingErrors(_ body: () throws -> Void) {
    do {
      try body()
    } catch {
      Issue.record("\(error)")
    }
  }
}
