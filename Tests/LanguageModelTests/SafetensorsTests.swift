import Foundation
import LanguageModel
import RandomStreams
import Testing

@Suite struct SafetensorsTests {
  private let scratch: ScratchDirectory

  init() throws { scratch = try ScratchDirectory() }

  private func file(header: String, data: [UInt8]) throws -> SafetensorsFile {
    let bytes = little(UInt64(header.utf8.count)) + Array(header.utf8) + data
    return try SafetensorsFile(path: try scratch.write(bytes, to: "t.safetensors"))
  }

  @Test func whatIsWrittenIsReadBack() throws {
    let path = scratch.file("w.safetensors")
    let content: [String: [Float]] = [
      "b": [1, -2, 0.5], "a/x": [3], "é\"": [], "c": [4, 5, 6, 7],
    ]
    let shapes = ["b": [3], "a/x": [1, 1], "é\"": [0, 2], "c": [2, 2]]
    try SafetensorsFile.write(
      shapes.map { .init(name: $0.key, shape: $0.value) }, metadata: ["r": "8"], to: path
    ) { content[$0.name]! }
    let file = try SafetensorsFile(path: path)
    #expect(file.names == shapes.keys.sorted())
    #expect(file.metadata == ["r": "8"])
    for (name, values) in content {
      #expect(file.shape(of: name) == shapes[name])
      #expect(try file.floats(name) == values)
    }
  }

  @Test func equalContentGivesEqualBytesInTheFormatOfTheReference() throws {
    let entries = ["b", "a", "c"].map { SafetensorsFile.Entry(name: $0, shape: [1]) }
    try SafetensorsFile.write(entries, to: scratch.file("1")) { _ in [1] }
    try SafetensorsFile.write(entries.reversed(), to: scratch.file("2")) { _ in [1] }
    let first = try bytes(of: scratch.file("1"))
    #expect(try bytes(of: scratch.file("2")) == first)
    let header = """
      {"a":{"data_offsets":[0,4],"dtype":"F32","shape":[1]},\
      "b":{"data_offsets":[4,8],"dtype":"F32","shape":[1]},\
      "c":{"data_offsets":[8,12],"dtype":"F32","shape":[1]}}
      """
    let padded = header + String(repeating: " ", count: (8 - header.utf8.count % 8) % 8)
    #expect(
      first == little(UInt64(padded.utf8.count)) + Array(padded.utf8)
        + [Float](repeating: 1, count: 3).flatMap { little($0.bitPattern) })
  }

  @Test func aFailedWriteLeavesTheOldFile() throws {
    struct Stop: Error {}
    let entry = SafetensorsFile.Entry(name: "t", shape: [1])
    let path = scratch.file("t.safetensors")
    try SafetensorsFile.write([entry], to: path) { _ in [1] }
    #expect(throws: Stop.self) {
      try SafetensorsFile.write([entry], to: path) { _ in throw Stop() }
    }
    #expect(try SafetensorsFile(path: path).floats("t") == [1])
    #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path).count == 1)
  }

  @Test func halfPrecisionIsConverted() throws {
    let file = try file(
      header: """
        {"h":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},\
        "b":{"dtype":"BF16","shape":[2],"data_offsets":[4,8]},\
        "i":{"dtype":"I64","shape":[1],"data_offsets":[8,16]}}
        """,
      data: little(UInt16(0x3C00)) + little(UInt16(0xC000)) + little(UInt16(0x3F80))
        + little(UInt16(0x4049)) + [UInt8](repeating: 0, count: 8))
    #expect(try file.floats("h") == [1, -2])
    #expect(try file.floats("b") == [1, 3.140625])
    let error = modelFileError { _ = try file.floats("i") }
    #expect(error?.description.contains("I64") == true)
  }

  @Test(arguments: [
    #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}}"#,
    #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
    #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
    #"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#,
    #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#,
    #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}}"#,
    #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}"#,
    #"{"a":{"dtype":"F32","shape":[-2,-1],"data_offsets":[0,8]}}"#,
    #"{"a":{"dtype":"F32","shape":[4611686018427387904,2],"data_offsets":[0,8]}}"#,
    #"{"a":{"dtype":"F32","shape":[2]}}"#,
    #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"#
      + #""b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
    #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#,
    #"[]"#, "", "{}", "nul\u{0}",
  ])
  func aHeaderThatDoesNotFitTheDataIsRefused(header: String) {
    let error = modelFileError {
      _ = try file(header: header, data: [UInt8](repeating: 0, count: 8)).floats("a")
    }
    #expect(error != nil)
  }

  @Test func truncatedAndDamagedFilesNeverCrash() throws {
    try TinyModel().writeHuggingFace(to: scratch.path)
    let path = scratch.file("model.safetensors")
    let whole = try bytes(of: path)
    let headerLength = 2200
    for length in stride(from: 0, to: whole.count, by: 31) {
      try scratch.write(whole[..<length], to: "model.safetensors")
      #expect(modelFileError { _ = try SafetensorsFile(path: path) } != nil, "length \(length)")
    }
    var generator = RandomStream(seed: 5, purpose: "damage")
    for round in 0..<1500 {
      var bytes = whole
      for _ in 0..<Int.random(in: 1...3, using: &generator) {
        bytes[Int.random(in: 0..<headerLength, using: &generator)] = .random(
          in: 0...255, using: &generator)
      }
      try scratch.write(bytes, to: "model.safetensors")
      expectClearFailure("round \(round)", mentioning: scratch.path) {
        _ = try ModelWeights.load(from: scratch.path, cacheDirectory: nil)
      }
    }
  }
}
