import Foundation
import SweepCore

/// Why a directory of task files cannot be used.
package enum TaskLibraryError: Error, Equatable, CustomStringConvertible {
  case noDirectory(path: String)
  case noTaskFiles(path: String)
  case unreadable(path: String, reason: String)
  case tooLarge(path: String, bytes: Int, limit: Int)
  case sameID(id: String, first: String, second: String)

  package var description: String {
    switch self {
    case .noDirectory(let path):
      "There is no directory \(path). --tasks takes a directory with task files (*.yaml)."
    case .noTaskFiles(let path):
      "The directory \(path) holds no task file (*.yaml)."
    case .unreadable(let path, let reason):
      "The file \(path) cannot be read: \(reason)."
    case .tooLarge(let path, let bytes, let limit):
      "The file \(path) has \(bytes) bytes; at most \(limit) are allowed."
    case .sameID(let id, let first, let second):
      "The task \(id) is defined twice, in \(first) and in \(second); give one another id."
    }
  }
}

/// Task files of a user's directory beside the built-in ones.
///
/// Data files that they name are copied into the data directory under their SHA-256, where
/// coordinators and workers look for them, so that later changes of the originals do no harm.
package struct TaskLibrary {
  package let catalogue: TaskCatalogue

  private static let taskFileBytesMax = 1 << 20
  private static let dataFileBytesMax = 1 << 28

  /// - Parameters:
  ///   - directory: the user's directory. A task with the id of a built-in one replaces it.
  ///   - store: the data directory.
  ///   - check: what is wrong with a task's names and data, which are in the data directory by then;
  ///     the document is its file.
  /// - Throws: `InvalidTaskFile` with every problem of a file; `TaskLibraryError`.
  package init(
    directory: String, store: String,
    check: (_ definition: TaskDefinition, _ document: SpecNode) -> [SpecProblem] = { _, _ in [] }
  ) throws {
    let files = FileManager.default
    var isDirectory: ObjCBool = false
    guard files.fileExists(atPath: directory, isDirectory: &isDirectory), isDirectory.boolValue
    else { throw TaskLibraryError.noDirectory(path: directory) }
    let names: [String]
    do {
      names = try files.contentsOfDirectory(atPath: directory)
        .filter { $0.hasSuffix(".yaml") || $0.hasSuffix(".yml") }.sorted()
    } catch {
      throw TaskLibraryError.unreadable(path: directory, reason: error.localizedDescription)
    }
    guard !names.isEmpty else { throw TaskLibraryError.noTaskFiles(path: directory) }
    var own: [TaskDefinition] = []
    var origins: [String: String] = [:]
    for name in names {
      let path = "\(directory)/\(name)"
      let bytes = try Self.contents(of: path, limit: Self.taskFileBytesMax)
      let document = try SpecNode(taskFile: String(decoding: bytes, as: UTF8.self), name: path)
      let definition = try TaskDefinition(document: document, file: path) {
        relative throws(SpecProblem) in
        try Self.stored(relative, directory: directory, store: store)
      }
      let problems = check(definition, document)
      guard problems.isEmpty else { throw InvalidTaskFile(file: path, problems: problems) }
      if let first = origins.updateValue(path, forKey: definition.id) {
        throw TaskLibraryError.sameID(id: definition.id, first: first, second: path)
      }
      own.append(definition)
    }
    catalogue = TaskCatalogue(
      definitions: TaskCatalogue.builtIn.definitions.filter { origins[$0.id] == nil } + own)
  }

  /// Where a user's data file of this content lies in a data directory.
  package static func storedName(_ digest: ContentDigest) -> String { "tasks/\(digest)" }

  private static func contents(of path: String, limit: Int) throws(TaskLibraryError) -> Data {
    let data: Data
    do {
      data = try Data(contentsOf: URL(filePath: path))
    } catch {
      throw .unreadable(path: path, reason: error.localizedDescription)
    }
    guard data.count <= limit else {
      throw .tooLarge(path: path, bytes: data.count, limit: limit)
    }
    return data
  }

  private static func stored(
    _ relative: String, directory: String, store: String
  ) throws(SpecProblem) -> ContentDigest {
    func problem(_ message: String) -> SpecProblem {
      SpecProblem(
        path: "data.path", position: SpecPosition(line: 0, column: 0), message: message)
    }
    let path = relative.hasPrefix("/") ? relative : "\(directory)/\(relative)"
    let data: Data
    do {
      data = try contents(of: path, limit: dataFileBytesMax)
    } catch {
      throw problem("names a file that cannot be used. \(error)")
    }
    let digest = ContentDigest(of: data)
    let target = URL(filePath: "\(store)/\(storedName(digest))")
    do {
      try FileManager.default.createDirectory(
        at: target.deletingLastPathComponent(), withIntermediateDirectories: true)
      if (try? Data(contentsOf: target)) != data { try data.write(to: target, options: .atomic) }
    } catch {
      throw problem(
        "names \(path), which cannot be copied to \(target.path): \(error.localizedDescription)")
    }
    return digest
  }
}

extension TaskDefinition {
  /// - Parameters:
  ///   - file: how errors name the document.
  ///   - resolve: the content of a user's data file at a path relative to the task file.
  /// - Throws: `InvalidTaskFile` with every problem.
  package init(
    yaml text: String, file: String,
    resolve: (String) throws(SpecProblem) -> ContentDigest = { path throws(SpecProblem) in
      throw SpecProblem(
        path: "data.path", position: SpecPosition(line: 0, column: 0),
        message: "names the file \(path), but a task that stands alone has no files")
    }
  ) throws {
    try self.init(
      document: SpecNode(taskFile: text, name: file), file: file, resolve: resolve)
  }
}

extension SpecNode {
  /// - Throws: `InvalidTaskFile` for what is no YAML.
  fileprivate init(taskFile text: String, name: String) throws {
    do {
      try self.init(yaml: text)
    } catch let error as InvalidSpec {
      throw InvalidTaskFile(file: name, problems: error.problems)
    }
  }
}

extension TaskCatalogue {
  /// The tasks that come with BiasSweep, in the study's order.
  package static let builtIn = TaskCatalogue(
    definitions: [
      ("occupation", PackageResources.occupation_yaml),
      ("hiring", PackageResources.hiring_yaml),
      ("salary", PackageResources.salary_yaml),
      ("story", PackageResources.story_yaml),
      ("value-survey", PackageResources.value_survey_yaml),
      ("social-bias-qa", PackageResources.social_bias_qa_yaml),
      ("stereotype", PackageResources.stereotype_yaml),
      ("group-bias", PackageResources.group_bias_yaml),
      ("sarcasm", PackageResources.sarcasm_yaml),
      ("stance", PackageResources.stance_yaml),
      ("stress", PackageResources.stress_yaml),
      ("offensive", PackageResources.offensive_yaml),
      ("hate", PackageResources.hate_yaml),
    ].map { name, bytes in
      do {
        return try TaskDefinition(
          yaml: String(decoding: bytes, as: UTF8.self), file: "\(name).yaml")
      } catch {
        preconditionFailure("a built-in task file is wrong: \(error)")
      }
    })
}
