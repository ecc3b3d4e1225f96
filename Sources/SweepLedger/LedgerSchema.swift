import GRDB

/// The ledger's tables, documented for readers in docs/LEDGER.md. Constraints repeat the system's
/// invariants, so that even a wrong program could not record a trial twice.
enum LedgerSchema {
  /// Identifies a ledger among SQLite files ("BSwp").
  static let applicationID: Int32 = 0x4253_7770

  /// A version that somebody may have used never changes: what comes later is a migration of its
  /// own, with a ledger of the version before it as fixture of the tests.
  static var migrator: DatabaseMigrator {
    var migrator = DatabaseMigrator()
    migrator.registerMigration("1") { database in
      try database.execute(sql: version1)
    }
    migrator.registerMigration("2") { database in
      try database.execute(sql: version2)
    }
    migrator.registerMigration("3") { database in
      try database.execute(sql: version3)
    }
    migrator.registerMigration("4") { database in
      try database.execute(sql: version4)
    }
    migrator.registerMigration("5") { database in
      try database.execute(sql: version5)
    }
    return migrator
  }

  /// The column of a table that older ledgers, which are read as they are, do not have; their rows are
  /// all of the first round.
  static func round(of table: String, in database: Database) throws -> String {
    try database.columns(in: table).contains { $0.name == "round" } ? "\(table).round" : "1"
  }

  /// What operators do: cancelled shards and attempts, drained workers. And copies of a shard that
  /// run beside each other, each on a worker of its own. A CHECK cannot be changed in place, so the
  /// two tables are made anew.
  private static let version2 = """
    DROP VIEW shard_status;
    DROP VIEW attempt_log;

    CREATE TABLE attempt_2 (
      token INTEGER PRIMARY KEY,
      shard TEXT NOT NULL REFERENCES shard (id),
      worker TEXT NOT NULL REFERENCES worker (id),
      number INTEGER NOT NULL CHECK (number > 0),
      started_at REAL NOT NULL,
      ended_at REAL,
      ending TEXT CHECK (ending IN
        ('completed', 'failed', 'lost', 'expired', 'released', 'cancelled', 'superseded')),
      evidence TEXT,
      CHECK ((ended_at IS NULL) = (ending IS NULL)),
      UNIQUE (shard, number)
    ) STRICT;
    INSERT INTO attempt_2 SELECT * FROM attempt;
    DROP TABLE attempt;
    ALTER TABLE attempt_2 RENAME TO attempt;
    -- A shard has at most two leases at a time, on different workers, and is completed once.
    CREATE UNIQUE INDEX attempt_live ON attempt (shard, worker) WHERE ended_at IS NULL;
    CREATE UNIQUE INDEX attempt_completed ON attempt (shard) WHERE ending = 'completed';
    CREATE TRIGGER attempt_copies BEFORE INSERT ON attempt
      WHEN (SELECT count(*) FROM attempt WHERE shard = NEW.shard AND ended_at IS NULL) >= 2
      BEGIN SELECT RAISE(ABORT, 'a shard has at most two leases at a time'); END;

    CREATE TABLE shard_2 (
      id TEXT PRIMARY KEY,
      ordinal INTEGER NOT NULL UNIQUE,
      kind TEXT NOT NULL CHECK (kind IN ('augmentation', 'fine_tune')),
      domain TEXT NOT NULL,
      bias TEXT,
      ratio REAL CHECK (ratio >= 0 AND ratio < 1),
      mitigation TEXT,
      seed INTEGER,
      dependency TEXT REFERENCES shard (id),
      cost REAL NOT NULL CHECK (cost >= 0),
      state TEXT NOT NULL DEFAULT 'queued'
        CHECK (state IN ('queued', 'leased', 'completed', 'quarantined', 'cancelled')),
      completed_by INTEGER REFERENCES attempt (token),
      artifact TEXT CHECK (length(artifact) = 64),
      reason TEXT,
      CHECK ((state = 'completed') = (completed_by IS NOT NULL)),
      CHECK ((state IN ('quarantined', 'cancelled')) = (reason IS NOT NULL))
    ) STRICT, WITHOUT ROWID;
    INSERT INTO shard_2 SELECT * FROM shard;
    DROP TABLE shard;
    ALTER TABLE shard_2 RENAME TO shard;
    CREATE INDEX shard_dependency ON shard (dependency);
    CREATE TRIGGER shard_completion_is_final BEFORE UPDATE OF state ON shard
      WHEN OLD.state = 'completed'
      BEGIN SELECT RAISE(ABORT, 'a completed shard does not change'); END;

    ALTER TABLE worker ADD COLUMN drained_at REAL;

    CREATE VIEW shard_status AS
      SELECT shard.id AS shard_id, shard.kind, shard.domain, shard.bias, shard.ratio,
        shard.mitigation, shard.seed,
        CASE WHEN shard.state = 'queued' AND needed.state <> 'completed' THEN 'blocked'
          ELSE shard.state END AS state,
        (SELECT count(*) FROM attempt WHERE attempt.shard = shard.id) AS attempts,
        (SELECT worker FROM attempt WHERE attempt.shard = shard.id
          ORDER BY token DESC LIMIT 1) AS worker,
        (SELECT count(*) FROM trial WHERE trial.shard = shard.id) AS trials,
        (SELECT count(*) FROM trial WHERE trial.shard = shard.id
          AND completed_by IS NOT NULL) AS trials_completed,
        shard.artifact, shard.reason
      FROM shard LEFT JOIN shard AS needed ON needed.id = shard.dependency
      ORDER BY shard.ordinal;

    CREATE VIEW attempt_log AS
      SELECT attempt.token, attempt.shard AS shard_id, attempt.number AS attempt,
        attempt.worker AS worker_id, worker.host, worker.process_id,
        datetime(attempt.started_at, 'unixepoch') AS started,
        attempt.ended_at - attempt.started_at AS seconds,
        coalesce(attempt.ending, 'running') AS ending, attempt.evidence
      FROM attempt JOIN worker ON worker.id = attempt.worker
      ORDER BY attempt.token;
    """

