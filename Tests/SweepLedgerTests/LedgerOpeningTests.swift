import Foundation
import GRDB
import SweepCore
import SweepLedger
import SweepTestKit
import Testing

/// Starting, reopening and refusing ledger files.
struct LedgerOpeningTests {
  private let directory: TemporaryDirectory
  private let sample: SampleSweep
  private let path: String

  init() throws {
    directory = try TemporaryDirectory()
    sample = try SampleSweep()
    path = directory.file("sweep.sqlite")
  }

  /// The error with which opening `path` fails, which must be a `LedgerError`.
  private func refusal(_ open: () throws -> Void) -> LedgerError? {
    do {
      try open()
      return nil
    } catch {
      return error as? LedgerError
    }
  }

  @Test func newLedgerHoldsTheWholePlan() throws {
    let ledger = try sample.ledger(path)
    #expect(try ledger.events().isEmpty)
    let reader = try LedgerReader(path: path)
    let sweep = try reader.sweep()
    #expect(sweep.spec == sample.spec)
    #expect(sweep.name == "sample")
    #expect(sweep.specDigest == (try sample.spec.digest().description))
    #expect(sweep.programVersion == version)
    #expect(sweep.createdAt == 1_000)
    let status = try reader.status(now: 1_000)
    #expect(status.declared == sample.plan.grid.points.count)
    #expect(status.trials == sample.plan.grid.trials.count)
    #expect(status.shards == sample.plan.shards.count)
    #expect(status.completed == 0 && status.attempts == 0)
  }

  @Test func emptyFileBecomesALedger() throws {
    try Data().write(to: URL(fileURLWithPath: path))
    _ = try sample.ledger(path)
    #expect(try LedgerReader(path: path).sweep().name == "sample")
  }

  @Test func reopenedLedgerReturnsItsEvents() throws {
    try sample.ledger(path).append(sample.run, now: 2_000)
    let again = try sample.ledger(path)
    #expect(try again.events() == sample.run)
    #expect(try count("SELECT count(*) FROM trial", in: path) == sample.plan.grid.trials.count)
  }

  @Test func anotherSpecIsRefusedWithItsDifferences() throws {
    try sample.finishedLedger(path)
    let other = try SampleSweep(
      sketch: SampleSweep.sketch.replacing("seeds: [1, 2]", with: "seeds: [1, 3]"))
    guard case .otherSweep(_, let differences) = refusal({ _ = try other.ledger(path) }) else {
      Issue.record("expected LedgerError.otherSweep")
      return
    }
    #expect(differences.map(\.description) == ["seeds: [1, 2] → [1, 3]"])
    #expect(try sample.ledger(path).events() == sample.run)
  }

  @Test func anotherProgramVersionIsRefused() throws {
    try sample.finishedLedger(path)
    let error = refusal { _ = try sample.ledger(path, version: "2.0.0") }
    guard case .otherProgram(_, version, "2.0.0") = error else {
      Issue.record("expected LedgerError.otherProgram, found \(String(describing: error))")
      return
    }
  }

  @Test func textFileIsRefusedUnchanged() throws {
    let text = Data(String(repeating: "not a ledger\n", count: 100).utf8)
    try text.write(to: URL(fileURLWithPath: path))
    for open in [{ _ = try sample.ledger(path) }, { _ = try LedgerReader(path: path) }] {
      guard case .notALedger = refusal(open) else {
        Issue.record("expected LedgerError.notALedger")
        continue
      }
    }
    #expect(try bytes(path) == text)
  }

  @Test func otherDatabaseIsRefusedUnchanged() throws {
    try rawDatabase(path).write { try $0.execute(sql: "CREATE TABLE recipe (name TEXT)") }
    let before = try bytes(path)
    for open in [{ _ = try sample.ledger(path) }, { _ = try LedgerReader(path: path) }] {
      guard case .notALedger = refusal(open) else {
        Issue.record("expected LedgerError.notALedger")
        continue
      }
    }
    #expect(try bytes(path) == before)
  }

