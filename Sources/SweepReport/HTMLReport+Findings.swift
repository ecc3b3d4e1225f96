import SweepCore

/// The report's part on what was found, under the names that findings.mustache uses.
struct FindingsSection {
  let isEmpty: Bool
  /// Whether more results may have come since the findings were recorded.
  let mayLag: Bool
  /// What each task can do at ratio 0; nil before it is known.
  let skill: ReportTable?
  /// The numbers of the heat maps.
  let inheritance: [ReportTable]
  /// All others, with what is not interpreted at the end.
  let tables: [ReportTable]
  /// Everything in the order of the report.
  let parts: [ReportPart]
  let methods: String
  let query: String

  init(_ data: ReportData) {
    let findings = FindingTables(data.findings)
    let spec = data.sweep.spec
    isEmpty = data.findings.isEmpty
    mayLag = !isEmpty && data.status.completed < data.status.trials
    let round = findings.hasRounds ? ", round" : ""
    query = """
      SELECT kind, task, metric, bias, ratio, mitigation\(round), predictor, estimate, lower, upper,
        effect_size, p_value, p_adjusted, seeds, items, note
      FROM finding ORDER BY kind, task, metric, bias, mitigation, ratio\(round);
      """
    let maps = findings.rounds.flatMap { round in
      [HeadlineRole.bias, .skill].enumerated().compactMap { index, role in
        Self.map(
          findings, role: role, round: round, spec: spec,
          name: "inheritance-\(index + 1)" + (round == 1 ? "" : "-round-\(round)"))
      }
    }
    let doses = DoseResponse(data, findings)
    let comparisons = [
      ComparisonFigures.recovery(findings, spec), ComparisonFigures.relations(findings, spec),
    ].compactMap(\.self)
    let figures: [Figure] = maps + comparisons + doses.figures
    skill = Self.skill(findings)
    inheritance = Self.inheritance(findings, spec)
    tables =
      [ControlTable.table(findings, spec)].compactMap(\.self) + Self.tables(findings, spec)
      + [doses.table, Self.excluded(findings)].compactMap(\.self)
    let opening: [ReportTable] = [skill].compactMap(\.self) + inheritance
    let first: [ReportPart] = opening.map { ReportPart($0) }
    let drawn: [ReportPart] = figures.map { ReportPart($0) }
    let last: [ReportPart] = tables.map { ReportPart($0) }
    parts = first + drawn + last
    methods = MethodsParagraph.text(data)
  }

  // MARK: Heat maps

  private static func map(
    _ findings: FindingTables, role: HeadlineRole, round: Int, spec: SweepSpec, name: String
  ) -> Figure? {
    let inherited = findings.headlineInheritance(role: role, round: round).filter {
      $0.effectSize != nil
    }
    guard let ratio = inherited.first?.ratio else { return nil }
    let biases = spec.biases.map(\.rawValue)
    let rows = spec.tasks.compactMap { task in
      metric(of: task, role: role, among: inherited, spec).map { (task: task, metric: $0) }
    }
    let cells = rows.map { row in
      biases.map { bias -> HeatMap.Cell? in
        guard
          let finding = inherited.first(where: {
            $0.task == row.task && $0.metric == row.metric && $0.bias == bias
          }), let size = finding.effectSize
        else { return nil }
        return HeatMap.Cell(
          value: size,
          isFaint: findings.withoutSkill.contains(row.task) || !finding.excludesZero,
          detail: "\(row.task), \(bias): \(row.metric) \(finding.text)")
      }
    }
    let what = role == .bias ? "bias metrics" : "skill metrics"
    let title =
      "Inheritance of \(what) at γ = \(NumberText.plain(ratio))" + findings.suffix(round: round)
    let map = HeatMap(
      title: title,
      description: "Tasks by bias types, in standard deviations of the items at ratio 0.",
      rows: rows.map { findings.name($0.task) }, columns: biases, cells: cells)
    let named = rows.map { "\($0.task): \(MetricDescription(name: $0.metric).label)" }
    return Figure(
      name: name, title: title,
      caption:
        "Change of \(what) from γ = 0 to γ = \(NumberText.plain(ratio))"
        + "\(findings.suffix(round: round)) without mitigation, in standard deviations of the test "
        + "items (Glass’s Δ). Pale: the 95 % interval holds 0, or the task has no skill. Of each task "
        + "the first such metric of its definition: \(named.joined(separator: "; ")).",
      panels: [map.panel(id: name)],
      query: ResultQuery.inheritance(
        role: role, ratio: ratio, round: findings.hasRounds ? round : nil, metrics: rows,
        present: "effect_size"))
  }

