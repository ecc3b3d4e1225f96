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

/// The HTML file, from real ledgers.
struct HTMLReportTests {
  private let directory: TemporaryDirectory

  init() throws {
    directory = try TemporaryDirectory()
  }

  /// Writes `events` to a new ledger and renders it.
  private func report(
    _ sample: SampleSweep, _ events: [SweepEvent], ledger name: String = "sweep.sqlite"
  ) throws -> String {
    let path = directory.file(name)
    let ledger = try Ledger(
      path: path, spec: sample.spec, plan: sample.plan, version: "1.2.3", now: 1_764_000_000)
    try ledger.append(events, now: 1_764_000_100)
    return try HTMLReport.render(ReportData(reader: LedgerReader(path: path)))
  }

  private func figures(_ html: String) -> [String] {
    html.components(separatedBy: "<svg ").dropFirst().compactMap {
      $0.components(separatedBy: "</svg>").first.map { "<svg \($0)</svg>" }
    }
  }

  private func isWellFormed(_ xml: String) -> Bool {
    XMLParser(data: Data(xml.utf8)).parse()
  }

  @Test func wholeSweepHasAPlotForEachTaskAndBias() throws {
    let sample = try SampleSweep()
    let html = try report(sample, sample.run)
    let plots = figures(html).filter { $0.contains("<title") }
    #expect(plots.count == 4)
    for plot in figures(html) { #expect(isWellFormed(plot), "\(plot)") }
    for plot in plots { #expect(plot.contains("<desc") && plot.contains("role=\"img\"")) }
    #expect(html.contains("All \(sample.plan.grid.trials.count) distinct trials are completed."))
    #expect(html.contains(try sample.spec.digest().description))
    #expect(html.contains("1.2.3"))
    #expect(html.contains("offensive"))
  }

  @Test func fileNeedsNothingElse() throws {
    let sample = try SampleSweep()
    let html = try report(sample, sample.run)
    for reference in ["<script", "<link", "src=", "@import", "url(", "https:", "<img"] {
      #expect(!html.contains(reference), "\(reference)")
    }
    let namespaces = html.components(separatedBy: "http:").count - 1
    #expect(namespaces == html.components(separatedBy: "xmlns=\"http:").count - 1)
    #expect(!html.contains("{{") && !html.contains("Optional("))
  }

  @Test func equalLedgersGiveEqualBytes() throws {
    let sample = try SampleSweep()
    let first = try report(sample, sample.run, ledger: "a.sqlite")
    let second = try report(sample, sample.run, ledger: "b.sqlite")
    #expect(first == second)
  }

  @Test func identifiersAreUnique() throws {
    let sample = try SampleSweep()
    let html = try report(sample, sample.run)
    let identifiers = html.components(separatedBy: " id=\"").dropFirst().map {
      $0.prefix { $0 != "\"" }
    }
    #expect(identifiers.count > 8)
    #expect(Set(identifiers).count == identifiers.count)
  }

  @Test func unfinishedSweepShowsWhatIsMissing() throws {
    let sample = try SampleSweep()
    let half = sample.plan.shards.count / 2
    let events =
      sample.opening + (0..<half).flatMap { sample.completion(of: $0) }
      + sample.failure(of: half, evidence: "the loss is not finite")
    let html = try report(sample, events)
    #expect(html.contains("<td>–"))
    #expect(html.contains("the loss is not finite"))
    #expect(html.contains("1 attempt failed"))
    #expect(html.contains(sample.plan.shards[half].id.description))
    for plot in figures(html) { #expect(isWellFormed(plot)) }
  }

  @Test func sweepWithoutResultsIsAReportToo() throws {
    let html = try report(try SampleSweep(), [])
    #expect(html.contains("No results yet."))
    #expect(figures(html).allSatisfy { !$0.contains("<title") })
  }

  @Test func everythingForeignIsEscaped() throws {
    let sample = try SampleSweep(
      sketch: SampleSweep.sketch + "\nmitigation:\n  mask_word: <b>&\"'")
    let attack = "<script>alert('1 & 2')</script>\"<\u{301}img>"
    let html = try report(
      sample,
      sample.opening
        + sample.completion(
          of: 4, metrics: { _ in [attack: 0.5] }, notes: { _ in [attack: attack] })
        + sample.failure(of: 5, evidence: attack))
    #expect(!html.contains("<script"))
    #expect(!html.contains("<b>"))
    #expect(html.contains("&lt;b&gt;&amp;&quot;&#39;"))
    #expect(html.contains("&lt;script&gt;alert(&#39;1 &amp; 2&#39;)"))
    for plot in figures(html) { #expect(isWellFormed(plot)) }
  }

  @Test func pointsStandWhereTheirValuesAre() throws {
    let sample = try SampleSweep(
      sketch: """
        name: line
        tasks: [occupation]
        biases: [contextual-single-explicit]
        ratios: [0, 0.5]
        mitigations: [none]
        seeds: [1]
        """)
    let html = try report(
      sample,
      sample.opening
        + sample.plan.shards.indices.flatMap {
          sample.completion(of: $0, metrics: { ["macro_f1": $0.ratio == 0 ? 0 : 1] })
        })
    let plot = try #require(figures(html).first { $0.contains("<title") })
    // From the bottom left, γ = 0 and value 0, to the top right, γ = 0.5 and value 1.
    #expect(plot.contains("d=\"M62 208L316 30\""))
    #expect(plot.contains("macro-F1 against the bias ratio"))
    #expect(plot.contains("none: 0.000 at 0, 1.000 at 0.5"))
    #expect(plot.contains(">1.0</text>") && plot.contains(">50</text>"))
    #expect(!plot.contains("class=\"w\""), "one seed has no whiskers")
  }

  @Test func seedsGiveWhiskersAndGapsBreakLines() throws {
    let sample = try SampleSweep()
    let events =
      sample.opening
      + sample.plan.shards.indices
      .filter { sample.plan.shards[$0].trials.allSatisfy { $0.ratio != 0.2 } }
      .flatMap { sample.completion(of: $0) }
    let html = try report(sample, events)
    let plot = try #require(figures(html).first { $0.contains("<title") })
    #expect(plot.contains("class=\"w\""))
    #expect(plot.contains("no result at 0.2"))
    let lines = plot.components(separatedBy: "class=\"l\"").dropFirst()
    #expect(lines.count == 2)
    for line in lines {
      let path = line.components(separatedBy: " d=\"")[1].prefix { $0 != "\"" }
      #expect(path.filter { $0 == "M" }.count == 2 && !path.contains("L"), "\(path)")
    }
  }

  @Test func printedQueriesGiveThePrintedNumbers() throws {
    let sample = try SampleSweep()
    let html = try report(
      sample,
      sample.opening + sample.completion(of: 0, notes: { _ in [:] })
        + (1..<sample.plan.shards.count - 1).flatMap {
          sample.completion(of: $0, notes: { _ in ["flip_rate": "too few"] })
        } + sample.failure(of: sample.plan.shards.count - 1, evidence: "x"))
    let queries = html.components(separatedBy: "<pre>").dropFirst()
      .compactMap { $0.components(separatedBy: "</pre>").first }
      .filter { $0.hasPrefix("SELECT") }
      .map {
        $0.replacing("&lt;", with: "<").replacing("&gt;", with: ">").replacing("&#39;", with: "'")
          .replacing("&quot;", with: "\"").replacing("&amp;", with: "&")
      }
    #expect(queries.count >= 6)
    let path = directory.file("sweep.sqlite")
    let tables = try ReportData(reader: LedgerReader(path: path)).tables
    var compared = 0
    try DatabaseQueue(path: path).read { database in
      for query in queries {
        let statements = try database.allStatements(sql: query)
        while let statement = try statements.next() {
          let rows = try Row.fetchAll(statement)
          #expect(!rows.isEmpty, "no rows from:\n\(query)")
          for row in rows where row.hasColumn("mean") {
            let (bias, mitigation): (String, String) = (row["bias"], row["mitigation"])
            let (metric, ratio): (String, Double) = (row["metric"], row["ratio"])
            let task = query.contains("'story'") ? "story" : "occupation"
            let table = try #require(
              tables.tables(task: task, bias: bias).first { $0.metric.name == metric })
            let cell = try #require(
              table.cells[tables.mitigations.firstIndex(of: mitigation) ?? 0][
                tables.ratios.firstIndex(of: ratio) ?? 0])
            #expect(abs(cell.mean - row["mean"]) < 1e-12)
            #expect(cell.seeds == row["seeds"])
            if ratio > 0 {
              let change: Double? = row["change"]
              #expect(abs((cell.change ?? .nan) - (change ?? .nan)) < 1e-12 || change == nil)
              #expect((cell.change == nil) == (change == nil))
            }
            compared += 1
          }
        }
      }
    }
    #expect(compared > 10)
  }
}
