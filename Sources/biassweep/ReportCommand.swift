import ArgumentParser
import Foundation
import SweepLedger
import SweepReport

struct ReportCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "report",
    abstract: "Write a sweep's results as one self-contained HTML file, or as a table.",
    discussion: """
      Works on an unfinished sweep too; what has no result yet is shown as missing.

      EXAMPLES:
        biassweep report --ledger smoke.ledger
        biassweep report --ledger smoke.ledger --output results/smoke.html
        biassweep report --ledger smoke.ledger --format csv --output smoke.csv
        biassweep report --ledger smoke.ledger --format csv --table findings --output findings.csv
        biassweep report --ledger smoke.ledger --format latex --output inheritance.tex
      """)

  enum Format: String, CaseIterable, ExpressibleByArgument {
    case html, markdown, csv, text, latex
  }

  enum Table: String, CaseIterable, ExpressibleByArgument {
    case results, findings
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
    let data = try ReportData(reader: LedgerReader(path: ledger))
    let text =
      switch format {
      case .html: try HTMLReport.render(data)
      case .markdown: data.markdown()
      case .csv:
        table == .results ? data.tables.csv() : FindingTables(data.findings).csv()
      case .latex: FindingTables(data.findings).latex()
      case .text: data.tables.text(allMetrics: true)
      }
    let fileExtension = [
      Format.html: "html", .markdown: "md", .csv: "csv", .text: "txt", .latex: "tex",
    ][format]
    let path =
      output
      ?? (ledger as NSString).deletingPathExtension + ".\(fileExtension ?? format.rawValue)"
    if path == "-" { return Console.output(text) }
    do {
      try Data(text.utf8).write(to: URL(fileURLWithPath: path), options: .atomic)
    } catch {
      throw InfrastructureError(
        description: "Cannot write the report to \(path): \(error.localizedDescription)")
    }
    Console.error("wrote \(path)")
  }
}
