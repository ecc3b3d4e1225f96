import ArgumentParser
import Foundation
import LanguageModel
import SweepLedger

struct ExportCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "export",
    abstract: "Write what a fine-tune of a sweep learned, for PEFT or transformers.",
    discussion: """
      Lists the fine-tunes that were kept (`run` and `worker` take --keep-parameters), or writes one \
      of them: as a PEFT adapter, or as a whole Hugging Face model with the adapter merged in. Works \
      on an unfinished sweep too.

      EXAMPLES:
        biassweep export --ledger smoke.ledger
        biassweep export --ledger smoke.ledger --fine-tune tune/gender/original/0.0/none/1 \
      --to adapter
        biassweep export --ledger smoke.ledger --fine-tune tune/gender/original/0.0/none/1 \
      --to merged --format huggingface
        biassweep export --ledger smoke.ledger --json | jq -r '.fine_tunes[].id'
      """)

  enum Format: String, CaseIterable, ExpressibleByArgument {
    case peft, huggingface
  }

  @Option(help: "The sweep's ledger.")
  var ledger: String

  @Option(help: "The fine-tune to write, by the name that the list gives it.")
  var fineTune: String?

  @Option(help: "The directory to write; made if it is not there, and must be empty.")
  var to: String?

  @Option(help: "\(Format.allCases.map(\.rawValue).joined(separator: ", ")).")
  var format: Format = .peft

  @Option(help: "The model that was fine-tuned: a GGUF file or directory. Default: the spec's.")
  var model: String?

  @Option(
    help: "What adapter_config.json calls the model: a name on Hugging Face's hub, or a path.")
  var baseModel: String?

  @Flag(help: "Print one JSON object.")
  var json = false

  func validate() throws {
    guard (fineTune == nil) == (to == nil) else {
      throw ValidationError("--fine-tune and --to go together.")
    }
  }

  private struct Listed: Encodable {
    let fineTunes: [KeptFineTune]

    enum CodingKeys: String, CodingKey { case fineTunes = "fine_tunes" }
  }

  private struct Written: Encodable {
    let fineTune: String
    let directory: String
    let format: String
    let files: [String]

    enum CodingKeys: String, CodingKey {
      case fineTune = "fine_tune"
      case directory, format, files
    }
  }

  func run() async throws {
    let reader = try LedgerReader(path: ledger)
    let kept = try reader.keptFineTunes()
    guard let fineTune, let to else { return try list(kept) }
    guard let chosen = kept.first(where: { $0.id == fineTune }) else {
      throw UsageError(
        description: kept.isEmpty
          ? Self.nothingKept
          : "There is no kept fine-tune \(fineTune). Kept: \(kept.map(\.id).joined(separator: ", "))"
      )
    }
    let spec = try reader.sweep().spec
    let location = try ModelLocation(model ?? spec.model).path
    let parameters = try TrainedParameters(
      path: SweepSession.artifactDirectory(ledger: ledger) + "/" + chosen.artifact,
      digest: chosen.artifact, for: try LanguageModel.configuration(at: location))
    switch format {
    case .peft: try parameters.writePEFT(to: to, baseModel: baseModel ?? spec.model)
    case .huggingface:
      try parameters.writeHuggingFace(to: to, base: location, cacheDirectory: Cache.root)
    }
    let files = try FileManager.default.contentsOfDirectory(atPath: to).sorted()
    if json {
      return try Console.output(
        json: Written(fineTune: fineTune, directory: to, format: format.rawValue, files: files))
    }
    Console.error("wrote \(to): \(files.joined(separator: ", "))")
  }

  private static let nothingKept = """
    No fine-tune was kept. Give `run` or `worker` the option --keep-parameters; what has been \
    fine-tuned before is not made again.
    """

  private func list(_ kept: [KeptFineTune]) throws {
    if json { return try Console.output(json: Listed(fineTunes: kept)) }
    if kept.isEmpty { return Console.error(Self.nothingKept) }
    for fineTune in kept { Console.output(fineTune.id) }
  }
}

/// How many of a sweep's fine-tunes leave their trained parameters as artifacts: the first ones of
/// the plan, so that every worker with the same option keeps the same.
struct KeptFineTunes: ExpressibleByArgument, CustomStringConvertible {
  /// Most fine-tunes kept.
  let limit: Int

  static let none = KeptFineTunes(limit: 0)
  static let help = ArgumentHelp(
    "Keep what the first fine-tunes of the plan learn, for `biassweep export`: a number, all, or none.",
    discussion: """
      Each is a file in LEDGER.artifacts: a few megabytes for an adapter. Results do not change.
      """)

  init(limit: Int) { self.limit = limit }

  init?(argument: String) {
    switch argument {
    case "none": limit = 0
    case "all": limit = .max
    default:
      guard let number = Int(argument), number >= 0 else { return nil }
      limit = number
    }
  }

  var description: String {
    switch limit {
    case 0: "none"
    case .max: "all"
    default: "\(limit)"
    }
  }

  var defaultValueDescription: String { description }
}
