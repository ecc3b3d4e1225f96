import Foundation
import GRDB
import SweepCore
import SweepLedger
import SweepReport
import SweepTestKit
import Testing

#if canImport(FoundationXML)
  import FoundationXML
#endif

/// The plots of doses, misalignments, mitigations and kinds of tasks, in HTML and Markdown, from a
/// ledger whose numbers are chosen so that places in the plots can be computed by hand.
struct FigureReportTests {
  private static let biases = [
    "contextual-single-explicit", "contextual-single-implicit", "contrastive-single-explicit",
    "same-size",
  ]
  private static let sketch = """
    name: sample
    tasks: [occupation, story]
    biases: [\(biases.joined(separator: ", "))]
    ratios: [0, 0.2, 0.5]
    mitigations: [none, token-decoding]
    seeds: [1, 2]
    """

  private let directory: TemporaryDirectory
  private let sample: SampleSweep

  init() throws {
    directory = try TemporaryDirectory()
    sample = try SampleSweep(sketch: Self.sketch)
  }

  // MARK: The ledger

  private static func facts(of shard: String) -> [String: Double] {
    let parts = shard.split(separator: "/").map(String.init)
    let place = Double(biases.firstIndex(of: parts[2]) ?? 0)
    // What a mitigation made of a D_a has another dose, which no plot must show.
    let dose = parts.count > 3 ? 77 : place / 4
    var facts = [
      "representation_mmd2": 0.25, "representation_p_value": 0.001,
      "representation_mean_distance": 1.5, "representation_component_1_variance": 0.5,
      "representation_component_2_variance": 0.25,
    ]
    for (side, shift) in [("original", -1.0), ("augmented", 1)] {
      facts["representation_\(side)_1"] = shift
      facts["representation_\(side)_2"] = 0
      facts["representation_\(side)_11"] = 0.25
      facts["representation_\(side)_22"] = 1
      facts["representation_\(side)_12"] = 0
      for item in 1...3 {
        facts["point_\(side)_00\(item)_1"] = shift + Double(item - 2) / 2
        facts["point_\(side)_00\(item)_2"] = Double(item - 2)
      }
    }
    if parts[1] == "gender" {
      facts["dose_share_shift"] = dose
      facts["groups_divergence"] = 0.25
      for (occupation, share, published) in [("nurse", 1.0, 0.5), ("pilot", 0.5, 0)] {
        facts["groups_share_\(occupation)"] = share
        facts["published_share_\(occupation)"] = published
      }
    } else {
      facts["dose_label_shift"] = dose
      facts["values_divergence"] = 0.125
      facts["values_divergence_gap"] = 0.0625
      facts["values_divergence_arabic"] = 0.09375
      for (side, shares) in [("model", [0.25, 0.75]), ("people", [0.5, 0.5])] {
        for (answer, share) in shares.enumerated() {
          facts["answers_\(side)_arabic_bribe_\(answer + 1)"] = share
        }
      }
    }
    return facts
  }

  private var events: [SweepEvent] {
    sample.run.map { event in
      guard case .shardCompleted(let shard, let token, let artifact, let facts, _) = event,
        shard.description.hasPrefix("augment/")
      else { return event }
      return .shardCompleted(
        shard: shard, token: token, artifact: artifact,
        facts: facts.merging(Self.facts(of: shard.description)) { _, new in new })
    }
  }

  private static func finding(
    _ kind: Finding.Kind, _ task: String, _ metric: String, _ role: HeadlineRole, bias: String?,
    ratio: Double = 0.5, mitigation: String = "none", predictor: String? = nil,
    estimate: Double, width: Double = 0.125
  ) -> Finding {
    var finding = Finding(kind, inputs: ContentDigest(of: "\(task) \(metric)".utf8))
    finding.task = task
    finding.metric = metric
    finding.role = role
    finding.bias = bias
    finding.ratio = ratio
    finding.mitigation = mitigation
    finding.predictor = predictor
    finding.estimate = estimate
    finding.lower = estimate - width
    finding.upper = estimate + width
    finding.effectSize = 2 * estimate
    finding.pValue = 0.25
    finding.adjustedPValue = 0.5
    return finding
  }

