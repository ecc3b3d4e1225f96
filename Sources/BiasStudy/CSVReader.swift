/// Reads CSV as RFC 4180 defines it, from bytes.
///
/// Lines may end in LF or CRLF, the last one in neither; a UTF-8 byte order mark is skipped, and so
/// are empty lines. Quoted fields may hold commas, quotes (doubled) and line ends. Every record has
/// as many fields as the header.
package struct CSVReader {
  /// Longest field, in bytes, that is not taken for a missing quote.
  package static let fieldBytesMax = 1 << 20

  package let header: [String]
  private let bytes: [UInt8]
  private let file: String
  private var position = 0
  private var line = 1

  /// - Parameter file: how errors name the source.
  /// - Throws: `StudyError.malformed` if there is no header.
  package init(bytes: [UInt8], file: String) throws(StudyError) {
    self.bytes = bytes
    self.file = file
    if bytes.starts(with: [0xEF, 0xBB, 0xBF]) { position = 3 }
    var fields: [Range<Int>] = []
    var header: [String] = []
    guard try Self.scan(bytes, file, &position, &line, &fields) else {
      throw .malformed(file: file, line: 1, problem: "the file is empty; a header was expected")
    }
    for field in fields {
      header.append(try Self.text(bytes, field, file, 1))
    }
    self.header = header
  }

  /// Calls `body` with the values of the named columns for every record, and its line number.
  ///
  /// - Throws: `StudyError.malformed` with the line for a missing column, a record of another
  ///   length, a misplaced or unclosed quote, or text that is not UTF-8; what `body` throws.
  package mutating func forEachRecord(
    columns: [String], _ body: ([String], _ line: Int) throws(StudyError) -> Void
  ) throws(StudyError) {
    var wanted: [Int] = []
    for column in columns {
      guard let index = header.firstIndex(of: column) else {
        throw .malformed(
          file: file, line: 1,
          problem: "no column \"\(column)\" among \(header.joined(separator: ", "))")
      }
      wanted.append(index)
    }
    var fields: [Range<Int>] = []
    while true {
      let first = line
      guard try Self.scan(bytes, file, &position, &line, &fields) else { return }
      if fields.count == 1, fields[0].isEmpty { continue }
      guard fields.count == header.count else {
        throw .malformed(
          file: file, line: first,
          problem: "\(fields.count) fields, but the header has \(header.count)")
      }
      var values: [String] = []
      for index in wanted {
        values.append(try Self.text(bytes, fields[index], file, first))
      }
      try body(values, first)
    }
  }

  private static let quote = UInt8(ascii: "\"")
  private static let comma = UInt8(ascii: ",")
  private static let carriageReturn = UInt8(ascii: "\r")
  private static let lineFeed = UInt8(ascii: "\n")

  /// Finds the fields of the next record; quoted fields keep their quotes.
  /// - Returns: false at the end of the input.
  private static func scan(
    _ bytes: [UInt8], _ file: String, _ position: inout Int, _ line: inout Int,
    _ fields: inout [Range<Int>]
  ) throws(StudyError) -> Bool {
    fields.removeAll(keepingCapacity: true)
    let end = bytes.count
    guard position < end else { return false }
    let firstLine = line
    while true {
      let start = position
      if position < end, bytes[position] == quote {
        position += 1
        while true {
          guard position < end, position - start <= fieldBytesMax else {
            throw .malformed(file: file, line: firstLine, problem: "a quoted field is not closed")
          }
          if bytes[position] == quote {
            position += 1
            guard position < end, bytes[position] == quote else { break }
          } else if bytes[position] == lineFeed {
            line += 1
          }
          position += 1
        }
      } else {
        while position < end, bytes[position] != comma, bytes[position] != lineFeed,
          bytes[position] != carriageReturn
        {
          guard bytes[position] != quote else {
            throw .malformed(
              file: file, line: line, problem: "a quote inside a field that does not start with one"
            )
          }
          position += 1
        }
      }
      fields.append(start..<position)
      guard position < end else { return true }
      switch bytes[position] {
      case comma:
        position += 1
        if position == end {
          fields.append(end..<end)
          return true
        }
      case lineFeed:
        position += 1
        line += 1
        return true
      case carriageReturn where position + 1 < end && bytes[position + 1] == lineFeed:
        position += 2
        line += 1
        return true
      case carriageReturn:
        throw .malformed(file: file, line: line, problem: "a carriage return without a line feed")
      default:
        throw .malformed(file: file, line: line, problem: "text after a closing quote")
      }
    }
  }

  /// The value of a field: without its quotes, doubled quotes made single.
  private static func text(
    _ bytes: [UInt8], _ range: Range<Int>, _ file: String, _ line: Int
  ) throws(StudyError) -> String {
    var value = Array(bytes[range])
    if value.first == quote {
      var plain: [UInt8] = []
      plain.reserveCapacity(value.count)
      var index = 1
      while index < value.count - 1 {
        plain.append(value[index])
        index += value[index] == quote ? 2 : 1
      }
      value = plain
    }
    guard let text = String(validating: value, as: UTF8.self) else {
      throw .malformed(file: file, line: line, problem: "the text is not UTF-8")
    }
    return text
  }
}
