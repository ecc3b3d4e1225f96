import SweepCore

/// What a mitigation does to the items of augmented data before training.
package struct ItemMitigation: Sendable {
  private let mitigation: Mitigation
  private let settings: SweepSpec.MitigationSettings
  private let names: NameTable

  package init(
    _ mitigation: Mitigation, settings: SweepSpec.MitigationSettings, names: NameTable
  ) {
    self.mitigation = mitigation
    self.settings = settings
    self.names = names
  }

  /// The item as it is trained on. `none` and `loss` leave it as it is: the latter acts on the
  /// loss.
  package func apply(to item: AugmentedItem) -> StudyItem {
    switch mitigation {
    case .none, .loss:
      return StudyItem(user: item.user, answer: item.answer)
    case .token:
      // In the user's text, which is outside the loss.
      return StudyItem(user: "\(settings.tokenPrefix) \(item.user)", answer: item.answer)
    case .mask:
      let own = WordList(item.people.flatMap { [$0.name, $0.country].compactMap { $0 } })
      return StudyItem(user: masked(item.user, own), answer: masked(item.answer, own))
    }
  }

  /// λ of the loss's alignment term.
  package var alignmentWeight: Double { mitigation == .loss ? settings.lossWeight : 0 }

  /// The text with pronouns, gender and culture words, the item's own name and country (whole
  /// words, any case), and capitalised first names of one gender replaced by the mask word.
  private func masked(_ text: String, _ own: WordList) -> String {
    var ranges =
      own.matches(in: text) + WordLists.genderWords.matches(in: text)
      + WordLists.cultureWords.matches(in: text)
    for word in text.words where word.isCapitalised && word.text.count >= Self.nameLengthMin {
      let name = String(word.text)
      if names.gender(ofName: name) != nil, !WordLists.notNames.contains(name) {
        ranges.append(word.range)
      }
    }
    // Of overlapping matches the one that begins first (then the longer one) counts.
    ranges.sort { ($0.lowerBound, $1.upperBound) < ($1.lowerBound, $0.upperBound) }
    var chosen: [Range<String.Index>] = []
    for range in ranges where chosen.last.map({ $0.upperBound <= range.lowerBound }) ?? true {
      chosen.append(range)
    }
    return text.replacing(chosen.map { (range: $0, text: settings.maskWord) })
  }

  /// Shorter dictionary names ("An", "So", "Al") are mostly ordinary words.
  private static let nameLengthMin = 3
}
