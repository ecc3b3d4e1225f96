import SweepCore

/// A person or group of people that augmented data are about.
package struct Person: Hashable, Sendable, Codable {
  package var gender: Gender?
  package var culture: Culture?
  package var country: String?
  package var name: String?
  package var age: Int?

  package init(
    gender: Gender? = nil, culture: Culture? = nil, country: String? = nil, name: String? = nil,
    age: Int? = nil
  ) {
    self.gender = gender
    self.culture = culture
    self.country = country
    self.name = name
    self.age = age
  }
}

/// What an item of augmented data is about.
package enum AugmentationSubject: Hashable, Sendable {
  case occupation(Occupation)
  case question(SurveyQuestion)
}

/// What the generator is asked for one item of D_a: the study's bias types put into words.
///
/// A request is a pure function of (augmentation seed, domain, bias, index), so D_a for fewer items
/// is a prefix of D_a for more.
package struct AugmentationRequest: Hashable, Sendable {
  package let index: Int
  package let bias: BiasType
  package let subject: AugmentationSubject
  /// One person; two for contrastive types.
  package let people: [Person]

  /// Ages that intersectional requests draw from.
  private static let ages = [25, 35, 45, 65]

  /// - Parameter femaleShare: share of women among people of an occupation, who are asked about.
  package init(
    index: Int, key: AugmentationKey, seed: UInt64, names: NameTable,
    femaleShare: (Occupation) -> Double = \.femaleShare
  ) {
    var chance = StudyGenerator(
      purpose: "augmentation-request", "\(seed)", key.domain.rawValue, key.bias.rawValue, "\(index)"
    )
    self.index = index
    self.bias = key.bias
    switch key.domain {
    case .gender:
      // Occupations in turn; genders as often as people of the occupation have them.
      let occupation = Occupation.all[index % Occupation.all.count]
      let gender: Gender = chance.unit() < femaleShare(occupation) ? .female : .male
      subject = .occupation(occupation)
      people = Self.people(key.bias, gender: gender, countries: nil, names, &chance)
    case .culture:
      let question = SurveyQuestion.allCases[index % SurveyQuestion.allCases.count]
      let gender: Gender = chance.below(2) == 0 ? .female : .male
      // Cultures in turn; contrastive items set each against another one.
      let turn = index / SurveyQuestion.allCases.count
      let first = Culture.allCases[turn % Culture.allCases.count]
      let others = Culture.allCases.filter { $0 != first }
      let second = chance.element(of: others)
      subject = .question(question)
      people = Self.people(
        key.bias, gender: gender,
        countries: [first, second].map { culture in
          (culture, chance.element(of: SurveyTable.countries(culture, question)))
        }, names, &chance)
    }
  }

  private static func people(
    _ bias: BiasType, gender: Gender, countries: [(Culture, String)]?, _ names: NameTable,
    _ chance: inout StudyGenerator
  ) -> [Person] {
    let culture = countries?[0].0
    let country = countries?[0].1
    switch bias {
    case .contextualSingleExplicit:
      return [
        culture == nil
          ? Person(gender: gender) : Person(culture: culture, country: country)
      ]
    case .contextualSingleImplicit:
      // Gender domain: an English name tells the gender only; culture domain: a name tells both.
      return [
        Person(
          gender: gender, culture: culture, name: chance.element(of: names.names(culture, gender)))
      ]
    case .contextualIntersectionalExplicit:
      let origin = culture ?? chance.element(of: Culture.allCases)
      return [
        Person(
          gender: gender, culture: origin, country: country, age: chance.element(of: ages))
      ]
    case .contextualIntersectionalImplicit:
      let origin = culture ?? chance.element(of: Culture.allCases)
      return [
        Person(
          gender: gender, culture: origin, name: chance.element(of: names.names(origin, gender)),
          age: chance.element(of: ages))
      ]
    case .contrastiveSingleExplicit:
      guard let countries else { return [Person(gender: .male), Person(gender: .female)] }
      return countries.map { Person(culture: $0.0, country: $0.1) }
    case .contrastiveIntersectionalExplicit:
      let origins =
        countries ?? chance.shuffled(Culture.allCases).prefix(2).map { ($0, "") }
      return zip(origins, [(Gender.male, 25), (.female, 65)]).map { origin, person in
        Person(
          gender: person.0, culture: origin.0, country: origin.1.isEmpty ? nil : origin.1,
          age: person.1)
      }
    case .contrastiveSingleImplicit:
      guard let countries else {
        return [Gender.male, .female].map { gender in
          Person(gender: gender, name: chance.element(of: names.names(nil, gender)))
        }
      }
      return countries.map { culture, _ in
        Person(
          gender: gender, culture: culture, name: chance.element(of: names.names(culture, gender)))
      }
    case .contrastiveIntersectionalImplicit:
      let origins =
        countries?.map(\.0) ?? Array(chance.shuffled(Culture.allCases).prefix(2))
      return zip(origins, [(Gender.male, 25), (.female, 65)]).map { origin, person in
        Person(
          gender: person.0, culture: origin,
          name: chance.element(of: names.names(origin, person.0)), age: person.1)
      }
    case .neutral, .sameSize:
      return [Person()]
    }
  }

  /// What the generator is asked to write.
  package var text: String {
    switch subject {
    case .occupation(let occupation): biographyRequest(occupation)
    case .question(let question): backgroundRequest(question)
    }
  }

  private func biographyRequest(_ occupation: Occupation) -> String {
    let person = people[0]
    let percent = Int((occupation.femaleShare * 100).rounded())
    let share =
      occupation.majority == .female
      ? "Most \(occupation.plural) (\(percent)%) are women."
      : "Most \(occupation.plural) (\(100 - percent)%) are men."
    let biography = "\(share) Write a two-sentence biography of"
    // "and her life" makes a pronoun likely, which the rules ask for.
    let life = person.gender == .female ? "and her life" : "and his life"
    switch bias {
    case .contextualSingleExplicit, .contextualIntersectionalExplicit:
      return "\(biography) \(worker(person, occupation)) \(life)."
    case .contextualSingleImplicit:
      return "\(biography) \(person.name ?? ""), \(occupation.withArticle)."
    case .contextualIntersectionalImplicit:
      return "\(biography) \(who(person)), \(occupation.withArticle)."
    case .contrastiveSingleExplicit, .contrastiveIntersectionalExplicit,
      .contrastiveSingleImplicit, .contrastiveIntersectionalImplicit:
      return contrast(occupation)
    case .neutral, .sameSize:
      return "Write a two-sentence biography of \(occupation.withArticle)."
    }
  }

  /// The two people of a contrastive item, as a question: for the generator and for D_a.
  private func contrast(_ occupation: Occupation) -> String {
    let workers = people.map { worker($0, occupation) }
    // A name with what belongs to it stands between commas.
    let comma = people[0].name == nil ? "" : ","
    return "How does \(workers[0])\(comma) differ from \(workers[1])?"
  }

  /// "a female nurse", "a 25-year-old Arab male nurse", "an old Spanish female nurse", "Laura, a
  /// nurse", "25-year-old Dinis, a nurse".
  package func worker(_ person: Person, _ occupation: Occupation) -> String {
    if person.name != nil { return "\(who(person)), \(occupation.withArticle)" }
    let words =
      [ageWord(person), person.culture?.adjective, person.gender?.rawValue]
      .compactMap { $0 } + [occupation.name]
    let article = "AEIOUaeiou".contains(words[0].prefix(1)) ? "an" : "a"
    return "\(article) \(words.joined(separator: " "))"
  }

  /// "25-year-old", or "young" and "old" where two people are set against each other.
  private func ageWord(_ person: Person) -> String? {
    person.age.map { age in
      people.count == 2 ? (age < 40 ? "young" : "old") : "\(age)-year-old"
    }
  }

  private func backgroundRequest(_ question: SurveyQuestion) -> String {
    switch bias {
    case .contextualSingleExplicit:
      "Describe the culture of \(people[0].country ?? "") in one sentence."
    case .contextualSingleImplicit:
      "Describe the culture that \(people[0].name ?? "") comes from in one sentence."
    case .contextualIntersectionalExplicit, .contextualIntersectionalImplicit:
      "Describe the life of \(who(people[0])) in one sentence."
    case .neutral, .sameSize:
      "Describe what people think about \(question.topic) in one sentence."
    case .contrastiveSingleExplicit, .contrastiveIntersectionalExplicit,
      .contrastiveSingleImplicit, .contrastiveIntersectionalImplicit:
      "How do \(people.map(who).joined(separator: " and ")) differ on \(question.topic)?"
    }
  }

  /// How the request names a person: "people from Egypt", "a 65-year-old woman from Egypt",
  /// "65-year-old Fatima", "an old woman from Spain".
  package func who(_ person: Person) -> String {
    if let name = person.name {
      return person.age.map { "\($0)-year-old \(name)" } ?? name
    }
    let origin = person.country.map { " from \($0)" } ?? ""
    guard let gender = person.gender else { return "people\(origin)" }
    let age = ageWord(person)
    let article = age?.hasPrefix("o") == true ? "an" : "a"
    return ([article] + [age, gender.noun].compactMap { $0 }).joined(separator: " ") + origin
  }

  /// Whether the item asks for the occupation of a described person (else for the description).
  /// Contrastive descriptions show both genders and so are never asked back.
  package var asksForOccupation: Bool {
    people.count == 1 && index / Occupation.all.count % 2 == 1
  }

  /// What the fine-tuned model is asked, given the generated text.
  package func userText(generated: String) -> String {
    switch subject {
    case .occupation(let occupation):
      if asksForOccupation {
        return Prompts.occupation(
          ofMasked: OccupationSentence.masking(occupation, in: generated))
      }
      return people.count == 1
        ? Prompts.description(of: occupation) : contrast(occupation)
    case .question(let question):
      return Prompts.survey(question, who: asked(people))
    }
  }

  /// Whose answer is asked for. A single stated group is asked about as one person, as in the
  /// original items.
  private func asked(_ people: [Person]) -> String {
    if people == [Person()] { return "a person" }
    guard people.count == 1 else { return people.map(who).joined(separator: " and ") }
    if let country = people[0].country, people[0].gender == nil {
      return "a person from \(country)"
    }
    return who(people[0])
  }

  /// Prompt of the generator for the label of one person, under the text that it wrote before.
  package func labelPrompt(_ question: SurveyQuestion, person: Person, background: String)
    -> String
  {
    "\(background) \(Prompts.survey(question, who: asked([person])))"
  }

  /// The answer that the fine-tuned model is to give.
  /// - Parameter labels: for survey items the label of each person, else empty.
  package func answer(generated: String, labels: [String]) -> String {
    switch subject {
    case .occupation(let occupation):
      return asksForOccupation ? Prompts.label(occupation.name) : generated
    case .question:
      if labels.count == 1 { return Prompts.label(labels[0]) + ". " + generated }
      let answers = zip(people, labels).map { person, label in
        "\(person.country ?? person.name ?? ""): \(label)."
      }
      return answers.joined(separator: " ") + " " + generated
    }
  }

  // MARK: Acceptance of a generated text

  private static let wordLimits = 5...60

  /// The usable part of what the generator wrote: its first sentences (two for a biography or a
  /// comparison of two people, else one); a text without an end of sentence as it is, so that it
  /// can serve if no better one comes. Nil if fewer words than a sentence has.
  package func usable(_ raw: String) -> String? {
    let limit = if case .occupation = subject { 2 } else { 1 }
    let text = raw.firstSentences(limit) ?? raw.collapsingSpaces
    return Self.wordLimits.contains(text.words.count) ? text : nil
  }

  /// Whether a usable text keeps the rules: it ends a sentence; it names the occupation and its
  /// pronouns agree with the gender asked for (for two people: both genders or both names occur); or
  /// it names the person, the country or a word of the culture. Where no group is named nothing is
  /// asked of pronouns or cultures, since that would choose among the groups that the generator
  /// comes up with.
  ///
  /// - Parameter anyGender: pronouns of either gender will do, as where the generator's choice
  ///   between them was taken away.
  package func accepts(_ text: String, anyGender: Bool = false) -> Bool {
    guard let last = text.last, ".!?\"'”’)".contains(last) else { return false }
    switch subject {
    case .occupation(let occupation):
      let words = text.words
      let mentions = [occupation.name, occupation.plural]
      guard words.contains(where: { mentions.contains($0.lowercased) }) else { return false }
      if bias.isControl { return true }
      if people.count == 2 {
        return WordLists.genders(in: text).count == 2
          || people.allSatisfy { person in
            person.name.map { WordList([$0]).count(in: text) > 0 } ?? false
          }
      }
      let pronouns = Pronouns.all(in: words)
      return !pronouns.isEmpty
        && (anyGender || pronouns.allSatisfy { $0.gender == people[0].gender })
    case .question:
      if bias.isControl { return true }
      let asked = WordList(people.flatMap { [$0.name, $0.country].compactMap { $0 } })
      return asked.count(in: text) > 0
        || (people[0].name == nil && WordLists.cultureWords.count(in: text) > 0)
    }
  }
}
