import Crypto
import LanguageModel
import SweepCore

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// Where a shard in work keeps its progress, so that another attempt, here or elsewhere, goes on
/// with the same bits.
package struct ShardCheckpoint: Sendable {
  /// The file that is written, and that is continued from when it is there.
  package let path: String
  /// Other files that may hold progress of the same shard; the furthest usable one is taken.
  package let alternatives: [String]
  /// Least time of work between two checkpoints.
  package let interval: Duration
  /// Names the work, in one line: a file of other work is not used.
  package let purpose: String
  /// What happened, for the worker's log and its upload.
  package let report: @Sendable (Event) -> Void

  package enum Event: Sendable {
    /// The file at `path` holds the first `done` steps or texts, durably.
    case written(done: Int)
    case resumed(done: Int, path: String)
    /// A file was there and cannot be used.
    case unusable(reason: String)
    case notWritten(reason: String)
  }

  package init(
    path: String, alternatives: [String] = [], interval: Duration, purpose: String,
    report: @escaping @Sendable (Event) -> Void
  ) {
    self.path = path
    self.alternatives = alternatives
    self.interval = interval
    self.purpose = purpose
    self.report = report
  }

  /// Files that may be continued from, those that are there.
  private var candidates: [String] {
    ([path] + alternatives).filter { FileManager.default.fileExists(atPath: $0) }
  }

  // MARK: Fine-tunes

  /// Puts `tuner` into the furthest state that a file holds, if there is a usable one.
  func resume(_ tuner: FineTuner, identity: FineTuningIdentity) {
    let files = candidates.map { (steps: FineTuningCheckpoint.steps(path: $0) ?? 0, path: $0) }
    if files.isEmpty { return }
    let state = tuner.emptyState()
    for file in files.sorted(by: { $0.steps > $1.steps }) {
      do {
        try FineTuningCheckpoint.read(path: file.path, identity: identity, into: state)
      } catch {
        report(.unusable(reason: "\(error)"))
        continue
      }
      tuner.restore(state)
      report(.resumed(done: tuner.step, path: file.path))
      return
    }
  }

  func writer(for tuner: FineTuner, identity: FineTuningIdentity) -> CheckpointWriter {
    let report = self.report
    return CheckpointWriter(
      for: tuner, identity: identity, path: path, interval: interval,
      written: { report(.written(done: $0)) },
      failed: { report(.notWritten(reason: "\($0)")) })
  }

  // MARK: Generation

  /// The furthest set of texts that a file holds; empty if there is no usable one.
  func resumedTexts() -> GeneratedTexts {
    var best = GeneratedTexts()
    var origin: String?
    for path in candidates {
      do {
        let texts = try GeneratedTexts(path: path, purpose: purpose)
        if texts.count > best.count {
          best = texts
          origin = path
        }
      } catch {
        report(.unusable(reason: "\(error)"))
      }
    }
    if let origin { report(.resumed(done: best.count, path: origin)) }
    return best
  }

  func write(_ texts: GeneratedTexts) {
    do {
      try texts.write(to: path, purpose: purpose)
      report(.written(done: texts.count))
    } catch {
      report(.notWritten(reason: "\(error)"))
    }
  }
}

/// The texts that a generation shard has finished so far: each is a function of item and attempt
/// alone, so that any set of them is a valid state.
struct GeneratedTexts: Hashable {
  private struct Text: Codable, Hashable {
    var item: Int
    var attempt: Int
    var tokens: [Int32]
  }

  /// What a server answered, as it came.
  private struct Answer: Codable, Hashable {
    var item: Int
    /// What it is an answer to.
    var part: String
    var body: String
  }

  private struct Document: Codable {
    var format: String
    var purpose: String
    var texts: [Text]
    /// Nil in files of generators that run here.
    var answers: [Answer]?
  }

  private struct Key: Hashable {
    let item: Int
    let attempt: Int
  }

  private struct Part: Hashable {
    let item: Int
    let part: String
  }

  private static let format = "biassweep-generation-1"
  private var tokens: [Key: [Int32]] = [:]
  private var answers: [Part: String] = [:]

  init() {}

  var count: Int { tokens.count + answers.count }

  /// What a server answered to a part of an item, if it did.
  subscript(item: Int, part: String) -> String? {
    get { answers[Part(item: item, part: part)] }
    set { answers[Part(item: item, part: part)] = newValue }
  }

  /// The text of an item's attempt, if it is finished.
  subscript(item: Int, attempt: Int) -> [Int32]? {
    get { tokens[Key(item: item, attempt: attempt)] }
    set { tokens[Key(item: item, attempt: attempt)] = newValue }
  }

  /// Reads what `write` wrote: the SHA-256 of the rest (hex), a line end, and JSON.
  ///
  /// - Throws: `CheckpointError`, or why the file cannot be read.
  init(path: String, purpose: String) throws {
    let data = try Data(contentsOf: URL(filePath: path))
    let digestLength = 64
    let body = data.dropFirst(digestLength + 1)
    guard data.count > digestLength,
      String(decoding: data.prefix(digestLength), as: UTF8.self)
        == ContentDigest(of: body).description
    else { throw CheckpointError.damaged(path: path, problem: "it does not have its digest") }
    let document = try JSONDecoder().decode(Document.self, from: Data(body))
    guard document.format == Self.format else {
      throw CheckpointError.otherFormat(
        path: path, found: document.format, expected: Self.format)
    }
    guard document.purpose == purpose else {
      throw CheckpointError.foreign(path: path, ["purpose"])
    }
    for text in document.texts { self[text.item, text.attempt] = text.tokens }
    for answer in document.answers ?? [] { self[answer.item, answer.part] = answer.body }
  }

  /// Replaces the file as a whole, durably.
  func write(to path: String, purpose: String) throws {
    let texts = tokens.map { Text(item: $0.key.item, attempt: $0.key.attempt, tokens: $0.value) }
      .sorted { ($0.attempt, $0.item) < ($1.attempt, $1.item) }
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    let answers = answers.map { Answer(item: $0.key.item, part: $0.key.part, body: $0.value) }
      .sorted { ($0.item, $0.part) < ($1.item, $1.part) }
    let body = try encoder.encode(
      Document(
        format: Self.format, purpose: purpose, texts: texts,
        answers: answers.isEmpty ? nil : answers))
    try DurableFile.replace(
      at: path, with: Data("\(ContentDigest(of: body))\n".utf8) + body)
  }
}
