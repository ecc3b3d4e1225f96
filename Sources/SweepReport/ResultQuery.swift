import SweepCore

/// SQL that gives the report's numbers from a ledger, printed beside them: as many rows as the table
/// has, or cells where its columns are conditions.
enum ResultQuery {
  // MARK: Results

  /// Cells of a task's tables: seeds, mean, and change from ratio 0 paired by seed.
  ///
  /// - Parameters:
  ///   - metrics: nil for all.
  ///   - variant: nil for all.
  ///   - rounds: whether the sweep has more than one.
  ///   - levels: whether there are intervals.
  static func tables(
    task: String, metrics: [String]?, variant: ResultTables.Variant?, rounds: Bool, levels: Bool
  ) -> String {
    let own = rounds ? ", r.round" : ""
    let joined = rounds ? " AND o.round = r.round" : ""
    let limits = levels ? ",\n  max(f.lower) AS lower, max(f.upper) AS upper" : ""
    let inRound = rounds ? " AND f.round = r.round" : ""
    let interval = """

      LEFT JOIN finding AS f
        ON f.kind = 'level' AND f.task = r.task AND f.metric = r.metric AND f.ratio = r.ratio
        AND (f.bias = r.bias AND f.mitigation = r.mitigation\(inRound)
          OR r.ratio = 0 AND f.bias IS NULL AND f.mitigation = 'none')
      """
    let levelsJoined = levels ? interval : ""
    var filter = "r.task = \(quoted(task))"
    if let metrics { filter += "\n  AND r.metric IN \(list(metrics))" }
    if let variant {
      filter += "\n  AND r.bias = \(quoted(variant.bias))"
      if rounds { filter += " AND r.round = \(variant.round)" }
    } else if rounds {
      // Nobody writes the items of the control, and reports show it once.
      filter += "\n  AND (r.bias <> \(quoted(BiasType.sameSize.rawValue)) OR r.round = 1)"
    }
    return """
      SELECT r.metric, r.bias, r.mitigation, r.ratio\(own), count(*) AS seeds, avg(r.value) AS mean,
        min(r.value) AS minimum, max(r.value) AS maximum, avg(r.value - o.value) AS change\(limits)
      FROM grid_result AS r LEFT JOIN grid_result AS o
        ON o.task = r.task AND o.bias = r.bias AND o.mitigation = r.mitigation
        AND o.seed = r.seed\(joined) AND o.metric = r.metric AND o.ratio = 0\(levelsJoined)
      WHERE \(filter)
      GROUP BY r.metric, r.bias, r.mitigation, r.ratio\(own)
      ORDER BY r.metric, r.bias, r.mitigation, r.ratio\(own);
      """
  }

  // MARK: Findings

  /// All findings of a kind, in their order in reports.
  ///
  /// - Parameters:
  ///   - columns: beside those that tell the findings apart.
  ///   - filter: a further condition.
  ///   - rounds: whether there is more than one.
  static func findings(
    _ kind: Finding.Kind, _ columns: String, where filter: String? = nil, rounds: Bool
  ) -> String {
    """
    SELECT \(coordinates(rounds: rounds)), \(columns)
    FROM finding WHERE kind = '\(kind.rawValue)'\(filter.map { " AND \($0)" } ?? "") ORDER BY id;
    """
  }

  private static func coordinates(rounds: Bool) -> String {
    "task, metric, role, bias, ratio, mitigation" + (rounds ? ", round" : "")
  }

  /// The associations of each role with the largest magnitudes, so many of each.
  static func strongestAssociations(_ count: Int, rounds: Bool) -> String {
    """
    SELECT predictor, \(coordinates(rounds: rounds)), estimate, lower, upper, p_value, p_adjusted, items
    FROM (SELECT *, row_number() OVER (PARTITION BY role ORDER BY abs(estimate) DESC, id) AS place
      FROM finding WHERE kind = 'association' AND role IS NOT NULL AND estimate IS NOT NULL)
    WHERE place <= \(count) ORDER BY role DESC, place;
    """
  }

  /// Inheritance without mitigation at one ratio.
  ///
  /// - Parameters:
  ///   - round: nil for all of them.
  ///   - metrics: one of each task, as a heat map shows them; nil for all.
  ///   - present: a column that must have a value.
  ///   - rounds: whether the rounds are among what is selected.
  static func inheritance(
    role: HeadlineRole, ratio: Double, round: Int?,
    metrics: [(task: String, metric: String)]? = nil, present: String? = nil, rounds: Bool = false
  ) -> String {
    let single = metrics.map { metrics in
      let pairs = metrics.map { "(\(quoted($0.task)), \(quoted($0.metric)))" }
      return "\n  AND (task, metric) IN (VALUES \(pairs.joined(separator: ", ")))"
    }
    let coordinates = "task, metric, bias" + (rounds ? ", round" : "")
    var filter = "ratio = \(ratio)"
    if let round { filter += " AND round = \(round)" }
    if let present { filter += " AND \(present) IS NOT NULL" }
    return """
      SELECT \(coordinates), estimate, lower, upper, effect_size, p_adjusted FROM finding
      WHERE kind = 'inheritance' AND role = '\(role.rawValue)' AND mitigation = 'none'
        AND \(filter)\(single ?? "")
      ORDER BY \(coordinates);
      """
  }

