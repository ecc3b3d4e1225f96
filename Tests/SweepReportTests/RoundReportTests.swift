import Foundation
import SweepCore
import SweepLedger
import SweepReport
import SweepTestKit
import Testing

/// Reports of a sweep of several rounds, and that those of others say nothing of rounds.
struct RoundReportTests {
  private let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private func data(rounds: Int) throws -> ReportData {
    let sample = try SampleSweep(
      sketch: """
        name: sample
        tasks: [occupation, story]
        biases: [neutral, same-size]
        ratios: [0, 0.5]
        rounds: \(rounds)
        """)
    let path = directory.file("rounds-\(rounds).sqlite")
    let ledger = try Ledger(
      path: path, spec: sample.spec, plan: sample.plan, version: "1.2.3", now: 1_764_000_000)
    try ledger.append(sample.run, now: 1_764_000_100)
    var findings: [Finding] = []
    for round in 1...rounds {
      for kind in round == 1 ? [Finding.Kind.inheritance] : [.inheritance, .drift] {
        var finding = Finding(kind, inputs: ContentDigest(of: [UInt8(round)]))
        finding.task = "occupation"
        finding.metric = "gap"
        finding.role = .bias
        finding.bias = "neutral"
        finding.ratio = 0.5
        finding.mitigation = "none"
        finding.round = round
        finding.estimate = 0.125 * Double(round)
        finding.effectSize = finding.estimate
        findings.append(finding)
      }
    }
    try ledger.store(findings: findings)
    return try ReportData(reader: LedgerReader(path: path))
  }

  @Test func tablesHaveABlockForEachRound() throws {
    let data = try data(rounds: 2)
    let tables = data.tables
    #expect(
      tables.variants.map(\.name) == ["neutral, round 1", "neutral, round 2", "same-size"])
    let first = try #require(tables.tables(task: "story", bias: "neutral").first)
    let second = try #require(tables.tables(task: "story", bias: "neutral", round: 2).first)
    // Ratio 0 is the same trial in both.
    #expect(first.cells[0][0] == second.cells[0][0] && first.cells[0][1] != second.cells[0][1])
    #expect(second.cells[0][1]?.change != nil)
    #expect(tables.metrics(task: "story").allSatisfy { $0.tables.count == 3 })
    #expect(tables.text().contains("story · neutral, round 2\n"))
    #expect(tables.markdown().contains("### story, neutral, round 2\n"))
    let lines = tables.csv().split(separator: "\r\n")
    #expect(lines[0].hasSuffix(",change,lower,upper,round"))
    #expect(lines.count { $0.hasSuffix(",2") } == 2 * 2)
  }

  @Test func findingsNameTheirRound() throws {
    let data = try data(rounds: 2)
    let html = try HTMLReport.render(data)
    #expect(html.contains("Drift over the rounds"))
    #expect(html.contains("inheritance-1-round-2"))
    #expect(html.contains("o.round = r.round"))
    #expect(html.contains("In each of 2 rounds"))
    let markdown = MarkdownReport(data, figures: nil).text
    #expect(markdown.contains("metrics at γ = 0.5, round 1\n"))
    #expect(markdown.contains("metrics at γ = 0.5, round 2\n"))
    let tables = FindingTables(data.findings)
    #expect(tables.csv().split(separator: "\r\n")[0].hasSuffix(",note,round"))
    #expect(tables.latex().contains("neutral & 2 & 0.5 & 0.250"))
  }

  @Test func everyQueryGivesTheRowsOfItsTable() throws {
    let data = try data(rounds: 2)
    let markdown = PrintedTable.inMarkdown(MarkdownReport(data, figures: nil).text)
    let titles = Set(markdown.map(\.title))
    for title in ["Drift over the rounds", "Augmented data of the gender domain"] {
      #expect(titles.contains(title), "\(title)")
    }
    let others =
      PrintedTable.inHTML(try HTMLReport.render(data)) + PrintedTable.inLaTeX(data.latex())
    try PrintedTable.check(markdown + others, ledger: directory.file("rounds-2.sqlite"))
  }

  @Test func factsHaveTheirRound() throws {
    let lines = try data(rounds: 2).factsCSV().components(separatedBy: "\r\n")
    #expect(lines[0] == "shard,kind,domain,bias,name,value,round")
    #expect(lines.contains { $0.hasSuffix(",1") } && lines.contains { $0.hasSuffix(",2") })
  }

  @Test func aSweepOfOneRoundSaysNothingOfRounds() throws {
    let data = try data(rounds: 1)
    let tables = FindingTables(data.findings)
    var texts = [
      data.tables.text(allMetrics: true), data.tables.csv(),
      MarkdownReport(data, figures: nil).text, tables.csv(),
      data.latex(), data.factsCSV(),
    ]
    // The style sheet rounds corners.
    texts += try HTMLReport.render(data).components(separatedBy: "</style>").dropFirst()
    for text in texts {
      let found = text.ranges(of: /\brounds?\b/).map { text[$0] }
      #expect(found.isEmpty, "\(text.prefix(40))")
    }
  }
}