  /// The metric that stands for a task among those of a role that can be standardised: the first in
  /// the order of the task's definition.
  private static func metric(
    of task: String, role: HeadlineRole, among inherited: [Finding], _ spec: SweepSpec
  ) -> String? {
    let present = inherited.filter { $0.task == task }.compactMap(\.metric)
    let defined = spec.taskDefinitions[task]?.headlines ?? []
    return defined.first { $0.role.rawValue == role.rawValue && present.contains($0.metric) }?
      .metric
      ?? present.first
  }

  // MARK: Tables

  private static func tables(_ findings: FindingTables, _ spec: SweepSpec) -> [ReportTable] {
    func sql(_ kind: Finding.Kind, _ columns: String, where filter: String? = nil) -> String {
      ResultQuery.findings(kind, columns, where: filter, rounds: findings.hasRounds)
    }
    func rows(_ found: [Finding], _ name: (Finding) -> String, _ cells: (Finding) -> [String])
      -> [ReportTable.Row]
    {
      found.map { ReportTable.Row(name: name($0), cells: cells($0)) }
    }
    func coordinates(_ finding: Finding) -> [String] {
      [
        finding.metric ?? "", finding.bias ?? "", finding.ratio.map(NumberText.plain) ?? "",
        finding.mitigation ?? "",
      ]
    }
    func isPlacebo(_ task: String?) -> Bool {
      task.flatMap { spec.taskDefinitions[$0] }?.relation == .placebo
    }
    /// The tasks of what is standardised and matches, in the spec's order.
    func pooled(_ matches: (Finding) -> Bool) -> [String] {
      let found = findings.of(.inheritance) { $0.effectSize != nil && matches($0) }
      let tasks = Set(found.compactMap(\.task))
      return spec.tasks.filter(tasks.contains)
    }
    let round = findings.hasRounds ? ["round"] : []
    let last = round + ["estimate [95 %]", "p (Holm)"]
    let tested = "estimate, lower, upper, p_adjusted"
    func ofRound(_ finding: Finding) -> [String] {
      findings.hasRounds ? ["\(finding.round)"] : []
    }
    func tail(_ finding: Finding) -> [String] {
      ofRound(finding) + [finding.text, finding.adjustedText]
    }
    return [
      ReportTable(
        title: "Drift over the rounds",
        text:
          "Change of the metric from the first round, whose D_a the base model wrote, to a later one, "
          + "paired by seed and item.",
        columns: ["task", "metric", "bias type", "γ", "mitigation"] + last,
        rows: rows(findings.of(.drift), { findings.name($0.task) }, { coordinates($0) + tail($0) }),
        query: sql(.drift, tested)),
      ReportTable(
        title: "Slope over the bias ratio",
        text:
          "Change of the metric per unit of γ, least squares over all ratios.",
        columns: ["task", "metric", "bias type", "mitigation"] + last,
        rows: rows(
          findings.of(.slope), { findings.name($0.task) },
          { [$0.metric ?? "", $0.bias ?? "", $0.mitigation ?? ""] + tail($0) }),
        query: sql(.slope, tested)),
      ReportTable(
        title: "Against as many further original items",
        text: "What D_a does beyond making the training data larger.",
        columns: ["task", "metric", "bias type", "γ", "mitigation"] + last,
        rows: rows(
          findings.of(.againstSameSize), { findings.name($0.task) }, { coordinates($0) + tail($0) }),
        query: sql(.againstSameSize, tested)),
      ReportTable(
        title: "Mitigations over all tasks",
        text:
          "How much of the standardised inheritance a mitigation takes off, over all tasks, bias "
          + "types and ratios; signs of whole tasks are flipped for p."
          + findings.remark(pooling: pooled { $0.mitigation != "none" && !isPlacebo($0.task) }),
        columns: ["mitigation", "metrics"] + round + ["estimate [95 %]", "p", "p (Holm)", "of"],
        rows: rows(
          findings.of(.mitigationOverall), { $0.mitigation ?? "" },
          {
            [$0.role?.rawValue ?? ""] + ofRound($0) + [
              $0.text, $0.pValue.map { NumberText.fixed($0) } ?? NumberText.missing,
              $0.adjustedText,
              $0.note ?? "",
            ]
          }),
        query: sql(.mitigationOverall, "estimate, lower, upper, p_value, p_adjusted, note")),
      ReportTable(
        title: "Recovery",
        text:
          "1 − inheritance with the mitigation / inheritance without, where the latter is certain.",
        columns: ["task", "metric", "bias type", "γ", "mitigation"] + round + ["recovery [95 %]"],
        rows: rows(
          findings.of(.recovery) { $0.estimate != nil }, { findings.name($0.task) },
          { coordinates($0) + ofRound($0) + [$0.text] }),
        query: sql(.recovery, "estimate, lower, upper", where: "estimate IS NOT NULL")),
      ReportTable(
        title: "Direct against indirect tasks",
        text:
          "Standardised change of skill, the mean over a task’s skill metrics: direct tasks less "
          + "indirect ones. Intervals over tasks, of which there are few."
          + findings.remark(pooling: pooled { $0.role == .skill && !isPlacebo($0.task) }),
        columns: ["bias type", "γ", "mitigation"] + round + ["difference [95 %]", "p", "of"],
        rows: rows(
          findings.of(.directAgainstIndirect), { $0.bias ?? "" },
          {
            [$0.ratio.map(NumberText.plain) ?? "", $0.mitigation ?? ""] + ofRound($0) + [
              $0.text, $0.pValue.map { NumberText.fixed($0) } ?? NumberText.missing, $0.note ?? "",
            ]
          }),
        query: sql(.directAgainstIndirect, "estimate, lower, upper, p_value, note")),
      ReportTable(
        title: "Female against male",
        text:
          "Change of the skill metric from γ = 0 for women less that for men, paired by seed and "
          + "item: below 0, women lose more.",
        columns: ["task", "metric", "bias type", "γ", "mitigation"] + last,
        rows: rows(
          findings.of(.femaleAgainstMale), { findings.name($0.task) },
          { coordinates($0) + tail($0) }),
        query: sql(.femaleAgainstMale, tested)),
      ReportTable(
        title: "Misalignments and doses",
        text:
          "Rank correlation, over bias types, of a property of D_a with the magnitude of what is "
          + "inherited at the largest ratio. The ten strongest of each role.",
        columns: ["property", "task", "metric"] + round + [
          "ρ [95 %]", "p", "p (Holm)", "bias types",
        ],
        rows: rows(
          strongest(findings), { $0.predictor ?? "" },
          {
            [findings.name($0.task), $0.metric ?? ""] + ofRound($0) + [
              $0.correlationText,
              $0.pValue.map { NumberText.fixed($0) } ?? NumberText.missing, $0.adjustedText,
              "\($0.items)",
            ]
          }),
        query: ResultQuery.strongestAssociations(
          strongestCount, rounds: findings.hasRounds)),
    ].filter { !$0.rows.isEmpty }
  }