  @Test func ledgerOfANewerVersionIsRefused() throws {
    try sample.finishedLedger(path)
    try rawDatabase(path).write {
      try $0.execute(sql: "INSERT INTO grdb_migrations (identifier) VALUES ('99')")
    }
    for open in [{ _ = try sample.ledger(path) }, { _ = try LedgerReader(path: path) }] {
      guard case .newer = refusal(open) else {
        Issue.record("expected LedgerError.newer")
        continue
      }
    }
  }

  @Test(arguments: [0.3, 0.6, 0.9])
  func truncatedLedgerIsRefusedUnchanged(share: Double) throws {
    try sample.finishedLedger(path)
    let whole = try bytes(path)
    let part = whole.prefix(Int(Double(whole.count) * share))
    try part.write(to: URL(fileURLWithPath: path))
    guard case .damaged = refusal({ _ = try sample.ledger(path) }) else {
      Issue.record("expected LedgerError.damaged")
      return
    }
    #expect(try bytes(path) == part)
  }

  @Test func corruptPagesAreRefusedUnchanged() throws {
    try sample.finishedLedger(path)
    var damaged = try bytes(path)
    // Every page but the first, so that the file still looks like a ledger.
    for offset in stride(from: 4096, to: damaged.count, by: 4096) {
      for index in offset..<min(offset + 64, damaged.count) { damaged[index] ^= 0xA5 }
    }
    try damaged.write(to: URL(fileURLWithPath: path))
    guard case .damaged = refusal({ _ = try sample.ledger(path) }) else {
      Issue.record("expected LedgerError.damaged")
      return
    }
    #expect(try bytes(path) == damaged)
  }

  @Test func undecodableEventNamesItsNumber() throws {
    let ledger = try sample.ledger(path)
    try ledger.append(sample.opening, now: 2_000)
    try rawDatabase(path).write {
      try $0.execute(sql: "INSERT INTO event (at, kind, payload) VALUES (1, 'x', '{\"x\":{}}')")
    }
    guard case .damaged(_, let detail) = refusal({ _ = try ledger.events() }) else {
      Issue.record("expected LedgerError.damaged")
      return
    }
    #expect(detail.contains("event 3 "))
  }

  @Test func missingLedgerIsNotMadeByReading() {
    guard case .missing = refusal({ _ = try LedgerReader(path: path) }) else {
      Issue.record("expected LedgerError.missing")
      return
    }
    #expect(!FileManager.default.fileExists(atPath: path))
  }

  @Test func missingDirectoryIsNamed() {
    let nowhere = directory.file("nowhere/sweep.sqlite")
    let error = refusal { _ = try sample.ledger(nowhere) }
    #expect(error?.description.contains(nowhere) == true)
  }

  @Test func secondCoordinatorIsRefusedUntilTheFirstIsGone() throws {
    var first: Ledger? = try sample.ledger(path)
    #expect(first?.path == path)
    #expect(LedgerLock.isHeld(ledger: path))
    guard case .inUse = refusal({ _ = try sample.ledger(path) }) else {
      Issue.record("expected LedgerError.inUse")
      return
    }
    #expect(try LedgerReader(path: path).status(now: 0).coordinatorRunning)
    first = nil
    #expect(!LedgerLock.isHeld(ledger: path))
    _ = try sample.ledger(path)
  }

  @Test func messagesNameTheFileAndWhatToDo() {
    let errors: [LedgerError] = [
      .missing(path: path), .notALedger(path: path, detail: "x"), .damaged(path: path, detail: "x"),
      .newer(path: path), .inUse(path: path), .otherSweep(path: path, differences: []),
      .otherProgram(path: path, found: "1", here: "2"), .diskFull(path: path),
      .readOnly(path: path), .notDurable(path: path, synchronous: 1),
    ]
    for error in errors {
      #expect(error.description.contains(path))
      #expect(error.description.contains(". "), "no advice in: \(error)")
    }
  }
}
