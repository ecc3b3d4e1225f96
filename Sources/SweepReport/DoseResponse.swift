import SweepCore
import SweepLedger

/// What is inherited against what the generated data turned out to be: the bias metrics of each task
/// at the largest ratio without mitigation, over the bias types, against the doses of its domain; in
/// the first round, where all fine-tunes have one D_a.
struct DoseResponse {
  let figures: [Figure]
  let table: ReportTable?

  /// The doses that a domain is plotted against, fixed beforehand: how far groups' shares or answers
  /// moved, and how differently the groups are described. The others are in the ledger.
  private static func doses(_ domain: Domain) -> [(name: String, label: String)] {
    switch domain {
    case .gender:
      [
        ("dose_share_shift", "shift of the share of women from D_o"),
        ("dose_agentic_communal_gap", "agentic − communal words, men − women"),
      ]
    case .culture:
      [
        ("dose_label_shift", "distance of labels from the survey"),
        ("dose_culture_gap", "largest distance between two cultures"),
      ]
    }
  }

  init(_ data: ReportData, _ findings: FindingTables) {
    let spec = data.sweep.spec
    let inherited = findings.headlineInheritance(role: .bias).filter {
      $0.bias != nil && $0.bias != BiasType.sameSize.rawValue && $0.estimate != nil
    }
    let doses = Self.measured(data.facts)
    let biases = spec.biases.map(\.rawValue)
    var figures: [Figure] = []
    var rows: [ReportTable.Row] = []
    var shown: [(task: String, domain: Domain, dose: String)] = []
    for (index, task) in spec.tasks.enumerated() {
      guard let domain = spec.taskDefinitions[task]?.domain else { continue }
      var panels: [Figure.Panel] = []
      var drawn: Set<String> = []
      var names: [String] = []
      for metric in inherited.filter({ $0.task == task }).compactMap(\.metric).unique {
        for dose in Self.doses(domain) {
          let points = biases.compactMap {
            bias -> (bias: String, dose: Double, finding: Finding)? in
            guard
              let finding = inherited.first(where: {
                $0.task == task && $0.metric == metric && $0.bias == bias
              }),
              let value = doses[Measured(domain: domain.rawValue, bias: bias, name: dose.name)]
            else { return nil }
            return (bias, value, finding)
          }
          guard points.count > 1 else { continue }
          drawn.formUnion(points.map(\.bias))
          if !names.contains(dose.name) {
            names.append(dose.name)
            shown.append((task, domain, dose.name))
          }
          let association = findings.of(.association) {
            $0.task == task && $0.metric == metric && $0.predictor == dose.name && $0.round == 1
          }.first
          let plot = Self.plot(
            task: task, metric: metric, dose: dose.label, points: points, biases: biases,
            association: association)
          panels.append(plot.panel(id: "dose-\(index + 1)-p\(panels.count + 1)"))
          rows.append(
            ReportTable.Row(
              name: findings.name(task),
              cells: [
                metric, dose.name, association?.correlationText ?? NumberText.missing,
                association?.pValue.map { NumberText.fixed($0) } ?? NumberText.missing,
                association?.adjustedText ?? NumberText.missing, "\(points.count)",
              ]))
        }
      }
      guard !panels.isEmpty, let ratio = inherited.first?.ratio else { continue }
      let withoutSkill = findings.withoutSkill.contains(task)
      figures.append(
        Figure(
          name: "dose-\(index + 1)", title: "Dose and response: \(task)",
          caption:
            "Change of each bias metric of \(task) from γ = 0 to γ = \(NumberText.plain(ratio)) "
            + "without mitigation, with its 95 % interval, against what was measured in D_a; a point "
            + "is a bias type. ρ is Spearman’s correlation of the dose with the change’s magnitude "
            + "[95 % over bias types]."
            + (withoutSkill ? " The task has no skill: not interpretable." : ""),
          panels: panels,
          key: biases.enumerated().filter { drawn.contains($0.element) }.map {
            Figure.Key(svg: SeriesStyle($0.offset).markerSample, text: $0.element)
          },
          query: ResultQuery.doseResponse(
            task: task, domain: domain, doses: names, ratio: ratio,
            rounds: findings.hasRounds)))
    }
    self.figures = figures
    table =
      rows.isEmpty
      ? nil
      : ReportTable(
        title: "Dose against response",
        text:
          "Spearman’s correlation, over bias types, of a dose measured in D_a with the magnitude "
          + "of what the task’s bias metric inherits at the largest ratio without mitigation.",
        columns: ["task", "metric", "dose", "ρ [95 %]", "p", "p (Holm)", "bias types"], rows: rows,
        query: ResultQuery.doseAssociations(
          shown, ratio: inherited.first?.ratio ?? 0, rounds: findings.hasRounds))
  }

  private static func plot(
    task: String, metric: String, dose: String,
    points: [(bias: String, dose: Double, finding: Finding)], biases: [String],
    association: Finding?
  ) -> ScatterPlot {
    let label = MetricDescription(name: metric).label
    let values = points.flatMap { [$0.finding.estimate, $0.finding.lower, $0.finding.upper] }
    let correlation = association.map { finding in
      let p = finding.pValue.map { ", p = \(NumberText.fixed($0))" } ?? ""
      return "ρ = \(finding.correlationText)\(p)"
    }
    let readings = points.map {
      "\($0.bias): \($0.finding.text) at \(NumberText.compact($0.dose))"
    }
    return ScatterPlot(
      title: correlation ?? "no correlation was computed",
      description: "Task \(task): change of \(label) against the dose. "
        + readings.joined(separator: "; ") + ".",
      xLabel: dose, yLabel: "Δ \(label)",
      xAxis: .scale(LinearScale(covering: points.map(\.dose))),
      // No change is always in sight.
      yScale: LinearScale(covering: values.compactMap(\.self) + [0]),
      series: points.map { point in
        ScatterPlot.Series(
          name: point.bias, style: biases.firstIndex(of: point.bias) ?? 0,
          points: [
            ScatterPlot.Point(
              x: point.dose, y: point.finding.estimate ?? .nan, low: point.finding.lower,
              high: point.finding.upper, detail: "\(point.bias): \(point.finding.text)")
          ])
      })
  }

  private struct Measured: Hashable {
    let domain: String
    let bias: String
    let name: String
  }

  /// Doses by D_a.
  private static func measured(_ facts: [ShardFact]) -> [Measured: Double] {
    Dictionary(
      facts.filter { $0.isOfPlainAugmentation && $0.name.hasPrefix("dose_") }.compactMap { fact in
        fact.bias.map {
          (Measured(domain: fact.domain, bias: $0, name: fact.name), fact.value)
        }
      }
    ) { first, _ in first }
  }
}

extension Finding {
  /// A rank correlation with its interval.
  var correlationText: String {
    guard let estimate else { return NumberText.missing }
    var text = NumberText.signed(estimate, decimals: 2)
    if let lower, let upper {
      text += " [\(NumberText.fixed(lower, decimals: 2)), \(NumberText.fixed(upper, decimals: 2))]"
    }
    return text
  }
}

extension ShardFact {
  /// Whether the shard made a D_a as the generator gives it, which inheritance without mitigation is
  /// about, and not one that a mitigation had a part in.
  var isOfPlainAugmentation: Bool {
    bias.map { shard == "augment/\(domain)/\($0)" } ?? false
  }
}

extension Sequence where Element: Hashable {
  /// The elements without repetitions, each where it stands first.
  var unique: [Element] {
    var seen: Set<Element> = []
    return filter { seen.insert($0).inserted }
  }
}
