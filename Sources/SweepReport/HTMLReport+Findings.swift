import SweepCore

/// The report's part on what was found, under the names that findings.mustache uses.
struct FindingsSection {
  let isEmpty: Bool
  let skills: [SkillRow]
  let maps: [Map]
  let tables: [Table]
  let excluded: [String]
  let hasExcluded: Bool
  let methods: String
  let query: String

  struct SkillRow {
    let task: String
    let metric: String
    let estimate: String
    let verdict: String
  }

  struct Map {
    let svg: String
    let caption: String
  }

  struct Table {
    let title: String
    let text: String
    let columns: [String]
    let rows: [Row]
    let query: String
  }

  struct Row {
    let name: String
    let cells: [String]
  }

  init(_ data: ReportData) {
    let findings = FindingTables(data.findings)
    let spec = data.sweep.spec
    isEmpty = data.findings.isEmpty
    let round = findings.hasRounds ? ", round" : ""
    query = """
      SELECT kind, task, metric, bias, ratio, mitigation\(round), predictor, estimate, lower, upper,
        effect_size, p_value, p_adjusted, seeds, items, note
      FROM finding ORDER BY kind, task, metric, bias, mitigation, ratio\(round);
      """
    skills = findings.of(.skill).map { finding in
      SkillRow(
        task: finding.task ?? "", metric: finding.metric ?? "", estimate: finding.levelText,
        verdict: finding.note ?? "above chance")
    }
    let tasks = spec.tasks
    let biases = spec.biases.map(\.rawValue)
    maps = findings.rounds.flatMap { round in
      [HeadlineRole.bias, .skill].enumerated().compactMap { index, role in
        Self.map(
          findings, role: role, round: round, tasks: tasks, biases: biases,
          id: "inheritance-\(index + 1)" + (round == 1 ? "" : "-round-\(round)"))
      }
    }
    tables = Self.tables(findings)
    excluded = Self.excluded(findings)
    hasExcluded = !excluded.isEmpty
    methods = Self.methods(data)
  }

  // MARK: Markdown

  /// The section in GitHub-flavoured Markdown; heat maps become tables of numbers.
  static func markdown(_ data: ReportData) -> String {
    func row(_ cells: [String]) -> String {
      "| " + cells.map { $0.replacing("|", with: "\\|") }.joined(separator: " | ") + " |\n"
    }
    let section = FindingsSection(data)
    var text = "## Findings\n\n### Skill without augmented data\n\n"
    text += row(["task", "metric", "γ = 0 [95 %]", "verdict"]) + row([":--", ":--", "--:", ":--"])
    for skill in section.skills {
      text += row([skill.task, skill.metric, skill.estimate, skill.verdict])
    }
    let findings = FindingTables(data.findings)
    let biases = data.sweep.spec.biases.map(\.rawValue)
    for (round, role) in findings.rounds.flatMap({ round in
      [HeadlineRole.bias, .skill].map { (round, $0) }
    }) {
      let inherited = findings.headlineInheritance(role: role, round: round)
      guard let ratio = inherited.first?.ratio else { continue }
      text += "\n### Inheritance of \(role.rawValue) metrics at γ = \(NumberText.plain(ratio))"
      text += "\(findings.suffix(round: round))\n\n"
      text += "Change from γ = 0 without mitigation [95 %]; bold where the interval excludes 0.\n\n"
      text += row(["task", "metric"] + biases) + row([":--", ":--"] + biases.map { _ in "--:" })
      for task in data.sweep.spec.tasks {
        for metric in Set(inherited.filter { $0.task == task }.compactMap(\.metric)).sorted() {
          let cells = biases.map { bias -> String in
            guard
              let finding = inherited.first(where: {
                $0.task == task && $0.metric == metric && $0.bias == bias
              })
            else { return NumberText.missing }
            return finding.excludesZero ? "**\(finding.text)**" : finding.text
          }
          let name = findings.withoutSkill.contains(task) ? "\(task) (no skill)" : task
          text += row([name, metric] + cells)
        }
      }
    }
    for table in section.tables {
      text += "\n### \(table.title)\n\n\(table.text)\n\n"
      text += row(table.columns) + row(table.columns.map { _ in ":--" })
      for line in table.rows { text += row([line.name] + line.cells) }
      text += "\n```sql\n\(table.query)\n```\n"
    }
    if section.hasExcluded {
      text += "\n### Not interpreted\n\n"
      for reason in section.excluded { text += "- \(reason)\n" }
    }
    return text + "\n### Methods\n\n\(section.methods)\n\n```sql\n\(section.query)\n```\n"
  }

  // MARK: Heat maps

