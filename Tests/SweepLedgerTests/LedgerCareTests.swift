import Foundation
import GRDB
import SweepCore
import SweepLedger
import SweepTestKit
import Testing

/// Verifying, copying and compacting ledgers, and the state saved in them.
struct LedgerCareTests {
  private let directory: TemporaryDirectory
  private let sample: SampleSweep
  private let path: String

  init() throws {
    directory = try TemporaryDirectory()
    sample = try SampleSweep()
    path = directory.file("sweep.sqlite")
  }

  private func scheduler(after events: [SweepEvent]) -> Scheduler {
    var scheduler = Scheduler(plan: sample.plan, policy: ExecutionPolicy(), seed: 1)
    for event in events { scheduler.apply(event, now: .zero) }
    return scheduler
  }

  /// A ledger in the middle of a run, its state saved some events before its end.
  private func fill() throws -> Ledger {
    let ledger = try sample.ledger(path)
    let first = sample.opening + (0..<6).flatMap { sample.completion(of: $0) }
    try ledger.append(first, now: 2_000, state: scheduler(after: first).snapshot(now: .zero))
    try ledger.append(
      sample.completion(of: 6) + sample.failure(of: 7, evidence: "the loss is not finite"),
      now: 2_001)
    return ledger
  }

  private func verify(
    _ path: String, artifacts: URL? = nil, version: String = version
  ) throws -> LedgerVerification {
    try LedgerVerification(path: path, artifacts: artifacts, version: version)
  }

  @Test func soundLedgerIsSoundAlsoWhileItIsInUse() throws {
    let ledger = try fill()
    let found = try verify(path)
    #expect(found.problems.isEmpty && found.unchecked.isEmpty)
    #expect(try found.events == ledger.events().count)
    #expect(found.snapshotSequence == Int64(found.events - sample.completion(of: 6).count - 3))
    #expect(try found.resultDigest == LedgerReader(path: path).resultDigest().description)
    #expect(try !verify(path, version: "2.0.0").unchecked.isEmpty)
  }

  /// What a foreign hand, past the constraints, could have done to the tables or the events.
  @Test(arguments: [
    "UPDATE metric SET value = value + 1e-9",
    "UPDATE trial SET completed_at = 1 WHERE completed_by IS NOT NULL",
    "INSERT INTO note SELECT id, 'gap', 'x' FROM trial LIMIT 1",
    "UPDATE fact SET value = 0 WHERE name = 'final_loss'",
    "UPDATE attempt SET evidence = 'other' WHERE ending = 'failed'",
    "UPDATE shard SET reason = 'other' WHERE state = 'quarantined'",
    "UPDATE worker SET slots = 2",
    "UPDATE input SET digest = 'other' WHERE name = 'model'",
    "UPDATE event SET payload = replace(payload, '\"attempt\":1', '\"attempt\":2')",
    "DELETE FROM event WHERE sequence = 4",
    "UPDATE sweep SET spec = replace(spec, '0.5', '0.25')",
    "UPDATE grid_point SET trial = 'none' WHERE ordinal = 0",
    "UPDATE sweep SET name = 'other'",
    "UPDATE sweep SET spec = spec || ' '",
    "UPDATE sweep SET spec_digest = replace(hex(zeroblob(32)), '0', 'a')",
  ])
  func tamperedLedgerIsFound(_ statement: String) throws {
    try fill().close()
    try tamper(statement)
    #expect(try !verify(path).problems.isEmpty)
  }

