/// An occupation of the gender domain.
package struct Occupation: Hashable, Sendable {
  package let name: String
  /// Share of women among people of this occupation in the United States, 0 to 1.
  ///
  /// Source: American Community Survey 2016 (US Census Bureau), full-time workers; the group of
  /// occupations that the share is of stands in docs/STUDY.md.
  package let femaleShare: Double

  package var plural: String { name + "s" }
  /// The name with its indefinite article.
  package var withArticle: String { ("aeiou".contains(name.prefix(1)) ? "an " : "a ") + name }
  /// The gender that holds the majority.
  package var majority: Gender { femaleShare > 0.5 ? .female : .male }

  /// The occupations of the study: frequent in BUG, different in the share of women, and telling by
  /// the words around them. Their order is the order of the choices.
  package static let all: [Occupation] = [
    Occupation(name: "author", femaleShare: 0.566),
    Occupation(name: "doctor", femaleShare: 0.341),
    Occupation(name: "driver", femaleShare: 0.046),
    Occupation(name: "judge", femaleShare: 0.437),
    Occupation(name: "nurse", femaleShare: 0.879),
    Occupation(name: "pilot", femaleShare: 0.061),
    Occupation(name: "singer", femaleShare: 0.222),
    Occupation(name: "teacher", femaleShare: 0.779),
  ]

  package static func named(_ name: String) -> Occupation? { all.first { $0.name == name } }
}

/// A sentence about a person with an occupation and one pronoun, in both genders.
package struct OccupationSentence: Hashable, Sendable {
  package let occupation: Occupation
  /// The sentence with its occupation named, by the gender of its pronoun.
  private let female: String
  private let male: String
  /// The gender of the pronoun in the source.
  package let sourceGender: Gender

  package func text(_ gender: Gender) -> String { gender == .female ? female : male }

  /// The sentence with the occupation replaced by `OccupationSentence.blank`.
  package func masked(_ gender: Gender) -> String {
    Self.masking(occupation, in: text(gender))
  }

  /// What stands for a hidden occupation.
  package static let blank = "___"

  /// The text with every mention of the occupation, in singular or plural, replaced by the blank.
  /// An article before it becomes "a", so that it does not tell the first letter.
  package static func masking(_ occupation: Occupation, in text: String) -> String {
    let words = text.words
    var replacements: [(range: Range<String.Index>, text: String)] = []
    for (index, word) in words.enumerated()
    where [occupation.name, occupation.plural].contains(word.lowercased) {
      if index > 0, words[index - 1].lowercased == "an" {
        let article = words[index - 1]
        replacements.append((article.range, article.isCapitalised ? "A" : "a"))
      }
      replacements.append((word.range, blank))
    }
    return text.replacing(replacements)
  }

  /// Makes an item of a tokenised sentence of BUG, or nil if it is unsuited: not exactly one
  /// third-person pronoun, not exactly one mention of the occupation, another word that tells a
  /// gender (also a first name), or too short or long.
  init?(tokens text: String, occupation: Occupation, names: NameTable) {
    let tokens = text.split(separator: " ")
    guard Self.tokenLimits.contains(tokens.count) else { return nil }
    let words = text.words
    let pronouns = Pronouns.all(in: words)
    guard pronouns.count == 1 else { return nil }
    var mentions = 0
    for word in words {
      let lower = word.lowercased
      if lower == occupation.name {
        mentions += 1
      } else if lower.hasPrefix(occupation.name) {
        return nil
      } else if word.isCapitalised, names.gender(ofName: String(word.text)) != nil {
        return nil
      }
    }
    guard mentions == 1, WordLists.genderWords.count(in: text) == 1 else { return nil }
    let sentence = Self.detokenised(tokens)
    self.occupation = occupation
    self.sourceGender = pronouns[0].gender
    self.female = Pronouns.text(sentence, in: .female)
    self.male = Pronouns.text(sentence, in: .male)
  }

  private static let tokenLimits = 6...24

  /// A sentence from its tokens, without the spaces that written English does not have.
  private static func detokenised(_ tokens: [Substring]) -> String {
    var result = ""
    var quoteIsOpen = false
    var glued = true
    for token in tokens {
      var glue = glued
      glued = false
      switch token {
      case ".", ",", ";", ":", "!", "?", ")", "]", "%", "'", "’", "”", "'s", "’s", "'re", "'ve",
        "'d", "'ll", "'m", "n't":
        glue = true
      case "(", "[", "$", "“":
        glued = true
      case "-", "/":
        glue = true
        glued = true
      case "\"", "``", "''":
        glue = glue || quoteIsOpen
        glued = !quoteIsOpen
        quoteIsOpen.toggle()
        result += glue ? "\"" : " \""
        continue
      default: break
      }
      result += glue ? token : " " + token
    }
    return result
  }
}

/// The sentences of BUG that the gender domain uses.
package struct OccupationSentences: Sendable {
  /// Sentences of D_o and of format examples; those of the test set share no sentence with them.
  package let training: [OccupationSentence]
  package let test: [OccupationSentence]

  /// Reads `full_BUG.csv`. Only Wikipedia's sentences are used; a text counts once. A sentence
  /// belongs to the test set by a hash of its words with the occupation hidden, whatever the sweep's
  /// seeds, so no two sweeps disagree on what may be trained on. Twins are one item and cannot be
  /// parted.
  package init(csv bytes: [UInt8], file: String, names: NameTable) throws(StudyError) {
    var training: [OccupationSentence] = []
    var test: [OccupationSentence] = []
    var seen: Set<String> = []
    var reader = try CSVReader(bytes: bytes, file: file)
    try reader.forEachRecord(
      columns: ["sentence_text", "profession", "num_of_pronouns", "corpus"]
    ) { record, _ in
      guard record[3] == "wikipedia", record[2] == "1",
        let occupation = Occupation.named(record[1].lowercased()),
        let sentence = OccupationSentence(
          tokens: record[0], occupation: occupation, names: names)
      else { return }
      // Twins of each other normalise to the same text here.
      let key = sentence.text(.male).normalised
      guard seen.insert(key).inserted else { return }
      if Self.isTest(sentence) { test.append(sentence) } else { training.append(sentence) }
    }
    self.training = training
    self.test = test
  }

  private static func isTest(_ sentence: OccupationSentence) -> Bool {
    StudyGenerator.seed(["occupation-split", sentence.masked(.male).normalised]) & 1 == 1
  }
}
