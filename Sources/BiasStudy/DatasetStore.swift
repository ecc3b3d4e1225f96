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

  /// The bytes of a user's data file, which lies under its digest.
  /// - Throws: `StudyError` if the file is missing, unreadable or damaged.
  package func read(_ name: String, sha256: ContentDigest) throws(StudyError) -> [UInt8] {
    let path = "\(directory)/tasks/\(sha256)"
    guard FileManager.default.fileExists(atPath: path) else {
      throw .missingTaskFile(path: path, name: name)
    }
    let bytes = try contents(of: path)
    let found = ContentDigest(of: bytes)
    guard found == sha256 else { throw .damagedTaskFile(path: path, name: name) }
    return bytes
  }

  private func contents(of path: String) throws(StudyError) -> [UInt8] {
    do {
      return [UInt8](try Data(contentsOf: URL(filePath: path), options: .alwaysMapped))
    } catch {
      throw .unreadableFile(path: path, reason: "\(error)")
    }
  }

  /// The bytes of a file.
  /// - Throws: `StudyError` if the file is missing, unreadable, or not the manifest's.
  package func read(_ dataset: String, _ file: String) throws(StudyError) -> [UInt8] {
    guard let entry = DataManifest.entry(dataset, file) else {
      throw .unknownFile(dataset: dataset, file: file)
    }
    let path = path(dataset, file)
    guard FileManager.default.fileExists(atPath: path) else {
      throw .missingFile(path: path, dataset: dataset)
    }
    let bytes = try contents(of: path)
    let found = ContentDigest(of: bytes).description
    let expected = entry.sha256
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

  /// A file of the manifest; nil if it has none of this name.
  package static func entry(_ dataset: String, _ file: String) -> File? {
    files.first { $0.dataset == dataset && $0.file == file }
  }

  /// The files that sweeps over these tasks read, in the manifest's order.
  package static func files(of tasks: some Sequence<TaskDefinition>) -> [File] {
    var wanted = StudyData.commonFiles
    for task in tasks {
      wanted += StudyData.domainFiles(task.domain)
      if task.metrics.contains(.sentiment) { wanted.append(StudyData.lexicon) }
      switch task.data.source {
      case .dataset(let name, let file): wanted.append((name, file))
      case .collection(let name): wanted += TaskCollection(rawValue: name)?.files ?? []
      case .file: break
      }
    }
    return files.filter { file in
      wanted.contains { $0.dataset == file.dataset && $0.file == file.file }
    }
  }

  /// Identifies the data that sweeps over these tasks use: SHA-256 over the names and digests of
  /// their files and over the embedded resources.
  package static func digest(of tasks: some Sequence<TaskDefinition>) -> ContentDigest {
    var text = ""
    let tasks = Array(tasks)
    for file in files(of: tasks) { text += "\(file.dataset)/\(file.file)\t\(file.sha256)\n" }
    for task in tasks {
      if case .file(let name, let digest) = task.data.source { text += "\(name)\t\(digest)\n" }
    }
    for resource in [
      PackageResources.survey_tsv, PackageResources.stories_tsv, PackageResources.words_tsv,
    ] {
      text += "\(ContentDigest(of: resource))\n"
    }
    return ContentDigest(of: text.utf8)
  }
}
