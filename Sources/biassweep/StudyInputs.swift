import BiasStudy
import Foundation
import LanguageModel
import Logging
import StudyDocuments
import SweepCoordinator
import SweepCore
import SweepWorker

/// Model and data files of a sweep: what a coordinator hands out, and how a worker comes by them.
struct StudyInputs {
  let spec: SweepSpec

  /// A file in the data directory.
  private struct DataFile {
    let name: String
    let digest: ContentDigest
    var path: String { "\(StudyInputs.store.directory)/\(name)" }

    /// Whether it is there, and what it should be.
    var isWhole: Bool {
      (try? Data(contentsOf: URL(fileURLWithPath: path), options: .mappedIfSafe)).map {
        ContentDigest(of: $0) == digest
      } ?? false
    }
  }

  /// The data files of the sweep's tasks: those of the manifest, and the user's under their digests.
  private var dataFiles: [DataFile] {
    let listed = DataManifest.files(of: spec.definedTasks).compactMap { file in
      ContentDigest(hex: file.sha256).map {
        DataFile(name: "\(file.dataset)/\(file.file)", digest: $0)
      }
    }
    let own = spec.definedTasks.compactMap { task in
      if case .file(_, let digest) = task.data.source {
        DataFile(name: TaskLibrary.storedName(digest), digest: digest)
      } else {
        nil
      }
    }
    return listed + own
  }

  private static let store = DatasetStore(directory: Cache.directory("data"))

  // MARK: Coordinator

  /// The files that this machine has; a coordinator need not have any.
  func catalogue(logger: Logger) -> InputCatalogue {
    InputCatalogue(logger: logger) {
      var files: [(file: InputFile, path: String)] = []
      if let location = try? ModelLocation(spec.model) {
        for file in try ModelFiles(at: location.path, cacheDirectory: Cache.root).files {
          if let digest = ContentDigest(hex: file.digest),
            let input = InputFile(
              input: .model, name: file.name, digest: digest, bytes: file.bytes)
          {
            files.append((input, file.path))
          }
        }
      }
      for file in dataFiles {
        if let bytes = Self.size(of: file.path),
          let input = InputFile(
            input: .data, name: file.name, digest: file.digest, bytes: bytes)
        {
          files.append((input, file.path))
        }
      }
      return files
    }
  }

  // MARK: Worker

  /// The model to load: that of this machine if it has the coordinator's content, else a copy of
  /// the coordinator's in the cache directory, fetched if need be.
  ///
  /// - Throws: `InfrastructureError` when there is none in either place.
  func modelPath(from source: InputSource) throws -> String {
    let files = try source.files().filter { $0.input == .model }
    guard let root = files.first?.name.split(separator: "/").first else {
      return try ModelLocation(spec.model).path
    }
    if let local = try? ModelLocation(spec.model).path,
      let found = try? ModelFiles(at: local, cacheDirectory: Cache.root).files,
      Set(found.map(\.digest)) == Set(files.map(\.digest.description))
    {
      return local
    }
    let content = files.map { "\($0.digest) \($0.name)\n" }.sorted().joined()
    let directory =
      Cache.directory("received/")
      + ContentDigest(of: content.utf8).description.prefix(16)
    for file in files { try source.fetch(file, "\(directory)/\(file.name)") }
    return "\(directory)/\(root)"
  }

  /// The data directory, after fetching the files that it lacks or that are damaged.
  func dataStore(from source: InputSource) throws -> DatasetStore {
    let missing = dataFiles.filter { !$0.isWhole }
    guard !missing.isEmpty else { return Self.store }
    let offered = try source.files().filter { $0.input == .data }
    for file in missing {
      // What nobody has is named, with what to do, when the data are read.
      if let offer = offered.first(where: { $0.digest == file.digest }) {
        try source.fetch(offer, file.path)
      }
    }
    return Self.store
  }

  private static func size(of path: String) -> Int? {
    var status = stat()
    return stat(path, &status) == 0 ? Int(status.st_size) : nil
  }
}
