/// The four cultures that the study compares, after Li et al. (arXiv 2502.04419).
package enum Culture: String, Codable, Sendable, CaseIterable {
  case arabic, chinese, portuguese, spanish

  /// The adjective for a person.
  package var adjective: String {
    switch self {
    case .arabic: "Arab"
    case .chinese: "Chinese"
    case .portuguese: "Portuguese"
    case .spanish: "Spanish"
    }
  }

  /// The column of the name dictionary that gives the frequency in this culture; nil for Chinese,
  /// whose names it has without gender.
  fileprivate var column: Int? {
    switch self {
    case .arabic: 77
    case .chinese: nil
    case .portuguese: 35
    case .spanish: 36
    }
  }
}

/// First names by culture and gender, from Jörg Michael's name dictionary (`nam_dict.txt`).
///
/// Chinese names come from a list of the resource `words.tsv` without those that the dictionary
/// has as names of other languages ("Juan").
package struct NameTable: Sendable {
  /// Names of a culture and gender, most frequent first.
  private let typical: [Culture: [Gender: [String]]]
  /// Names frequent in Great Britain, Ireland or the United States, for people of no stated culture.
  private let english: [Gender: [String]]
  /// Every name of the dictionary that is of one gender, with its gender.
  private let genders: [String: Gender]

  /// Names that one culture and gender may contribute at most.
  package static let typicalNamesMax = 60
  private static let englishColumns = [30, 31, 32]
  private static let columns = 30...84

  /// - Throws: `StudyError.malformed` with the line of an entry that is too short, of an unknown
  ///   gender or frequency, or if a culture has no names.
  package init(dictionary bytes: [UInt8], file: String) throws(StudyError) {
    var candidates: [Culture: [Gender: [(name: String, rank: Int)]]] = [:]
    var english: [Gender: [(name: String, rank: Int)]] = [:]
    var genders: [String: Gender] = [:]
    for (index, raw) in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
      .enumerated()
    {
      guard let first = raw.first, first != UInt8(ascii: "#"), first != UInt8(ascii: "\r") else {
        continue
      }
      func malformed(_ problem: String) -> StudyError {
        .malformed(file: file, line: index + 1, problem: problem)
      }
      // Columns count characters; beyond ASCII only names have any, so the columns after the name
      // are as many bytes further on as it has continuation bytes.
      let shift = raw.count { $0 & 0xC0 == 0x80 }
      guard raw.count - shift > Self.columns.upperBound else {
        throw malformed("an entry has 85 columns or more")
      }
      func byte(_ column: Int) -> UInt8 { raw[raw.startIndex + shift + column] }
      let nameBytes = raw.dropFirst(3).prefix(26 + shift)
      guard let padded = String(validating: nameBytes, as: UTF8.self) else {
        throw malformed("the text is not UTF-8")
      }
      let name = padded.replacing("+", with: "").collapsingSpaces
      let gender: Gender
      switch String(decoding: raw.prefix(2), as: UTF8.self).collapsingSpaces {
      case "M", "1M": gender = .male
      case "F", "1F": gender = .female
      case "?M", "?F", "?": continue
      case "=": continue
      case let code: throw malformed("unknown gender code \"\(code)\"")
      }
      guard first != UInt8(ascii: "=") else { continue }
      genders[name] = gender
      guard name.unicodeScalars.allSatisfy({ $0.isASCII && $0.properties.isAlphabetic }),
        (3...10).contains(name.unicodeScalars.count)
      else { continue }

      // The two largest frequencies tell for each column what the largest elsewhere is.
      var frequencies: [Int] = []
      var largest = 0
      var secondLargest = 0
      for column in Self.columns {
        let frequency: Int
        switch byte(column) {
        case UInt8(ascii: " "), UInt8(ascii: "$"): frequency = 0
        case let digit where (48...57).contains(digit): frequency = Int(digit) - 48
        case let digit where (65...70).contains(digit): frequency = Int(digit) - 55
        case let other: throw malformed("unknown frequency (byte \(other))")
        }
        frequencies.append(frequency)
        if frequency > largest {
          (largest, secondLargest) = (frequency, largest)
        } else {
          secondLargest = max(secondLargest, frequency)
        }
      }
      func frequency(in column: Int) -> Int { frequencies[column - Self.columns.lowerBound] }
      let home = Self.englishColumns.map(frequency(in:)).min() ?? 0
      if home >= 5 { english[gender, default: []].append((name, home)) }
      for culture in Culture.allCases {
        // Typical: more than twice (one step of the logarithmic scale) as frequent as elsewhere.
        guard let column = culture.column else { continue }
        let here = frequency(in: column)
        let elsewhere = here == largest ? secondLargest : largest
        if here >= 2, here > elsewhere + 1 {
          candidates[culture, default: [:]][gender, default: []].append((name, here))
        }
      }
    }
    func ranked(_ names: [(name: String, rank: Int)], limit: Int) -> [String] {
      var seen: Set<String> = []
      return names.sorted { ($1.rank, $0.name) < ($0.rank, $1.name) }.map(\.name)
        .filter { seen.insert($0).inserted }.prefix(limit).map { $0 }
    }
    var typical: [Culture: [Gender: [String]]] = [:]
    for culture in Culture.allCases {
      for gender in Gender.allCases {
        let names =
          culture == .chinese
          ? WordLists.entries("name.chinese.\(gender.rawValue)").filter { genders[$0] == nil }
          : ranked(candidates[culture]?[gender] ?? [], limit: Self.typicalNamesMax)
        guard !names.isEmpty else {
          throw .malformed(
            file: file, line: 1,
            problem: "no \(gender.rawValue) names typical of \(culture.rawValue)")
        }
        typical[culture, default: [:]][gender] = names
      }
    }
    self.typical = typical
    self.english = english.mapValues { ranked($0, limit: Self.typicalNamesMax) }
    self.genders = genders
    for gender in Gender.allCases where self.english[gender, default: []].isEmpty {
      throw .malformed(file: file, line: 1, problem: "no English \(gender.rawValue) names")
    }
  }

  /// Names typical of a culture, or English ones if `culture` is nil. Never empty.
  package func names(_ culture: Culture?, _ gender: Gender) -> [String] {
    guard let culture else { return english[gender, default: []] }
    return typical[culture]?[gender] ?? []
  }

  /// The gender of a first name as the dictionary writes it (capitalised), if it has just one.
  package func gender(ofName name: String) -> Gender? { genders[name] }
}
