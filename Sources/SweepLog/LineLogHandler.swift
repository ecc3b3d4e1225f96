import Foundation
import Logging

/// How a log line is written.
package enum LogFormat: String, Sendable, CaseIterable {
  /// `2026-01-31T12:00:00.000Z info shard leased shard.id=… worker.id=…`
  case text
  /// One JSON object a line: `time`, `level`, `message`, and the metadata by their names.
  case json
}

/// Writes each event as one line with the time, in UTC, and the metadata sorted by name.
package struct LineLogHandler: LogHandler {
  package var logLevel: Logger.Level
  package var metadata: Logger.Metadata = [:]
  package var metadataProvider: Logger.MetadataProvider?
  private let format: LogFormat
  private let output: LogOutput
  private let now: @Sendable () -> Date

  /// - Parameter now: wall clock of the lines.
  package init(
    format: LogFormat, level: Logger.Level, output: LogOutput,
    now: @escaping @Sendable () -> Date = { Date() }
  ) {
    self.format = format
    self.output = output
    self.now = now
    logLevel = level
  }

  package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  package func log(event: LogEvent) {
    var fields = metadata
    if let provided = metadataProvider?.get() { fields.merge(provided) { $1 } }
    if let own = event.metadata { fields.merge(own) { $1 } }
    let time = now().formatted(Self.timeStyle)
    switch format {
    case .text: output.write(Self.text(time, event, fields))
    case .json: output.write(Self.json(time, event, fields))
    }
  }

  private static let timeStyle = Date.ISO8601FormatStyle(includingFractionalSeconds: true)

  private static func text(
    _ time: String, _ event: LogEvent, _ fields: Logger.Metadata
  ) -> String {
    let pairs = fields.sorted { $0.key < $1.key }.map { " \($0.key)=\(quoted("\($0.value)"))" }
    return "\(time) \(event.level) \(oneLine("\(event.message)"))\(pairs.joined())"
  }

  /// Values with spaces in quotes, so that a line can be taken apart again.
  private static func quoted(_ text: String) -> String {
    let isPlain = !text.isEmpty && !text.contains { $0.isWhitespace || $0 == "\"" || $0 == "=" }
    return isPlain ? oneLine(text) : jsonString(text)
  }

  /// What a peer says must not look like lines of its own, nor move the cursor of a terminal.
  private static func oneLine(_ text: String) -> String {
    text.unicodeScalars.contains(where: isControl) ? jsonString(text) : text
  }

  private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
    scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value)
  }

  private static func json(
    _ time: String, _ event: LogEvent, _ fields: Logger.Metadata
  ) -> String {
    var pairs = [
      ("time", time), ("level", "\(event.level)"), ("message", "\(event.message)"),
    ]
    pairs += fields.sorted { $0.key < $1.key }.map { ($0.key, "\($0.value)") }
    return "{" + pairs.map { "\(jsonString($0)):\(jsonString($1))" }.joined(separator: ",") + "}"
  }

  private static func jsonString(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": result += "\\\""
      case "\\": result += "\\\\"
      case "\n": result += "\\n"
      case "\r": result += "\\r"
      case "\t": result += "\\t"
      case _ where isControl(scalar):
        let hex = String(scalar.value, radix: 16)
        result += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result + "\""
  }
}
