import Foundation

/// The files that a model consists of, named by their content, so that another machine can have the
/// same model.
package struct ModelFiles: Sendable {
  package struct File: Sendable, Hashable {
    /// The name of a GGUF file, or DIRECTORY/NAME of a Hugging Face directory.
    package let name: String
    package let path: String
    /// SHA-256 (hex) of the content.
    package let digest: String
    package let bytes: Int
  }

  package let files: [File]

  /// - Parameters:
  ///   - path: a `.gguf` file or a Hugging Face directory.
  ///   - cacheDirectory: where digests are remembered, so that files are read once.
  /// - Throws: `ModelFileError`.
  package init(at path: String, cacheDirectory: String) throws {
    let digests = SourceDigest(directory: cacheDirectory + "/weights/sources")
    let location = URL(fileURLWithPath: path).standardizedFileURL
    let names: [(name: String, path: String)]
    switch try ModelSource(path: path) {
    case .gguf:
      names = [(location.lastPathComponent, location.path)]
    case .huggingFace(let directory):
      names = directory.allFileNames.map {
        ("\(location.lastPathComponent)/\($0)", "\(location.path)/\($0)")
      }
    }
    files = try names.map { name, path in
      File(
        name: name, path: path, digest: try digests.digest(ofFile: path),
        bytes: try BinaryFile(path: path).size)
    }
  }
}
