import Foundation

/// Why a model file, a tokenizer or a weight cache cannot be used.
package enum ModelFileError: Error, Equatable, CustomStringConvertible {
  /// What part of a file an error is about.
  package enum Place: Equatable, Sendable, CustomStringConvertible {
    case file
    /// Bytes from the start of the file.
    case byte(Int)
    /// A metadata key or a JSON path such as `model.merges[3]`.
    case key(String)
    case tensor(String)

    package var description: String {
      switch self {
      case .file: "the file as a whole"
      case .byte(let offset): "byte \(offset)"
      case .key(let key): "key \(key)"
      case .tensor(let name): "tensor \(name)"
      }
    }
  }

  /// Nothing exists at the path. Retrying helps only after the file was put there.
  case notFound(path: String)
  /// A system call failed; `code` is its errno.
  case system(operation: String, path: String, code: Int32)
  /// The content contradicts its own format.
  case malformed(path: String, place: Place, problem: String)
  /// The content is well-formed but asks for something that is not implemented.
  case unsupported(path: String, place: Place, found: String, supported: String)
  /// A part that every model of this kind has is absent.
  case missing(path: String, place: Place)
  /// A tensor does not have the shape that the configuration implies.
  case shapeMismatch(path: String, tensor: String, expected: [Int], found: [Int])

  package var description: String {
    switch self {
    case .notFound(let path):
      """
      No model file at \(path): give the path of a .gguf file or of a Hugging Face model \
      directory, or run scripts/fetch-model to obtain the default model.
      """
    case .system(let operation, let path, let code):
      """
      Cannot \(operation) \(path): \(String(cString: strerror(code))) (errno \(code)). \
      \(Self.advice(forSystemError: code))
      """
    case .malformed(let path, let place, let problem):
      """
      Damaged file \(path), at \(place): \(problem). Fetch or copy the file again; for the default \
      model: scripts/fetch-model --force.
      """
    case .unsupported(let path, let place, let found, let supported):
      """
      Unsupported content in \(path), at \(place): found \(found), supported: \(supported). \
      Use another model, or convert this one.
      """
    case .missing(let path, let place):
      """
      Incomplete file \(path): \(place) is missing. Fetch or copy the complete model again; for \
      the default model: scripts/fetch-model --force.
      """
    case .shapeMismatch(let path, let tensor, let expected, let found):
      """
      Wrong shape in \(path), at tensor \(tensor): the configuration implies \(expected), the file \
      has \(found). Weights and configuration do not belong together: fetch both again.
      """
    }
  }

  private static func advice(forSystemError code: Int32) -> String {
    switch code {
    case ENOSPC, EDQUOT:
      "Free some space, or choose another cache directory with BIASSWEEP_CACHE."
    case EACCES, EPERM, EROFS:
      "Check the permissions, or choose another cache directory with BIASSWEEP_CACHE."
    default: "Check the path and the file system, then try again."
    }
  }
}