  private static func map(
    _ findings: FindingTables, role: HeadlineRole, round: Int, tasks: [String], biases: [String],
    id: String
  ) -> Map? {
    let inherited = findings.headlineInheritance(role: role, round: round).filter {
      $0.effectSize != nil
    }
    guard let ratio = inherited.first?.ratio else { return nil }
    let rows = tasks.filter { task in inherited.contains { $0.task == task } }
    let cells = rows.map { task in
      biases.map { bias -> HeatMap.Cell? in
        // Of several metrics of a role the first one in the task's order stands for it.
        guard let finding = inherited.first(where: { $0.task == task && $0.bias == bias }),
          let size = finding.effectSize
        else { return nil }
        return HeatMap.Cell(
          value: size,
          isFaint: findings.withoutSkill.contains(task) || !finding.excludesZero,
          detail: "\(task), \(bias): \(finding.metric ?? "") \(finding.text)")
      }
    }
    let what = role == .bias ? "bias metrics" : "skill metrics"
    let map = HeatMap(
      title: "Inheritance of \(what) at γ = \(NumberText.plain(ratio))"
        + findings.suffix(round: round),
      description: "Tasks by bias types, in standard deviations of the items at ratio 0.",
      rows: rows, columns: biases, cells: cells)
    return Map(
      svg: map.svg(id: id),
      caption:
        "Change of \(what) from γ = 0 to γ = \(NumberText.plain(ratio))"
        + "\(findings.suffix(round: round)) without mitigation, in standard deviations of the test "
        + "items (Glass’s Δ). Pale: the 95 % interval holds 0, or the task has no skill.")
  }

  // MARK: Tables

  private static func tables(_ findings: FindingTables) -> [Table] {
    func sql(_ kinds: Finding.Kind...) -> String {
      let list = kinds.map { "'\($0.rawValue)'" }.joined(separator: ", ")
      return "SELECT * FROM finding WHERE kind IN (\(list));"
    }
    func rows(_ found: [Finding], _ name: (Finding) -> String, _ cells: (Finding) -> [String])
      -> [Row]
    {
      found.map { Row(name: name($0), cells: cells($0)) }
    }
    func coordinates(_ finding: Finding) -> [String] {
      [
        finding.metric ?? "", finding.bias ?? "", finding.ratio.map(NumberText.plain) ?? "",
        finding.mitigation ?? "",
      ]
    }
    let round = findings.hasRounds ? ["round"] : []
    let last = round + ["estimate [95 %]", "p (Holm)"]
    func ofRound(_ finding: Finding) -> [String] {
      findings.hasRounds ? ["\(finding.round)"] : []
    }
    func tail(_ finding: Finding) -> [String] {
      ofRound(finding) + [finding.text, finding.adjustedText]
    }
    return [
      Table(
        title: "Drift over the rounds",
        text:
          "Change of the metric from the first round, whose D_a the base model wrote, to a later one, "
          + "paired by seed and item.",
        columns: ["task", "metric", "bias type", "γ", "mitigation"] + last,
        rows: rows(findings.of(.drift), { $0.task ?? "" }, { coordinates($0) + tail($0) }),
        query: sql(.drift)),
      Table(
        title: "Slope over the bias ratio",
        text:
          "Change of the metric per unit of γ, least squares over all ratios, without mitigation.",
        columns: ["task", "metric", "bias type"] + last,
        rows: rows(
          findings.of(.slope) { $0.mitigation == "none" }, { $0.task ?? "" },
          { [$0.metric ?? "", $0.bias ?? ""] + tail($0) }),
        query: sql(.slope)),
      Table(
        title: "Against as many further original items",
        text: "What D_a does beyond making the training data larger.",
        columns: ["task", "metric", "bias type", "γ", "mitigation"] + last,
        rows: rows(
          findings.of(.againstSameSize), { $0.task ?? "" }, { coordinates($0) + tail($0) }),
        query: sql(.againstSameSize)),
      Table(
        title: "Mitigations over all tasks",
        text:
          "How much of the standardised inheritance a mitigation takes off, over all tasks, bias "
          + "types and ratios; signs of whole tasks are flipped for p.",
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
        query: sql(.mitigationOverall)),
      Table(
        title: "Recovery",
        text:
          "1 − inheritance with the mitigation / inheritance without, where the latter is certain.",
        columns: ["task", "metric", "bias type", "γ", "mitigation"] + round + ["recovery [95 %]"],
        rows: rows(
          findings.of(.recovery) { $0.estimate != nil }, { $0.task ?? "" },
          { coordinates($0) + ofRound($0) + [$0.text] }),
        query: sql(.recovery)),
      Table(
        title: "Direct against indirect tasks",
        text: "Standardised change of skill metrics: direct tasks less indirect ones.",
        columns: ["bias type", "γ", "mitigation"] + round + ["difference", "p", "of"],
        rows: rows(
          findings.of(.directAgainstIndirect), { $0.bias ?? "" },
          {
            [$0.ratio.map(NumberText.plain) ?? "", $0.mitigation ?? ""] + ofRound($0) + [
              $0.text, $0.pValue.map { NumberText.fixed($0) } ?? NumberText.missing, $0.note ?? "",
            ]
          }),
        query: sql(.directAgainstIndirect)),
      Table(
        title: "Misalignments and doses",
        text:
          "Rank correlation, over bias types, of a property of D_a with the magnitude of what is "
          + "inherited at the largest ratio. The ten strongest of each role.",
        columns: ["property", "task", "metric"] + round + ["ρ", "p", "p (Holm)", "bias types"],
        rows: rows(
          strongest(findings), { $0.predictor ?? "" },
          {
            [$0.task ?? "", $0.metric ?? ""] + ofRound($0) + [
              $0.estimate.map { NumberText.signed($0, decimals: 2) } ?? NumberText.missing,
              $0.pValue.map { NumberText.fixed($0) } ?? NumberText.missing, $0.adjustedText,
              "\($0.items)",
            ]
          }),
        query: sql(.association)),
    ].filter { !$0.rows.isEmpty }
  }