  private static let strongestCount = 10

  private static func strongest(_ findings: FindingTables) -> [Finding] {
    HeadlineRole.allCases.flatMap { role in
      findings.of(.association) { $0.role == role && $0.estimate != nil }.sorted {
        ($1.estimate?.magnitude ?? 0, $0.id) < ($0.estimate?.magnitude ?? 0, $1.id)
      }.prefix(strongestCount)
    }
  }

  private static func skill(_ findings: FindingTables) -> ReportTable? {
    let skills = findings.of(.skill)
    guard !skills.isEmpty else { return nil }
    return ReportTable(
      title: "Skill without augmented data", text: "A task without skill is not interpreted.",
      columns: ["task", "metric", "γ = 0 [95 %]", "verdict"],
      rows: skills.map {
        ReportTable.Row(
          name: findings.name($0.task), cells: [$0.metric ?? "", $0.levelText],
          remark: $0.note ?? "above chance")
      },
      query: ResultQuery.findings(
        .skill, "estimate, lower, upper, note", rounds: findings.hasRounds))
  }

  /// The numbers of the heat maps and of the further metrics, each with its interval.
  private static func inheritance(_ findings: FindingTables, _ spec: SweepSpec) -> [ReportTable] {
    let biases = spec.biases.map(\.rawValue)
    let roles: [HeadlineRole] = [.bias, .skill]
    return findings.rounds.flatMap { round in
      roles.compactMap { role -> ReportTable? in
        let inherited = findings.headlineInheritance(role: role, round: round).filter {
          $0.estimate != nil
        }
        guard let ratio = inherited.first?.ratio else { return nil }
        let rows = spec.tasks.flatMap { task -> [ReportTable.Row] in
          let own = inherited.filter { $0.task == task }
          return own.compactMap(\.metric).unique.map { metric -> ReportTable.Row in
            let cells = biases.map { bias -> String in
              let found = own.first { $0.metric == metric && $0.bias == bias }
              return found?.markedText ?? NumberText.missing
            }
            return ReportTable.Row(name: findings.name(task), cells: [metric] + cells)
          }
        }
        return ReportTable(
          title: "Change of \(role.rawValue) metrics at γ = \(NumberText.plain(ratio))"
            + findings.suffix(round: round),
          text: "From γ = 0, without mitigation [95 %]; an asterisk where the interval excludes 0.",
          columns: ["task", "metric"] + biases, rows: rows,
          query: ResultQuery.inheritance(
            role: role, ratio: ratio, round: findings.hasRounds ? round : nil,
            present: "estimate"))
      }
    }
  }

