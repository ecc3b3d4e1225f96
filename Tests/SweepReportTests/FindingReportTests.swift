import Foundation
import SweepCore
import SweepLedger
import SweepReport
import SweepTestKit
import Testing

#if canImport(FoundationXML)
  import FoundationXML
#endif

/// What the report says of findings, and what it does not.
struct FindingReportTests {
  private let directory: TemporaryDirectory
  private let sample: SampleSweep
  private let bias = "contrastive-single-explicit"

  init() throws {
    directory = try TemporaryDirectory()
    sample = try SampleSweep()
  }

  private func finding(
    _ kind: Finding.Kind, _ task: String, _ metric: String, role: HeadlineRole, bias: String?,
    ratio: Double, estimate: Double?, width: Double, note: String? = nil
  ) -> Finding {
    var finding = Finding(kind, inputs: ContentDigest(of: "\(task) \(metric)".utf8))
    finding.task = task
    finding.metric = metric
    finding.role = role
    finding.bias = bias
    finding.ratio = ratio
    finding.mitigation = "none"
    finding.estimate = estimate
    finding.lower = estimate.map { $0 - width }
    finding.upper = estimate.map { $0 + width }
    finding.effectSize = estimate.map { 2 * $0 }
    finding.adjustedPValue = 0.0004
    finding.note = note
    return finding
  }

  private var findings: [Finding] {
    [
      finding(
        .skill, "occupation", "accuracy", role: .skill, bias: nil, ratio: 0, estimate: 0.5,
        width: 0.1),
      finding(
        .skill, "story", "accuracy", role: .skill, bias: nil, ratio: 0, estimate: 0.5, width: 0.5,
        note: "no skill: not interpretable"),
      finding(
        .level, "occupation", "accuracy", role: .skill, bias: bias, ratio: 0.5, estimate: 0.25,
        width: 0.0625),
      finding(
        .inheritance, "occupation", "gap", role: .bias, bias: bias, ratio: 0.5, estimate: 0.375,
        width: 0.125),
      finding(
        .inheritance, "story", "gap", role: .bias, bias: bias, ratio: 0.5, estimate: -0.25,
        width: 0.125),
      finding(
        .inheritance, "occupation", "gap", role: .bias, bias: bias, ratio: 0.2, estimate: 7,
        width: 1),
      finding(
        .femaleAgainstMale, "occupation", "accuracy", role: .skill, bias: bias, ratio: 0.5,
        estimate: -0.1875, width: 0.0625),
    ]
  }

  /// - Parameter events: what happened; nil for the whole run.
  private func data(
    _ findings: [Finding]? = nil, spec: SweepSpec? = nil, events: [SweepEvent]? = nil
  ) throws -> ReportData {
    let path = directory.file("sweep-\(UUID().uuidString).sqlite")
    let ledger = try Ledger(
      path: path, spec: spec ?? sample.spec, plan: sample.plan, version: "1.2.3",
      now: 1_764_000_000)
    try ledger.append(events ?? sample.run, now: 1_764_000_100)
    try ledger.store(findings: findings ?? self.findings)
    return try ReportData(reader: LedgerReader(path: path))
  }

  @Test func tasksWithoutSkillAreNotInterpreted() throws {
    let tables = FindingTables(findings)
    #expect(tables.withoutSkill == ["story"])
    let html = try HTMLReport.render(try data())
    #expect(html.contains("no skill: not interpretable"))
    #expect(html.contains("Not interpreted"))
  }

