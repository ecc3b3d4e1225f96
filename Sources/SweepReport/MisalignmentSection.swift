import SweepCore
import SweepLedger

/// Why bias may be inherited, as far as it can be measured: the base model's values against people's,
/// its view of groups against published figures, and generated against original data
/// (docs/STUDY.md, "Why: three misalignments").
struct MisalignmentSection {
  let tables: [ReportTable]
  let figures: [Figure]

  init(_ data: ReportData) {
    let facts = data.facts.filter { $0.kind == "augmentation" && $0.name.isMisalignment }
    // What is measured of the base model alone stands with the same value at every D_a of a domain.
    let model = Dictionary(facts.filter(\.isOfPlainAugmentation).map { ($0.name, $0.value) }) {
      first, _ in first
    }
    let plain = facts.filter(\.isOfPlainAugmentation)
    tables = [
      Self.values(model), Self.groups(model), Self.representations(plain),
      Self.associations(FindingTables(data.findings)),
    ].compactMap(\.self)
    figures = [
      Self.valuesFigure(model), Self.groupsFigure(model),
      Self.planes(plain),
    ].compactMap(\.self)
  }

  private static func text(_ value: Double?) -> String {
    value.map { NumberText.compact($0) } ?? NumberText.missing
  }

  /// The rest of the names that begin with `prefix`, sorted.
  private static func suffixes(_ facts: [String: Double], of prefix: String) -> [String] {
    facts.keys.filter { $0.hasPrefix(prefix) }.map { String($0.dropFirst(prefix.count)) }.sorted()
  }

  /// Why what is measured of the base model is not related to what is inherited over bias types.
  private static func remark(_ units: String) -> String {
    " What is the base model’s is the same for every bias type, and can go with what is inherited "
      + "over \(units) only, where four of them have test items enough."
  }

  // MARK: Associations

  /// Over occupations and cultures; those over bias types stand with the doses.
  private static func associations(_ findings: FindingTables) -> ReportTable? {
    let found = findings.of(.association) {
      $0.role == nil && $0.mitigation == "none" && $0.estimate != nil
    }
    guard !found.isEmpty else { return nil }
    let round = findings.hasRounds ? ["round"] : []
    func cells(_ finding: Finding) -> [String] {
      var cells = [
        findings.name(finding.task), finding.bias ?? "",
        finding.ratio.map(NumberText.plain) ?? "",
      ]
      if findings.hasRounds { cells.append("\(finding.round)") }
      let pValue = finding.pValue.map { NumberText.fixed($0) } ?? NumberText.missing
      cells += [finding.correlationText, pValue, finding.adjustedText, finding.note ?? ""]
      return cells
    }
    return ReportTable(
      title: "Misalignments against what is inherited, over occupations and cultures",
      text:
        "Rank correlation, over occupations, of the model’s share of women less the published one "
        + "with the change of the true positive rate’s gap (women less men); and over cultures, of "
        + "the divergence of values with the change of similarity to people’s answers. Changes are "
        + "from γ = 0 without mitigation; those with mitigations are in the ledger.",
      columns: ["misalignment", "task", "bias type", "γ"] + round
        + ["ρ [95 %]", "p", "p (Holm)", "of"],
      rows: found.map { ReportTable.Row(name: $0.predictor ?? "", cells: cells($0)) },
      query: ResultQuery.findings(
        .association, "predictor, estimate, lower, upper, p_value, p_adjusted, note",
        where: "role IS NULL AND mitigation = 'none' AND estimate IS NOT NULL",
        rounds: findings.hasRounds))
  }

  // MARK: Values

  private static func values(_ facts: [String: Double]) -> ReportTable? {
    guard facts["values_divergence"] != nil else { return nil }
    let cultures = suffixes(facts, of: "values_divergence_").filter { $0 != "gap" }
    let overall = [
      ("all, mean", "values_divergence"), ("largest − smallest", "values_divergence_gap"),
    ]
    let rows =
      cultures.map { ($0, "values_divergence_\($0)") } + overall.filter { facts[$0.1] != nil }
    return ReportTable(
      title: "Misalignment of values",
      text:
        "Jensen–Shannon divergence, in bits, of the base model’s answers to survey questions from "
        + "those of real people, by culture." + remark("cultures"),
      columns: ["culture", "divergence (bits)"],
      rows: rows.map { ReportTable.Row(name: $0.0, cells: [text(facts[$0.1])]) },
      query: ResultQuery.valueMisalignment)
  }