  /// What is not to be interpreted, and why.
  private static func excluded(_ findings: FindingTables) -> ReportTable? {
    struct Cause: Hashable {
      let task: String
      let metric: String
      let note: String
    }
    let found = findings.findings.filter {
      $0.estimate == nil && $0.kind != .recovery
        || $0.kind == .skill && findings.withoutSkill.contains($0.task ?? "")
    }
    guard !found.isEmpty else { return nil }
    let causes = Dictionary(grouping: found) {
      Cause(task: $0.task ?? "", metric: $0.metric ?? "", note: $0.note ?? "")
    }.sorted {
      ($0.key.task, $0.key.metric, $0.key.note) < ($1.key.task, $1.key.metric, $1.key.note)
    }
    return ReportTable(
      title: "Not interpreted",
      text: "Tasks without skill, and findings that could not be computed.",
      columns: ["task", "metric", "findings", "reason"],
      rows: causes.map { cause, found in
        ReportTable.Row(
          name: cause.task.isEmpty ? "all tasks" : findings.name(cause.task),
          cells: [cause.metric, "\(found.count)"], remark: cause.note)
      },
      query: ResultQuery.excluded)
  }
}

extension Finding {
  /// The estimate with its interval, and an asterisk where that is on one side of 0.
  fileprivate var markedText: String { excludesZero ? "\(text) *" : text }
}