  /// Every row that is about the task without skill says so, in every format, and no other does.
  @Test func rowsOfTasksWithoutSkillAreMarked() throws {
    var association = finding(
      .association, "story", "gap", role: .bias, bias: nil, ratio: 0.5, estimate: 0.5, width: 0.25)
    association.predictor = "dose_culture_gap"
    let kinds: [Finding.Kind] = [.drift, .slope, .againstSameSize, .recovery, .femaleAgainstMale]
    let more = kinds.flatMap { kind in
      ["occupation", "story"].map {
        finding(
          kind, $0, "accuracy", role: .skill, bias: bias, ratio: 0.5, estimate: 0.25, width: 0.125)
      }
    }
    let data = try data(findings + more + [association])
    let markdown = MarkdownReport(data, figures: nil).text
    let parts = try #require(markdown.components(separatedBy: "## Results").first)
    let rows = parts.split(separator: "\n").filter { $0.hasPrefix("|") && $0.contains("| story") }
    // Skill, inheritance, the kinds, the association, and what is not interpreted.
    #expect(rows.count == 2 + kinds.count + 2)
    for row in rows { #expect(row.contains("| story (no skill) |"), "\(row)") }
    #expect(!parts.contains("occupation (no skill)"))
    let latex = data.latex().split(separator: "\n").filter { !$0.hasPrefix("%") }
      .filter { $0.hasPrefix("story") || $0.contains("& story") }
    #expect(latex.count == 2 + kinds.count + 2)
    for row in latex { #expect(row.contains("story (no skill) &"), "\(row)") }
    let html = try HTMLReport.render(data)
    #expect(
      html.components(separatedBy: "<th scope=\"row\">story (no skill)</th>").count > kinds.count)
    #expect(html.contains("<td>story (no skill)</td>"))
    #expect(!html.contains("<th scope=\"row\">story</th>") && !html.contains("<td>story</td>"))
  }

  @Test func pooledNumbersNameTasksWithoutSkill() throws {
    var pooled = Finding(.mitigationOverall, inputs: ContentDigest(of: "pooled".utf8))
    pooled.role = .bias
    pooled.mitigation = "mask"
    pooled.estimate = 0.25
    var relations = Finding(.directAgainstIndirect, inputs: ContentDigest(of: "relations".utf8))
    relations.role = .skill
    relations.bias = bias
    relations.ratio = 0.5
    relations.mitigation = "none"
    relations.estimate = 0.25
    var mitigated = finding(
      .inheritance, "story", "gap", role: .bias, bias: bias, ratio: 0.5, estimate: 0.125, width: 1)
    mitigated.mitigation = "mask"
    let skill = finding(
      .inheritance, "story", "accuracy", role: .skill, bias: bias, ratio: 0.5, estimate: 0.125,
      width: 1)
    let remark = "story is among them without skill, and is not interpretable."
    func section(_ title: String, _ found: [Finding]) throws -> String {
      let text = MarkdownReport(try data(found), figures: nil).text
      let section = try #require(text.components(separatedBy: "### \(title)\n").dropFirst().first)
      return section.components(separatedBy: "\n| ")[0]
    }
    let overall = "Mitigations over all tasks"
    let direct = "Direct against indirect tasks"
    let all = findings + [pooled, relations]
    #expect(try section(overall, all + [mitigated]).contains(remark))
    #expect(try section(direct, all + [skill]).contains(remark))
    // What did not enter is not named.
    #expect(try !section(overall, all + [skill]).contains("without skill"))
    #expect(try !section(direct, all + [mitigated]).contains("without skill"))
    let both = try data(all + [mitigated, skill])
    #expect(both.latex().components(separatedBy: remark).count == 3)
    #expect(try HTMLReport.render(both).components(separatedBy: remark).count == 3)
  }

  @Test func theHeatMapShowsTheLargestRatio() throws {
    let html = try HTMLReport.render(try data())
    let map = try #require(
      html.components(separatedBy: "<svg ").first { $0.contains("inheritance-1-t") })
    #expect(map.contains("+0.75") && map.contains("−0.50") && !map.contains("14.00"))
    let svg = "<svg " + map.components(separatedBy: "</svg>")[0] + "</svg>"
    #expect(XMLParser(data: Data(svg.utf8)).parse())
    // The task without skill is pale: its number is grey.
    #expect(map.components(separatedBy: "fill:#999").count == 2)
  }

