import SweepCore

/// Plots that set mitigations, and kinds of tasks, side by side; of several rounds, the first.
enum ComparisonFigures {
  /// How much of the inherited bias each mitigation takes back, by task, at the largest ratio.
  static func recovery(_ findings: FindingTables, _ spec: SweepSpec) -> Figure? {
    let all = findings.of(.recovery) {
      $0.role == .bias && $0.estimate != nil && $0.round == 1
    }
    guard let ratio = all.compactMap(\.ratio).max() else { return nil }
    let shown = all.filter { $0.ratio == ratio }
    let tasks = spec.tasks.filter { task in shown.contains { $0.task == task } }
    let mitigations = spec.mitigations.map(\.rawValue).filter { mitigation in
      shown.contains { $0.mitigation == mitigation }
    }
    let cells = tasks.map { task in
      mitigations.map { mitigation -> HeatMap.Cell? in
        let own = shown.filter { $0.task == task && $0.mitigation == mitigation }
          .compactMap(\.estimate)
        guard !own.isEmpty else { return nil }
        let mean = own.reduce(0, +) / Double(own.count)
        return HeatMap.Cell(
          value: mean, isFaint: findings.withoutSkill.contains(task),
          detail: "\(task), \(mitigation): mean \(NumberText.fixed(mean)) of \(own.count), from "
            + "\(NumberText.fixed(own.min() ?? mean)) to \(NumberText.fixed(own.max() ?? mean))")
      }
    }
    let title = "Recovery by mitigation at γ = \(NumberText.plain(ratio))"
    let map = HeatMap(
      title: title,
      description: "Tasks by mitigations: share of the inherited bias that is taken off.",
      rows: tasks.map(findings.name), columns: mitigations, cells: cells)
    return Figure(
      name: "recovery", title: title,
      caption:
        "1 is all of the inherited bias, 0 nothing, below 0 more is inherited. Mean over bias "
        + "types and bias metrics, of those whose inheritance without mitigation is certain; single "
        + "values with intervals stand in the table “Recovery”. Pale: the task has no skill.",
      panels: [map.panel(id: "recovery-1")],
      query: """
        SELECT task, mitigation, avg(estimate) AS mean, count(*) AS conditions, min(estimate),
          max(estimate)
        FROM finding WHERE kind = 'recovery' AND role = 'bias' AND ratio = \(ratio)
          AND estimate IS NOT NULL\(findings.hasRounds ? " AND round = 1" : "")
        GROUP BY task, mitigation ORDER BY task, mitigation;
        """)
  }

  /// What direct and indirect tasks lose or gain in skill, by bias type.
  static func relations(_ findings: FindingTables, _ spec: SweepSpec) -> Figure? {
    let inherited = findings.headlineInheritance(role: .skill).filter { $0.effectSize != nil }
    let relations: [TaskDefinition.Relation] = [.direct, .indirect, .placebo]
    func relation(_ finding: Finding) -> TaskDefinition.Relation? {
      finding.task.flatMap { spec.taskDefinitions[$0]?.relation }
    }
    let present = relations.filter { kind in inherited.contains { relation($0) == kind } }
    let biases = spec.biases.map(\.rawValue).filter { bias in
      inherited.contains { $0.bias == bias }
    }
    guard present.count > 1, !biases.isEmpty, let ratio = inherited.first?.ratio else { return nil }
    let series = present.enumerated().map { index, kind in
      ScatterPlot.Series(
        name: kind.rawValue, style: relations.firstIndex(of: kind) ?? index,
        points: inherited.filter { relation($0) == kind }.compactMap { finding in
          guard let size = finding.effectSize,
            let place = biases.firstIndex(where: { $0 == finding.bias })
          else { return nil }
          // The kinds stand beside each other.
          let shift = (Double(index) - Double(present.count - 1) / 2) * 0.22
          return ScatterPlot.Point(
            x: Double(place) + shift, y: size,
            detail: "\(findings.name(finding.task)), \(finding.metric ?? ""), \(biases[place]): "
              + NumberText.signed(size, decimals: 2))
        })
    }
    let sizes = series.flatMap { $0.points.map(\.y) }
    let plot = ScatterPlot(
      title: "change of skill at γ = \(NumberText.plain(ratio))",
      description: "Standardised change of skill metrics by bias type. "
        + series.flatMap { one in one.points.map { "\(one.name): \($0.detail)" } }
        .joined(separator: "; ") + ".",
      xLabel: "bias type", yLabel: "Δ skill (Glass’s Δ)",
      xAxis: .categories(biases.indices.map { "\($0 + 1)" }),
      yScale: LinearScale(covering: sizes + [0]), series: series)
    let numbered = biases.enumerated().map { "\($0.offset + 1) \($0.element)" }
    return Figure(
      name: "relations", title: "Direct against indirect tasks",
      caption:
        "Each point is a skill metric of a task, without mitigation, in standard deviations of "
        + "the test items; below 0 skill is lost. Bias types: \(numbered.joined(separator: ", "))."
        + findings.remark(
          pooling: spec.tasks.filter { task in inherited.contains { $0.task == task } }),
      panels: [plot.panel(id: "relations-1")],
      key: series.map {
        Figure.Key(svg: SeriesStyle($0.style).markerSample, text: "\($0.name) tasks")
      },
      query: ResultQuery.inheritance(
        role: .skill, ratio: ratio, round: findings.hasRounds ? 1 : nil,
        present: "effect_size"))
  }
}
