import Foundation
import Logging
import SweepLog
import SweepTestKit
import Testing

@Suite struct LineLogHandlerTests {
  private func lines(
    _ format: LogFormat, _ body: (inout Logger, LogOutput, URL) throws -> Void
  ) throws -> [String] {
    let directory = try TemporaryDirectory()
    let file = URL(fileURLWithPath: directory.file("log"))
    let output = try LogOutput(path: file.path)
    var logger = Logger(label: "test") { _ in
      LineLogHandler(
        format: format, level: .info, output: output,
        now: { Date(timeIntervalSince1970: 1_800_000_000.5) })
    }
    try body(&logger, output, file)
    return try String(contentsOf: file, encoding: .utf8).split(separator: "\n").map(String.init)
  }

  @Test func textHasTimeLevelMessageAndSortedMetadata() throws {
    let lines = try lines(.text) { logger, _, _ in
      logger[metadataKey: "worker.id"] = "w1"
      logger.warning("attempt ended", metadata: ["evidence": "disk full", "attempt": "2"])
      logger.debug("not at this level")
    }
    #expect(
      lines == [
        "2027-01-15T08:00:00.500Z warning attempt ended attempt=2 evidence=\"disk full\" "
          + "worker.id=w1"
      ])
  }

  @Test func jsonIsOneObjectALine() throws {
    let lines = try lines(.json) { logger, _, _ in
      logger.info("shard leased", metadata: ["shard.id": "a\"b\\c\u{1B}\nd"])
    }
    let line = try #require(lines.first)
    #expect(lines.count == 1)
    let object = try JSONDecoder().decode([String: String].self, from: Data(line.utf8))
    #expect(
      object == [
        "time": "2027-01-15T08:00:00.500Z", "level": "info", "message": "shard leased",
        "shard.id": "a\"b\\c\u{1B}\nd",
      ])
  }

  /// A peer that is refused chooses part of the line.
  @Test(arguments: LogFormat.allCases)
  func aValueCannotForgeALine(format: LogFormat) throws {
    let lines = try lines(format) { logger, _, _ in
      logger.info("refused", metadata: ["peer": "x\n2027 error all is lost\u{1B}[2J\u{9B}2J"])
    }
    #expect(lines.count == 1)
    #expect(!(lines.first ?? "").unicodeScalars.contains { $0.value < 0x20 || $0.value == 0x9B })
  }

  @Test func reopeningFollowsAFileThatWasMovedAway() throws {
    let rest = try lines(.text) { logger, output, file in
      logger.info("first")
      let moved = file.deletingLastPathComponent().appendingPathComponent("log.1")
      try FileManager.default.moveItem(at: file, to: moved)
      logger.info("second")
      try output.reopen()
      logger.info("third")
      let old = try String(contentsOf: moved, encoding: .utf8)
      #expect(old.contains("first") && old.contains("second") && !old.contains("third"))
    }
    #expect(rest.count == 1)
    #expect(rest.first?.hasSuffix("third") == true)
  }

  @Test func aLogThatCannotBeOpenedIsReported() throws {
    let error = #expect(throws: LogOutput.CannotOpen.self) {
      try LogOutput(path: "/nowhere/at/all/log")
    }
    #expect("\(String(describing: error))".contains("/nowhere/at/all/log"))
  }
}
