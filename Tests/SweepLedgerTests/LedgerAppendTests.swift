import Foundation
import GRDB
import SweepCore
import SweepLedger
import SweepTestKit
import Testing

/// What is recorded, and what cannot be recorded twice.
struct LedgerAppendTests {
  private let directory: TemporaryDirectory
  private let sample: SampleSweep
  private let path: String

  init() throws {
    directory = try TemporaryDirectory()
    sample = try SampleSweep()
    path = directory.file("sweep.sqlite")
  }

  /// One event of every kind.
  private var allKinds: [SweepEvent] {
    sample.opening + sample.completion(of: 0) + sample.completion(of: 4)
      + [
        .sweepStopped(reason: "interrupted"), .workerLeft(worker: "worker-1", reason: "left"),
        .sweepResumed,
      ] + sample.failure(of: 5, evidence: "multi\nline “evidence” \u{0} with '; DROP TABLE trial")
  }

  @Test func eventsComeBackAsTheyWere() throws {
    let ledger = try sample.ledger(path)
    let numbers: SweepEvent = .trialCompleted(
      trial: sample.plan.shards[5].trials[0].id, token: LeaseToken(6),
      metrics: ["a": 0.1 + 0.2, "b": .leastNonzeroMagnitude, "c": -0.0, "d": 1e300],
      notes: ["e": "too few items"])
    let events = allKinds
    #expect(Set(events.map(\.kind)).count == 10)
    try ledger.append(events, now: 2_000)
    try ledger.append(
      [
        .shardLeased(
          shard: sample.plan.shards[6].id, worker: "worker-1", token: LeaseToken(100), attempt: 1)
      ], now: 2_001)
    try ledger.append([numbers.under(LeaseToken(100))], now: 2_002)
    #expect(
      try ledger.events().dropFirst(events.count + 1).first == numbers.under(LeaseToken(100)))
    #expect(try Array(ledger.events().prefix(events.count)) == events)
    let stored = try rawDatabase(path).read {
      try Double.fetchAll(
        $0, sql: "SELECT value FROM metric WHERE name IN ('a', 'b', 'd') ORDER BY name")
    }
    #expect(stored == [0.1 + 0.2, .leastNonzeroMagnitude, 1e300])
  }

  @Test func fineTunesWithAnArtifactAreListed() throws {
    let ledger = try sample.ledger(path)
    try ledger.append(allKinds, now: 2_000)
    let reader = try LedgerReader(path: path)
    #expect(try reader.keptFineTunes().isEmpty)
    let shard = sample.plan.shards[6]
    let artifact = ContentDigest(of: [1, 2, 3])
    try ledger.append(
      [.sweepResumed]
        + [
          .shardLeased(
            shard: shard.id, worker: "worker-1", token: LeaseToken(100), attempt: 1)
        ]
        + shard.trials.map {
          .trialCompleted(trial: $0.id, token: LeaseToken(100), metrics: ["m": 1], notes: [:])
        }
        + [
          .shardCompleted(
            shard: shard.id, token: LeaseToken(100), artifact: artifact, facts: [:])
        ], now: 2_001)
    let kept = try reader.keptFineTunes()
    #expect(kept.map(\.id) == [shard.id.description])
    #expect(kept.map(\.artifact) == [artifact.description])
    guard case .fineTune(let key, _) = shard.work else { return }
    #expect(kept[0].ratio == key.ratio && kept[0].seed == Int64(key.seed))
    #expect(kept[0].bias == key.bias?.rawValue && kept[0].mitigation == key.mitigation.rawValue)
  }

  @Test func augmentedDataAreListedWithTheirFacts() throws {
    let ledger = try sample.ledger(path)
    let sets = sample.plan.shards.indices.filter { sample.plan.shards[$0].trials.isEmpty }
    try ledger.append(sample.opening + sample.completion(of: sets[0]), now: 2_000)
    let records = try LedgerReader(path: path).augmentations()
    #expect(records.map(\.id) == sets.map { sample.plan.shards[$0].id.description })
    #expect(records.map(\.state) == ["completed"] + sets.dropFirst().map { _ in "queued" })
    let id = sample.plan.shards[sets[0]].id.description
    #expect(records[0].artifact == ContentDigest(of: id.utf8).description)
    #expect(
      records[0].facts
        == ["items": 60, "rejection_rate": SampleSweep.value(of: id), "work_seconds": 1])
    #expect(records.dropFirst().allSatisfy { $0.artifact == nil && $0.facts.isEmpty })
  }

  /// What is written by hand must read as the general encoder writes it.
  @Test func payloadsAreWhatTheEncoderWrites() throws {
    let ledger = try sample.ledger(path)
    let token = LeaseToken(UInt64(Int64.max))
    let shard = sample.plan.shards[5].id
    let trial = sample.plan.shards[5].trials[0].id
    let events: [SweepEvent] =
      sample.opening + [
        .shardLeased(shard: shard, worker: "worker-1", token: token, attempt: 1),
        .trialCompleted(
          trial: trial, token: token,
          metrics: [
            "b": 1, "a": 0.1 + 0.2, "c": -0.0, "d": 1e300, "e": 1e16, "f": .leastNonzeroMagnitude,
            "g": -12345.678, "A": 0,
          ], notes: ["z": "too few items", "y": "50% / “q”\n\"\\ \u{7f}é"]),
        .shardCompleted(
          shard: shard, token: token, artifact: ContentDigest(of: [1]), facts: ["loss": 1e-7],
          seconds: 12.5),
        .workerJoined(WorkerInfo(id: "é\"", host: "h", processID: 1, slots: 1, threads: 1)),
        .shardLeased(
          shard: sample.plan.shards[6].id, worker: "é\"", token: LeaseToken(9), attempt: 2),
        .attemptEnded(
          shard: sample.plan.shards[6].id, token: LeaseToken(9), ending: .lost, evidence: "",
          retryAfterSeconds: 0.5),
      ]
    try ledger.append(events, now: 2_000)
    #expect(try ledger.events() == events)
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    let payloads = try rawDatabase(path).read {
      try String.fetchAll($0, sql: "SELECT payload FROM event ORDER BY sequence")
    }
    for (event, payload) in zip(events, payloads) {
      #expect(payload == String(decoding: try encoder.encode(event), as: UTF8.self))
    }
  }

  @Test func commitsWaitForTheDisk() throws {
    // The ledger refuses to open otherwise, so this states what opening has checked; the value
    // itself belongs to the connection and is not in the file.
    _ = try sample.ledger(path)
    let mode = try rawDatabase(path).read { try String.fetchOne($0, sql: "PRAGMA journal_mode") }
    #expect(mode == "wal")
  }

  /// SQLite keeps a value of another type than its column's as it is, unless the table is strict.
  @Test func everyTableIsStrict() throws {
    _ = try sample.ledger(path)
    let tables = try rawDatabase(path).read {
      try Row.fetchAll(
        $0,
        sql: """
          SELECT name, strict FROM pragma_table_list
          WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'
            AND name <> 'grdb_migrations'
          """)
    }
    #expect(tables.count >= 14)
    for row in tables {
      let (name, isStrict): (String, Bool) = (row["name"], row["strict"])
      #expect(isStrict, "\(name)")
    }
  }

  @Test func appendIsAllOrNothing() throws {
    let ledger = try sample.ledger(path)
    try ledger.append(sample.opening + sample.completion(of: 0), now: 2_000)
    let before = try ledger.events()
    // Good events first, and then one that the tables refuse: the shard is completed already.
    let batch = sample.completion(of: 1) + sample.failure(of: 0, evidence: "late")
    #expect(throws: LedgerError.self) { try ledger.append(batch, now: 2_001) }
    #expect(try ledger.events() == before)
    #expect(
      try count("SELECT count(*) FROM shard WHERE state = 'completed'", in: path) == 1)
    try ledger.append(sample.completion(of: 1), now: 2_002)
  }

  @Test func eventsAboutUnknownRowsAreRefused() throws {
    let ledger = try sample.ledger(path)
    try ledger.append(sample.opening, now: 2_000)
    let token = LeaseToken(77)
    let shard = sample.plan.shards[0].id
    let strangers: [SweepEvent] = [
      .workerLeft(worker: "nobody", reason: "x"),
      .shardLeased(shard: ShardID("tune/none"), worker: "worker-1", token: token, attempt: 1),
      .shardLeased(shard: shard, worker: "nobody", token: token, attempt: 1),
      .trialCompleted(trial: TrialID("none"), token: token, metrics: [:], notes: [:]),
      .shardCompleted(shard: shard, token: token, artifact: nil, facts: [:]),
      .attemptEnded(
        shard: shard, token: token, ending: .lost, evidence: "", retryAfterSeconds: 0),
      .shardQuarantined(shard: ShardID("tune/none"), reason: "x"),
    ]
    for event in strangers {
      #expect(throws: LedgerError.self, "\(event)") { try ledger.append([event], now: 2_001) }
    }
    #expect(try ledger.events() == sample.opening)
  }

  @Test func inputsAreFixedOnce() throws {
    let ledger = try sample.ledger(path)
    try ledger.append([.inputsFixed(["model": "a"])], now: 2_000)
    #expect(throws: LedgerError.self) {
      try ledger.append([.inputsFixed(["model": "b"])], now: 2_001)
    }
    #expect(try LedgerReader(path: path).sweep().inputs == ["model": "a"])
  }

  /// Statements that would give a trial a second result, a shard a second lease or completion, or
  /// rewrite history; sent past the program by a foreign client, the schema alone must refuse them.
  @Test(arguments: [
    "INSERT INTO metric SELECT trial, name, 0.5 FROM metric LIMIT 1",
    "UPDATE metric SET value = value + 1",
    "DELETE FROM metric",
    "UPDATE trial SET completed_by = 2 WHERE completed_by = 5",
    "UPDATE trial SET completed_by = NULL, completed_at = NULL WHERE completed_by IS NOT NULL",
    "INSERT INTO trial SELECT * FROM trial LIMIT 1",
    "DELETE FROM trial WHERE completed_by IS NOT NULL",
    "INSERT INTO grid_point SELECT 9999, task, bias, ratio, mitigation, seed, trial, round "
      + "FROM grid_point LIMIT 1",
    "UPDATE shard SET state = 'queued', completed_by = NULL WHERE state = 'completed'",
    "UPDATE shard SET state = 'completed' WHERE state = 'queued'",
    "UPDATE shard SET completed_by = 999 WHERE state = 'completed'",
    "UPDATE shard SET state = 'lost' WHERE state = 'leased'",
    "INSERT INTO attempt (token, shard, worker, number, started_at) "
      + "SELECT 900, shard, worker, number + 1, 0 FROM attempt WHERE ended_at IS NULL",
    "INSERT INTO attempt (token, shard, worker, number, started_at) "
      + "SELECT token, shard, worker, 9, 0 FROM attempt LIMIT 1",
    "UPDATE event SET payload = '{}'",
    "DELETE FROM event",
    "INSERT INTO sweep SELECT 2, name, spec_digest, spec, program_version, 0 FROM sweep",
  ])
  func schemaRefuses(_ statement: String) throws {
    let ledger = try sample.ledger(path)
    let live: [SweepEvent] = [
      .shardLeased(
        shard: sample.plan.shards[5].id, worker: "worker-1", token: LeaseToken(6), attempt: 1)
    ]
    try ledger.append(
      sample.opening + (0..<5).flatMap { sample.completion(of: $0) } + live, now: 2_000)
    let database = try rawDatabase(path)
    do {
      try database.write { try $0.execute(sql: statement) }
      Issue.record("accepted: \(statement)")
    } catch let error as DatabaseError {
      #expect(error.resultCode == .SQLITE_CONSTRAINT, "\(error)")
    }
  }

  @Test func tablesEqualARecountOfTheEvents() throws {
    let ledger = try sample.ledger(path)
    let retried: [SweepEvent] = [
      .shardLeased(
        shard: sample.plan.shards[6].id, worker: "worker-1", token: LeaseToken(200), attempt: 1),
      .attemptEnded(
        shard: sample.plan.shards[6].id, token: LeaseToken(200), ending: .lost, evidence: "gone",
        retryAfterSeconds: 1),
    ]
    try ledger.append(allKinds + retried, now: 2_000)
    var leased: [String: String] = [:]
    var shardState: [String: String] = [:]
    var endings: [String: Int] = [:]
    var results: [String: Double] = [:]
    for event in try ledger.events() {
      switch event {
      case .shardLeased(let shard, _, let token, _):
        leased["\(token)"] = shard.description
        shardState[shard.description] = "leased"
      case .shardCompleted(let shard, _, _, _, _):
        shardState[shard.description] = "completed"
        endings["completed", default: 0] += 1
      case .attemptEnded(let shard, _, let ending, _, _):
        shardState[shard.description] = "queued"
        endings[ending.rawValue, default: 0] += 1
      case .shardQuarantined(let shard, _): shardState[shard.description] = "quarantined"
      case .trialCompleted(let trial, _, let metrics, _, _):
        for (name, value) in metrics { results["\(trial) \(name)"] = value }
      default: break
      }
    }
    try rawDatabase(path).read { database in
      func table<Value: DatabaseValueConvertible>(_ sql: String) throws -> [String: Value] {
        Dictionary(
          uniqueKeysWithValues: try Row.fetchAll(database, sql: sql).map { ($0[0], $0[1]) })
      }
      let states: [String: String] = try table(
        """
        SELECT id, state FROM shard WHERE state <> 'queued' OR id IN (SELECT shard FROM attempt)
        """)
      #expect(states == shardState)
      let ended: [String: Int] = try table(
        "SELECT ending, count(*) FROM attempt WHERE ending IS NOT NULL GROUP BY ending")
      #expect(ended == endings)
      let attempts: [String: String] = try table("SELECT CAST(token AS TEXT), shard FROM attempt")
      #expect(attempts == leased)
      for (source, trial, metric) in [
        ("metric", "trial", "name"), ("trial_result", "trial_id", "metric"),
      ] {
        let stored: [String: Double] = try table(
          "SELECT \(trial) || ' ' || \(metric), value FROM \(source)")
        #expect(stored == results)
      }
    }
  }

  @Test func digestAndRowsDoNotDependOnTheOrderOfTheRun() throws {
    try sample.finishedLedger(path)
    let backwards = directory.file("backwards.sqlite")
    do {
      let ledger = try sample.ledger(backwards)
      try ledger.append(
        sample.opening
          + sample.plan.shards.indices.reversed().flatMap { sample.completion(of: $0) },
        now: 9_000)
    }
    let (one, other) = (try LedgerReader(path: path), try LedgerReader(path: backwards))
    let (digest, otherDigest) = (try one.resultDigest(), try other.resultDigest())
    #expect(digest == otherDigest)
    let (rows, otherRows) = (try one.gridResults(), try other.gridResults())
    #expect(rows == otherRows)
    #expect(rows.count == sample.plan.grid.points.count)
    #expect(try one.trialResults().count == sample.plan.grid.trials.count)
  }

  @Test func readersSeeARunningSweepWithoutBlockingIt() async throws {
    let ledger = try sample.ledger(path)
    try ledger.append(sample.opening, now: 2_000)
    let path = path
    let total = sample.plan.grid.trials.count
    let readings = Task.detached {
      let reader = try LedgerReader(path: path)
      var seen: [Int] = []
      while seen.last != total {
        let status = try reader.status(now: 2_000)
        // A completed shard has all of its trials: no reading falls within an append.
        let torn = try rawDatabase(path).read {
          try Int.fetchOne(
            $0,
            sql: """
              SELECT count(*) FROM shard JOIN trial ON trial.shard = shard.id
              WHERE shard.state = 'completed' AND trial.completed_by IS NULL
              """) ?? -1
        }
        #expect(torn == 0)
        if status.completed != seen.last { seen.append(status.completed) }
      }
      return seen
    }
    for ordinal in sample.plan.shards.indices {
      try ledger.append(sample.completion(of: ordinal), now: 2_001)
      await Task.yield()
    }
    let seen = try await readings.value
    #expect(seen == seen.sorted() && seen.last == total)
  }
}

extension SweepEvent {
  /// The same result under another lease.
  fileprivate func under(_ token: LeaseToken) -> SweepEvent {
    guard case .trialCompleted(let trial, _, let metrics, let notes, let items) = self else {
      return self
    }
    return .trialCompleted(
      trial: trial, token: token, metrics: metrics, notes: notes, items: items)
  }
}
