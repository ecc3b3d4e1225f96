import Foundation

/// A key that is not known at compile time.
struct JSONKey: CodingKey {
  var stringValue: String
  var intValue: Int? { nil }

  init(stringValue: String) { self.stringValue = stringValue }
  init?(intValue: Int) { nil }
}

/// Decodes JSON that was read from `path`.
///
/// - Throws: `ModelFileError.malformed`, with the path of the key or the place of a syntax error.
func decodeJSON<T: Decodable>(_ type: T.Type, from data: Data, path: String) throws -> T {
  do {
    return try JSONDecoder().decode(type, from: data)
  } catch let error as DecodingError {
    let context: DecodingError.Context
    let problem: String
    switch error {
    case .keyNotFound(let key, let found):
      throw ModelFileError.missing(path: path, place: place(found.codingPath + [key]))
    case .typeMismatch(let expected, let found):
      context = found
      problem = "a value of another type than \(expected)"
    case .valueNotFound(_, let found):
      context = found
      problem = "null where a value is needed"
    case .dataCorrupted(let found):
      context = found
      let underlying = found.underlyingError.map { ($0 as NSError).userInfo }
      let detail = underlying?["NSDebugDescription"] as? String
      problem = detail ?? found.debugDescription
    @unknown default:
      throw ModelFileError.malformed(path: path, place: .file, problem: "\(error)")
    }
    throw ModelFileError.malformed(
      path: path, place: place(context.codingPath), problem: problem)
  } catch {
    throw ModelFileError.malformed(path: path, place: .file, problem: "\(error)")
  }
}

/// Reads and decodes a whole JSON file.
///
/// - Throws: `ModelFileError`; a file above 64 MiB is refused.
func decodeJSONFile<T: Decodable>(_ type: T.Type, at path: String) throws -> T {
  let file = try BinaryFile(path: path)
  let sizeMax = 1 << 26
  guard file.size <= sizeMax else {
    throw ModelFileError.malformed(
      path: path, place: .file, problem: "\(file.size) bytes of JSON, more than \(sizeMax)")
  }
  return try decodeJSON(type, from: Data(try file.bytes(at: 0, count: file.size)), path: path)
}

private func place(_ codingPath: [any CodingKey]) -> ModelFileError.Place {
  guard !codingPath.isEmpty else { return .file }
  var text = ""
  for key in codingPath {
    if let index = key.intValue {
      text += "[\(index)]"
    } else {
      text += (text.isEmpty ? "" : ".") + key.stringValue
    }
  }
  return .key(text)
}
