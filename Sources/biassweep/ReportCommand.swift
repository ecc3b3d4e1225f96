import ArgumentParser
import Foundation
import SweepAnalysis
import SweepCore
import SweepLedger
import SweepReport

struct ReportCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "report",
    abstract:
      "Write a sweep's results as one self-contained HTML file, as Markdown, or as a table.",
    discussion: """
      Works on an unfinished sweep too; what has no result yet is shown as missing. Markdown goes with \
      a folder of its plots, named after it (report.md, report-figures/); on standard output it has \
      none. Markdown and LaTeX have the metrics that stand for each task; HTML and CSV have all.

      EXAMPLES:
        biassweep report --ledger smoke.ledger
        biassweep report --ledger smoke.ledger --output results/smoke.html
        biassweep report --ledger smoke.ledger --format markdown --output results/report.md
        biassweep report --ledger smoke.ledger --format csv --output smoke.csv
        biassweep report --ledger smoke.ledger --format csv --table findings --output findings.csv
        biassweep report --ledger smoke.ledger --format csv --table facts --output facts.csv
        biassweep report --ledger smoke.ledger --format latex --output tables.tex
      """)

  enum Format: String, CaseIterable, ExpressibleByArgument {
    case html, markdown, csv, text, latex
  }

  enum Table: String, CaseIterable, ExpressibleByArgument {
    case results, findings, facts
  }

  @Option(help: "The sweep's ledger.")
  var ledger: String

  @Option(help: "\(Format.allCases.map(\.rawValue).joined(separator: ", ")).")
  var format: Format = .html

  @Option(
    help: ArgumentHelp(
      "What a CSV table holds: \(Table.allCases.map(\.rawValue).joined(separator: ", ")).",
      valueName: "table"))
  var table: Table = .results

  @Option(help: "The file to write; - for standard output. Default: beside the ledger.")
  var output: String?

  func run() async throws {
    let reader = try LedgerReader(path: ledger)
    let data = try ReportData(reader: reader)
    if showsFindings { try warnIfFindingsLag(data, reader) }
    let fileExtension = [
      Format.html: "html", .markdown: "md", .csv: "csv", .text: "txt", .latex: "tex",
    ][format]
    let path =
      output
      ?? (ledger as NSString).deletingPathExtension + ".\(fileExtension ?? format.rawValue)"
    let isFile = path != "-"
    let text =
      switch format {
      case .html: try HTMLReport.render(data)
      case .markdown: try markdown(data, besides: isFile ? path : nil)
      case .csv:
        switch table {
        case .results: data.tables.csv()
        case .findings: FindingTables(data.findings).csv()
        case .facts: data.factsCSV()
        }
      case .latex: data.latex()
      case .text: data.tables.text(allMetrics: true)
      }
    if !isFile { return Console.output(text) }
    try write(text, to: URL(fileURLWithPath: path))
    Console.error("wrote \(path)")
  }

  private var showsFindings: Bool {
    switch format {
    case .html, .markdown, .latex: true
    // Results stand beside their intervals.
    case .csv: table != .facts
    case .text: false
    }
  }

  /// Says so where the recorded findings, which the report shows, are not those of the results.
  private func warnIfFindingsLag(_ data: ReportData, _ reader: LedgerReader) throws {
    // Without any recorded there is nothing to take over, and to compute all of them takes long.
    let lag =
      data.findings.isEmpty
      ? data.status.completed > 0
      : !Finding.differing(
        data.findings,
        Analysis.findings(
          of: AnalysisInput(spec: data.sweep.spec, results: try reader.recordedResults()),
          previous: data.findings
        ).findings
      ).isEmpty
    guard lag else { return }
    Console.error(
      "biassweep: the recorded findings are behind the results. If the sweep still runs, they will "
        + "follow; otherwise `biassweep verify --ledger \(ledger) --repair` records them.")
  }

  /// The text, after its figures were written to a folder beside `path`: the text never names files
  /// that are not there. Without a path there are no figures.
  private func markdown(_ data: ReportData, besides path: String?) throws -> String {
    guard let path else { return MarkdownReport(data, figures: nil).text }
    let file = URL(fileURLWithPath: path)
    let folder = file.deletingPathExtension().lastPathComponent + "-figures"
    let directory = file.deletingLastPathComponent().appending(
      path: folder, directoryHint: .isDirectory)
    let report = MarkdownReport(data, figures: folder)
    if !report.figures.isEmpty {
      do {
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
      } catch {
        throw InfrastructureError(
          description: "Cannot make \(directory.path): \(error.localizedDescription)")
      }
      for figure in report.figures {
        try write(figure.svg, to: directory.appending(path: figure.name))
      }
      Console.error("wrote \(report.figures.count) figures to \(directory.path)")
    }
    return report.text
  }

  private func write(_ text: String, to file: URL) throws {
    do {
      try Data(text.utf8).write(to: file, options: .atomic)
    } catch {
      throw InfrastructureError(
        description: "Cannot write the report to \(file.path): \(error.localizedDescription)")
    }
  }
}
