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

  private func data() throws -> ReportData {
    let path = directory.file("sweep.sqlite")
    let ledger = try Ledger(
      path: path, spec: sample.spec, plan: sample.plan, version: "1.2.3", now: 1_764_000_000)
    try ledger.append(sample.run, now: 1_764_000_100)
    try ledger.store(findings: findings)
    return try ReportData(reader: LedgerReader(path: path))
  }

  @Test func tasksWithoutSkillAreNotInterpreted() throws {
    let tables = FindingTables(findings)
    #expect(tables.withoutSkill == ["story"])
    let html = try HTMLReport.render(try data())
    #expect(html.contains("no skill: not interpretable"))
    #expect(html.contains("Not interpreted"))
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
}
