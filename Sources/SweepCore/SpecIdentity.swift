#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// Foundation's byte buffer; `SweepSpec.Data` hides its name inside the spec.
private typealias FoundationData = Data

extension SweepSpec {
  /// The spec as JSON with sorted keys and without white space: equal specs, equal bytes.
  package func canonicalJSON() throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return String(decoding: try encoder.encode(self), as: UTF8.self)
  }

  package init(canonicalJSON text: String) throws {
    self = try JSONDecoder().decode(SweepSpec.self, from: FoundationData(text.utf8))
  }

  /// Identifies the experiment: SHA-256 of the canonical JSON.
  package func digest() throws -> ContentDigest {
    ContentDigest(of: try canonicalJSON().utf8)
  }

  /// The settings in which two specs differ, as lines `path: ours here, theirs there`.
  ///
  /// - Parameter other: the spec that `self` is compared with.
  package func differences(from other: SweepSpec) throws -> [SpecDifference] {
    let ours = try settings()
    let theirs = try other.settings()
    return Set(ours.keys).union(theirs.keys).sorted().compactMap { path in
      ours[path] == theirs[path]
        ? nil : SpecDifference(path: path, here: ours[path], there: theirs[path])
    }
  }

  /// Every setting as path and JSON text.
  private func settings() throws -> [String: String] {
    let value = try JSONDecoder().decode(
      JSONValue.self, from: FoundationData(canonicalJSON().utf8))
    var settings: [String: String] = [:]
    func collect(_ value: JSONValue, at path: String) {
      if case .object(let members) = value {
        for (key, member) in members { collect(member, at: path.isEmpty ? key : "\(path).\(key)") }
      } else {
        settings[path] = value.description
      }
    }
    collect(value, at: "")
    return settings
  }
}

/// One setting that differs between two specs; nil where a spec does not have it.
package struct SpecDifference: Hashable, Sendable, CustomStringConvertible {
  package let path: String
  package let here: String?
  package let there: String?

  package var description: String {
    "\(path): \(there ?? "(not set)") → \(here ?? "(not set)")"
  }
}

/// Any JSON document, for comparing specs setting by setting.
private enum JSONValue: Decodable, CustomStringConvertible {
  case object([String: JSONValue])
  case array([JSONValue])
  case scalar(String)

  init(from decoder: any Decoder) throws {
    if let members = try? decoder.singleValueContainer().decode([String: JSONValue].self) {
      self = .object(members)
    } else if let elements = try? decoder.singleValueContainer().decode([JSONValue].self) {
      self = .array(elements)
    } else {
      let container = try decoder.singleValueContainer()
      if container.decodeNil() {
        self = .scalar("null")
      } else if let flag = try? container.decode(Bool.self) {
        self = .scalar("\(flag)")
      } else if let whole = try? container.decode(UInt64.self) {
        self = .scalar("\(whole)")
      } else if let number = try? container.decode(Double.self) {
        self = .scalar("\(number)")
      } else {
        self = .scalar(try container.decode(String.self))
      }
    }
  }

  var description: String {
    switch self {
    case .object(let members):
      "{"
        + members.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }
        .joined(separator: ", ") + "}"
    case .array(let elements): "[" + elements.map(\.description).joined(separator: ", ") + "]"
    case .scalar(let text): text
    }
  }
}
