import ArgumentParser
import Foundation
import SweepAnalysis
import SweepCore
import SweepLedger

struct VerifyCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "verify",
    abstract: "Compute every finding of a sweep anew and compare it with the recorded one.",
    discussion: """
      Findings are computed while results arrive. This computes all of them from the results alone \
      and compares to the last bit. With --repair what differs is recorded anew, which is also how a \
      ledger without findings gets them; nobody else may have the ledger open then. Also checks the \
      ledger itself, as `ledger verify` does.

      Exit status: 0 all equal, 2 not.

      EXAMPLES:
        biassweep verify --ledger quick.ledger
        biassweep verify --ledger quick.ledger --repair
        biassweep verify --ledger quick.ledger --json | jq .differing
      """)

  @Option(help: "The sweep's ledger.")
  var ledger: String

  @Flag(help: "Record what was computed where it differs.")
  var repair = false

  @Flag(help: "Print one JSON object.")
  var json = false

  private struct Output: Encodable {
    let findings: Int
    let recorded: Int
    let differing: [String]
    let problems: [String]
    let repaired: Bool
    let resultDigest: String
  }

  func run() throws {
    let checked = try LedgerVerification(path: ledger, artifacts: nil, version: BiasSweep.version)
    let reader = try LedgerReader(path: ledger)
    let spec = try reader.sweep().spec
    let recorded = try reader.findings()
    let computed = Analysis.findings(
      of: AnalysisInput(spec: spec, results: try reader.recordedResults())
    ).findings
    let differing = Finding.differing(recorded, computed)
    let repairs = repair && !differing.isEmpty
    if repairs { try Ledger.repair(path: ledger, findings: computed) }
    if json {
      try Console.output(
        json: Output(
          findings: computed.count, recorded: recorded.count, differing: differing,
          problems: checked.problems, repaired: repairs, resultDigest: checked.resultDigest))
    } else {
      for problem in checked.problems { Console.output("problem    \(problem)") }
      for id in differing.prefix(20) { Console.output("differs    \(id)") }
      if differing.count > 20 { Console.output("differs    … and \(differing.count - 20) more") }
      Console.output(
        "\(computed.count) findings computed, \(recorded.count) recorded, \(differing.count) differ"
          + (repairs ? "; recorded anew" : ""))
    }
    guard checked.problems.isEmpty, differing.isEmpty || repairs else {
      if !differing.isEmpty {
        Console.error(
          "biassweep: the recorded findings are not those of the results. If the sweep still runs, "
            + "they are behind; otherwise `biassweep verify --ledger \(ledger) --repair` records them."
        )
      }
      throw ExitStatus.infrastructure.code
    }
  }
}
