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
      "section": try template(PackageResources.section_mustache),
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
  /// Between the findings and the tasks.
  let explanations: [ReportSection]
  let tasks: [TaskSection]
  /// After the tasks.
  let appendices: [ReportSection]
  let failures: [FailureSection]
  let countsQuery = ResultQuery.counts
  let failuresQuery = ResultQuery.failures
  let inputsQuery = ResultQuery.inputs
  /// The section of the template appears once, however long the list.
  let hasFailures: Bool

  struct NamedText {
    let name: String
    let text: String
  }

  struct LegendEntry {
    let svg: String
    let text: String
  }

  struct FailureSection {
    let shard: String
    let reason: String
    let attempts: [String]
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
        task, definition: sweep.spec.taskDefinitions[task], index: index, of: tables)
    }
    findings = FindingsSection(data)
    explanations = Self.explanations(data)
    appendices = FactTables.sections(data)
    failures = data.failures.map {
      FailureSection(shard: $0.shard, reason: $0.reason, attempts: $0.attempts)
    }
    hasFailures = !failures.isEmpty
  }

  private static func explanations(_ data: ReportData) -> [ReportSection] {
    let misalignments = MisalignmentSection(data)
    let tables: [ReportPart] = misalignments.tables.map { ReportPart($0) }
    let figures: [ReportPart] = misalignments.figures.map { ReportPart($0) }
    return [
      ReportSection(
        anchor: "misalignments", title: "Three misalignments",
        text:
          "Why bias may be inherited: how far the base model’s values are from people’s, its view of "
          + "groups from published figures, and the generated data from the original ones.",
        isFolded: false, parts: tables + figures)
    ].filter { !$0.parts.isEmpty }
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
