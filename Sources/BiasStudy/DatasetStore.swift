import Crypto
import SweepCore

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// The data files in the cache directory, each checked against the manifest when it is read.
package struct DatasetStore: Sendable {
  /// Directory that holds `<dataset>/<file>`.
  package let directory: String

  package init(directory: String) {
    self.directory = directory
  }

  /// Where a file of a data set lies.
  package func path(_ dataset: String, _ file: String) -> String {
    "\(directory)/\(dataset)/\(file)"
  }

  /// Whether all files of the named data sets exist (their contents are checked when read).
  package func contains(_ datasets: String...) -> Bool {
    DataManifest.files.filter { datasets.contains($0.dataset) }
      .allSatisfy { FileManager.default.fileExists(atPath: path($0.dataset, $0.file)) }
  }

  /// The bytes of a file.
  /// - Throws: `StudyError` if the file is missing, unreadable, or not the manifest's.
  package func read(_ dataset: String, _ file: String) throws(StudyError) -> [UInt8] {
    let path = path(dataset, file)
    guard FileManager.default.fileExists(atPath: path) else {
      throw .missingFile(path: path, dataset: dataset)
    }
    let data: Data
    do {
      data = try Data(contentsOf: URL(filePath: path), options: .alwaysMapped)
    } catch {
      throw .unreadableFile(path: path, reason: "\(error)")
    }
    let bytes = [UInt8](data)
    let found = ContentDigest(of: bytes).description
    let expected = DataManifest[dataset, file].sha256
    guard found == expected else {
      throw .wrongDigest(path: path, dataset: dataset, expected: expected, found: found)
    }
    return bytes
  }
}

/// The list of data files that `scripts/fetch-data` fetches and the study reads.
package enum DataManifest {
  package struct File: Decodable, Sendable {
    package let dataset: String
    package let file: String
    package let sha256: String
    package let licence: String
  }

  private struct Document: Decodable {
    let files: [File]
    let presets: [String: [String]]
  }

  private static let document: Document = {
    do {
      return try JSONDecoder().decode(
        Document.self, from: Data(PackageResources.data_manifest_json))
    } catch {
      preconditionFailure("the embedded data manifest is malformed: \(error)")
    }
  }()

  /// All files, in the manifest's order.
  package static var files: [File] { document.files }

  /// Names of the data sets, in the manifest's order.
  package static var datasets: [String] {
    var seen: Set<String> = []
    return files.map(\.dataset).filter { seen.insert($0).inserted }
  }

  /// The data sets that a preset needs.
  package static func datasets(ofPreset preset: String) -> [String] {
    document.presets[preset] ?? []
  }

  package static subscript(dataset: String, file: String) -> File {
    guard let found = files.first(where: { $0.dataset == dataset && $0.file == file }) else {
      preconditionFailure("\(dataset)/\(file) is not in the data manifest")
    }
    return found
  }

  /// Identifies the data that the given domains use: SHA-256 over the names and digests of their
  /// files and over the embedded resources.
  package static func digest(of domains: Set<Domain>) -> ContentDigest {
    var text = ""
    let used = Set(domains.flatMap(StudyData.datasets))
    for file in files where used.contains(file.dataset) {
      text += "\(file.dataset)/\(file.file)\t\(file.sha256)\n"
    }
    for resource in [
      PackageResources.survey_tsv, PackageResources.stories_tsv, PackageResources.words_tsv,
    ] {
      text += "\(ContentDigest(of: resource))\n"
    }
    return ContentDigest(of: text.utf8)
  }
}
