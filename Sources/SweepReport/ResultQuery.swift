import SweepCore

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

  /// The intervals of a task's cells, where it has any.
  static func levels(task: String, rounds: Bool) -> String {
    """
    SELECT metric, bias, mitigation, ratio\(rounds ? ", round" : ""), estimate, standard_error,
      lower, upper, note
    FROM finding WHERE kind = 'level' AND task = \(quoted(task))
    ORDER BY metric, bias, mitigation, ratio;
    """
  }

  /// Facts of D_a as generators give them (`isOfPlainAugmentation`), of names like one of the patterns.
  static func facts(like patterns: String...) -> String {
    """
    SELECT shard.domain, shard.bias, fact.name, fact.value
    FROM fact JOIN shard ON shard.id = fact.shard
    WHERE shard.kind = 'augmentation'
      AND shard.id = 'augment/' || shard.domain || '/' || shard.bias AND (\(
      patterns.map { "fact.name LIKE \(quoted($0))" }.joined(separator: " OR ")))
    ORDER BY shard.ordinal, fact.name;
    """
  }

  /// Inheritance without mitigation at one ratio.
  ///
  /// - Parameters:
  ///   - round: nil for all of them.
  ///   - metrics: one of each task, as a heat map shows them; nil for all.
  static func inheritance(
    role: HeadlineRole, ratio: Double, round: Int?,
    metrics: [(task: String, metric: String)]? = nil
  ) -> String {
    let single = metrics.map { metrics in
      let pairs = metrics.map { "(\(quoted($0.task)), \(quoted($0.metric)))" }
      return "\n  AND (task, metric) IN (VALUES \(pairs.joined(separator: ", ")))"
    }
    return """
      SELECT task, metric, bias, estimate, lower, upper, effect_size FROM finding
      WHERE kind = 'inheritance' AND role = '\(role.rawValue)' AND mitigation = 'none'
        AND ratio = \(ratio)\(round.map { " AND round = \($0)" } ?? "")\(single ?? "")
      ORDER BY task, metric, bias;
      """
  }

  /// The points of a task's plots of dose and response.
  ///
  /// - Parameter rounds: whether the sweep has more than one; the first is drawn.
  static func doseResponse(
    task: String, domain: Domain, doses: [String], ratio: Double, rounds: Bool
  ) -> String {
    """
    SELECT f.metric, f.bias, d.name, d.value AS dose, f.estimate, f.lower, f.upper
    FROM finding AS f JOIN fact AS d ON d.shard = 'augment/\(domain.rawValue)/' || f.bias
    WHERE f.kind = 'inheritance' AND f.role = 'bias' AND f.mitigation = 'none'
      AND f.task = \(quoted(task)) AND f.ratio = \(ratio)\(rounds ? " AND f.round = 1" : "")
      AND f.bias <> 'same-size' AND d.name IN (\(doses.map(quoted).joined(separator: ", ")))
    ORDER BY f.metric, d.name, f.bias;
    """
  }

  private static func quoted(_ text: String) -> String {
    "'\(text.replacing("'", with: "''"))'"
  }

  /// Facts of all D_a, also of those that a mitigation had a part in.
  static func doses(rounds: Bool) -> String {
    """
    SELECT shard.id, shard.domain, shard.bias\(rounds ? ", shard.round" : ""), fact.name, fact.value
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