  /// Inheritance without mitigation of what is known beforehand.
  ///
  /// - Parameters:
  ///   - tasks: of each role, with the ratio that is shown.
  ///   - rounds: whether the sweep has more than one; the first is shown.
  static func controls(
    _ tasks: [(role: HeadlineRole, ratio: Double, tasks: [String])], rounds: Bool
  ) -> String {
    let conditions = tasks.map {
      "role = '\($0.role.rawValue)' AND ratio = \($0.ratio) AND task IN \(list($0.tasks))"
    }
    return """
      SELECT task, metric, bias, ratio, estimate, lower, upper, note FROM finding
      WHERE kind = 'inheritance' AND mitigation = 'none' AND bias IS NOT 'same-size'\
      \(rounds ? " AND round = 1" : "")
        AND (\(conditions.joined(separator: "\n    OR ")))
      ORDER BY task, role DESC, id;
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
      AND f.bias <> 'same-size' AND f.estimate IS NOT NULL AND d.name IN \(list(doses))
    ORDER BY f.metric, d.name, f.bias;
    """
  }

  /// The correlations of those plots, one row for each of their panels.
  ///
  /// - Parameters:
  ///   - shown: the doses that each task is plotted against.
  ///   - rounds: whether the sweep has more than one; the first is drawn.
  static func doseAssociations(
    _ shown: [(task: String, domain: Domain, dose: String)], ratio: Double, rounds: Bool
  ) -> String {
    let values = shown.map {
      "(\(quoted($0.task)), \(quoted($0.domain.rawValue)), \(quoted($0.dose)))"
    }
    return """
      SELECT f.task, f.metric, s.dose, a.estimate, a.lower, a.upper, a.p_value, a.p_adjusted,
        count(DISTINCT f.bias) AS bias_types
      FROM (SELECT column1 AS task, column2 AS domain, column3 AS dose
        FROM (VALUES \(values.joined(separator: ",\n      ")))) AS s
      JOIN finding AS f ON f.kind = 'inheritance' AND f.role = 'bias' AND f.mitigation = 'none'
        AND f.task = s.task AND f.ratio = \(ratio)\(rounds ? " AND f.round = 1" : "")
        AND f.bias <> 'same-size' AND f.estimate IS NOT NULL
      JOIN fact AS d ON d.shard = 'augment/' || s.domain || '/' || f.bias AND d.name = s.dose
      LEFT JOIN finding AS a ON a.kind = 'association' AND a.task = f.task
        AND a.metric = f.metric AND a.predictor = s.dose\(rounds ? " AND a.round = 1" : "")
      GROUP BY f.task, f.metric, s.dose HAVING count(DISTINCT f.bias) > 1
      ORDER BY f.task, f.metric, s.dose;
      """
  }

  /// What is not interpreted: skill that a task has not, and findings without an estimate. Of recovery
  /// only what is certain is shown at all.
  static let excluded = """
    SELECT task, metric, count(*) AS findings, note FROM finding
    WHERE estimate IS NULL AND kind <> 'recovery'
      OR kind = 'skill' AND task IN (SELECT task FROM finding WHERE kind = 'skill'
        GROUP BY task HAVING count(note) = count(*))
    GROUP BY task, metric, note ORDER BY task, metric, note;
    """

  // MARK: Facts

  /// Facts of D_a as generators give them (`isOfPlainAugmentation`), of names like one of the patterns.
  static func facts(like patterns: String...) -> String {
    """
    SELECT shard.domain, shard.bias, fact.name, fact.value
    FROM fact JOIN shard ON shard.id = fact.shard
    WHERE \(ofPlainAugmentation) AND (\(
      patterns.map { "fact.name LIKE \(quoted($0))" }.joined(separator: " OR ")))
    ORDER BY shard.ordinal, fact.name;
    """
  }

  /// Whether a shard made a D_a as its generator gives it, as SQL.
  private static let ofPlainAugmentation =
    "shard.kind = 'augmentation' AND shard.id = 'augment/' || shard.domain || '/' || shard.bias"

  /// What is measured of the base model alone, by name: as it stands at the first D_a that has it.
  private static let ofModel = """
    WITH measured AS (SELECT name, value FROM (SELECT fact.name, fact.value,
        row_number() OVER (PARTITION BY fact.name ORDER BY shard.ordinal) AS place
      FROM fact JOIN shard ON shard.id = fact.shard
      WHERE \(ofPlainAugmentation))
      WHERE place = 1)
    """

  /// A row for each culture, then their mean and the gap.
  static let valueMisalignment = """
    \(ofModel)
    SELECT CASE name WHEN 'values_divergence' THEN 'all, mean'
        WHEN 'values_divergence_gap' THEN 'largest − smallest'
        ELSE substr(name, length('values_divergence_') + 1) END AS culture, value AS divergence
    FROM measured WHERE name = 'values_divergence' OR name GLOB 'values_divergence_*'
    ORDER BY name IN ('values_divergence', 'values_divergence_gap'), name;
    """

