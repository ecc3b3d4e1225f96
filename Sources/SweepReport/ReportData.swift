import SweepCore
import SweepLedger

/// What a report is made of: everything is read from the ledger, nothing from the clock or the
/// machine, so that equal ledgers give equal reports.
package struct ReportData: Sendable {
  package let sweep: SweepRecord
  package let status: LedgerStatus
  package let tables: ResultTables
  package let coverage: ResultCoverage
  package let resultDigest: ContentDigest
  package let facts: [ShardFact]
  /// What the statistics made of the results when they were computed last.
  package let findings: [Finding]
  package let omissions: [Omission]
  package let failures: [ShardFailure]

  /// A metric that trials had to leave out, for one reason.
  package struct Omission: Hashable, Sendable {
    package let metric: String
    package let reason: String
    /// In the ledger's order.
    package let trials: [String]
  }

  /// - Throws: `LedgerError`.
  package init(reader: LedgerReader) throws {
    sweep = try reader.sweep()
    // Of the status, only the remaining time depends on the clock, and reports do not show it.
    status = try reader.status(now: sweep.createdAt)
    findings = try reader.findings()
    let rows = try reader.gridResults()
    coverage = ResultCoverage(spec: sweep.spec, rows: rows)
    tables = ResultTables(
      spec: sweep.spec, rows: rows, findings: FindingTables(findings))
    resultDigest = try reader.resultDigest()
    facts = try reader.facts()
    failures = try reader.failures()

    struct Cause: Hashable {
      let metric: String
      let reason: String
    }
    let notes = try reader.notes()
    omissions = Dictionary(grouping: notes) { Cause(metric: $0.metric, reason: $0.reason) }
      .map { Omission(metric: $0.metric, reason: $0.reason, trials: $1.map(\.trial)) }
      .sorted { ($0.metric, $0.reason) < ($1.metric, $1.reason) }
  }
}
