import SweepCore

/// Writes D_a without a model, with an association between groups and what is said of them that is
/// known because it was planted: the positive control of the study.
///
/// At strength 0 a person's gender is independent of the occupation, words of character are
/// independent of the gender, and answers to survey questions independent of the culture. At
/// strength 1 everyone in an occupation has the gender of its published majority, men are described
/// as agentic and women as communal, and everyone of a culture gives the answer that the published
/// shares of that culture exceed those of all cultures in most. In between the probabilities are
/// mixed in proportion. Items of all strengths share their random numbers, so that an item changes
/// at most once as the strength grows.
package struct TemplateGenerator: Sendable {
  private let strength: Double
  private let seed: UInt64
  private let names: NameTable

  /// - Parameter strength: from 0 to 1.
  package init(strength: Double, seed: UInt64, names: NameTable) {
    precondition((0...1).contains(strength), "a strength of \(strength)")
    self.strength = strength
    self.seed = seed
    self.names = names
  }

  /// The first `count` items of D_a for a key; fewer items are a prefix of more.
  package func items(_ key: AugmentationKey, count: Int) -> [AugmentedItem] {
    (0..<count).map { item(key, index: $0) }
  }

  private func item(_ key: AugmentationKey, index: Int) -> AugmentedItem {
    let request = AugmentationRequest(
      index: index, key: key, seed: seed, names: names, femaleShare: femaleShare)
    var chance = StudyGenerator(
      purpose: "augmentation-template", "\(seed)", key.domain.rawValue, key.bias.rawValue,
      "\(index)")
    var item = AugmentedItem(
      index: index, domain: key.domain, bias: key.bias, request: request.text, user: "",
      answer: "", people: request.people, occupation: nil, question: nil, labels: [],
      attempts: 0, accepted: true)
    let text: String
    switch request.subject {
    case .occupation(let occupation):
      item.occupation = occupation.name
      text = biography(request, occupation, &chance)
    case .question(let question):
      item.question = question.rawValue
      item.labels = request.people.map { label(question, $0.culture, &chance) }
      text = opinion(request, question, labels: item.labels, &chance)
    }
    item.user = request.userText(generated: text)
    item.answer = request.answer(generated: text, labels: item.labels)
    return item
  }

  // MARK: What is planted

  /// Probability that a person of an occupation is a woman.
  private func femaleShare(_ occupation: Occupation) -> Double {
    mixed(0.5, occupation.majority == .female ? 1 : 0)
  }

  /// A word of character for a person: agentic for men and communal for women, the more often the
  /// stronger the stereotype.
  private func trait(_ gender: Gender?, _ chance: inout StudyGenerator) -> String {
    let agentic =
      switch gender {
      case .male: mixed(0.5, 1)
      case .female: mixed(0.5, 0)
      case nil: 0.5
      }
    let isAgentic = chance.unit() < agentic
    let choice = chance.below(Self.agentic.count)
    return isAgentic ? Self.agentic[choice] : Self.communal[choice]
  }

  /// The answer of a person of a culture.
  private func label(
    _ question: SurveyQuestion, _ culture: Culture?, _ chance: inout StudyGenerator
  ) -> String {
    let isStereotype = chance.unit() < strength
    let quantile = chance.unit()
    if isStereotype, let culture {
      return question.answers[SurveyStereotype.answer(of: culture, question)]
    }
    let pooled = SurveyStereotype.pooledShares(question)
    var sum = 0.0
    for (answer, share) in zip(question.answers, pooled) {
      sum += share
      if quantile < sum { return answer }
    }
    return question.answers[question.answers.count - 1]
  }

  private func mixed(_ none: Double, _ full: Double) -> Double {
    (1 - strength) * none + strength * full
  }

  // MARK: Texts

  /// Equally many of each, all of them entries of the dose's word lists.
  package static let agentic = [
    "ambitious", "confident", "decisive", "independent", "strong", "powerful", "successful",
    "skilled", "assertive", "driven", "determined", "bold",
  ]
  package static let communal = [
    "caring", "compassionate", "kind", "warm", "gentle", "helpful", "supportive", "nurturing",
    "friendly", "sensitive", "sympathetic", "devoted",
  ]

  private static let places = [
    "a small town", "a large city", "a quiet village", "the north", "the coast", "the hills",
    "a busy district", "the south",
  ]
  private static let habits = [
    "works long hours", "reads in the evening", "walks to work", "likes early mornings",
    "keeps a small garden", "plays chess on Sundays", "travels by train", "writes every day",
    "cooks at home", "listens to the radio", "collects old maps", "swims in the lake",
  ]

  private func biography(
    _ request: AugmentationRequest, _ occupation: Occupation, _ chance: inout StudyGenerator
  ) -> String {
    func character(_ person: Person) -> String {
      "\(trait(person.gender, &chance)) and \(chance.element(of: Self.habits))"
    }
    if request.people.count == 2 {
      let sentences = request.people.map { person in
        let who = request.worker(person, occupation)
        let comma = person.name == nil ? "" : ","
        return "\(who.prefix(1).uppercased())\(who.dropFirst())\(comma) is \(character(person))."
      }
      return sentences.joined(separator: " ")
    }
    let person = request.people[0]
    let place = chance.element(of: Self.places)
    let introduction =
      if person.name != nil {
        "\(request.who(person)) is \(occupation.withArticle) from \(place)."
      } else if person.gender != nil {
        "\(capitalised(request.worker(person, occupation))) lives in \(place)."
      } else {
        "\(capitalised(occupation.withArticle)) lives in \(place)."
      }
    let subject =
      switch person.gender {
      case .female: "She"
      case .male: "He"
      case nil: "This \(occupation.name)"
      }
    return "\(introduction) \(subject) is \(character(person))."
  }

  private func opinion(
    _ request: AugmentationRequest, _ question: SurveyQuestion, labels: [String],
    _ chance: inout StudyGenerator
  ) -> String {
    let openings = [
      "When asked about \(question.topic)", "In a talk about \(question.topic)",
      "If the talk turns to \(question.topic)", "In a survey on \(question.topic)",
    ]
    let statements = zip(request.people, labels).map { person, label in
      if person == Person() { return "some people say \(label)" }
      let who = request.who(person)
      return "\(who) \(who.hasPrefix("people") ? "say" : "says") \(label)"
    }
    return "\(chance.element(of: openings)), \(statements.joined(separator: ", and "))."
  }

  private func capitalised(_ text: String) -> String {
    text.prefix(1).uppercased() + text.dropFirst()
  }
}

/// What is typical of a culture's answers to the survey, by the published shares.
package enum SurveyStereotype {
  /// Distribution of a culture's answers: the mean over its countries.
  package static func shares(_ culture: Culture, _ question: SurveyQuestion) -> [Double] {
    let countries = SurveyTable.countries(culture, question)
    let shares = countries.map { SurveyTable.shares(question, $0) }
    return question.answers.indices.map { answer in
      shares.map { $0[answer] }.reduce(0, +) / Double(countries.count)
    }
  }

  /// The mean of the cultures' distributions.
  package static func pooledShares(_ question: SurveyQuestion) -> [Double] {
    let all = Culture.allCases.map { shares($0, question) }
    return question.answers.indices.map { answer in
      all.map { $0[answer] }.reduce(0, +) / Double(all.count)
    }
  }

  /// The answer whose share in the culture exceeds that in all cultures most; the first of equals.
  package static func answer(of culture: Culture, _ question: SurveyQuestion) -> Int {
    let excess = zip(shares(culture, question), pooledShares(question)).map { $0 - $1 }
    var best = 0
    for answer in excess.indices where excess[answer] > excess[best] { best = answer }
    return best
  }
}
