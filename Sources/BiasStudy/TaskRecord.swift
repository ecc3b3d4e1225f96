#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// One item of a task's data, as its file has it.
package struct TaskRecord: Hashable, Sendable {
  package enum Value: Hashable, Sendable {
    case text(String)
    case list([String])
  }

  /// The line of the file, from 1; for items of a collection their number.
  package let line: Int
  package var fields: [String: Value]

  package init(line: Int, fields: [String: Value]) {
    self.line = line
    self.fields = fields
  }

  /// A field as text; nil if it is missing or a list.
  package func text(_ field: String) -> String? {
    if case .text(let text) = fields[field] { text } else { nil }
  }

  /// A field as a list; a text, as CSV has it, is cut at "|".
  package func list(_ field: String) -> [String]? {
    switch fields[field] {
    case .list(let elements): elements
    case .text(let text):
      text.split(separator: "|", omittingEmptySubsequences: false).map {
        String($0).collapsingSpaces
      }
    case nil: nil
    }
  }
}

/// Reads task data: JSON lines or CSV.
package enum TaskRecords {
  /// Longest line or CSV record, in bytes.
  private static let lineBytesMax = 1 << 20
  private static let recordsMax = 2_000_000

  /// - Parameters:
  ///   - file: how errors name the source; its ending tells the format.
  ///   - keep: only records with one of the values in each of these fields.
  /// - Throws: `StudyError.malformed` with the line.
  package static func read(
    _ bytes: [UInt8], file: String, keep: [String: [String]] = [:]
  ) throws(StudyError) -> [TaskRecord] {
    var records: [TaskRecord] = []
    func add(_ record: TaskRecord) throws(StudyError) {
      for (field, values) in keep {
        guard let value = record.text(field) else {
          throw .malformed(
            file: file, line: record.line,
            problem: "no text in the field \"\(field)\", which `keep` looks at; the record has "
              + record.fields.keys.sorted().joined(separator: ", "))
        }
        if !values.contains(value) { return }
      }
      guard records.count < recordsMax else {
        throw .malformed(
          file: file, line: record.line, problem: "more than \(recordsMax) records")
      }
      records.append(record)
    }
    if file.hasSuffix(".csv") {
      var reader = try CSVReader(bytes: bytes, file: file)
      let columns = reader.header
      guard Set(columns).count == columns.count else {
        throw .malformed(file: file, line: 1, problem: "two columns have the same name")
      }
      try reader.forEachRecord(columns: columns) { values, line throws(StudyError) in
        var fields: [String: TaskRecord.Value] = [:]
        for (column, value) in zip(columns, values) where !value.isEmpty {
          fields[column] = .text(value)
        }
        try add(TaskRecord(line: line, fields: fields))
      }
      return records
    }
    let decoder = JSONDecoder()
    var line = 0
    for raw in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
      line += 1
      guard raw.contains(where: { $0 > 32 }) else { continue }
      guard raw.count <= lineBytesMax else {
        throw .malformed(file: file, line: line, problem: "the line is longer than 1 MiB")
      }
      let fields: [String: JSONField]
      do {
        fields = try decoder.decode([String: JSONField].self, from: Data(raw))
      } catch {
        throw .malformed(
          file: file, line: line,
          problem: "not a JSON object of texts, numbers and lists of them (\(Self.reason(error)))")
      }
      try add(TaskRecord(line: line, fields: fields.compactMapValues(\.value)))
    }
    return records
  }

  private static func reason(_ error: any Error) -> String {
    guard let error = error as? DecodingError else { return "\(error)" }
    switch error {
    case .dataCorrupted(let context), .keyNotFound(_, let context), .typeMismatch(_, let context),
      .valueNotFound(_, let context):
      let path = context.codingPath.map(\.stringValue).joined(separator: ".")
      return path.isEmpty ? context.debugDescription : "\(path): \(context.debugDescription)"
    @unknown default: return "\(error)"
    }
  }

  /// A field of a JSON object: a text, a number, a truth value, a list of these, or null.
  private struct JSONField: Decodable {
    let value: TaskRecord.Value?

    init(from decoder: any Decoder) throws {
      let container = try decoder.singleValueContainer()
      if container.decodeNil() {
        value = nil
      } else if let text = try? container.decode(String.self) {
        value = .text(text)
      } else if let scalar = try? container.decode(Scalar.self) {
        value = .text(scalar.text)
      } else {
        value = .list(try container.decode([Scalar].self).map(\.text))
      }
    }
  }

  private struct Scalar: Decodable {
    let text: String

    init(from decoder: any Decoder) throws {
      let container = try decoder.singleValueContainer()
      if let text = try? container.decode(String.self) {
        self.text = text
      } else if let flag = try? container.decode(Bool.self) {
        text = "\(flag)"
      } else if let whole = try? container.decode(Int.self) {
        text = "\(whole)"
      } else {
        text = "\(try container.decode(Double.self))"
      }
    }
  }
}
