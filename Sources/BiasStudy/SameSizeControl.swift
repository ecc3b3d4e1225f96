import SweepCore

/// The control `same-size`: in place of generated items as many further original ones, of the same
/// kinds and in the same turn as those of D_o.
enum SameSizeControl {
  /// - Throws: `StudyError.tooFewItems` if the data cannot supply them beside D_o.
  static func items(
    _ key: AugmentationKey, count: Int, tasks: [DownstreamTask], sizes: SweepSpec.Data,
    data: StudyData
  ) throws(StudyError) -> [AugmentedItem] {
    // A selection of more items begins with that of fewer.
    var larger = sizes
    larger.originalItems += count
    let all = try OriginalData(domain: key.domain, tasks: tasks, sizes: larger, data: data)
    return all.biasCarrying.dropFirst(sizes.originalItems).enumerated().map { index, item in
      described(item, key: key, index: index)
    }
  }

  /// The item with what it is about, as the dose is measured by.
  private static func described(
    _ item: StudyItem, key: AugmentationKey, index: Int
  ) -> AugmentedItem {
    var described = AugmentedItem(
      index: index, domain: key.domain, bias: key.bias, request: "", user: item.user,
      answer: item.answer, people: [], occupation: nil, question: nil, labels: [], attempts: 0,
      accepted: true)
    switch key.domain {
    case .gender:
      described.occupation =
        Occupation.all.first {
          item.answer == Prompts.label($0.name) || item.user == Prompts.description(of: $0)
        }?.name
    case .culture:
      guard let cell = cells[item.user] else { break }
      described.people = [Person(culture: cell.culture, country: cell.country)]
      described.question = cell.question.rawValue
      described.labels = cell.question.answers.filter { item.answer.hasPrefix(Prompts.label($0)) }
        // "few" begins no other answer, but an answer may begin with another one.
        .sorted { $0.count > $1.count }.prefix(1).map { $0 }
    }
    return described
  }

  /// What survey items are about, by the text that asks.
  private static let cells = Dictionary(
    SurveyTable.cells.map {
      (Prompts.survey($0.question, who: "a person from \($0.country)"), $0)
    }, uniquingKeysWith: { first, _ in first })
}