  private static func strongest(_ findings: FindingTables) -> [Finding] {
    HeadlineRole.allCases.flatMap { role in
      findings.of(.association) { $0.role == role && $0.estimate != nil }.sorted {
        ($1.estimate?.magnitude ?? 0, $0.id) < ($0.estimate?.magnitude ?? 0, $1.id)
      }.prefix(10)
    }
  }

  /// What is not to be interpreted, and why.
  private static func excluded(_ findings: FindingTables) -> [String] {
    let skill = findings.of(.skill) {
      findings.withoutSkill.contains($0.task ?? "")
    }.map { "\($0.task ?? ""), \($0.metric ?? ""): \($0.note ?? "")" }
    let silent = Dictionary(
      grouping: findings.findings.filter { $0.estimate == nil && $0.kind != .recovery }
    ) { "\($0.task ?? "all tasks"), \($0.metric ?? ""): \($0.note ?? "")" }
    return skill + silent.map { "\($0.key) (\($0.value.count) findings)" }.sorted()
  }

  // MARK: Methods

  /// A paragraph for a paper, from the resolved spec.
  private static func methods(_ data: ReportData) -> String {
    let spec = data.sweep.spec
    func list(_ items: [String]) -> String { items.joined(separator: ", ") }
    let training = spec.training
    let ratios = list(spec.ratios.map(NumberText.plain))
    let rounds =
      spec.rounds == 1
      ? ""
      : " In each of \(spec.rounds) rounds the base model was fine-tuned anew; from the second round on "
        + "the model fine-tuned in the round before, under the same conditions and seed, generated D_a."
    return """
      We fine-tuned \(spec.model) on D = D_o ∪ D_a, where D_o holds \
      \(spec.data.originalItems) bias-carrying original items of a domain and \
      \(spec.data.formatItems) format examples of each of its tasks, and |D_a| = γ/(1 − γ)·|D_o| items \
      were generated (generator “\(spec.augmentation.generator.rawValue)”, temperature \
      \(NumberText.plain(spec.augmentation.temperature)), top-k \(spec.augmentation.topK)) under \
      \(spec.biases.count) condition\(spec.biases.count == 1 ? "" : "s") (\(list(spec.biases.map(\.rawValue)))) at γ ∈ {\(ratios)}, with \
      the mitigations \(list(spec.mitigations.map(\.rawValue))) (λ = \
      \(NumberText.plain(spec.mitigation.lossWeight))). LoRA of rank \(training.rank) and α = \
      \(NumberText.plain(training.alpha)) acted on \(list(training.targets.map(\.rawValue))) of \
      \(training.topLayers.map { "the top \($0) layers" } ?? "all layers"); AdamW, \
      \(training.epochs) epochs, batches of \(training.batchSize), learning rate \
      \(NumberText.plain(training.learningRate)). Each of \(spec.seeds.count) \
      seed\(spec.seeds.count == 1 ? "" : "s") fixed adapter and order of data over all conditions.\(rounds) \
      Every model was evaluated on \(spec.data.testItems) test items of each task \
      (\(list(spec.tasks))). Differences from γ = 0 are paired by seed and item; intervals are 95 % \
      percentile intervals of 2,000 bootstrap resamples of seeds × clusters of items; p-values are of \
      two-sided sign-flip tests over clusters of items, adjusted by Holm’s method within the families \
      named in the ledger. A task counts as skilled if the interval of its skill metric at γ = 0 lies \
      above chance. BiasSweep \(data.sweep.programVersion), spec \(data.sweep.specDigest.prefix(12)), \
      results \(data.resultDigest.description.prefix(12)).
      """
  }
}
