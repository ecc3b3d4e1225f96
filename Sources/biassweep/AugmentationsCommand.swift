import ArgumentParser
import BiasStudy
import Foundation
import SweepCore
import SweepLedger

struct AugmentationsCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "augmentations",
    abstract: "List, read and export the augmented data of a sweep.",
    discussion: """
      Every set of augmented data (D_a) with its generator, how many candidates broke the rules, and \
      its dose: how biased it turned out, whatever was asked for. From the second round on each \
      fine-tune of the round before writes a set. The sets are files in \
      LEDGER.artifacts, named by their SHA-256, which is checked when they are read. Works on an \
      unfinished sweep too, and while it runs.

      EXAMPLES:
        biassweep augmentations --ledger smoke.ledger
        biassweep augmentations --ledger smoke.ledger --show gender/contextual-single-implicit
        biassweep augmentations --ledger smoke.ledger --export d_a
        biassweep augmentations --ledger smoke.ledger --json | jq '.augmentations[].dose'
      """)

  @Option(help: "The sweep's ledger.")
  var ledger: String

  @Option(help: "One set in full, by the key that the list gives it: dose, prompts and items.")
  var show: String?

  @Option(help: "Items to print with --show.")
  var items = 5

  @Option(
    help: "Write all sets (or the one of --show) to this directory as JSON lines, with an index.")
  var export: String?

  @Flag(help: "Print one JSON object.")
  var json = false

  func validate() throws {
    guard items >= 0 else { throw ValidationError("--items is a number of items.") }
  }

  // MARK: Output

  private struct Listed: Encodable {
    let generator: String
    let augmentations: [Entry]
  }

  /// A set, as it is listed and as the index of an export has it.
  private struct Entry: Encodable {
    let key: String
    let domain: String
    let bias: String
    /// Nil in the first round.
    let round: Int?
    let state: String
    let generator: String
    let items: Int?
    let candidates: Int?
    let rejectionRate: Double?
    let dose: [String: Double]
    let facts: [String: Double]
    let sha256: String?
    var file: String?
    var prompts: [Prompt]?

    enum CodingKeys: String, CodingKey {
      case key, domain, bias, round, state, generator, items, candidates
      case rejectionRate = "rejection_rate"
      case dose, facts, sha256, file, prompts
    }
  }

  /// What the generator was asked, and for how many items.
  private struct Prompt: Encodable {
    let text: String
    let items: Int
  }

  private static let prefix = "augment/"

  private func entry(_ record: AugmentationRecord, _ spec: SweepSpec) -> Entry {
    let facts = record.facts.filter { $0.key != Shard.secondsFact }
    return Entry(
      key: String(record.id.dropFirst(Self.prefix.count)), domain: record.domain,
      bias: record.bias, round: record.round == 1 ? nil : record.round, state: record.state,
      generator: generator(record, spec),
      items: facts["items"].map { Int($0) }, candidates: facts["candidates"].map { Int($0) },
      rejectionRate: facts["rejection_rate"],
      dose: facts.filter { $0.key.hasPrefix("dose_") },
      facts: facts.filter { !$0.key.hasPrefix("dose_") }, sha256: record.artifact, file: nil,
      prompts: nil)
  }

  /// Who wrote a set.
  private func generator(_ record: AugmentationRecord, _ spec: SweepSpec) -> String {
    if record.bias == BiasType.sameSize.rawValue { return "original data" }
    if let writer = record.writer { return writer }
    switch spec.augmentation.generator {
    case .model: return "self (\(spec.model))"
    case .template: return "template, strength \(spec.augmentation.strength ?? 1)"
    case .endpoint:
      let endpoint = spec.augmentation.endpoint
      return "\(endpoint?.model ?? "") at \(endpoint?.url ?? "")"
    }
  }

  func run() async throws {
    let reader = try LedgerReader(path: ledger)
    let spec = try reader.sweep().spec
    var records = try reader.augmentations()
    if let show {
      let keys = records.map { String($0.id.dropFirst(Self.prefix.count)) }
      records = records.filter { $0.id == show || $0.id == Self.prefix + show }
      guard !records.isEmpty else {
        throw UsageError(
          description: "There is no set \(show). Sets: \(keys.joined(separator: ", "))")
      }
    }
    var entries = records.map { entry($0, spec) }
    if let export {
      for index in entries.indices where records[index].artifact != nil {
        let name = entries[index].key.replacing("/", with: "-") + ".jsonl"
        entries[index].file = name
        entries[index].prompts = prompts(try set(records[index]))
        try write(Data(bytes(records[index])), to: name, in: export)
      }
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
      try write(
        encoder.encode(
          Listed(generator: spec.augmentation.generator.rawValue, augmentations: entries)),
        to: "index.json", in: export)
    }
    if json {
      if show != nil, export == nil {
        for index in entries.indices where records[index].artifact != nil {
          entries[index].prompts = prompts(try set(records[index]))
        }
      }
      return try Console.output(
        json: Listed(generator: spec.augmentation.generator.rawValue, augmentations: entries))
    }
    if let export {
      let written = entries.compactMap(\.file)
      return Console.error("wrote \(export): \((written + ["index.json"]).joined(separator: ", "))")
    }
    if show != nil, let record = records.first {
      return try describe(record, entries[0])
    }
    if entries.isEmpty { return Console.error("The sweep has no augmented data.") }
    Console.output(table(entries))
  }

  private func table(_ entries: [Entry]) -> String {
    TextTable(
      header: ["KEY", "STATE", "ITEMS", "REJECTED", "DOSE", "GENERATOR", "SHA-256"],
      rows: entries.map { entry in
        [
          entry.key, entry.state, entry.items.map { "\($0)" } ?? "-",
          entry.rejectionRate.map { "\(Int(($0 * 100).rounded())) %" } ?? "-",
          Self.summary(entry.dose), entry.generator,
          entry.sha256.map { String($0.prefix(12)) } ?? "-",
        ]
      }
    ).text
  }

  /// The doses that stand for a set in a list.
  private static let summaryDoses = [
    ("dose_female_share_spread", "share spread"), ("dose_agentic_communal_gap", "agency gap"),
    ("dose_label_shift", "label shift"), ("dose_label_shift_unstated", "label shift"),
    ("dose_culture_gap", "culture gap"),
  ]

  private static func summary(_ dose: [String: Double]) -> String {
    let parts = summaryDoses.compactMap { name, title in
      dose[name].map { "\(title) \(number($0))" }
    }
    return parts.isEmpty ? "-" : parts.joined(separator: ", ")
  }

  private static func number(_ value: Double) -> String {
    "\((value * 100).rounded() / 100)"
  }

  private func describe(_ record: AugmentationRecord, _ entry: Entry) throws {
    Console.output("\(entry.key): \(entry.state), generator \(entry.generator)")
    // Points of a plot say nothing as numbers; --json has them.
    for (name, value) in (entry.facts.merging(entry.dose) { own, _ in own })
      .sorted(by: { $0.key < $1.key }) where !name.hasPrefix("point_")
    {
      Console.output("  \(name) \(Self.number(value))")
    }
    guard record.artifact != nil else { return }
    let set = try set(record)
    Console.output("prompts")
    for prompt in prompts(set) {
      Console.output("  \(prompt.items) × \(prompt.text.isEmpty ? "(none)" : prompt.text)")
    }
    for item in set.items.prefix(items) {
      Console.output("item \(item.index)\(item.accepted ? "" : ", breaks a rule")")
      if !item.request.isEmpty { Console.output("  asked:  \(item.request)") }
      Console.output("  user:   \(item.user.replacing("\n", with: " / "))")
      Console.output("  answer: \(item.answer.replacing("\n", with: " / "))")
    }
  }

  // MARK: Sets

  private func prompts(_ set: AugmentationSet) -> [Prompt] {
    var counts: [String: Int] = [:]
    var order: [String] = []
    for item in set.items {
      if counts[item.request] == nil { order.append(item.request) }
      counts[item.request, default: 0] += 1
    }
    return order.map { Prompt(text: $0, items: counts[$0] ?? 0) }
  }

  private func set(_ record: AugmentationRecord) throws -> AugmentationSet {
    try AugmentationSet(decoding: bytes(record), file: record.id)
  }

  /// The artifact, with its digest checked.
  private func bytes(_ record: AugmentationRecord) throws -> [UInt8] {
    let name = record.artifact ?? ""
    let path = SweepSession.artifactDirectory(ledger: ledger) + "/" + name
    guard let data = FileManager.default.contents(atPath: path) else {
      throw InfrastructureError(
        description: "The artifact \(path) of \(record.id) is missing. Artifacts stay beside the "
          + "ledger; move or copy both together.")
    }
    let bytes = Array(data)
    guard ContentDigest(of: bytes).description == name else {
      throw InfrastructureError(
        description: "The artifact \(path) of \(record.id) is damaged: it has another SHA-256 than "
          + "its name says. Restore it from a backup.")
    }
    return bytes
  }

  private func write(_ data: Data, to name: String, in directory: String) throws {
    do {
      try FileManager.default.createDirectory(
        atPath: directory, withIntermediateDirectories: true)
      try data.write(to: URL(filePath: directory).appending(path: name))
    } catch {
      throw InfrastructureError(
        description: "Cannot write \(directory)/\(name): \(error.localizedDescription)")
    }
  }
}