  private static let findings: [Finding] =
    [
      finding(.skill, "occupation", "accuracy", .skill, bias: nil, ratio: 0, estimate: 0.5),
      finding(.level, "occupation", "accuracy", .skill, bias: biases[0], estimate: 0.25),
      finding(
        .recovery, "occupation", "gap", .bias, bias: biases[0], mitigation: "token-decoding",
        estimate: 0.25),
      finding(
        .recovery, "occupation", "gap", .bias, bias: biases[1], mitigation: "token-decoding",
        estimate: 0.75),
      finding(
        .association, "occupation", "gap", .bias, bias: nil, predictor: "dose_share_shift",
        estimate: 0.5),
    ]
    + biases.enumerated().flatMap { index, bias in
      [
        finding(
          .inheritance, "occupation", "gap", .bias, bias: bias, estimate: Double(index) / 4),
        finding(.inheritance, "occupation", "accuracy", .skill, bias: bias, estimate: -0.25),
        finding(.inheritance, "story", "accuracy", .skill, bias: bias, estimate: 0.25),
      ]
    }

  /// Of every kind that has a table, with what the tables leave out.
  private static var more: [Finding] {
    var found: [Finding] = []
    let kinds: [Finding.Kind] = [
      .slope, .againstSameSize, .directAgainstIndirect, .femaleAgainstMale,
    ]
    for mitigation in ["none", "token-decoding"] {
      for kind in kinds {
        found.append(
          finding(
            kind, "occupation", "accuracy", .skill, bias: biases[0], mitigation: mitigation,
            estimate: 0.25))
      }
    }
    found.append(
      finding(
        .mitigationOverall, "occupation", "gap", .bias, bias: nil, mitigation: "token-decoding",
        estimate: 0.25))
    for role in HeadlineRole.allCases {
      for number in 1...12 {
        found.append(
          finding(
            .association, "occupation", "accuracy", role, bias: nil,
            predictor: "property_\(role.rawValue)_\(number)", estimate: Double(number - 6) / 8))
      }
    }
    var unskilled = finding(.skill, "story", "accuracy", .skill, bias: nil, ratio: 0, estimate: 0.5)
    unskilled.note = "no skill: not interpretable"
    found.append(unskilled)
    for kind in [Finding.Kind.recovery, .association, .inheritance] {
      var silent = finding(
        kind, "story", "accuracy", .skill, bias: biases[1], mitigation: "token-decoding",
        predictor: kind == .association ? "property" : nil, estimate: 0)
      (silent.estimate, silent.lower, silent.upper) = (nil, nil, nil)
      silent.note = "there is no \(kind.rawValue)"
      found.append(silent)
    }
    return found
  }

  /// - Parameter events: what happened; nil for the whole run.
  private func data(
    _ findings: [Finding] = findings, events: [SweepEvent]? = nil
  ) throws -> ReportData {
    let path = directory.file("sweep.sqlite")
    let ledger = try Ledger(
      path: path, spec: sample.spec, plan: sample.plan, version: "1.2.3", now: 1_764_000_000)
    try ledger.append(events ?? self.events, now: 1_764_000_100)
    try ledger.store(findings: findings)
    return try ReportData(reader: LedgerReader(path: path))
  }

