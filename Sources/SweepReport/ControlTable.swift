import SweepCore

/// Whether the controls of a sweep did what they should: a placebo task stays still, and a planted
/// association moves the bias metrics.
enum ControlTable {
  static func table(_ findings: FindingTables, _ spec: SweepSpec) -> ReportTable? {
    let plants = spec.augmentation.generator == .template && spec.augmentation.strength != 0
    let placebos = spec.tasks.filter { spec.taskDefinitions[$0]?.relation == .placebo }
    let judged = plants ? spec.tasks : placebos
    let inherited = HeadlineRole.allCases.flatMap { findings.headlineInheritance(role: $0) }
    let rows = judged.flatMap { task -> [ReportTable.Row] in
      let isPlacebo = placebos.contains(task)
      return inherited.filter { finding in
        finding.task == task && finding.bias != BiasType.sameSize.rawValue
          // What is planted shows in bias metrics; a placebo must not move in anything.
          && (isPlacebo || finding.role == .bias)
      }.map { finding in
        ReportTable.Row(
          name: isPlacebo ? "placebo" : "planted",
          cells: [
            findings.name(task), finding.metric ?? "", finding.bias ?? "",
            finding.ratio.map(NumberText.plain) ?? "", finding.text,
            verdict(finding, isPlacebo: isPlacebo),
          ])
      }
    }
    guard !rows.isEmpty else { return nil }
    let shown = HeadlineRole.allCases.compactMap {
      role -> (role: HeadlineRole, ratio: Double, tasks: [String])? in
      let tasks = role == .bias ? judged : placebos
      guard !tasks.isEmpty, let ratio = findings.headlineInheritance(role: role).first?.ratio
      else { return nil }
      return (role, ratio, tasks)
    }
    return ReportTable(
      title: "Controls",
      text:
        "Change from γ = 0 without mitigation where it is known what should come out: placebo tasks "
        + "have nothing to do with the bias and should stay still; where data are made from templates "
        + "with a planted association, bias metrics should move.",
      columns: ["control", "task", "metric", "bias type", "γ", "estimate [95 %]", "verdict"],
      rows: rows,
      query: ResultQuery.controls(shown, rounds: findings.hasRounds))
  }

  private static func verdict(_ finding: Finding, isPlacebo: Bool) -> String {
    guard finding.lower != nil, finding.upper != nil else { return "no interval: not known" }
    return switch (isPlacebo, finding.excludesZero) {
    case (true, false): "stays still: the interval holds 0"
    case (true, true): "moves, though it should not"
    case (false, true): "moves"
    case (false, false): "the interval holds 0"
    }
  }
}
