/// SQL that gives the report's numbers from a ledger, printed beside them.
enum ResultQuery {
  /// All cells of a task's tables: seeds, mean, and change from ratio 0 paired by seed.
  ///
  /// - Parameter rounds: whether the sweep has more than one.
  static func tables(task: String, rounds: Bool) -> String {
    let own = rounds ? ", r.round" : ""
    let joined = rounds ? " AND o.round = r.round" : ""
    return """
      SELECT r.metric, r.bias, r.mitigation, r.ratio\(own), count(*) AS seeds, avg(r.value) AS mean,
        min(r.value) AS minimum, max(r.value) AS maximum, avg(r.value - o.value) AS change
      FROM grid_result AS r LEFT JOIN grid_result AS o
        ON o.task = r.task AND o.bias = r.bias AND o.mitigation = r.mitigation
        AND o.seed = r.seed\(joined) AND o.metric = r.metric AND o.ratio = 0
      WHERE r.task = '\(task.replacing("'", with: "''"))'
      GROUP BY r.metric, r.bias, r.mitigation, r.ratio\(own)
      ORDER BY r.metric, r.bias, r.mitigation, r.ratio\(own);
      """
  }

  static func doses(rounds: Bool) -> String {
    """
    SELECT shard.domain, shard.bias\(rounds ? ", shard.round, shard.id" : ""), fact.name, fact.value
    FROM fact JOIN shard ON shard.id = fact.shard
    WHERE shard.kind = 'augmentation' ORDER BY shard.ordinal, fact.name;
    """
  }

  static let training = """
    SELECT shard.id, fact.name, fact.value FROM fact JOIN shard ON shard.id = fact.shard
    WHERE shard.kind = 'fine_tune' ORDER BY shard.ordinal, fact.name;
    """

  static let counts = """
    SELECT (SELECT count(*) FROM grid_point) AS declared, (SELECT count(*) FROM trial) AS distinct_,
      (SELECT count(*) FROM trial WHERE completed_by IS NOT NULL) AS completed;
    SELECT state, count(*) FROM shard_status GROUP BY state;
    SELECT count(*) AS attempts FROM attempt_log;
    """

  static let omitted = "SELECT metric, reason, trial FROM note ORDER BY metric, reason, trial;"

  static let failures = """
    SELECT s.shard_id, s.reason, a.attempt, a.host, a.ending, a.evidence
    FROM shard_status AS s LEFT JOIN attempt_log AS a ON a.shard_id = s.shard_id
    WHERE s.state = 'quarantined' AND a.ending <> 'completed' ORDER BY s.shard_id, a.attempt;
    """

  static let inputs = "SELECT name, digest FROM input; SELECT spec, spec_digest FROM sweep;"
}
