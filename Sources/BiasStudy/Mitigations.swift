import LanguageModel
import SweepCore

/// What a mitigation does to the items of augmented data before training.
package struct ItemMitigation: Sendable {
  private let mitigation: Mitigation
  private let settings: SweepSpec.MitigationSettings
  private let names: NameTable
  /// Listed words, each with what takes its place; nil for the mitigations that change no words.
  private let replacement: Replacement?
  /// Names that are ordinary words too.
  private let unmaskedNames: Set<String>

  package init(
    _ mitigation: Mitigation, settings: SweepSpec.MitigationSettings, names: NameTable
  ) {
    self.mitigation = mitigation
    self.settings = settings
    self.names = names
    unmaskedNames = Set(settings.unmaskedNames ?? WordLists.mitigationWords.unmaskedNames ?? [])
    replacement =
      switch mitigation {
      case .mask:
        Replacement(
          settings.maskedWords ?? WordLists.mitigationWords.masked ?? [], by: settings.maskWord)
      case .maskNeutral:
        Replacement(settings.neutralWords ?? WordLists.mitigationWords.neutral ?? [])
      case .none, .token, .loss, .tokenDecoding, .lossReweight: nil
      }
  }

  /// The item as it is trained on. `none`, `loss` and `loss-reweight` leave it as it is: the latter
  /// two act on the loss; so does `token-decoding`, which acted when the item was made.
  package func apply(to item: AugmentedItem) -> StudyItem {
    if mitigation == .token {
      // In the user's text, which is outside the loss.
      return StudyItem(user: "\(settings.tokenPrefix) \(item.user)", answer: item.answer)
    }
    guard let replacement else { return StudyItem(user: item.user, answer: item.answer) }
    return StudyItem(
      user: replacing(item.user, of: item, replacement),
      answer: replacing(item.answer, of: item, replacement))
  }

  /// λ of the loss's alignment term.
  package var alignmentWeight: Double { mitigation == .loss ? settings.lossWeight : 0 }

  /// τ of the weights of augmented items in the loss.
  package var reweightingExponent: Double {
    mitigation == .lossReweight ? settings.reweightExponent ?? 1 : 0
  }

  /// What takes the place of words.
  private struct Replacement: Sendable {
    let words: WordList
    let name: String
    let country: String
    /// Neutral forms by phrase (lower case, words joined by single spaces): the usual one and the
    /// one for an object. Nil where one word takes every place.
    private let neutral: [String: (usual: String, object: String)]?

    init(_ words: [String], by mask: String) {
      self.words = WordList(words)
      name = mask
      country = mask
      neutral = nil
    }

    /// - Parameter pairs: as in a spec.
    init(_ pairs: [String]) {
      var neutral: [String: (usual: String, object: String)] = [:]
      for pair in pairs {
        let sides = pair.split(separator: "=")
        guard sides.count == 2, let usual = sides[1].split(separator: "/").first,
          let object = sides[1].split(separator: "/").last
        else { continue }
        neutral[Self.key(String(sides[0]))] = (
          usual: String(usual).replacing("_", with: " "),
          object: String(object).replacing("_", with: " ")
        )
      }
      self.neutral = neutral
      words = WordList(pairs.map { String($0.prefix { $0 != "=" }) })
      name = "someone"
      country = "a country"
    }

    private static func key(_ text: String) -> String {
      text.replacing("_", with: " ").normalised
    }

    /// What takes the place of a listed word or phrase.
    func text(for phrase: String, isObject: Bool) -> String {
      guard let neutral else { return name }
      guard let forms = neutral[Self.key(phrase)] else { return name }
      let text = isObject ? forms.object : forms.usual
      // Words of a culture are always capitalised; their neutral ones are not names.
      return WordLists.cultureWords.count(in: phrase) > 0
        ? text : Pronouns.matchingCase(text, of: phrase[...])
    }

    /// What takes the place of a name or country.
    func text(forName phrase: String, isCountry: Bool) -> String {
      isCountry ? country : name
    }
  }

  /// The text with the listed words, the item's own name and country (whole words, any case), and
  /// capitalised first names of one gender replaced.
  private func replacing(
    _ text: String, of item: AugmentedItem, _ replacement: Replacement
  ) -> String {
    let words = text.words
    var found: [(range: Range<String.Index>, text: String)] = []
    let countries = WordList(item.people.compactMap(\.country))
    for range in countries.matches(in: text) {
      found.append((range, replacement.text(forName: String(text[range]), isCountry: true)))
    }
    for range in WordList(item.people.compactMap(\.name)).matches(in: text) {
      found.append((range, replacement.text(forName: String(text[range]), isCountry: false)))
    }
    for range in replacement.words.matches(in: text) {
      let index = words.firstIndex { $0.range.lowerBound == range.lowerBound }
      let isObject = index.map { Pronouns.isObject($0, of: words, in: text) } ?? false
      found.append((range, replacement.text(for: String(text[range]), isObject: isObject)))
    }
    for word in words where word.isCapitalised && word.text.count >= Self.nameLengthMin {
      let name = String(word.text)
      if names.gender(ofName: name) != nil, !unmaskedNames.contains(name) {
        found.append((word.range, replacement.text(forName: name, isCountry: false)))
      }
    }
    // Of overlapping matches the one that begins first (then the longer one) counts; of equal ones
    // the one found first.
    let order = found.indices.sorted { left, right in
      (found[left].range.lowerBound, found[right].range.upperBound, left)
        < (found[right].range.lowerBound, found[left].range.upperBound, right)
    }
    var chosen: [(range: Range<String.Index>, text: String)] = []
    for index in order
    where chosen.last.map({ $0.range.upperBound <= found[index].range.lowerBound }) ?? true {
      chosen.append(found[index])
    }
    return text.replacing(chosen)
  }

  /// Shorter dictionary names ("An", "So", "Al") are mostly ordinary words.
  private static let nameLengthMin = 3
}

/// The mitigation `token-decoding`: sets of tokens between which the generator has no preference.
package enum GroupBalance {
  /// A set for each list of the spec: the tokens that are, as a whole, a word of a group, at the
  /// beginning of a text or after a space, in lower case, capitalised or as listed. Words of several
  /// tokens are left out: their first token begins other words too.
  package static func balances(
    _ settings: SweepSpec.MitigationSettings, tokenizer: Tokenizer
  ) -> [TokenBalance] {
    let lists = settings.equalisedWords ?? WordLists.mitigationWords.equalised ?? []
    return lists.compactMap { list in
      var taken: Set<Int32> = []
      let sides = list.split(separator: "|").map { group in
        group.split(separator: " ").flatMap { word -> [Int32] in
          let text = String(word).replacing("_", with: " ")
          let capitalised = text.prefix(1).uppercased() + text.dropFirst()
          let forms: [String] = [text, text.lowercased(), capitalised]
          return (forms + forms.map { " \($0)" }).compactMap { form -> Int32? in
            let tokens = tokenizer.encode(form)
            return tokens.count == 1 && taken.insert(tokens[0]).inserted ? tokens[0] : nil
          }
        }
      }
      return TokenBalance(sides: sides)
    }
  }
}
