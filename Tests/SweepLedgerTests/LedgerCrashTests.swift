import Foundation
import GRDB
import SweepCore
import SweepLedger
import SweepTestKit
import Testing

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// A coordinator that is killed with SIGKILL at any moment.
struct LedgerCrashTests {
  /// Appends one batch after the other, each acknowledged in a file of bytes, until the process is
  /// killed by a thread that waits for some batches and then for a moment that depends on `round`.
  private static func appendUntilKilled(in directory: String, round: Int) throws {
    let sample = try SampleSweep()
    let ledger = try sample.ledger(directory + "/sweep.sqlite")
    let acknowledgements = open(directory + "/acknowledged", O_WRONLY | O_CREAT | O_APPEND, 0o644)
    precondition(acknowledgements >= 0, "cannot acknowledge: errno \(errno)")
    let killer = Thread {
      let batches = off_t(1 + round % 7)
      var status = stat()
      let start = lseek(acknowledgements, 0, SEEK_END)
      while fstat(acknowledgements, &status) == 0, status.st_size < start + batches {}
      var spin = UInt64(SampleSweep.value(of: "\(round)") * 3_000)
      while spin > 0, fstat(acknowledgements, &status) == 0 { spin -= 1 }
      kill(getpid(), SIGKILL)
    }
    killer.start()
    var next = try ledger.events().count
    while true {
      // Several events a batch, so that a torn batch would show.
      let batch = (0..<5).map { CrashBatch.event(number: next + $0) }
      try ledger.append(batch, now: 2_000)
      next += batch.count
      var byte: UInt8 = 1
      precondition(write(acknowledgements, &byte, 1) == 1, "cannot acknowledge: errno \(errno)")
    }
  }

  @Test func nothingAcknowledgedIsLostWhenTheProcessIsKilled() async throws {
    let directory = try TemporaryDirectory()
    let path = directory.path
    for round in 0..<12 {
      await #expect(processExitsWith: .signal(SIGKILL)) {
        [path = path as String, round = round as Int] in
        try Self.appendUntilKilled(in: path, round: round)
      }
      #expect(!LedgerLock.isHeld(ledger: path + "/sweep.sqlite"))
      let sample = try SampleSweep()
      let ledger = try sample.ledger(path + "/sweep.sqlite")
      #expect(try integrity(of: path + "/sweep.sqlite") == "ok")
      let events = try ledger.events()
      #expect(events.count % 5 == 0, "a batch was torn")
      #expect(events == events.indices.map { CrashBatch.event(number: $0) })
      let acknowledged = try bytes(directory.file("acknowledged")).count
      // The kill may fall between a commit and its acknowledgement, once a round.
      #expect((acknowledged...acknowledged + round + 1).contains(events.count / 5))
      let workers = try count("SELECT count(*) FROM worker", in: path + "/sweep.sqlite")
      #expect(workers == events.count)
    }
  }
}

/// SQLite's own verdict.
private func integrity(of path: String) throws -> String? {
  try rawDatabase(path).read { try String.fetchOne($0, sql: "PRAGMA integrity_check") }
}

private enum CrashBatch {
  static func event(number: Int) -> SweepEvent {
    .workerJoined(
      WorkerInfo(id: "worker-\(number)", host: "h", processID: number, slots: 1, threads: 1))
  }
}