  /// The scheduler's state, so that a restart need not replay every event.
  private static let version3 = """
    CREATE TABLE snapshot (
      id INTEGER PRIMARY KEY CHECK (id = 1),
      sequence INTEGER NOT NULL REFERENCES event (sequence),
      state BLOB NOT NULL
    ) STRICT;
    """

  /// Results of single test items, and what the statistics make of all results.
  private static let version4 = """
    CREATE TABLE trial_items (
      trial TEXT NOT NULL REFERENCES trial (id),
      measure TEXT NOT NULL,
      count INTEGER NOT NULL CHECK (count >= 0),
      "values" BLOB NOT NULL CHECK (length("values") = 8 * count),
      PRIMARY KEY (trial, measure)
    ) STRICT, WITHOUT ROWID;
    CREATE TRIGGER trial_items_are_final BEFORE UPDATE ON trial_items
      BEGIN SELECT RAISE(ABORT, 'a result does not change'); END;
    CREATE TRIGGER trial_items_stay BEFORE DELETE ON trial_items
      BEGIN SELECT RAISE(ABORT, 'a result is not deleted'); END;

    CREATE TABLE finding (
      id TEXT PRIMARY KEY,
      kind TEXT NOT NULL,
      task TEXT,
      metric TEXT,
      bias TEXT,
      ratio REAL,
      mitigation TEXT,
      predictor TEXT,
      role TEXT CHECK (role IN ('skill', 'bias')),
      estimate REAL,
      standard_error REAL,
      lower REAL,
      upper REAL,
      effect_size REAL,
      p_value REAL CHECK (p_value BETWEEN 0 AND 1),
      p_adjusted REAL CHECK (p_adjusted BETWEEN 0 AND 1),
      family TEXT,
      seeds INTEGER NOT NULL,
      items INTEGER NOT NULL,
      note TEXT,
      inputs TEXT NOT NULL CHECK (length(inputs) = 64),
      CHECK (estimate IS NOT NULL OR note IS NOT NULL),
      CHECK ((lower IS NULL) = (upper IS NULL))
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX finding_kind ON finding (kind, task, metric, bias, mitigation, ratio);
    """