  /// A row for each occupation, then the mean distances.
  ///
  /// - Parameter inTexts: whether there are texts written under neutral prompts.
  static func groupMisalignment(inTexts: Bool) -> String {
    let share = inTexts ? ",\n    t.value AS neutral_texts" : ""
    let joined =
      inTexts
      ? "\n    LEFT JOIN measured AS t ON t.name = 'groups_text_share_' || s.occupation" : ""
    let distance =
      inTexts ? ",\n    (SELECT value FROM measured WHERE name = 'groups_text_divergence')" : ""
    return """
      \(ofModel), shares AS (SELECT substr(name, length('groups_share_') + 1) AS occupation, value
        FROM measured WHERE name GLOB 'groups_share_*')
      SELECT * FROM (
        SELECT s.occupation, p.value AS published, s.value AS model,
          s.value - p.value AS difference\(share)
        FROM shares AS s
          LEFT JOIN measured AS p ON p.name = 'published_share_' || s.occupation\(joined)
        UNION ALL SELECT 'mean distance', NULL, NULL,
          (SELECT value FROM measured WHERE name = 'groups_divergence')\(distance))
      ORDER BY occupation = 'mean distance', occupation;
      """
  }

  /// A row for each D_a whose distance from D_o was measured.
  static let distributionMisalignment = """
    SELECT shard.domain, shard.bias, d.value AS mmd2, p.value AS p_value,
      m.value AS distance_of_means, x.value + y.value AS variance_in_plane
    FROM shard JOIN fact AS d ON d.shard = shard.id AND d.name = 'representation_mmd2'
      LEFT JOIN fact AS p ON p.shard = shard.id AND p.name = 'representation_p_value'
      LEFT JOIN fact AS m ON m.shard = shard.id AND m.name = 'representation_mean_distance'
      LEFT JOIN fact AS x ON x.shard = shard.id AND x.name = 'representation_component_1_variance'
      LEFT JOIN fact AS y ON y.shard = shard.id AND y.name = 'representation_component_2_variance'
    WHERE \(ofPlainAugmentation)
    ORDER BY shard.ordinal;
    """

  /// Facts of a domain's D_a, also of those that a mitigation had a part in, without what is drawn.
  ///
  /// - Parameter rounds: whether the sweep has more than one: the mean over the sets of a later one.
  static func doses(domain: String, rounds: Bool) -> String {
    let filter = """
      FROM fact JOIN shard ON shard.id = fact.shard
      WHERE shard.kind = 'augmentation' AND shard.domain = \(quoted(domain))
        AND fact.name <> \(quoted(Shard.secondsFact))
        AND NOT (\(String.drawnPrefixes.map { "fact.name GLOB '\($0)*'" }.joined(separator: " OR ")))
      """
    guard rounds else {
      return """
        SELECT shard.id, shard.domain, shard.bias, fact.name, fact.value
        \(filter)
        ORDER BY shard.ordinal, fact.name;
        """
    }
    return """
      SELECT shard.domain, shard.bias, shard.round, fact.name, avg(fact.value) AS value
      \(filter)
      GROUP BY shard.bias, shard.round, fact.name,
        shard.round = 1 AND shard.id <> 'augment/' || shard.domain || '/' || shard.bias
      ORDER BY shard.round, shard.bias, fact.name;
      """
  }

  static let training = """
    SELECT shard.id, fact.name, fact.value FROM fact JOIN shard ON shard.id = fact.shard
    WHERE shard.kind = 'fine_tune' AND fact.name <> \(quoted(Shard.secondsFact))
    ORDER BY shard.ordinal, fact.name;
    """

  // MARK: The sweep

  static let counts = """
    SELECT (SELECT count(*) FROM grid_point) AS declared, (SELECT count(*) FROM trial) AS distinct_,
      (SELECT count(*) FROM trial WHERE completed_by IS NOT NULL) AS completed;
    SELECT state, count(*) FROM shard_status GROUP BY state;
    SELECT count(*) AS attempts FROM attempt_log;
    """

  static let omitted = """
    SELECT metric, count(*) AS trials, min(trial) AS first, reason FROM note
    GROUP BY metric, reason ORDER BY metric, reason;
    """

  /// One row per attempt of what was given up, or one without attempt.
  static let failures = """
    SELECT s.shard_id, s.reason, a.attempt, a.host, a.ending, a.evidence
    FROM shard_status AS s
      LEFT JOIN attempt_log AS a ON a.shard_id = s.shard_id AND a.ending <> 'completed'
    WHERE s.state IN ('quarantined', 'cancelled') ORDER BY s.shard_id, a.attempt;
    """

  static let inputs = "SELECT name, digest FROM input; SELECT spec, spec_digest FROM sweep;"

  // MARK: Text

  private static func quoted(_ text: String) -> String {
    "'\(text.replacing("'", with: "''"))'"
  }

  private static func list(_ texts: [String]) -> String {
    "(\(texts.map(quoted).joined(separator: ", ")))"
  }
}