  private static func valuesFigure(_ facts: [String: Double]) -> Figure? {
    let people = "answers_people_"
    // culture_question_answer
    let cells = suffixes(facts, of: people).compactMap { name -> (key: String, culture: String)? in
      guard facts["answers_model_\(name)"] != nil, let end = name.firstIndex(of: "_") else {
        return nil
      }
      return (name, String(name[..<end]))
    }
    guard !cells.isEmpty else { return nil }
    let cultures = cells.map(\.culture).unique
    let questions = cells.map { question(of: $0.key) }.unique
    let panels = questions.enumerated().map { index, asked in
      let own = cells.filter { question(of: $0.key) == asked }
      let series = cultures.enumerated().map { style, culture in
        ScatterPlot.Series(
          name: culture, style: style,
          points: own.filter { $0.culture == culture }.map { cell in
            let real = facts[people + cell.key] ?? .nan
            let said = facts["answers_model_\(cell.key)"] ?? .nan
            let answer = cell.key.split(separator: "_").last ?? ""
            return ScatterPlot.Point(
              x: real, y: said,
              detail: "\(culture), answer \(answer): people \(NumberText.fixed(real)), model "
                + NumberText.fixed(said))
          })
      }
      let scale = LinearScale(covering: [0, 1])
      return ScatterPlot(
        title: asked,
        description: "Share of each answer to the survey question on \(asked), the model’s against "
          + "people’s. "
          + series.flatMap { one in one.points.map(\.detail) }.joined(separator: "; ") + ".",
        xLabel: "share among people", yLabel: "share in the model",
        xAxis: .scale(scale), yScale: scale, series: series, hasDiagonal: true
      ).panel(id: "values-p\(index + 1)")
    }
    return Figure(
      name: "values", title: "Values: the model’s answers against people’s",
      caption:
        "Each point is one answer of one culture; on the dotted line model and people agree.",
      panels: panels, key: key(cultures), query: ResultQuery.facts(like: "answers_%"))
  }

  /// `immigration` of `arabic_immigration_3`.
  private static func question(of name: String) -> String {
    name.split(separator: "_").dropFirst().dropLast().joined(separator: " ")
  }

  private static func key(_ names: [String]) -> [Figure.Key] {
    names.enumerated().map {
      Figure.Key(svg: SeriesStyle($0.offset).markerSample, text: $0.element)
    }
  }

  // MARK: Groups

  private static func groups(_ facts: [String: Double]) -> ReportTable? {
    let occupations = suffixes(facts, of: "groups_share_")
    guard !occupations.isEmpty else { return nil }
    let inTexts = occupations.contains { facts["groups_text_share_\($0)"] != nil }
    let rows = occupations.map { occupation in
      let share = facts["groups_share_\(occupation)"]
      let published = facts["published_share_\(occupation)"]
      let difference = share.flatMap { share in published.map { share - $0 } }
      return ReportTable.Row(
        name: occupation,
        cells: [
          text(published), text(share),
          difference.map { NumberText.signed($0) } ?? NumberText.missing,
        ] + (inTexts ? [text(facts["groups_text_share_\(occupation)"])] : []))
    }
    let mean = ReportTable.Row(
      name: "mean distance",
      cells: [NumberText.missing, NumberText.missing, text(facts["groups_divergence"])]
        + (inTexts ? [text(facts["groups_text_divergence"])] : []))
    return ReportTable(
      title: "Misalignment of group data",
      text:
        "Share of women by occupation: published, and as the base model goes on with “She” or “He” "
        + "where nothing names a gender"
        + (inTexts ? "; and by the pronouns of texts written under neutral prompts." : ".")
        + remark("occupations"),
      columns: ["occupation", "published", "model", "model − published"]
        + (inTexts ? ["neutral texts"] : []),
      rows: rows + [mean], query: ResultQuery.groupMisalignment(inTexts: inTexts))
  }

  private static func groupsFigure(_ facts: [String: Double]) -> Figure? {
    let occupations = suffixes(facts, of: "published_share_")
    guard !occupations.isEmpty else { return nil }
    func points(_ prefix: String) -> [ScatterPlot.Point] {
      occupations.compactMap { occupation in
        guard let published = facts["published_share_\(occupation)"],
          let share = facts[prefix + occupation]
        else { return nil }
        return ScatterPlot.Point(
          x: published, y: share,
          detail: "\(occupation): published \(NumberText.fixed(published)), model "
            + NumberText.fixed(share))
      }
    }
    let sides = [("next word", "groups_share_"), ("neutral texts", "groups_text_share_")]
      .map { (name: $0.0, points: points($0.1)) }.filter { !$0.points.isEmpty }
    guard !sides.isEmpty else { return nil }
    let scale = LinearScale(covering: [0, 1])
    let plot = ScatterPlot(
      title: "share of women by occupation",
      description: "The model’s share of women against the published one. "
        + sides.flatMap { side in side.points.map { "\(side.name), \($0.detail)" } }
        .joined(separator: "; ") + ".",
      xLabel: "published share", yLabel: "share in the model", xAxis: .scale(scale), yScale: scale,
      series: sides.enumerated().map {
        ScatterPlot.Series(name: $0.element.name, style: $0.offset, points: $0.element.points)
      }, hasDiagonal: true)
    return Figure(
      name: "groups", title: "Groups: the model’s shares against published ones",
      caption:
        "Each point is an occupation; on the dotted line the model’s share is the published one.",
      panels: [plot.panel(id: "groups-p1")], key: key(sides.map(\.name)),
      query: ResultQuery.facts(like: "groups_%", "published_%"))
  }

  // MARK: Representations