  /// Rounds of inheritance. What was there before is of the first one.
  private static let version5 = """
    DROP VIEW trial_result;
    DROP VIEW grid_result;
    DROP VIEW shard_status;

    ALTER TABLE shard ADD COLUMN round INTEGER NOT NULL DEFAULT 1 CHECK (round >= 1);
    ALTER TABLE trial ADD COLUMN round INTEGER NOT NULL DEFAULT 1
      CHECK (round = 1 OR (round > 1 AND ratio > 0));
    ALTER TABLE finding ADD COLUMN round INTEGER NOT NULL DEFAULT 1 CHECK (round >= 1);

    CREATE TABLE grid_point_5 (
      ordinal INTEGER PRIMARY KEY,
      task TEXT NOT NULL,
      bias TEXT NOT NULL,
      ratio REAL NOT NULL,
      mitigation TEXT NOT NULL,
      seed INTEGER NOT NULL,
      trial TEXT NOT NULL REFERENCES trial (id),
      round INTEGER NOT NULL DEFAULT 1 CHECK (round >= 1),
      UNIQUE (task, bias, ratio, mitigation, seed, round)
    ) STRICT;
    INSERT INTO grid_point_5
      SELECT ordinal, task, bias, ratio, mitigation, seed, trial, 1 FROM grid_point;
    DROP TABLE grid_point;
    ALTER TABLE grid_point_5 RENAME TO grid_point;

    CREATE VIEW trial_result AS
      SELECT trial.id AS trial_id, task, coalesce(bias, 'original') AS bias, ratio, mitigation,
        seed, metric.name AS metric, metric.value AS value, round
      FROM trial JOIN metric ON metric.trial = trial.id
      ORDER BY trial.ordinal, metric.name;

    CREATE VIEW grid_result AS
      SELECT grid_point.task, grid_point.bias, grid_point.ratio, grid_point.mitigation,
        grid_point.seed, grid_point.trial AS trial_id, metric.name AS metric,
        metric.value AS value, grid_point.round
      FROM grid_point JOIN metric ON metric.trial = grid_point.trial
      ORDER BY grid_point.ordinal, metric.name;

    CREATE VIEW shard_status AS
      SELECT shard.id AS shard_id, shard.kind, shard.domain, shard.bias, shard.ratio,
        shard.mitigation, shard.seed,
        CASE WHEN shard.state = 'queued' AND needed.state <> 'completed' THEN 'blocked'
          ELSE shard.state END AS state,
        (SELECT count(*) FROM attempt WHERE attempt.shard = shard.id) AS attempts,
        (SELECT worker FROM attempt WHERE attempt.shard = shard.id
          ORDER BY token DESC LIMIT 1) AS worker,
        (SELECT count(*) FROM trial WHERE trial.shard = shard.id) AS trials,
        (SELECT count(*) FROM trial WHERE trial.shard = shard.id
          AND completed_by IS NOT NULL) AS trials_completed,
        shard.artifact, shard.reason, shard.round
      FROM shard LEFT JOIN shard AS needed ON needed.id = shard.dependency
      ORDER BY shard.ordinal;
    """

