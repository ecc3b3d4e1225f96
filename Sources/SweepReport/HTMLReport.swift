import Foundation
import Mustache
import SweepCore
import SweepLedger

/// A sweep as one HTML file that needs nothing else: style and plots are inline, there are no
/// scripts, and nothing is loaded from anywhere. The same ledger gives the same bytes.
package enum HTMLReport {
  /// - Throws: `ReportError.template` when a resource of the program is damaged.
  package static func render(_ data: ReportData) throws -> String {
    let style = String(decoding: PackageResources.report_css, as: UTF8.self)
    let library = MustacheLibrary(templates: [
      "metric": try template(PackageResources.metric_mustache),
      "facts": try template(PackageResources.facts_mustache),
      "findings": try template(PackageResources.findings_mustache),
      "figure": try template(PackageResources.figure_mustache),
      "table": try template(PackageResources.table_mustache),
    ])
    return try template(PackageResources.report_mustache)
      .render(ReportPage(data, style: style), library: library)
  }

  private static func template(_ bytes: [UInt8]) throws -> MustacheTemplate {
    do {
      return try MustacheTemplate(string: String(decoding: bytes, as: UTF8.self))
    } catch {
      throw ReportError.template(detail: "\(error)")
    }
  }
}

/// Why a report could not be written.
package enum ReportError: Error, Sendable, CustomStringConvertible {
  case template(detail: String)

  package var description: String {
    switch self {
    case .template(let detail):
      "The report's template cannot be read: \(detail). This is a defect of BiasSweep; please "
        + "report it."
    }
  }
}

/// What report.mustache shows, under the names that it uses. The template escapes text; only `style`
/// and the fields named `svg` are markup.
struct ReportPage {
  let style: String
  let name: String
  let status: String
  let isPartial: Bool
  let overview: [NamedText]
  let settings: [NamedText]
  let specification: String
  let legend: String
  let key: [LegendEntry]
  let mitigations: [NamedText]
  let findings: FindingsSection
  let misalignments: MisalignmentSection
  let tasks: [TaskSection]
  let doses: [FactTable]
  let training: [FactTable]
  let omissions: [OmissionRow]
  let failures: [FailureSection]
  let dosesQuery: String
  let trainingQuery = ResultQuery.training
  let countsQuery = ResultQuery.counts
  let omittedQuery = ResultQuery.omitted
  let failuresQuery = ResultQuery.failures
  let inputsQuery = ResultQuery.inputs
  // Sections of the template that appear at most once, however long their lists.
  let hasMisalignments: Bool
  let hasDoses: Bool
  let hasTraining: Bool
  let hasOmissions: Bool
  let hasFailures: Bool

  struct NamedText {
    let name: String
    let text: String
  }

  struct LegendEntry {
    let svg: String
    let text: String
  }

  struct OmissionRow {
    let metric: String
    let reason: String
    let count: Int
    let example: String
  }

  struct FailureSection {
    let shard: String
    let reason: String
    let attempts: [String]
  }

  struct FactTable {
    let caption: String
    let corner: String
    let columns: [String]
    let rows: [Row]

    struct Row {
      let name: String
      let cells: [String]
    }
  }

