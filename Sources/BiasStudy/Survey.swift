/// A question of the World Values Survey with its answers, in the words of the study's prompts.
package enum SurveyQuestion: String, CaseIterable, Sendable {
  case immigration, bribe

  package var text: String {
    switch self {
    case .immigration: "How many people from other countries should be let in to work?"
    case .bribe: "Can taking a bribe be justified?"
    }
  }

  /// What the question is about, as it fits after "on".
  package var topic: String {
    switch self {
    case .immigration: "immigration"
    case .bribe: "taking bribes"
    }
  }

  /// The answers, in the survey's order.
  ///
  /// "immigration" has the survey's four answers (E143), shortened; "bribe" the codes 1, 2 to 4,
  /// 5 to 7 and 8 to 10 of its ten-point scale (F117), in words of this project.
  package var answers: [String] {
    switch self {
    case .immigration: ["anyone", "as many as there are jobs", "few", "nobody"]
    case .bribe: ["never", "rarely", "sometimes", "always"]
    }
  }
}

/// How the people of a country answered a question in one wave of the survey.
package struct SurveyCell: Hashable, Sendable {
  package let question: SurveyQuestion
  package let culture: Culture
  package let country: String
  package let wave: Int
  /// Respondents per answer.
  package let counts: [Int]

  package init(
    question: SurveyQuestion, culture: Culture, country: String, wave: Int, counts: [Int]
  ) {
    self.question = question
    self.culture = culture
    self.country = country
    self.wave = wave
    self.counts = counts
  }

  /// The answer of the respondent at position `quantile` in [0, 1) when respondents are sorted by
  /// their answer: evenly spread quantiles reproduce the distribution.
  package func answer(atQuantile quantile: Double) -> Int {
    let total = counts.reduce(0, +)
    var rank = Int(quantile * Double(total))
    for (answer, count) in counts.enumerated() {
      if rank < count { return answer }
      rank -= count
    }
    return counts.count - 1
  }
}

/// The survey's aggregate table, from the resource `survey.tsv` (made by
/// `scripts/make-survey-table`).
package enum SurveyTable {
  /// All cells, in the resource's order.
  package static let cells: [SurveyCell] = ResourceTable.rows(
    PackageResources.survey_tsv, name: "survey.tsv", columns: 8
  ).dropFirst().map { row in
    guard let question = SurveyQuestion(rawValue: row[0]),
      let culture = Culture(rawValue: row[1].lowercased()), let wave = Int(row[3])
    else { preconditionFailure("survey.tsv has a malformed row \(row)") }
    let counts = row[4...].compactMap { Int($0) }
    precondition(counts.count == 4, "survey.tsv has a malformed row \(row)")
    return SurveyCell(
      question: question, culture: culture, country: row[2], wave: wave, counts: counts)
  }

  /// A question in a country.
  package struct Place: Hashable, Sendable {
    package let question: SurveyQuestion
    package let culture: Culture
    package let country: String

    package init(question: SurveyQuestion, culture: Culture, country: String) {
      self.question = question
      self.culture = culture
      self.country = country
    }
  }

  /// Questions and the countries where they were asked: by culture, question and country.
  package static let places: [Place] = Culture.allCases.flatMap { culture in
    let asked = Set(
      cells.filter { $0.culture == culture }.map {
        Place(question: $0.question, culture: culture, country: $0.country)
      })
    return asked.sorted {
      ($0.question.rawValue, $0.country) < ($1.question.rawValue, $1.country)
    }
  }

  /// Every second place of a culture is for testing: never part of D_o.
  private static let testPlaces: Set<Place> = Set(
    Culture.allCases.flatMap { culture in
      places.filter { $0.culture == culture }.enumerated().filter { $0.offset % 2 == 1 }
        .map(\.element)
    })

  package static func isTest(_ place: Place) -> Bool { testPlaces.contains(place) }

  /// The countries of a culture that were asked a question, sorted.
  package static func countries(_ culture: Culture, _ question: SurveyQuestion) -> [String] {
    Set(cells.filter { $0.culture == culture && $0.question == question }.map(\.country)).sorted()
  }

  /// Distribution over the answers of a country's people, all waves pooled.
  package static func shares(_ question: SurveyQuestion, _ country: String) -> [Double] {
    var sums = [Double](repeating: 0, count: question.answers.count)
    for cell in cells where cell.question == question && cell.country == country {
      for (answer, count) in cell.counts.enumerated() { sums[answer] += Double(count) }
    }
    let total = sums.reduce(0, +)
    return sums.map { $0 / total }
  }
}
