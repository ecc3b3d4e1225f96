import SweepCore

/// The findings of a sweep as tables for people: what they rest on stands beside each number.
package struct FindingTables: Sendable {
  package let findings: [Finding]
  /// The tasks that cannot do what they are asked even without bias: their findings mean nothing.
  package let withoutSkill: Set<String>
  /// The rounds of inheritance that findings are about; one in most sweeps.
  package let rounds: [Int]
  private let levels: [LevelKey: Finding]

  /// Whether the round is among what tells findings apart.
  var hasRounds: Bool { rounds.count > 1 }

  package init(_ findings: [Finding]) {
    self.findings = findings
    rounds = Set(findings.map(\.round)).union([1]).sorted()
    let skills = findings.filter { $0.kind == .skill }
    // A task has skill if one of its skill metrics shows it.
    let able = Set(skills.filter { $0.note == nil }.compactMap(\.task))
    withoutSkill = Set(skills.compactMap(\.task)).subtracting(able)
    levels = Dictionary(
      findings.filter { $0.kind == .level }.compactMap { finding in
        guard let task = finding.task, let metric = finding.metric, let ratio = finding.ratio,
          let mitigation = finding.mitigation
        else { return nil }
        return (
          LevelKey(
            task: task, metric: metric, bias: finding.bias, ratio: ratio, mitigation: mitigation,
            round: finding.round),
          finding
        )
      }
    ) { first, _ in first }
  }

  /// A task's name for a row that is about it, which says so where the task has no skill.
  func name(_ task: String?) -> String {
    guard let task else { return "" }
    return withoutSkill.contains(task) ? "\(task) (no skill)" : task
  }

  /// A sentence, with a space before it, on those of the pooled tasks that have no skill; empty where
  /// all have.
  func remark(pooling tasks: [String]) -> String {
    let without = tasks.filter(withoutSkill.contains)
    guard !without.isEmpty else { return "" }
    return without.count == 1
      ? " \(without[0]) is among them without skill, and is not interpretable."
      : " \(without.joined(separator: ", ")) are among them without skill, and are not interpretable."
  }

  /// What names a round beside others in titles; empty where there is one.
  func suffix(round: Int) -> String { hasRounds ? ", round \(round)" : "" }

  package func of(_ kind: Finding.Kind, where matches: (Finding) -> Bool = { _ in true })
    -> [Finding]
  {
    findings.filter { $0.kind == kind && matches($0) }
  }

  /// The level of a metric under a condition, with its interval.
  package func level(
    task: String, metric: String, bias: String?, ratio: Double, mitigation: String, round: Int = 1
  ) -> Finding? {
    levels[
      LevelKey(
        task: task, metric: metric, bias: ratio == 0 ? nil : bias, ratio: ratio,
        mitigation: ratio == 0 ? "none" : mitigation, round: ratio == 0 ? 1 : round)]
  }

  private struct LevelKey: Hashable {
    let task: String
    let metric: String
    let bias: String?
    let ratio: Double
    let mitigation: String
    let round: Int
  }

  // MARK: Text

  private var columns: [String] {
    [
      "kind", "task", "metric", "role", "bias", "ratio", "mitigation", "predictor", "estimate",
      "standard_error", "lower", "upper", "effect_size", "p_value", "p_adjusted", "family", "seeds",
      "items", "note",
    ] + (hasRounds ? ["round"] : [])
  }

  private func fields(_ finding: Finding) -> [String] {
    func number(_ value: Double?) -> String { value.map { "\($0)" } ?? "" }
    return [
      finding.kind.rawValue, finding.task ?? "", finding.metric ?? "",
      finding.role?.rawValue ?? "", finding.bias ?? "", number(finding.ratio),
      finding.mitigation ?? "", finding.predictor ?? "", number(finding.estimate),
      number(finding.standardError), number(finding.lower), number(finding.upper),
      number(finding.effectSize), number(finding.pValue), number(finding.adjustedPValue),
      finding.family ?? "", "\(finding.seeds)", "\(finding.items)", finding.note ?? "",
    ] + (hasRounds ? ["\(finding.round)"] : [])
  }

  /// One line per finding (RFC 4180), numbers with all their digits.
  package func csv() -> String {
    func field(_ text: String) -> String {
      text.contains(where: { ",\"\r\n".contains($0) })
        ? "\"" + text.replacing("\"", with: "\"\"") + "\"" : text
    }
    return ([columns] + findings.map(fields))
      .map { $0.map(field).joined(separator: ",") + "\r\n" }.joined()
  }

  /// Inheritance at the largest ratio without mitigation as LaTeX tables (booktabs), of bias and of
  /// skill metrics; those without rows are left out.
  package func latex() -> String {
    [latex(.bias, "Inherited bias"), latex(.skill, "Change of skill")].compactMap(\.self)
      .joined(separator: "\n")
  }

  private func latex(_ role: HeadlineRole, _ title: String) -> String? {
    func number(_ value: Double?) -> String { value.map { NumberText.fixed($0) } ?? "--" }
    let inherited = rounds.flatMap { headlineInheritance(role: role, round: $0) }
    guard let ratio = inherited.first?.ratio else { return nil }
    let rows = inherited.map { finding -> [String] in
      let interval =
        finding.lower.flatMap { lower in
          finding.upper.map { "[\(NumberText.fixed(lower)), \(NumberText.fixed($0))]" }
        } ?? "--"
      return [name(finding.task), finding.metric ?? "", finding.bias ?? ""]
        + (hasRounds ? ["\(finding.round)"] : []) + [
          finding.ratio.map(NumberText.plain) ?? "", number(finding.estimate), interval,
          number(finding.adjustedPValue),
        ]
    }
    return LaTeXText.table(
      "\(title) by task and bias type: estimate, 95 % interval, Holm-adjusted p.",
      columns: ["task", "metric", "bias type"] + (hasRounds ? ["round"] : []) + [
        "γ", "estimate", "interval", "p",
      ], rows: rows,
      query: ResultQuery.inheritance(role: role, ratio: ratio, round: nil, rounds: hasRounds))
  }

  /// Inheritance without mitigation in a round, at the largest ratio that each condition has.
  package func headlineInheritance(role: HeadlineRole, round: Int = 1) -> [Finding] {
    let all = of(.inheritance) {
      $0.role == role && $0.mitigation == "none" && $0.round == round
    }
    let largest = all.compactMap(\.ratio).max()
    return all.filter { $0.ratio == largest }
  }
}

extension Finding {
  /// The estimate with its interval, for tables.
  var text: String { text(estimate.map { NumberText.signed($0) }) }

  /// The same for a level, which has no sign to show.
  var levelText: String { text(estimate.map { NumberText.fixed($0) }) }

  private func text(_ number: String?) -> String {
    guard var text = number else { return NumberText.missing }
    if let lower, let upper {
      text += " [\(NumberText.fixed(lower)), \(NumberText.fixed(upper))]"
    }
    return text
  }

  var adjustedText: String {
    adjustedPValue.map { $0 < 0.001 ? "< 0.001" : NumberText.fixed($0) } ?? NumberText.missing
  }
}