  init(_ data: ReportData, style: String) {
    let (sweep, status, tables) = (data.sweep, data.status, data.tables)
    self.style = style
    name = sweep.name
    isPartial = status.completed < status.trials
    self.status =
      if status.completed == status.trials {
        "All \(status.trials) distinct trials are completed."
      } else {
        "\(status.completed) of \(status.trials) distinct trials are completed"
          + (status.failed > 0 ? ", \(status.failed) failed" : "")
          + "; where a number is missing, \(NumberText.missing) stands for it."
      }
    overview = Self.overview(data)
    settings = Self.settings(sweep.spec)
    specification = Self.prettySpec(sweep.spec)
    legend = tables.legend
    key =
      (tables.ratios.first == 0
        ? [
          LegendEntry(
            svg: SeriesStyle.sharedSample,
            text: "original data only")
        ] : [])
      + tables.mitigations.enumerated().map {
        LegendEntry(svg: SeriesStyle($0.offset).sample, text: $0.element)
      }
    mitigations = sweep.spec.mitigations.map {
      NamedText(name: $0.rawValue, text: $0.explanation(sweep.spec.mitigation))
    }
    tasks = tables.tasks.enumerated().map { index, task in
      TaskSection(
        task, definition: sweep.spec.taskDefinitions[task], index: index, of: tables,
        hasLevels: data.findings.contains { $0.kind == .level && $0.task == task })
    }
    findings = FindingsSection(data)
    misalignments = MisalignmentSection(data)
    hasMisalignments = !misalignments.tables.isEmpty || !misalignments.figures.isEmpty
    dosesQuery = ResultQuery.doses(rounds: sweep.spec.rounds > 1)
    // What is drawn of the misalignments has its place in their section.
    doses = Self.doseTables(
      data.facts.filter { $0.kind == "augmentation" && !$0.name.isDrawnOnly })
    training = Self.trainingTables(data.facts.filter { $0.kind == "fine_tune" })
    omissions = data.omissions.map {
      OmissionRow(
        metric: $0.metric, reason: $0.reason, count: $0.trials.count,
        example: $0.trials.first ?? "")
    }
    failures = data.failures.map {
      FailureSection(shard: $0.shard, reason: $0.reason, attempts: $0.attempts)
    }
    hasDoses = !doses.isEmpty
    hasTraining = !training.isEmpty
    hasOmissions = !omissions.isEmpty
    hasFailures = !failures.isEmpty
  }

  private static func overview(_ data: ReportData) -> [NamedText] {
    let (sweep, status) = (data.sweep, data.status)
    let started = Date(timeIntervalSince1970: sweep.createdAt).formatted(.iso8601)
    return [
      NamedText(name: "Started", text: started),
      NamedText(name: "BiasSweep", text: sweep.programVersion),
      NamedText(
        name: "Trials",
        text: "\(status.declared) declared, \(status.trials) distinct, "
          + "\(status.completed) completed, \(status.failed) failed"),
      NamedText(
        name: "Shards",
        text: "\(status.shards) in all, \(status.shardsCompleted) completed "
          + "(\(status.fineTunesRun) fine-tunes), \(status.shardsQuarantined) quarantined; "
          + "\(status.attempts) attempts"),
      NamedText(name: "Spec SHA-256", text: sweep.specDigest),
      NamedText(name: "Results SHA-256", text: data.resultDigest.description),
    ]
      + sweep.inputs.sorted { $0.key < $1.key }.map {
        NamedText(name: "Input \($0.key)", text: $0.value)
      }
  }

  private static func settings(_ spec: SweepSpec) -> [NamedText] {
    func list(_ items: some Sequence<String>) -> String { items.joined(separator: ", ") }
    let (data, training, generator) = (spec.data, spec.training, spec.augmentation)
    let layers = training.topLayers.map { "the top \($0) layers" } ?? "all layers"
    let rounds =
      spec.rounds == 1
      ? []
      : [
        NamedText(
          name: "Rounds",
          text: "\(spec.rounds); from the second on the fine-tune of the round before writes the "
            + "augmented data")
      ]
    return [
      NamedText(name: "Model", text: spec.model),
      NamedText(name: "Tasks", text: list(spec.tasks)),
      NamedText(name: "Bias types", text: list(spec.biases.map(\.rawValue))),
      NamedText(name: "Bias ratios γ", text: list(spec.ratios.map(NumberText.plain))),
      NamedText(name: "Mitigations", text: list(spec.mitigations.map(\.rawValue))),
      NamedText(name: "Seeds", text: list(spec.seeds.map { "\($0)" })),
      NamedText(
        name: "Data",
        text: "\(data.originalItems) bias-carrying original items a domain, "
          + "\(data.formatItems) format examples and \(data.testItems) test items a task"),
      NamedText(
        name: "Augmented data",
        text: "generator “\(generator.generator.rawValue)”, temperature "
          + "\(NumberText.plain(generator.temperature)), top-k \(generator.topK), "
          + "at most \(generator.maximumTokens) tokens"),
      NamedText(
        name: "Fine-tuning",
        text: method(training) + " of \(layers); \(training.epochs) epochs, "
          + "batch \(training.batchSize), learning rate \(NumberText.plain(training.learningRate)), "
          + "warm-up \(NumberText.plain(training.warmupFraction)), weight decay "
          + "\(NumberText.plain(training.weightDecay)), gradient clipping "
          + "\(NumberText.plain(training.gradientClip))"),
    ] + rounds
  }

