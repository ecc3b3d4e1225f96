/// A maximal run of letters, combining marks and digits in a text. Apostrophes and hyphens end a
/// word, so that "she's" holds the word "she".
package struct Word {
  package let range: Range<String.Index>
  package let text: Substring
  package var lowercased: String { text.lowercased() }
  /// Whether the first character is an upper-case letter.
  package var isCapitalised: Bool { text.first?.isUppercase ?? false }
}

extension String {
  /// The words of the text, in order.
  package var words: [Word] {
    var words: [Word] = []
    var start: String.Index?
    func close(at end: String.Index) {
      if let begin = start { words.append(Word(range: begin..<end, text: self[begin..<end])) }
      start = nil
    }
    for index in unicodeScalars.indices {
      if unicodeScalars[index].isInWord {
        if start == nil { start = index }
      } else {
        close(at: index)
      }
    }
    close(at: endIndex)
    return words
  }

  /// The text with each of the given ranges (ascending, not overlapping) replaced.
  package func replacing(_ replacements: [(range: Range<String.Index>, text: String)]) -> String {
    var result = ""
    var position = startIndex
    for replacement in replacements {
      result += self[position..<replacement.range.lowerBound]
      result += replacement.text
      position = replacement.range.upperBound
    }
    return result + self[position...]
  }

  /// The text without white space at its ends, inner runs of it made one space.
  package var collapsingSpaces: String {
    split(whereSeparator: \.isWhitespace).joined(separator: " ")
  }

  /// Letters and digits only, lower-cased, with single spaces: equal for texts that differ in
  /// punctuation, case and spacing. Duplicates are found and splits are made by it.
  package var normalised: String {
    words.map(\.lowercased).joined(separator: " ")
  }

  /// The first `limit` sentences; nil if no sentence ends within the text. A sentence ends with
  /// '.', '!' or '?' (and closing quotes) before white space or the end, except after a single
  /// letter or a common title, whose full stop abbreviates.
  package func firstSentences(_ limit: Int) -> String? {
    let characters = Array(self)
    var found = 0
    var end: Int?
    var position = 0
    while position < characters.count, found < limit {
      if ".!?".contains(characters[position]), !isAbbreviation(characters, before: position) {
        var next = position + 1
        while next < characters.count, ".!?\"'”’)".contains(characters[next]) { next += 1 }
        if next == characters.count || characters[next].isWhitespace {
          found += 1
          end = next
        }
        position = next
      } else {
        position += 1
      }
    }
    return end.map { String(characters[..<$0]).collapsingSpaces }
  }

  private func isAbbreviation(_ characters: [Character], before stop: Int) -> Bool {
    guard characters[stop] == "." else { return false }
    var start = stop
    while start > 0, characters[start - 1].isLetter { start -= 1 }
    let word = String(characters[start..<stop])
    let isInitial = word.count == 1 && word != "I"
    return isInitial || ["Dr", "Mr", "Mrs", "Ms", "St", "Prof"].contains(word)
  }
}

extension Unicode.Scalar {
  /// Whether this is a letter, a combining mark or a decimal digit.
  fileprivate var isInWord: Bool {
    if isASCII {
      return switch self {
      case "a"..."z", "A"..."Z", "0"..."9": true
      default: false
      }
    }
    return switch properties.generalCategory {
    case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter,
      .nonspacingMark, .spacingMark, .enclosingMark, .decimalNumber:
      true
    default: false
    }
  }
}

/// Binary grammatical gender, as the data sets annotate it. The study's data know no other.
package enum Gender: String, Codable, Sendable, CaseIterable {
  case female, male

  package var other: Gender { self == .female ? .male : .female }
  /// "woman" or "man".
  package var noun: String { self == .female ? "woman" : "man" }
}

/// Third-person singular pronouns.
package enum Pronouns {
  private static let genders: [String: Gender] = [
    "she": .female, "her": .female, "hers": .female, "herself": .female,
    "he": .male, "him": .male, "his": .male, "himself": .male,
  ]

  /// The gender of a pronoun (any case), nil for other words.
  package static func gender(of word: String) -> Gender? {
    genders[word.lowercased()]
  }

  /// The pronouns among words.
  package static func all(in words: [Word]) -> [(word: Word, gender: Gender)] {
    words.compactMap { word in gender(of: word.lowercased).map { (word, $0) } }
  }

  /// The text with every pronoun in the given gender, with the case of the letters kept ("Her" →
  /// "His", "HER" → "HIS").
  ///
  /// "her" and "his" stand for two forms each. "her" is taken for the object form ("him") at the
  /// end of a clause or before a word that begins no noun phrase, else for the possessive ("his");
  /// "his" is taken for "hers" only at the end of a clause.
  package static func text(_ text: String, in gender: Gender) -> String {
    let words = text.words
    var replacements: [(Range<String.Index>, String)] = []
    for (index, word) in words.enumerated() {
      guard let found = self.gender(of: word.lowercased), found != gender else { continue }
      let swapped =
        switch word.lowercased {
        case "she": "he"
        case "herself": "himself"
        case "hers": "his"
        case "her": isObject(index, of: words, in: text) ? "him" : "his"
        case "he": "she"
        case "himself": "herself"
        case "him": "her"
        default: endsClause(index, of: words, in: text) ? "hers" : "her"
        }
      replacements.append((word.range, matchingCase(swapped, of: word.text)))
    }
    return text.replacing(replacements.map { (range: $0.0, text: $0.1) })
  }

  /// Whether "her" at a place among the words of a text is taken for the object form, like "him".
  package static func isObject(_ index: Int, of words: [Word], in text: String) -> Bool {
    endsClause(index, of: words, in: text)
      || startsNoNounPhrase.contains(index + 1 < words.count ? words[index + 1].lowercased : "")
  }

  private static func endsClause(_ index: Int, of words: [Word], in text: String) -> Bool {
    guard index + 1 < words.count else { return true }
    let gap = text[words[index].range.upperBound..<words[index + 1].range.lowerBound]
    return gap.contains { !$0.isWhitespace && !"'\"“‘".contains($0) }
  }

  /// The word in upper case or capitalised, as the model is.
  package static func matchingCase(_ word: String, of model: Substring) -> String {
    if model.count > 1, model.allSatisfy(\.isUppercase) { return word.uppercased() }
    guard model.first?.isUppercase == true else { return word }
    return word.prefix(1).uppercased() + word.dropFirst()
  }

  /// Function words after which "her" was the object of the clause: prepositions, conjunctions,
  /// determiners, auxiliaries, relative pronouns and adverbs.
  private static let startsNoNounPhrase: Set<String> = [
    "a", "about", "after", "again", "against", "ago", "along", "although", "an", "and", "any",
    "are", "around", "as", "at", "away", "back", "be", "because", "been", "before", "behind",
    "but", "by", "can", "could", "despite", "did", "do", "does", "down", "during", "for", "from",
    "had", "has", "have", "he", "here", "how", "if", "in", "inside", "into", "is", "it", "like",
    "may", "might", "must", "near", "not", "of", "off", "on", "once", "or", "out", "outside",
    "over", "she", "should", "since", "so", "some", "something", "than", "that", "the", "then",
    "there", "these", "they", "this", "those", "though", "through", "throughout", "to", "too",
    "toward", "towards", "twice", "under", "unless", "until", "up", "upon", "via", "was", "were",
    "what", "when", "where", "whether", "which", "while", "who", "whom", "whose", "why", "will",
    "with", "within", "without", "would",
  ]
}
