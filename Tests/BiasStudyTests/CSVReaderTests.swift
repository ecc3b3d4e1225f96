import BiasStudy
import Testing

struct CSVReaderTests {
  private func records(_ text: String, _ columns: [String]) throws -> [[String]] {
    var reader = try CSVReader(bytes: Array(text.utf8), file: "x.csv")
    var records: [[String]] = []
    try reader.forEachRecord(columns: columns) { record, _ in records.append(record) }
    return records
  }

  @Test func quotedFieldsHoldCommasQuotesAndLineEnds() throws {
    let found = try records("a,b,c\r\n1,\"x,\"\"y\"\"\r\nz\",3\r\n\"\",,\n", ["b", "a"])
    #expect(found == [["x,\"y\"\r\nz", "1"], ["", ""]])
  }

  @Test func lastLineNeedsNoLineEndAndByteOrderMarkIsSkipped() throws {
    #expect(try records("\u{FEFF}a,b\n1,2\n\n3,", ["a", "b"]) == [["1", "2"], ["3", ""]])
  }

  @Test(arguments: [
    ("a,b\n1,2\n3\n", 3, "1 fields"), ("a,b\n1,\"2\n3\n", 2, "not closed"),
    ("a,b\n1,\"2\"x\n", 2, "after a closing quote"), ("a,b\n1,2\"\n", 2, "a quote inside"),
    ("a,b\n\"x\ny\",2\n1,2\r3\n", 4, "carriage return"), ("a,c\n1,2\n", 1, "no column \"b\""),
    ("", 1, "empty"),
  ]) func errorNamesFileAndLine(text: String, line: Int, problem: String) throws {
    let error = studyError { _ = try records(text, ["b"]) }
    guard case .malformed("x.csv", line, let found)? = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(found.contains(problem))
  }

  @Test func textThatIsNotUTF8IsRefused() throws {
    var reader = try CSVReader(bytes: [97, 10, 0xFF, 10], file: "x.csv")
    let error = studyError { try reader.forEachRecord(columns: ["a"]) { _, _ in } }
    #expect(error == .malformed(file: "x.csv", line: 2, problem: "the text is not UTF-8"))
  }

  @Test func everyTableSurvivesWritingAndReading() throws {
    var chance = StudyGenerator(seed: 7)
    let alphabet = ["a", "é", "\"", ",", "\n", "\r\n", " ", "𝄞", "'"]
    for _ in 0..<300 {
      let columns = 1 + chance.below(4)
      let rows = (0..<chance.below(6)).map { _ in
        (0..<columns).map { _ in
          "x" + (0..<chance.below(6)).map { _ in chance.element(of: alphabet) }.joined()
        }
      }
      let header = (0..<columns).map { "column\($0)" }
      let text = ([header] + rows).map { row in
        row.map { "\"\($0.replacing("\"", with: "\"\""))\"" }.joined(separator: ",")
      }.joined(separator: chance.below(2) == 0 ? "\n" : "\r\n")
      #expect(try records(text, header) == rows)
    }
  }

  @Test func damagedInputIsReadOrRefusedButNeverCrashes() {
    var chance = StudyGenerator(seed: 11)
    let original = Array("a,b\r\n1,\"x\"\"\ny\"\r\n2,é\r\n".utf8)
    for _ in 0..<3000 {
      var bytes = Array(original.prefix(chance.below(original.count + 1)))
      for _ in 0..<chance.below(4) where !bytes.isEmpty {
        bytes[chance.below(bytes.count)] = UInt8(chance.below(256))
      }
      _ = studyError {
        var reader = try CSVReader(bytes: bytes, file: "fuzz")
        let header = reader.header
        try reader.forEachRecord(columns: header) { record, line in
          #expect(record.count == header.count && line > 1)
        }
      }
    }
  }
}
