import Foundation
import SweepCore

/// How events stand in the ledger: JSON with sorted keys, as `Codable` derives it.
///
/// Three kinds make up nearly all events of a sweep; they are written by hand, in the very same
/// form, because the general encoder costs more than recording them.
struct EventPayload {
  private let encoder: JSONEncoder

  init() {
    encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
  }

  /// - Throws: `EncodingError` for numbers that are not finite.
  func text(of event: SweepEvent) throws -> String {
    var writer = PlainJSON()
    switch event {
    case .shardLeased(let shard, let worker, let token, let attempt):
      writer.open("shardLeased")
      writer.member("attempt", integer: Int64(attempt))
      writer.member("shard", string: shard.description)
      writer.member("token", token)
      writer.member("worker", string: worker)
    case .trialCompleted(let trial, let token, let metrics, let notes, let items):
      writer.open("trialCompleted")
      if let items { writer.member("items", string: items.digest.description) }
      writer.member("metrics", numbers: metrics)
      writer.member("notes", strings: notes)
      writer.member("token", token)
      writer.member("trial", string: trial.description)
    case .shardCompleted(let shard, let token, let artifact, let facts, let seconds):
      writer.open("shardCompleted")
      if let artifact { writer.member("artifact", string: artifact.description) }
      writer.member("facts", numbers: facts)
      if let seconds { writer.member("seconds", number: seconds) }
      writer.member("shard", string: shard.description)
      writer.member("token", token)
    default:
      writer.isPlain = false
    }
    if let text = writer.close() { return text }
    return String(decoding: try encoder.encode(event), as: UTF8.self)
  }
}

/// A writer of JSON objects whose strings need no escapes and whose numbers are finite; it gives up
/// on others.
private struct PlainJSON {
  private var text = ""
  private var needsComma = false
  var isPlain = true

  /// The one case of the event, an object of its parts.
  mutating func open(_ name: String) {
    text.reserveCapacity(256)
    text += "{\""
    text += name
    text += "\":{"
  }

  /// - Returns: nil when something was not plain.
  mutating func close() -> String? {
    guard isPlain else { return nil }
    text += "}}"
    return text
  }

  mutating func member(_ key: String, integer: Int64) {
    name(key)
    text += String(integer)
  }

  mutating func member(_ key: String, _ token: LeaseToken) {
    name(key)
    text += String(token.value)
  }

  mutating func member(_ key: String, string: String) {
    name(key)
    quote(string)
  }

  mutating func member(_ key: String, numbers: [String: Double]) {
    name(key)
    text += "{"
    needsComma = false
    for (key, value) in numbers.sorted(by: { $0.key < $1.key }) {
      name(key)
      write(value)
    }
    text += "}"
    needsComma = true
  }

  mutating func member(_ key: String, strings: [String: String]) {
    name(key)
    text += "{"
    needsComma = false
    for (key, value) in strings.sorted(by: { $0.key < $1.key }) {
      name(key)
      quote(value)
    }
    text += "}"
    needsComma = true
  }

  mutating func member(_ key: String, number: Double) {
    name(key)
    write(number)
  }

  private mutating func write(_ value: Double) {
    if !value.isFinite { isPlain = false }
    let digits = value.description
    text += digits.hasSuffix(".0") ? digits.dropLast(2) : digits[...]
  }

  private mutating func name(_ key: String) {
    if needsComma { text += "," }
    needsComma = true
    quote(key)
    text += ":"
  }

  private mutating func quote(_ string: String) {
    let isPlain = string.utf8.allSatisfy {
      $0 >= 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\")
    }
    if !isPlain { self.isPlain = false }
    text += "\""
    text += string
    text += "\""
  }
}
