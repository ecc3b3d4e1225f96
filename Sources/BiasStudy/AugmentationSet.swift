import SweepCore

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// One item of augmented data, with all that is known about how it came to be.
package struct AugmentedItem: Codable, Hashable, Sendable {
  /// Position in the set, from 0.
  package var index: Int
  package var domain: Domain
  package var bias: BiasType
  /// What the generator was asked; empty where none was.
  package var request: String
  /// What the fine-tuned model is asked.
  package var user: String
  /// What it is to answer.
  package var answer: String
  package var people: [Person]
  /// The occupation; nil in the culture domain.
  package var occupation: String?
  /// The survey question; nil in the gender domain.
  package var question: String?
  /// The label that the generator chose for each person; empty in the gender domain.
  package var labels: [String]
  /// Candidates that a model wrote, this one included; 0 where no model was asked.
  package var attempts: Int
  /// Whether the text keeps the rules; if not, it is the last of all candidates.
  package var accepted: Bool
  /// Everything that a server answered to make the item, as it came, in the order of asking; nil for
  /// other generators.
  package var answers: [String]?

  package init(
    index: Int, domain: Domain, bias: BiasType, request: String, user: String, answer: String,
    people: [Person], occupation: String?, question: String?, labels: [String], attempts: Int,
    accepted: Bool
  ) {
    self.index = index
    self.domain = domain
    self.bias = bias
    self.request = request
    self.user = user
    self.answer = answer
    self.people = people
    self.occupation = occupation
    self.question = question
    self.labels = labels
    self.attempts = attempts
    self.accepted = accepted
  }
}

/// D_a as it is stored: one JSON object per line, keys sorted, in the order of the index.
package struct AugmentationSet: Hashable, Sendable {
  package let items: [AugmentedItem]

  package static let itemsMax = 1_000_000
  package static let lineBytesMax = 1 << 21

  package init(items: [AugmentedItem]) {
    self.items = items
  }

  /// The file's bytes; equal sets give equal bytes.
  package func encoded() throws -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    var bytes: [UInt8] = []
    for item in items {
      bytes += try encoder.encode(item)
      bytes.append(UInt8(ascii: "\n"))
    }
    return bytes
  }

  /// - Throws: `StudyError.malformed` with the line of the first item that is no such object, too
  ///   long, out of order, or empty.
  package init(decoding bytes: [UInt8], file: String = "augmentation set") throws(StudyError) {
    var items: [AugmentedItem] = []
    var lines = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
    guard let last = lines.popLast(), last.isEmpty else {
      throw .malformed(
        file: file, line: lines.count + 1, problem: "the last line is cut off (no line end)")
    }
    let decoder = JSONDecoder()
    for (index, line) in lines.enumerated() {
      func malformed(_ problem: String) -> StudyError {
        .malformed(file: file, line: index + 1, problem: problem)
      }
      guard index < Self.itemsMax else { throw malformed("more than \(Self.itemsMax) items") }
      guard line.count <= Self.lineBytesMax else {
        throw malformed("\(line.count) bytes, the limit is \(Self.lineBytesMax)")
      }
      let item: AugmentedItem
      do {
        item = try decoder.decode(AugmentedItem.self, from: Data(line))
      } catch let error as DecodingError {
        throw malformed("not an augmented item: \(Self.reason(error))")
      } catch {
        throw malformed("not an augmented item: \(error)")
      }
      guard item.index == index else {
        throw malformed("has index \(item.index), expected \(index)")
      }
      guard !item.user.isEmpty, !item.answer.isEmpty else {
        throw malformed("the user text or the answer is empty")
      }
      items.append(item)
    }
    self.items = items
  }

  private static func reason(_ error: DecodingError) -> String {
    switch error {
    case .keyNotFound(let key, _): "the key \"\(key.stringValue)\" is missing"
    case .typeMismatch(_, let context), .valueNotFound(_, let context),
      .dataCorrupted(let context):
      context.codingPath.isEmpty
        ? context.debugDescription
        : "\"\(context.codingPath.map(\.stringValue).joined(separator: "."))\": "
          + context.debugDescription
    @unknown default: "\(error)"
    }
  }
}
