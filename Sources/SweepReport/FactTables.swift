import SweepCore
import SweepLedger

/// What the ledger has beside results and findings: facts of augmented data and of fine-tunes, and
/// metrics that trials left out.
enum FactTables {
  /// Those that have rows, in the order of the report.
  static func sections(_ data: ReportData) -> [ReportSection] {
    [
      ReportSection(
        anchor: "doses", title: "Augmented data",
        text:
          "What the generated data are, measured before use: the dose that the models were given, "
          + "whatever their bias type is called.",
        isFolded: false, parts: doses(data).map { ReportPart($0) }),
      ReportSection(
        anchor: "training", title: "Fine-tunes",
        text: "What the completed fine-tunes recorded of themselves, without the time they took.",
        isFolded: true, parts: training(data).map { ReportPart($0) }),
      ReportSection(
        anchor: "omitted", title: "Omitted metrics",
        text: "Metrics that some trials could not give, and why.", isFolded: false,
        parts: omissions(data).map { ReportPart($0) }),
    ].filter { !$0.parts.isEmpty }
  }

  /// One table per domain: a row per fact, a column per bias type and round. From the second round on
  /// every fine-tune has a set of its own, and the mean of them is shown.
  static func doses(_ data: ReportData) -> [ReportTable] {
    let facts = data.facts.filter {
      $0.kind == "augmentation" && !$0.name.isDrawnOnly
    }
    return facts.map(\.domain).unique.map { domain in
      let ofDomain = facts.filter { $0.domain == domain }
      let sets = ofDomain.map { DoseColumn($0) }.unique
      let names = ofDomain.map(\.name).unique.sorted()
      let rows = names.map { name -> ReportTable.Row in
        let cells = sets.map { set -> String in
          let values = ofDomain.filter {
            $0.name == name && DoseColumn($0) == set
          }.map(\.value)
          guard let first = values.first else { return NumberText.missing }
          return NumberText.compact(
            set.round == 1 ? first : values.reduce(0, +) / Double(values.count))
        }
        return ReportTable.Row(name: name, cells: cells)
      }
      return ReportTable(
        title: "Augmented data of the \(domain) domain",
        text: "Facts of the sets that were generated, by bias type.",
        columns: ["fact"] + sets.map(\.title), rows: rows,
        query: ResultQuery.doses(domain: domain, rounds: data.sweep.spec.rounds > 1))
    }
  }

  private struct DoseColumn: Hashable {
    let bias: String
    let round: Int
    /// Of the first round, where `token-decoding` has sets of its own.
    let equalisesGroups: Bool

    init(_ fact: ShardFact) {
      bias = fact.bias ?? ""
      round = fact.round
      equalisesGroups = fact.round == 1 && !fact.isOfPlainAugmentation
    }

    var title: String {
      if round > 1 { return "\(bias), round \(round) (mean)" }
      return equalisesGroups ? "\(bias), \(Mitigation.tokenDecoding.rawValue)" : bias
    }
  }

  /// One table: a row per fine-tune, a column per fact.
  private static func training(_ data: ReportData) -> [ReportTable] {
    let facts = data.facts.filter { $0.kind == "fine_tune" }
    guard !facts.isEmpty else { return [] }
    let names = facts.map(\.name).unique.sorted()
    let byShard = Dictionary(grouping: facts, by: \.shard)
    let rows = facts.map(\.shard).unique.map { shard -> ReportTable.Row in
      let cells = names.map { name -> String in
        byShard[shard]?.first { $0.name == name }
          .map { NumberText.compact($0.value) } ?? NumberText.missing
      }
      return ReportTable.Row(name: shard, cells: cells)
    }
    return [
      ReportTable(
        title: "Completed fine-tunes", text: "A row is a fine-tune, a column a fact.",
        columns: ["fine-tune"] + names, rows: rows, query: ResultQuery.training)
    ]
  }

  /// One table: a row per metric and reason.
  static func omissions(_ data: ReportData) -> [ReportTable] {
    guard !data.omissions.isEmpty else { return [] }
    return [
      ReportTable(
        title: "Metrics that trials left out",
        text: "With the number of trials and the first of them.",
        columns: ["metric", "trials", "first of them", "reason"],
        rows: data.omissions.map {
          ReportTable.Row(
            name: $0.metric, cells: ["\($0.trials.count)", $0.trials.first ?? ""],
            remark: $0.reason)
        },
        query: ResultQuery.omitted)
    ]
  }
}