  static func method(_ training: SweepSpec.Training) -> String {
    if training.method == .full { return "every weight" }
    let scaling = training.scaling == .rslora ? "rank-stabilised LoRA" : "LoRA"
    return "\(scaling), rank \(training.rank), α \(NumberText.plain(training.alpha)), on "
      + training.targets.map(\.rawValue).joined(separator: ", ")
  }

  /// The whole spec, indented. A spec that came out of the ledger can be encoded again.
  private static func prettySpec(_ spec: SweepSpec) -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    guard let json = try? encoder.encode(spec) else { return "" }
    return String(decoding: json, as: UTF8.self)
  }

  /// One table per domain: a row per fact, a column per bias type and round. From the second round on
  /// every fine-tune has a set of its own, and the mean of them is shown.
  private static func doseTables(_ facts: [ShardFact]) -> [FactTable] {
    facts.map(\.domain).unique.map { domain in
      let ofDomain = facts.filter { $0.domain == domain }
      let sets = ofDomain.map { DoseColumn($0) }.unique
      let names = ofDomain.map(\.name).unique.sorted()
      return FactTable(
        caption: "Augmented data of the \(domain) domain", corner: "fact",
        columns: sets.map(\.title),
        rows: names.map { name in
          FactTable.Row(
            name: name,
            cells: sets.map { set in
              let values = ofDomain.filter {
                $0.name == name && DoseColumn($0) == set
              }.map(\.value)
              guard let first = values.first else { return NumberText.missing }
              return NumberText.compact(
                set.round == 1 ? first : values.reduce(0, +) / Double(values.count))
            })
        })
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
  private static func trainingTables(_ facts: [ShardFact]) -> [FactTable] {
    guard !facts.isEmpty else { return [] }
    let names = facts.map(\.name).unique.sorted()
    let byShard = Dictionary(grouping: facts, by: \.shard)
    return [
      FactTable(
        caption: "Completed fine-tunes", corner: "fine-tune", columns: names,
        rows: facts.map(\.shard).unique.map { shard in
          FactTable.Row(
            name: shard,
            cells: names.map { name in
              byShard[shard]?.first { $0.name == name }
                .map { NumberText.compact($0.value) } ?? NumberText.missing
            })
        })
    ]
  }
}

extension Mitigation {
  /// What the mitigation does, with the sweep's settings.
  fileprivate func explanation(_ settings: SweepSpec.MitigationSettings) -> String {
    switch self {
    case .none: "augmented items are used as they are"
    case .tokenDecoding:
      "words of all groups are equally probable while augmented data are generated"
    case .maskNeutral: "neutral words replace names, pronouns, gender and culture words"
    case .lossReweight:
      "augmented items of mean loss ℓ weigh (1 − e^−ℓ)^τ in the loss, τ = "
        + "\(NumberText.plain(settings.reweightExponent ?? 1))"
    case .token: "augmented items begin with “\(settings.tokenPrefix)”, outside the loss"
    case .mask:
      "names, pronouns, group and culture words of augmented items become \(settings.maskWord)"
    case .loss:
      "an alignment term between original and augmented items, weight "
        + NumberText.plain(settings.lossWeight) + ", is added to the loss"
    }
  }
}
