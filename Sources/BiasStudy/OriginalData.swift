import SweepCore

/// Selects D_o of a domain: items as the world has them, and format examples of each task.
///
/// Everything here is a pure function of the data and the selection seed, the same in every trial.
package struct OriginalData: Sendable {
  /// The part that carries the bias of its source.
  package let biasCarrying: [StudyItem]
  /// Format examples, balanced over groups and labels.
  package let format: [StudyItem]
  /// Share of female pronouns per occupation among the bias-carrying items (gender domain).
  package let femaleShares: [String: Double]

  package var items: [StudyItem] { biasCarrying + format }

  /// - Throws: `StudyError.tooFewItems` if the data cannot supply what `sizes` asks for.
  package init(
    domain: Domain, tasks: [DownstreamTask], sizes: SweepSpec.Data, data: StudyData
  ) throws(StudyError) {
    var format: [StudyItem] = []
    var exampleSentences: Set<String> = []
    for task in tasks where task.domain == domain {
      guard let items = data.tasks[task.id] else { throw .unknownTask(id: task.id) }
      let tested = try items.testItems(sizes.testItems, seed: sizes.selectionSeed)
      for example in try items.formatExamples(
        sizes.formatItems, seed: sizes.selectionSeed, tested: tested)
      {
        format.append(example.item)
        if let sentence = example.record.text("sentence_male"),
          let occupation = example.record.text("occupation")
        {
          exampleSentences.insert("\(occupation): \(sentence)")
        }
      }
    }
    let seed = "\(sizes.selectionSeed)"
    var femaleShares: [String: Double] = [:]
    switch domain {
    case .gender:
      // What is a format example is not shown again.
      let free = (data.occupations?.training ?? []).filter {
        !exampleSentences.contains("\($0.occupation.name): \($0.masked(.male))")
      }
      let original = try Self.occupationSentences(free, count: sizes.originalItems, seed: seed)
      biasCarrying = original.enumerated().map { index, sentence in
        index / Occupation.all.count % 2 == 0
          ? StudyItem(
            user: Prompts.description(of: sentence.occupation),
            answer: sentence.text(sentence.sourceGender))
          : Self.occupationItem(sentence, gender: sentence.sourceGender)
      }
      for occupation in Occupation.all {
        let genders = original.filter { $0.occupation == occupation }.map(\.sourceGender)
        guard !genders.isEmpty else { continue }
        femaleShares[occupation.name] =
          Double(genders.count { $0 == .female }) / Double(genders.count)
      }
    case .culture:
      biasCarrying = Self.surveyItems(count: sizes.originalItems, seed: seed)
    }
    self.format = format
    self.femaleShares = femaleShares
  }

  private static func occupationItem(_ sentence: OccupationSentence, gender: Gender) -> StudyItem {
    StudyItem(
      user: Prompts.occupation(ofMasked: sentence.masked(gender)),
      answer: Prompts.label(sentence.occupation.name))
  }

  /// Sentences of all occupations in turn, in a random order within each; an occupation that runs
  /// out is skipped.
  package static func occupationSentences(
    _ sentences: [OccupationSentence], count: Int, seed: String
  ) throws(StudyError) -> [OccupationSentence] {
    var generator = StudyGenerator(purpose: "occupation-selection", seed)
    let queues = Occupation.all.map { occupation in
      generator.shuffled(sentences.filter { $0.occupation == occupation })
    }
    return try inTurn(
      queues, count: count, what: "sentences with an occupation",
      key: "data.original_items or data.format_items")
  }

  /// Answers of respondents: cultures and questions in turn, the cells of each in a random order,
  /// and within a cell answers at evenly spread quantiles, so that the labels follow the survey.
  /// Questions in countries that are for testing are left out.
  private static func surveyItems(count: Int, seed: String) -> [StudyItem] {
    var generator = StudyGenerator(purpose: "survey-selection", seed)
    var queues: [[SurveyCell]] = []
    for question in SurveyQuestion.allCases {
      for culture in Culture.allCases {
        queues.append(
          generator.shuffled(
            SurveyTable.cells.filter { cell in
              cell.culture == culture && cell.question == question
                && !SurveyTable.isTest(
                  SurveyTable.Place(question: question, culture: culture, country: cell.country))
            }))
      }
    }
    queues.removeAll(where: \.isEmpty)
    let offset = generator.unit()
    return (0..<count).map { index in
      let queue = queues[index % queues.count]
      let turn = index / queues.count
      let cell = queue[turn % queue.count]
      // Multiples of the golden ratio fill the unit interval evenly from the start.
      let quantile = (offset + Double(turn) * 0.618_033_988_749_895)
        .truncatingRemainder(dividingBy: 1)
      return StudyItem(
        user: Prompts.survey(cell.question, who: "a person from \(cell.country)"),
        answer: Prompts.label(cell.question.answers[cell.answer(atQuantile: quantile)]) + ".")
    }
  }

  /// Takes one of each queue in turn; empty queues are skipped.
  static func inTurn<Element>(
    _ queues: [[Element]], count: Int, what: String, key: String
  ) throws(StudyError) -> [Element] {
    let available = queues.map(\.count).reduce(0, +)
    guard available >= count else {
      throw .tooFewItems(what: what, available: available, needed: count, key: key)
    }
    var taken: [Element] = []
    taken.reserveCapacity(count)
    var round = 0
    while taken.count < count {
      for queue in queues where round < queue.count && taken.count < count {
        taken.append(queue[round])
      }
      round += 1
    }
    return taken
  }
}
