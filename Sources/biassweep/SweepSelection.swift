import ArgumentParser
import BiasStudy
import Foundation
import StudyDocuments
import SweepCore

/// Which sweep a command is about: a preset or a grid file.
struct SweepSelection: ParsableArguments {
  @Option(name: .long, help: "A sweep that comes with BiasSweep: \(Preset.names).")
  var preset: Preset?

  @Option(name: .long, help: "A sweep of your own: a YAML file.")
  var grid: String?

  @OptionGroup var taskSelection: TaskSelection

  func validate() throws {
    guard (preset == nil) != (grid == nil) else {
      throw ValidationError("Name the sweep with either --preset or --grid.")
    }
  }

  /// - Throws: `InvalidSpec` with every problem, or `UsageError` when there is no such file;
  ///   `InvalidTaskFile` and `TaskLibraryError` for `--tasks`.
  func definition() throws -> SweepDefinition {
    try SweepDefinition(
      document: document(), catalogue: taskSelection.catalogue(),
      words: WordLists.mitigationWords)
  }

  private static let specBytesMax = 1 << 20

  private func document() throws -> SpecNode {
    if let preset { return try SpecNode(yaml: preset.yaml) }
    let path = grid ?? ""
    guard let data = FileManager.default.contents(atPath: path) else {
      throw UsageError(description: "Cannot read the grid file \(path). Check the path.")
    }
    guard data.count <= Self.specBytesMax else {
      throw UsageError(
        description: "The grid file \(path) has \(data.count) bytes; at most \(Self.specBytesMax) "
          + "are allowed. Is it a grid file?")
    }
    guard let text = String(data: data, encoding: .utf8) else {
      throw UsageError(description: "The grid file \(path) is not UTF-8 text.")
    }
    return try SpecNode(yaml: text)
  }
}

extension Preset: ExpressibleByArgument {
  static var names: String { allCases.map(\.rawValue).joined(separator: ", ") }
}

/// Where the definitions of tasks come from.
struct TaskSelection: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "A directory with task files of your own (*.yaml) and their data (JSON lines or CSV), to be "
        + "used beside the built-in tasks.", valueName: "directory"))
  var tasks: String?

  /// - Throws: `InvalidTaskFile`, `TaskLibraryError`.
  func catalogue() throws -> TaskCatalogue {
    guard let tasks else { return .builtIn }
    let store = Cache.directory("data")
    return try TaskLibrary(directory: tasks, store: store) {
      TaskCheck.problems(of: $0, document: $1, store: DatasetStore(directory: store))
    }.catalogue
  }
}