  private static let version1 = """
    PRAGMA application_id = \(applicationID);

    CREATE TABLE sweep (
      id INTEGER PRIMARY KEY CHECK (id = 1),
      name TEXT NOT NULL,
      spec_digest TEXT NOT NULL CHECK (length(spec_digest) = 64),
      spec TEXT NOT NULL CHECK (json_valid(spec)),
      program_version TEXT NOT NULL,
      created_at REAL NOT NULL
    ) STRICT;

    CREATE TABLE input (
      name TEXT PRIMARY KEY,
      digest TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE worker (
      id TEXT PRIMARY KEY,
      host TEXT NOT NULL,
      process_id INTEGER NOT NULL,
      slots INTEGER NOT NULL CHECK (slots > 0),
      threads INTEGER NOT NULL CHECK (threads > 0),
      joined_at REAL NOT NULL,
      left_at REAL,
      left_reason TEXT
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE shard (
      id TEXT PRIMARY KEY,
      ordinal INTEGER NOT NULL UNIQUE,
      kind TEXT NOT NULL CHECK (kind IN ('augmentation', 'fine_tune')),
      domain TEXT NOT NULL,
      bias TEXT,
      ratio REAL CHECK (ratio >= 0 AND ratio < 1),
      mitigation TEXT,
      seed INTEGER,
      dependency TEXT REFERENCES shard (id),
      cost REAL NOT NULL CHECK (cost >= 0),
      state TEXT NOT NULL DEFAULT 'queued'
        CHECK (state IN ('queued', 'leased', 'completed', 'quarantined')),
      completed_by INTEGER REFERENCES attempt (token),
      artifact TEXT CHECK (length(artifact) = 64),
      reason TEXT,
      CHECK ((state = 'completed') = (completed_by IS NOT NULL)),
      CHECK ((state = 'quarantined') = (reason IS NOT NULL))
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX shard_dependency ON shard (dependency);

    CREATE TRIGGER shard_completion_is_final BEFORE UPDATE OF state ON shard
      WHEN OLD.state = 'completed'
      BEGIN SELECT RAISE(ABORT, 'a completed shard does not change'); END;

    CREATE TABLE attempt (
      token INTEGER PRIMARY KEY,
      shard TEXT NOT NULL REFERENCES shard (id),
      worker TEXT NOT NULL REFERENCES worker (id),
      number INTEGER NOT NULL CHECK (number > 0),
      started_at REAL NOT NULL,
      ended_at REAL,
      ending TEXT CHECK (ending IN ('completed', 'failed', 'lost', 'expired', 'released')),
      evidence TEXT,
      CHECK ((ended_at IS NULL) = (ending IS NULL)),
      UNIQUE (shard, number)
    ) STRICT;
    -- A shard has at most one lease at a time.
    CREATE UNIQUE INDEX attempt_live ON attempt (shard) WHERE ended_at IS NULL;

    CREATE TABLE trial (
      id TEXT PRIMARY KEY,
      ordinal INTEGER NOT NULL UNIQUE,
      shard TEXT NOT NULL REFERENCES shard (id),
      task TEXT NOT NULL,
      bias TEXT,
      ratio REAL NOT NULL CHECK (ratio >= 0 AND ratio < 1),
      mitigation TEXT NOT NULL,
      seed INTEGER NOT NULL,
      completed_by INTEGER REFERENCES attempt (token),
      completed_at REAL,
      CHECK ((completed_by IS NULL) = (completed_at IS NULL)),
      CHECK ((bias IS NULL) = (ratio = 0))
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX trial_shard ON trial (shard);

    CREATE TRIGGER trial_result_is_final BEFORE UPDATE OF completed_by ON trial
      WHEN OLD.completed_by IS NOT NULL
      BEGIN SELECT RAISE(ABORT, 'a completed trial does not change'); END;

    CREATE TABLE grid_point (
      ordinal INTEGER PRIMARY KEY,
      task TEXT NOT NULL,
      bias TEXT NOT NULL,
      ratio REAL NOT NULL,
      mitigation TEXT NOT NULL,
      seed INTEGER NOT NULL,
      trial TEXT NOT NULL REFERENCES trial (id),
      UNIQUE (task, bias, ratio, mitigation, seed)
    ) STRICT;

    CREATE TABLE metric (
      trial TEXT NOT NULL REFERENCES trial (id),
      name TEXT NOT NULL,
      value REAL NOT NULL,
      PRIMARY KEY (trial, name)
    ) STRICT, WITHOUT ROWID;

    CREATE TRIGGER metric_is_final BEFORE UPDATE ON metric
      BEGIN SELECT RAISE(ABORT, 'a result does not change'); END;
    CREATE TRIGGER metric_stays BEFORE DELETE ON metric
      BEGIN SELECT RAISE(ABORT, 'a result is not deleted'); END;

    CREATE TABLE note (
      trial TEXT NOT NULL REFERENCES trial (id),
      metric TEXT NOT NULL,
      reason TEXT NOT NULL,
      PRIMARY KEY (trial, metric)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE fact (
      shard TEXT NOT NULL REFERENCES shard (id),
      name TEXT NOT NULL,
      value REAL NOT NULL,
      PRIMARY KEY (shard, name)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE event (
      sequence INTEGER PRIMARY KEY AUTOINCREMENT,
      at REAL NOT NULL,
      kind TEXT NOT NULL,
      payload TEXT NOT NULL CHECK (json_valid(payload))
    ) STRICT;

    CREATE TRIGGER event_is_final BEFORE UPDATE ON event
      BEGIN SELECT RAISE(ABORT, 'an event does not change'); END;
    CREATE TRIGGER event_stays BEFORE DELETE ON event
      BEGIN SELECT RAISE(ABORT, 'an event is not deleted'); END;

    CREATE VIEW trial_result AS
      SELECT trial.id AS trial_id, task, coalesce(bias, 'original') AS bias, ratio, mitigation,
        seed, metric.name AS metric, metric.value AS value
      FROM trial JOIN metric ON metric.trial = trial.id
      ORDER BY trial.ordinal, metric.name;

    CREATE VIEW grid_result AS
      SELECT grid_point.task, grid_point.bias, grid_point.ratio, grid_point.mitigation,
        grid_point.seed, grid_point.trial AS trial_id, metric.name AS metric,
        metric.value AS value
      FROM grid_point JOIN metric ON metric.trial = grid_point.trial
      ORDER BY grid_point.ordinal, metric.name;

    CREATE VIEW shard_status AS
      SELECT shard.id AS shard_id, shard.kind, shard.domain, shard.bias, shard.ratio,
        shard.mitigation, shard.seed,
        CASE WHEN shard.state = 'queued' AND needed.state <> 'completed' THEN 'blocked'
          ELSE shard.state END AS state,
        (SELECT count(*) FROM attempt WHERE attempt.shard = shard.id) AS attempts,
        (SELECT worker FROM attempt WHERE attempt.shard = shard.id
          ORDER BY token DESC LIMIT 1) AS worker,
        (SELECT count(*) FROM trial WHERE trial.shard = shard.id) AS trials,
        (SELECT count(*) FROM trial WHERE trial.shard = shard.id
          AND completed_by IS NOT NULL) AS trials_completed,
        shard.artifact, shard.reason
      FROM shard LEFT JOIN shard AS needed ON needed.id = shard.dependency
      ORDER BY shard.ordinal;

    CREATE VIEW attempt_log AS
      SELECT attempt.token, attempt.shard AS shard_id, attempt.number AS attempt,
        attempt.worker AS worker_id, worker.host, worker.process_id,
        datetime(attempt.started_at, 'unixepoch') AS started,
        attempt.ended_at - attempt.started_at AS seconds,
        coalesce(attempt.ending, 'running') AS ending, attempt.evidence
      FROM attempt JOIN worker ON worker.id = attempt.worker
      ORDER BY attempt.token;
    """
}