  private static func representations(_ facts: [ShardFact]) -> ReportTable? {
    let measured = facts.filter { $0.name == "representation_mmd2" }
    guard !measured.isEmpty else { return nil }
    let byShard = Dictionary(grouping: facts, by: \.shard).mapValues {
      Dictionary($0.map { ($0.name, $0.value) }) { first, _ in first }
    }
    return ReportTable(
      title: "Misalignment of data distributions",
      text:
        "Distance of D_a from D_o in the base model’s final hidden states: squared maximum mean "
        + "discrepancy (unbiased), p of its permutation test, distance of the means, and the share of "
        + "the variance that the plane of the plot shows.",
      columns: ["D_a", "MMD²", "p", "distance of means", "variance in the plane"],
      rows: measured.map { fact in
        let own = byShard[fact.shard] ?? [:]
        let shown = own["representation_component_1_variance"].flatMap { first in
          own["representation_component_2_variance"].map { first + $0 }
        }
        return ReportTable.Row(
          name: "\(fact.domain), \(fact.bias ?? "")",
          cells: [
            text(fact.value), text(own["representation_p_value"]),
            text(own["representation_mean_distance"]), text(shown),
          ])
      },
      query: ResultQuery.distributionMisalignment)
  }

  private static func planes(_ facts: [ShardFact]) -> Figure? {
    let sides = ["original", "augmented"]
    let byShard = Dictionary(grouping: facts, by: \.shard)
    var hasPoints = false
    let panels = facts.map(\.shard).unique.compactMap { shard -> ScatterPlot? in
      guard let own = byShard[shard], let first = own.first else { return nil }
      let values = Dictionary(own.map { ($0.name, $0.value) }) { first, _ in first }
      var covered: (x: [Double], y: [Double]) = ([], [])
      let series = sides.enumerated().compactMap { style, side -> ScatterPlot.Series? in
        let prefix = "representation_\(side)_"
        guard let x = values[prefix + "1"], let y = values[prefix + "2"],
          let xx = values[prefix + "11"], let yy = values[prefix + "22"],
          let xy = values[prefix + "12"]
        else { return nil }
        let numbers = suffixes(values, of: "point_\(side)_").filter { $0.hasSuffix("_1") }
          .map { String($0.dropLast(2)) }
        let points = numbers.compactMap { number -> ScatterPlot.Point? in
          guard let x = values["point_\(side)_\(number)_1"],
            let y = values["point_\(side)_\(number)_2"]
          else { return nil }
          return ScatterPlot.Point(x: x, y: y)
        }
        hasPoints = hasPoints || !points.isEmpty
        covered.x += points.map(\.x) + [x - xx.squareRoot(), x + xx.squareRoot()]
        covered.y += points.map(\.y) + [y - yy.squareRoot(), y + yy.squareRoot()]
        return ScatterPlot.Series(
          name: side, style: style == 0 ? 1 : 2, points: points, isCloud: true,
          ellipse: ScatterPlot.Ellipse(x: x, y: y, xVariance: xx, yVariance: yy, covariance: xy))
      }
      guard series.count == sides.count else { return nil }
      func share(_ component: Int) -> String {
        values["representation_component_\(component)_variance"].map {
          "component \(component) (\(NumberText.fixed(100 * $0, decimals: 0)) %)"
        } ?? "component \(component)"
      }
      let readings = series.compactMap { one in
        one.ellipse.map {
          "\(one.name) items around (\(NumberText.compact($0.x)), \(NumberText.compact($0.y)))"
        }
      }
      return ScatterPlot(
        title: "\(first.domain), \(first.bias ?? "")",
        description:
          "D_o and D_a in the plane of the first two principal components of the model’s "
          + "final hidden states: \(readings.joined(separator: ", ")).",
        xLabel: share(1), yLabel: share(2),
        xAxis: .scale(LinearScale(covering: covered.x)),
        yScale: LinearScale(covering: covered.y), series: series)
    }
    guard !panels.isEmpty else { return nil }
    return Figure(
      name: "representations", title: "Data distributions: a projection to look at",
      caption: (hasPoints ? "Each dot is an item; crosses " : "Crosses ")
        + "are the means and ellipses one standard deviation of a side’s items, in the plane of the "
        + "first two principal components of both sides of a panel. Distances are tested in the whole "
        + "space and not in the plane.",
      panels: panels.enumerated().map { $0.element.panel(id: "plane-p\($0.offset + 1)") },
      key: [
        Figure.Key(svg: SeriesStyle(1).dotSample, text: "D_o"),
        Figure.Key(svg: SeriesStyle(2).dotSample, text: "D_a"),
      ], query: ResultQuery.facts(like: "representation_%", "point_%"))
  }
}

extension String {
  /// Whether a fact of this name measures or draws a misalignment.
  var isMisalignment: Bool {
    ["values_", "groups_", "representation_"].contains { hasPrefix($0) } || isDrawnOnly
  }

  /// Whether a fact of this name is there to be drawn and says nothing as a number of a list.
  var isDrawnOnly: Bool { Self.drawnPrefixes.contains { hasPrefix($0) } }

  static let drawnPrefixes = [
    "answers_", "published_", "point_", "representation_original_", "representation_augmented_",
  ]
}
