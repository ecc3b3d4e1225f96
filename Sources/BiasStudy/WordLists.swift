import SweepCore

/// Lists of words and phrases, matched whole and in any case.
package struct WordList: Sendable {
  /// Words of each phrase by its first word, longest phrase first.
  private let phrases: [String: [[String]]]

  /// - Parameter entries: words, or phrases whose words are joined by "_", "-" or spaces.
  package init(_ entries: some Sequence<String>) {
    var phrases: [String: [[String]]] = [:]
    for entry in entries {
      let words = entry.replacing("_", with: " ").words.map(\.lowercased)
      guard let first = words.first else { continue }
      phrases[first, default: []].append(words)
    }
    self.phrases = phrases.mapValues { $0.sorted { $0.count > $1.count } }
  }

  /// Where entries of the list stand in a text, longest match first, from left to right.
  package func matches(in text: String) -> [Range<String.Index>] {
    let words = text.words
    var found: [Range<String.Index>] = []
    var index = 0
    while index < words.count {
      let length = matchLength(words, at: index, in: text)
      if length > 0 {
        found.append(words[index].range.lowerBound..<words[index + length - 1].range.upperBound)
      }
      index += max(1, length)
    }
    return found
  }

  /// Number of words of the text that are (in) entries of the list.
  package func count(in text: String) -> Int { matches(in: text).count }

  private func matchLength(_ words: [Word], at index: Int, in text: String) -> Int {
    guard let candidates = phrases[words[index].lowercased] else { return 0 }
    for phrase in candidates where index + phrase.count <= words.count {
      let matches = phrase.indices.allSatisfy { offset in
        guard words[index + offset].lowercased == phrase[offset] else { return false }
        guard offset > 0 else { return true }
        let gap = text[
          words[index + offset - 1].range.upperBound..<words[index + offset].range.lowerBound]
        return gap == " " || gap == "-"
      }
      if matches { return phrase.count }
    }
    return 0
  }
}

/// The word lists of the study, from the resource `words.tsv`. Provenance: docs/STUDY.md.
package enum WordLists {
  private static let lists: [String: [String]] = {
    var lists: [String: [String]] = [:]
    for row in ResourceTable.rows(PackageResources.words_tsv, name: "words.tsv", columns: 2) {
      lists[row[0]] = row[1].split(separator: " ").map(String.init)
    }
    return lists
  }()

  /// The entries of a list as the resource spells them.
  package static func entries(_ name: String) -> [String] {
    guard let entries = lists[name] else { preconditionFailure("words.tsv has no list \(name)") }
    return entries
  }

  package static let genderWords = WordList(
    entries("gender.female") + entries("gender.male") + entries("pronoun"))
  private static let wordsOfGender = Dictionary(
    uniqueKeysWithValues: Gender.allCases.map { gender in
      (
        gender,
        WordList(
          entries("gender.\(gender.rawValue)")
            + entries("pronoun").filter { Pronouns.gender(of: $0) == gender })
      )
    })

  /// The genders that pronouns and gender words of a text tell.
  package static func genders(in text: String) -> Set<Gender> {
    Set(Gender.allCases.filter { (wordsOfGender[$0]?.count(in: text) ?? 0) > 0 })
  }

  /// The lists as a spec has them.
  package static let mitigationWords = MitigationWords(
    masked: Set(
      entries("gender.female") + entries("gender.male") + entries("pronoun") + entries("culture")
    ).sorted(),
    neutral: entries("neutral").sorted(),
    // First names that are also ordinary words, and so are no sign of a person.
    unmaskedNames: entries("not-a-name").sorted(),
    equalised: [
      Gender.allCases.map { gender in
        entries("gender.\(gender.rawValue)")
          + entries("pronoun").filter { Pronouns.gender(of: $0) == gender }
      },
      Culture.allCases.map { entries("culture.\($0.rawValue)") },
    ].map { groups in groups.map { $0.joined(separator: " ") }.joined(separator: "|") })

  package static let cultureWords = WordList(entries("culture"))
  package static let agentic = WordList(entries("dose.agentic"))
  package static let communal = WordList(entries("dose.communal"))
}

/// Reads the tab-separated resources of this module. They are part of the program, so a malformed
/// one is a programmer's error.
enum ResourceTable {
  /// The fields of every line that is neither empty nor a comment ("#").
  static func rows(_ bytes: [UInt8], name: String, columns: Int) -> [[String]] {
    String(decoding: bytes, as: UTF8.self).split(separator: "\n").enumerated().compactMap {
      number, line in
      guard !line.hasPrefix("#") else { return nil }
      let fields = line.split(separator: "\t", omittingEmptySubsequences: false).map(String.init)
      precondition(
        fields.count == columns, "\(name): entry \(number + 1) has \(fields.count) fields")
      return fields
    }
  }
}