  /// No event repeats what was planned: the spec alone says it.
  @Test(arguments: [
    "UPDATE shard SET ordinal = ordinal + 100",
    "UPDATE shard SET kind = 'augmentation' WHERE ordinal = 39",
    "UPDATE shard SET domain = 'other' WHERE ordinal = 0",
    "UPDATE shard SET bias = 'neutral' WHERE ordinal = 0",
    "UPDATE shard SET ratio = ratio / 2 WHERE ratio = 0.5",
    "UPDATE shard SET mitigation = 'token' WHERE ratio = 0.5",
    "UPDATE shard SET seed = seed + 10 WHERE kind = 'fine_tune'",
    "UPDATE shard SET round = 2 WHERE ordinal = 0",
    "UPDATE shard SET dependency = NULL WHERE dependency IS NOT NULL",
    "UPDATE shard SET dependency = (SELECT min(id) FROM shard) WHERE kind = 'fine_tune'",
    "UPDATE shard SET cost = cost * (1 + 1e-15)",
    "UPDATE trial SET ordinal = ordinal + 100",
    "UPDATE trial SET shard = (SELECT shard FROM trial WHERE ordinal = 1) WHERE ordinal = 0",
    "UPDATE trial SET task = 'other' WHERE ordinal = 0",
    "UPDATE trial SET bias = 'neutral' WHERE ratio > 0",
    "UPDATE trial SET ratio = ratio / 2 WHERE ratio = 0.5",
    "UPDATE trial SET mitigation = 'token' WHERE ordinal = 0",
    "UPDATE trial SET seed = seed + 10",
    "UPDATE trial SET round = 2 WHERE ratio > 0",
    "UPDATE grid_point SET ordinal = -1 WHERE ordinal = 0",
    "UPDATE grid_point SET task = 'other' WHERE ordinal = 0",
    "UPDATE grid_point SET bias = 'neutral' WHERE ordinal = 0",
    "UPDATE grid_point SET ratio = ratio / 2 WHERE ratio = 0.5",
    "UPDATE grid_point SET mitigation = 'token' WHERE ordinal = 0",
    "UPDATE grid_point SET seed = seed + 10",
    "UPDATE grid_point SET round = 2",
    "UPDATE grid_point SET trial = (SELECT id FROM trial WHERE ordinal = 1) WHERE ordinal = 0",
    "DELETE FROM grid_point WHERE ordinal = 0",
  ])
  func tamperedPlanIsFound(_ statement: String) throws {
    try fill().close()
    try tamper(statement)
    let problems = try verify(path).problems
    let tables = ["shard", "trial", "grid_point"]
    let words = statement.split(separator: " ").map(String.init)
    let table = try #require(words.first(where: { tables.contains($0) }))
    #expect(problems.contains { $0.hasPrefix("\(table) ") }, "\(problems)")
  }

  /// Other versions may order shards otherwise, which is no damage; what they plan of a grid is the
  /// same.
  @Test func planOfAnotherVersionIsComparedAsFarAsItIsTheSame() throws {
    try fill().close()
    try tamper("UPDATE shard SET cost = cost + 1")
    #expect(try !verify(path).problems.isEmpty)
    let costs = try verify(path, version: "2.0.0")
    #expect(costs.problems.isEmpty && costs.unchecked.count == 1)

    try tamper("UPDATE shard SET ordinal = -1 WHERE ordinal = 39")
    #expect(try !verify(path).problems.isEmpty)
    let order = try verify(path, version: "2.0.0")
    #expect(order.problems.isEmpty && order.unchecked.count == 2)

    try tamper("UPDATE shard SET ordinal = 39 WHERE ordinal = -1")
    try tamper("UPDATE trial SET seed = seed + 10 WHERE ordinal = 0")
    #expect(try verify(path, version: "2.0.0").problems.count == 1)
  }

  /// Changes a closed ledger as its schema would not allow.
  private func tamper(_ statement: String) throws {
    try rawDatabase(path).writeWithoutTransaction { database in
      try database.execute(sql: "PRAGMA foreign_keys = OFF")
      let triggers = try String.fetchAll(
        database, sql: "SELECT name FROM sqlite_master WHERE type = 'trigger'")
      for trigger in triggers { try database.execute(sql: "DROP TRIGGER \(trigger)") }
      try database.execute(sql: statement)
      #expect(database.changesCount > 0)
    }
  }

  @Test func artifactsAreCheckedAgainstTheirDigests() throws {
    try fill().close()
    let artifacts = URL(fileURLWithPath: directory.file("artifacts"), isDirectory: true)
    try FileManager.default.createDirectory(at: artifacts, withIntermediateDirectories: true)
    let augmentations = sample.plan.shards.prefix(while: { $0.trials.isEmpty })
    #expect(try verify(path, artifacts: artifacts).problems.count == augmentations.count)
    for shard in augmentations {
      let bytes = Data(shard.id.description.utf8)
      try bytes.write(to: artifacts.appendingPathComponent(ContentDigest(of: bytes).description))
    }
    let sound = try verify(path, artifacts: artifacts)
    #expect(sound.problems.isEmpty && sound.artifacts == augmentations.count)
    let first = ContentDigest(of: Data(sample.plan.shards[0].id.description.utf8)).description
    try Data("other".utf8).write(to: artifacts.appendingPathComponent(first))
    #expect(try verify(path, artifacts: artifacts).problems.count == 1)
  }

  @Test func stateIsSavedWithItsEventsOrNotAtAll() throws {
    let ledger = try fill()
    let saved = try #require(try ledger.snapshot())
    let tail = try ledger.events(after: saved.sequence)
    #expect(try tail.count == ledger.events().count - Int(saved.sequence))
    var restored = try #require(
      Scheduler(
        plan: sample.plan, policy: ExecutionPolicy(), seed: 2, snapshot: saved.state, now: .zero))
    for event in tail { restored.apply(event, now: .zero) }
    #expect(try restored.durableState == scheduler(after: ledger.events()).durableState)

