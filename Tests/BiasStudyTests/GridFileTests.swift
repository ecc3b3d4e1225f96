import Foundation
import StudyDocuments
import SweepCore
import Testing

/// The grids that the project's own checks run.
struct GridFileTests {
  @Test func everyGridOfTheChecksIsAValidSpec() throws {
    let directory = URL(filePath: #filePath).deletingLastPathComponent()
      .appending(path: "../../.ci").standardizedFileURL.path
    let names = try FileManager.default.contentsOfDirectory(atPath: directory)
      .filter { $0.hasSuffix(".yaml") }.sorted()
    try #require(!names.isEmpty)
    for name in names {
      let text = try String(contentsOfFile: "\(directory)/\(name)", encoding: .utf8)
      _ = try SweepDefinition(document: SpecNode(yaml: text), catalogue: .builtIn)
    }
  }
}