  @Test func cellsHaveTheIntervalOfTheirLevel() throws {
    let tables = try data().tables
    let table = try #require(
      tables.tables(task: "occupation", bias: bias).first { $0.metric.name == "accuracy" })
    let ratio = try #require(tables.ratios.firstIndex(of: 0.5))
    #expect(table.cells[0][ratio]?.interval == 0.1875...0.3125)
    #expect(table.cells[0][0]?.interval == nil)
  }

  @Test func everyFormatHasTheIntervalsOfResults() throws {
    let data = try data()
    let html = try HTMLReport.render(data)
    // In the cell of the bias type, and in none of ratio 0 or another mitigation.
    #expect(html.components(separatedBy: "<span class=\"interval\">").count == 2)
    #expect(html.contains("<span class=\"interval\">[0.188, 0.312]</span>"))
    let markdown = try #require(
      MarkdownReport(data, figures: nil).text.components(separatedBy: "\n## Results\n").last)
    for text in [markdown, data.latex()] {
      #expect(text.components(separatedBy: " [0.188, 0.312] (").count == 2)
    }
    let lines = data.tables.csv().components(separatedBy: "\r\n").dropLast()
    #expect(lines.first?.hasSuffix(",change,lower,upper") == true)
    let certain = lines.dropFirst().filter { !$0.hasSuffix(",,") }
    #expect(certain.count == 1)
    #expect(certain.first?.hasPrefix("occupation,\(bias),accuracy,none,0.5,2,") == true)
    #expect(certain.first?.hasSuffix(",0.1875,0.3125") == true)
  }

  @Test func tablesForOtherPrograms() throws {
    let tables = FindingTables(findings)
    let lines = tables.csv().components(separatedBy: "\r\n")
    #expect(lines.count == findings.count + 2 && lines[0].hasPrefix("kind,task,metric,role"))
    #expect(lines[4].hasPrefix("inheritance,occupation,gap,bias,\(bias),0.5,none,,0.375,,0.25,0.5"))
    let latex = tables.latex()
    #expect(latex.contains("0.375 & [0.250, 0.500]") && latex.contains("$-$0.250"))
    #expect(!latex.contains("7.000"))
  }

  @Test func whatWomenLoseMoreThanMenHasATable() throws {
    let data = try data()
    for text in [try HTMLReport.render(data), MarkdownReport(data, figures: nil).text] {
      let table = try #require(
        text.components(separatedBy: "Female against male").dropFirst().first)
      #expect(table.contains("−0.188 [−0.250, −0.125]"))
      #expect(table.contains("female_against_male"))
    }
  }

  @Test func methodsSayWhatTheSpecSays() throws {
    let html = try HTMLReport.render(try data())
    #expect(html.contains("γ ∈ {0, 0.2, 0.5}"))
    #expect(html.contains("Each of 2 seeds"))
  }

  /// Two bias metrics whose order in the definition is not that of the alphabet.
  @Test func theHeatMapShowsTheFirstMetricOfTheDefinition() throws {
    var spec = sample.spec
    var definitions = spec.tasks.compactMap { spec.taskDefinitions[$0] }
    definitions[0].headlines += ["twin_log_odds_gap", "flip_rate"].map {
      Headline(metric: $0, role: .bias, direction: .worse)
    }
    spec.taskDefinitions = TaskDefinitions(definitions)
    let found = ["flip_rate", "twin_log_odds_gap"].enumerated().map { index, metric in
      finding(
        .inheritance, "occupation", metric, role: .bias, bias: bias, ratio: 0.5,
        estimate: Double(index + 1) / 8, width: 0.0625)
    }
    let html = try HTMLReport.render(try data(found, spec: spec))
    let figure = try #require(
      html.components(separatedBy: "<h3>").first { $0.contains("id=\"inheritance-1-t\"") })
    #expect(figure.contains("+0.50</text>") && !figure.contains("+0.25</text>"))
    #expect(figure.contains("occupation: twin log-odds gap."))
    #expect(
      figure.contains(
        "(task, metric) IN (VALUES (&#39;occupation&#39;, &#39;twin_log_odds_gap&#39;))"))
  }

  // MARK: Sweeps that are not complete

  @Test func methodsSayWhatIsMissing() throws {
    let whole = MarkdownReport(try data(), figures: nil).text
    #expect(!whole.contains("not complete"))
    func events(_ isDone: (Trial) -> Bool) -> [SweepEvent] {
      sample.opening
        + sample.plan.shards.indices.filter { sample.plan.shards[$0].trials.allSatisfy(isDone) }
        .flatMap { sample.completion(of: $0) }
    }
    let half = try data(
      events: events {
        $0.ratio == 0 || ($0.ratio == 0.5 && $0.mitigation == .none)
          || ($0.ratio == 0.2 && $0.seed == 1)
      })
    let status = half.status
    #expect(status.completed > 0 && status.completed < status.trials)
    let expected = [
      "The sweep is not complete (\(status.completed) of \(status.trials) trials).",
      "there are results of: none at γ = 0.2 (in part), 0.5; mask at γ = 0.2 (in part).",
      "p-values will rise.", "the findings are those recorded last",
    ]
    for text in [MarkdownReport(half, figures: nil).text, try HTMLReport.render(half)] {
      let flat = text.replacing("\n", with: " ")
      for part in expected { #expect(flat.contains(part), "\(part)") }
      #expect(!flat.contains("γ = 0 is there in part"))
    }
    let first = MarkdownReport(
      try data(events: events { $0.ratio == 0 && $0.seed == 1 }), figures: nil)
    #expect(first.text.contains("γ = 0 is there in part. Beside γ = 0 there are no results."))
  }

  @Test func whatRecordsFindingsIsNamed() throws {
    let empty = try data([])
    for text in [MarkdownReport(empty, figures: nil).text, try HTMLReport.render(empty)] {
      #expect(text.contains("No findings are recorded yet"))
      #expect(text.contains("biassweep verify --repair"))
    }
  }
}