  private func panel(_ html: String, _ id: String) throws -> String {
    let body = try #require(
      html.components(separatedBy: "<svg ").first { $0.contains("id=\"\(id)-t\"") })
    return "<svg " + body.components(separatedBy: "</svg>")[0] + "</svg>"
  }

  // MARK: Plots

  @Test func dosesStandWhereTheyWereMeasured() throws {
    let html = try HTMLReport.render(try data())
    let plot = try panel(html, "dose-1-p1")
    #expect(XMLParser(data: Data(plot.utf8)).parse())
    // The axes are 0 to 0.6 (from 56 to 322) and −0.2 to 0.8 (from 208 to 30): the second point, 0.25
    // in both, is at (166.8, 127.9), and its square is 6.4 wide.
    #expect(plot.contains("x=\"163.6\" y=\"124.7\" width=\"6.4\""), "\(plot)")
    #expect(plot.contains("ρ = +0.50 [0.38, 0.62], p = 0.250"))
    // The control has no dose to answer to, and a mitigated D_a is not what was trained on.
    #expect(plot.components(separatedBy: "<g><title>").count == 1 + 3)
    #expect(!plot.contains("same-size") && !html.contains("dose-2-p1"))
  }

  @Test func misalignmentsAreDrawnAndTold() throws {
    let data = try data()
    let html = try HTMLReport.render(data)
    let values = try panel(html, "values-p1")
    #expect(values.contains(">bribe</text>"))
    #expect(values.contains("arabic, answer 2: people 0.500, model 0.750"))
    // People 0.5 and model 0.75 on axes from 0 to 1, from (56, 208) to (322, 30).
    #expect(values.contains("cx=\"189\" cy=\"74.5\""))
    let groups = try panel(html, "groups-p1")
    #expect(groups.contains("cx=\"189\" cy=\"30\"") && groups.contains("cx=\"56\" cy=\"119\""))
    // One plane for each D_a that no mitigation made, three dots a side, ellipses of one deviation.
    #expect(html.components(separatedBy: "<ellipse").count == 1 + 2 * 2 * Self.biases.count)
    let plane = try panel(html, "plane-p1")
    let dots = plane.components(separatedBy: " d=\"").first { $0.contains("h0") } ?? ""
    #expect(dots.components(separatedBy: "h0").count == 4)
    for (_, svg) in MarkdownReport(data, figures: "f").figures {
      #expect(XMLParser(data: Data(svg.utf8)).parse(), "\(svg)")
    }
    for table in ["Misalignment of values", "of group data", "of data distributions"] {
      #expect(html.contains(table))
    }
    #expect(html.contains("<td>0.500</td><td>1</td><td>+0.500</td>"))
    #expect(!html.contains("point_original_001_1</th>"))
  }

  /// The axes are −2 to 2, so that a unit is 266 / 4 = 66.5 wide, and −1 to 1: a unit is 89 high.
  @Test func anEllipseIsOneDeviation() throws {
    let plane = try panel(try HTMLReport.render(try data()), "plane-p1")
    let ellipse = try #require(plane.components(separatedBy: "<ellipse ").dropFirst().first)
    let numbers = ["rx", "ry"].compactMap { name in
      ellipse.components(separatedBy: "\(name)=\"").dropFirst().first
        .flatMap { Double($0.prefix { $0 != "\"" }) }
    }
    // Half a unit across, a whole one up: the longer axis stands upright.
    #expect(ellipse.contains("rotate(-90 "))
    #expect(numbers.count == 2, "\(ellipse)")
    #expect(abs(numbers[0] - 89) < 0.1 && abs(numbers[1] - 66.5 / 2) < 0.1, "\(ellipse)")
  }

  @Test func mitigationsAndKindsOfTasksAreCompared() throws {
    let html = try HTMLReport.render(try data())
    let recovery = try panel(html, "recovery-1")
    #expect(recovery.contains("+0.50") && recovery.contains("mean 0.500 of 2, from 0.250 to 0.750"))
    // Both sample tasks are direct: there is nothing to set against each other.
    #expect(!html.contains("relations-1"))
  }

  @Test func controlsAreJudged() throws {
    #expect(!(try HTMLReport.render(try data()).contains("<h3>Controls</h3>")))
    let planted = try SampleSweep(
      sketch: Self.sketch.replacing("token-decoding", with: "mask")
        + "\naugmentation:\n  generator: template\n  strength: 1")
    let path = directory.file("planted.sqlite")
    let ledger = try Ledger(
      path: path, spec: planted.spec, plan: planted.plan, version: "1.2.3", now: 1_764_000_000)
    try ledger.append(planted.run, now: 1_764_000_100)
    try ledger.store(findings: Self.findings)
    let text = MarkdownReport(try ReportData(reader: LedgerReader(path: path)), figures: nil).text
    let rows = text.components(separatedBy: "\n").filter { $0.hasPrefix("| planted |") }
    // The bias metric of three bias types; the control of volume plants nothing.
    #expect(rows.count == 3)
    #expect(rows.count { $0.hasSuffix("| moves |") } == 2)
    #expect(rows.count { $0.hasSuffix("| the interval holds 0 |") } == 1)
    let printed = PrintedTable.inMarkdown(text)
    #expect(printed.contains { $0.title == "Controls" })
    try PrintedTable.check(printed, ledger: path)
  }

  /// `story` as another kind of task: its skill rose by 0.25 (half a deviation) for all bias types,
  /// that of `occupation` fell as much.
  @Test(arguments: [TaskDefinition.Relation.indirect, .placebo])
  func kindsOfTasksAreSetSideBySide(relation: TaskDefinition.Relation) throws {
    var spec = sample.spec
    var definitions = spec.tasks.compactMap { spec.taskDefinitions[$0] }
    definitions[1].relation = relation
    spec.taskDefinitions = TaskDefinitions(definitions)
    let path = directory.file("kinds.sqlite")
    let ledger = try Ledger(
      path: path, spec: spec, plan: sample.plan, version: "1.2.3", now: 1_764_000_000)
    try ledger.append(events, now: 1_764_000_100)
    try ledger.store(findings: Self.findings)
    let html = try HTMLReport.render(ReportData(reader: LedgerReader(path: path)))
    try PrintedTable.check(PrintedTable.inHTML(html), ledger: path)
    let plot = try panel(html, "relations-1")
    #expect(plot.components(separatedBy: "<g><title>").count == 1 + 2 * Self.biases.count)
    #expect(plot.contains("\(relation.rawValue): story, accuracy, same-size: +0.50"))
    #expect(html.contains("1 contextual-single-explicit, 2 contextual-single-implicit"))
    // Of a placebo it is said that it should not have moved.
    let moved = html.components(separatedBy: "moves, though it should not").count - 1
    #expect(moved == (relation == .placebo ? 3 : 0))
  }

  // MARK: Markdown

  @Test func markdownLinksFilesThatItBrings() throws {
    let data = try data()
    let report = MarkdownReport(data, figures: "my report-figures")
    let links = report.text.components(separatedBy: "](<my report-figures/").dropFirst()
      .map { String($0.prefix { $0 != ">" }) }
    #expect(links.sorted() == report.figures.map(\.name).sorted())
    #expect(Set(links).count == links.count && links.count > 6)
    for (name, svg) in report.figures {
      #expect(name.hasSuffix(".svg") && svg.utf8.count < 60_000, "\(name)")
      #expect(svg.contains("<style>") && svg.contains("--ink") && !svg.contains("href"))
    }
    let again = MarkdownReport(data, figures: "my report-figures")
    #expect(report.text == again.text)
  }

  @Test func markdownSaysWhatTheHTMLFileSays() throws {
    let data = try data(Self.findings + Self.more)
    let text = MarkdownReport(data, figures: nil).text
    let html = try HTMLReport.render(data)
    #expect(!text.contains("!["), "no plots without a place for them")
    for title in [
      "Findings", "Three misalignments", "Augmented data", "Fine-tunes", "The sweep",
    ] {
      #expect(text.contains("\n## \(title)\n"), "\(title)")
      #expect(html.contains("<h2>\(title)</h2>"), "\(title)")
    }
    for part in [
      "Methods, ready for a paper", "γ ∈ {0, 0.2, 0.5}", "+0.250 [0.125, 0.375] *",
      "+0.50 [0.38, 0.62]", "there is no inheritance", "final_loss",
    ] {
      #expect(text.contains(part), "\(part)")
      #expect(html.contains(part), "\(part)")
    }
    // All tables but the metrics of tasks are the same in both, cell by cell, and in one order.
    let tables = PrintedTable.inMarkdown(text).filter { !$0.isOfResults }
    #expect(tables == PrintedTable.inHTML(html))
    let titles = tables.map(\.title)
    for title in [
      "Skill without augmented data", "Change of bias metrics at γ = 0.5",
      "Change of skill metrics at γ = 0.5", "Slope over the bias ratio",
      "Against as many further original items", "Mitigations over all tasks", "Recovery",
      "Direct against indirect tasks", "Female against male", "Misalignments and doses",
      "Dose against response", "Not interpreted", "Misalignment of values",
      "Augmented data of the gender domain", "Completed fine-tunes",
    ] {
      #expect(titles.contains(title), "\(title)")
    }
    let slopes = try #require(tables.first { $0.title == "Slope over the bias ratio" })
    #expect(slopes.rows.map { $0[3] } == ["none", "token-decoding"])
    let lines = text.components(separatedBy: "\n")
    #expect(!lines.contains { $0.hasPrefix("| point_") || $0.hasPrefix("| answers_") })
    // Every table is whole: as many cells in each row as in its head.
    var columns: Int?
    for line in lines {
      guard line.hasPrefix("|") else {
        columns = nil
        continue
      }
      let cells = line.replacing("\\|", with: "").filter { $0 == "|" }.count
      #expect(cells == columns ?? cells, "\(line)")
      columns = cells
    }
  }

  @Test func markdownHasThePlotsOfTheHTMLFile() throws {
    let data = try data()
    let titles = try HTMLReport.render(data).components(separatedBy: "<h3>").dropFirst()
      .map { $0.components(separatedBy: "</h3>")[0] }
      // Neither metrics of tasks, whose titles have markup, nor the list of settings.
      .filter { !$0.contains("<") && $0 != "Settings" }
    let parts = MarkdownReport(data, figures: "f").text.components(separatedBy: "\n## ")
    let headings = parts.filter { !$0.hasPrefix("Results\n") }
      .flatMap { $0.components(separatedBy: "\n### ").dropFirst() }
      .map { $0.components(separatedBy: "\n")[0] }
    #expect(headings == titles && headings.count > 10)
  }

  @Test func whatIsMissingStandsInEveryFormat() throws {
    let last = sample.plan.shards.count - 1
    let completions = (0..<last).flatMap {
      sample.completion(of: $0, notes: { _ in ["flip_rate": "too few"] })
    }
    let data = try data(
      events: sample.opening + completions
        + sample.failure(of: last, evidence: "the loss\nis not finite"))
    let markdown = MarkdownReport(data, figures: nil).text
    let html = try HTMLReport.render(data)
    for text in [markdown, html] {
      for part in [
        "attempt 1 on host-a failed: the loss\nis not finite", "1 attempt failed",
        sample.plan.shards[last].id.description,
      ] {
        #expect(text.contains(part), "\(part)")
      }
    }
    for text in [markdown, html, data.latex()] {
      #expect(text.contains("Metrics that trials left out") && text.contains("too few"))
    }
    let printed = PrintedTable.inMarkdown(markdown)
    #expect(printed.filter { !$0.isOfResults } == PrintedTable.inHTML(html))
    try PrintedTable.check(
      printed + PrintedTable.inLaTeX(data.latex()), ledger: directory.file("sweep.sqlite"))
  }

  /// As many rows as the table has, or as many as it has filled cells where columns are conditions.
  @Test func everyQueryGivesTheRowsOfItsTable() throws {
    let data = try data(Self.findings + Self.more)
    let markdown = PrintedTable.inMarkdown(MarkdownReport(data, figures: nil).text)
    let latex = PrintedTable.inLaTeX(data.latex())
    #expect(latex.count == data.latex().components(separatedBy: "\\begin{tabular}").count - 1)
    // More is left out of these tables than their kind says.
    func count(_ title: String) -> Int? { markdown.first { $0.title == title }?.rows.count }
    #expect(count("Recovery") == 2)
    #expect(count("Misalignments and doses") == 20)
    // Each task's metrics have a query of their own.
    #expect(markdown.count { $0.isOfResults } == sample.spec.tasks.count)
    let tables = markdown + PrintedTable.inHTML(try HTMLReport.render(data)) + latex
    try PrintedTable.check(tables, ledger: directory.file("sweep.sqlite"))
  }

  /// Row by row: their numbers come from several facts each.
  @Test func queriesOfMisalignmentsGiveTheCellsOfTheirTables() throws {
    let data = try data()
    let printed = PrintedTable.inMarkdown(MarkdownReport(data, figures: nil).text)
    try DatabaseQueue(path: directory.file("sweep.sqlite")).read { database in
      for (title, names) in [
        ("Misalignment of values", 1), ("Misalignment of group data", 1),
        ("Misalignment of data distributions", 2),
      ] {
        let table = try #require(printed.first { $0.title == title })
        let found = try Row.fetchAll(database, sql: table.query)
        #expect(found.count == table.rows.count && found.count > 2, "\(title)")
        for (row, cells) in zip(found, table.rows) {
          let name = (0..<names).map { row[$0] as String }.joined(separator: ", ")
          #expect(name == cells[0], "\(title)")
          for (index, cell) in cells.dropFirst().enumerated() {
            let value = row[names + index] as Double?
            let shown = Double(cell.replacing("−", with: "-"))
            #expect((value == nil) == (shown == nil), "\(title), \(name): \(cell)")
            #expect(abs((value ?? 0) - (shown ?? 0)) < 0.0006, "\(title), \(name): \(cell)")
          }
        }
      }
    }
  }

  @Test func everyPrintedQueryHasRows() throws {
    let data = try data()
    let text = MarkdownReport(data, figures: "f").text
    let html = try HTMLReport.render(data)
    let queries =
      text.components(separatedBy: "```sql\n").dropFirst()
      .compactMap { $0.components(separatedBy: "\n```").first }
      + html.components(separatedBy: "<pre>").dropFirst()
      .compactMap { $0.components(separatedBy: "</pre>").first }
      .filter { $0.hasPrefix("SELECT") || $0.hasPrefix("WITH") }
      .map {
        $0.replacing("&lt;", with: "<").replacing("&gt;", with: ">").replacing("&#39;", with: "'")
          .replacing("&quot;", with: "\"").replacing("&amp;", with: "&")
      }
    #expect(queries.count > 20)
    try DatabaseQueue(path: directory.file("sweep.sqlite")).read { database in
      for query in queries {
        let statements = try database.allStatements(sql: query)
        while let statement = try statements.next() {
          #expect(try Row.fetchOne(statement) != nil, "no rows from:\n\(query)")
        }
      }
      let recovered = try #require(
        try Row.fetchOne(database, sql: queries.first { $0.contains("avg(estimate)") } ?? ""))
      #expect(recovered["mean"] as Double == 0.5)
      let doses = try Row.fetchAll(
        database, sql: queries.first { $0.contains("d.value AS dose") } ?? "")
      #expect(doses.map { $0["dose"] as Double } == [0, 0.25, 0.5])
      // Of each bias type one D_a: not that of a mitigation as well.
      let distances = try Row.fetchAll(
        database, sql: queries.first { $0.contains("'representation_mmd2'") } ?? "")
      #expect(distances.count == 2 * Self.biases.count)
      // Where they all are, those of a domain here, they are told apart.
      let all = try Row.fetchAll(
        database, sql: queries.first { $0.contains("SELECT shard.id, shard.domain") } ?? "")
      let shards = Set(all.map { $0["id"] as String })
      #expect(shards.count > Self.biases.count)
    }
  }

  // MARK: Tables for other programs

  @Test func latexHasEveryTableWithItsQuery() throws {
    let latex = try data().latex()
    for title in [
      "Skill without augmented data.", "Inherited bias by task", "Change of skill by task",
      "Recovery.", "Misalignment of values.", "occupation, \(Self.biases[0]).",
      "story, same-size.", "Augmented data of the gender domain.",
    ] {
      #expect(latex.contains("% \(title)"), "\(title)")
    }
    #expect(latex.contains("dose\\_share\\_shift & +0.50 [0.38, 0.62]"))
    #expect(latex.contains("% SQL: SELECT"))
    let rows = latex.split(separator: "\n").filter { !$0.hasPrefix("%") }
    for row in rows where row.contains("&") { #expect(row.hasSuffix("\\\\"), "\(row)") }
    for sign in "−γρ²±" {
      #expect(!rows.contains { $0.contains(sign) }, "\(sign)")
    }
  }

  @Test func factsAreATableToo() throws {
    let lines = try data().factsCSV().components(separatedBy: "\r\n")
    #expect(lines[0] == "shard,kind,domain,bias,name,value")
    #expect(
      lines.contains(
        "augment/gender/contextual-single-implicit,augmentation,gender,contextual-single-implicit,"
          + "dose_share_shift,0.25"))
  }
}