    let refused = sample.failure(of: 0, evidence: "a completed shard fails")
    #expect(throws: LedgerError.self) {
      try ledger.append(refused, now: 2_002, state: Data("of events that are not there".utf8))
    }
    #expect(try ledger.snapshot()?.state == saved.state)
  }

  /// A running coordinator takes the state with a commit and saves it some commits later.
  @Test func aStateMayBeSavedAfterEventsThatItDoesNotHold() throws {
    let ledger = try sample.ledger(path)
    let first = sample.opening + sample.completion(of: 0)
    let last = try ledger.append(first, now: 2_000)
    #expect(last == Int64(first.count))
    let state = try scheduler(after: first).snapshot(now: .zero)
    try ledger.append(sample.completion(of: 1), now: 2_001)
    try ledger.save(LedgerSnapshot(sequence: last, state: state))
    let saved = try #require(try ledger.snapshot())
    #expect(saved.sequence == last && saved.state == state)
    #expect(try ledger.events(after: last) == sample.completion(of: 1))
    let found = try verify(path)
    #expect(found.problems.isEmpty && found.unchecked.isEmpty && found.snapshotSequence == last)
  }

  @Test func backupOfARunningSweepIsALedgerOfOneInstant() throws {
    let ledger = try fill()
    let before = try ledger.events()
    let copy = directory.file("copy.sqlite")
    let bytes = try LedgerMaintenance.backup(path: path, to: copy)
    #expect(try bytes == self.bytes(copy))
    try ledger.append(sample.completion(of: 8), now: 2_002)
    #expect(try verify(copy).problems.isEmpty)
    // The sweep can go on with the copy.
    let other = try sample.ledger(copy)
    #expect(try other.events() == before)
    try other.append(sample.completion(of: 9), now: 2_003)
    #expect(throws: LedgerError.self) { try LedgerMaintenance.backup(path: path, to: copy) }
    #expect(
      try FileManager.default.contentsOfDirectory(atPath: directory.path)
        .filter { $0.hasSuffix(".partial") }.isEmpty)
  }

  private func bytes(_ path: String) throws -> Int { try SweepLedgerTests.bytes(path).count }

  @Test func vacuumKeepsEverythingAndWaitsForNobody() throws {
    let ledger = try fill()
    #expect(throws: LedgerError.self) { try LedgerMaintenance.vacuum(path: path) }
    let events = try ledger.events()
    try ledger.close()
    let (before, after) = try LedgerMaintenance.vacuum(path: path)
    #expect(try after <= before && after == bytes(path))
    #expect(try verify(path).problems.isEmpty)
    #expect(try sample.ledger(path).events() == events)
  }

  @Test func readersNeverBlockAppends() throws {
    let ledger = try fill()
    let reader = try rawDatabase(path)
    try reader.inTransaction(.deferred) { database in
      let before = try Int.fetchOne(database, sql: "SELECT count(*) FROM event")
      // An append, or the end of a run, that waited for this reader would never come back.
      try ledger.append(sample.completion(of: 8), now: 2_002)
      try ledger.checkpoint()
      #expect(try Int.fetchOne(database, sql: "SELECT count(*) FROM event") == before)
      return .commit
    }
    #expect(try ledger.events().suffix(2).first?.kind == "trial_completed")
  }

  @Test func refusedLedgersStayAsTheyWere() throws {
    try fill().close()
    let before = try SweepLedgerTests.bytes(path)
    let other = try SampleSweep(
      sketch: SampleSweep.sketch.replacing("seeds: [1, 2]", with: "seeds: [1, 3]"))
    #expect(throws: LedgerError.self) { _ = try other.ledger(path) }
    #expect(throws: LedgerError.self) { _ = try sample.ledger(path, version: "2.0.0") }
    #expect(try SweepLedgerTests.bytes(path) == before)
  }

  @Test func aLinkLeadsToTheSameLock() throws {
    let ledger = try fill()
    let link = directory.file("link.sqlite")
    try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: path)
    #expect(LedgerLock.isHeld(ledger: link))
    #expect(throws: LedgerError.self) { _ = try sample.ledger(link) }
    try ledger.close()
    _ = try sample.ledger(link)
  }

  /// The lock belongs to a process, not to the file: what a killed one leaves behind stops nobody.
  @Test func lockOfAnotherProcessEndsWithIt() throws {
    try fill().close()
    let holder = Process()
    holder.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    holder.arguments = ["flock", "--exclusive", "--no-fork", path + "-lock", "sleep", "600"]
    try holder.run()
    while !LedgerLock.isHeld(ledger: path), holder.isRunning {}
    #expect(throws: LedgerError.self) { _ = try sample.ledger(path) }
    kill(holder.processIdentifier, SIGKILL)
    holder.waitUntilExit()
    #expect(FileManager.default.fileExists(atPath: path + "-lock"))
    _ = try sample.ledger(path)
  }
}
