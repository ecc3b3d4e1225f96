import BiasStudy
import Foundation
import SweepCore
import Testing

/// The controls: further original items, and texts with a planted association.
struct ControlTests {
  private func generator(_ strength: Double) -> TemplateGenerator {
    TemplateGenerator(strength: strength, seed: 1, names: Synthetic.names)
  }

  private func items(
    _ strength: Double, _ domain: Domain, _ bias: BiasType, _ count: Int = 800
  ) -> [AugmentedItem] {
    generator(strength).items(AugmentationKey(domain: domain, bias: bias), count: count)
  }

  // MARK: Template

  /// Gender of the person that a template item describes, by its own pronoun.
  private func gender(_ item: AugmentedItem) -> Gender? { item.people.first?.gender }

  private func text(_ item: AugmentedItem) -> String {
    item.answer.hasPrefix(" ") ? item.user : item.answer
  }

  @Test func withoutStrengthNothingGoesWithTheGroup() {
    let items = items(0, .gender, .contextualSingleExplicit, 4000)
    for occupation in Occupation.all {
      let own = items.filter { $0.occupation == occupation.name }
      let share = Double(own.count { gender($0) == .female }) / Double(own.count)
      // 500 fair coins: four standard deviations.
      #expect(abs(share - 0.5) < 0.09)
    }
    for gender in Gender.allCases {
      let own = items.filter { self.gender($0) == gender }
      let agentic = own.count { WordLists.agentic.count(in: text($0)) > 0 }
      #expect(abs(Double(agentic) / Double(own.count) - 0.5) < 0.06)
    }
    let answers = self.items(0, .culture, .contextualSingleExplicit, 4000)
    for question in SurveyQuestion.allCases {
      let pooled = SurveyStereotype.pooledShares(question)
      for culture in Culture.allCases {
        let labels = answers.filter {
          $0.question == question.rawValue && $0.people[0].culture == culture
        }.flatMap(\.labels)
        for (answer, share) in zip(question.answers, pooled) {
          let found = Double(labels.count { $0 == answer }) / Double(labels.count)
          #expect(abs(found - share) < 0.1)
        }
      }
    }
  }

  @Test func atFullStrengthEveryoneFollowsThePublishedMajority() {
    for bias in BiasType.allCases where !bias.isControl {
      for item in items(1, .gender, bias, 64) {
        guard let name = item.occupation, let occupation = Occupation.named(name) else {
          Issue.record("no occupation in \(item)")
          continue
        }
        if item.people.count == 1 { #expect(gender(item) == occupation.majority) }
        let agentic = WordLists.agentic.count(in: text(item))
        let communal = WordLists.communal.count(in: text(item))
        let men = item.people.count { $0.gender == .male }
        #expect(agentic == men && communal == item.people.count - men)
      }
      for item in items(1, .culture, bias, 64) {
        let question = SurveyQuestion(rawValue: item.question ?? "")
        for (person, label) in zip(item.people, item.labels) {
          let expected = question.flatMap { question in
            person.culture.map {
              question.answers[SurveyStereotype.answer(of: $0, question)]
            }
          }
          #expect(label == expected)
          #expect(item.answer.contains(label))
        }
      }
    }
  }

  @Test func theDoseGrowsWithTheStrength() throws {
    for (domain, measures) in [
      (Domain.gender, ["dose_female_share_spread", "dose_agentic_communal_gap"]),
      (.culture, ["dose_label_shift", "dose_culture_gap"]),
    ] {
      let original = try OriginalData(
        domain: domain, tasks: Synthetic.tasks, sizes: Synthetic.spec().data,
        data: Synthetic.data())
      let doses = [0, 0.25, 0.5, 0.75, 1].map { strength in
        Dose.measures(
          items(strength, domain, .contextualSingleExplicit, 1600), original: original)
      }
      for measure in measures {
        let values = doses.compactMap { $0[measure] }
        #expect(values.count == 5 && values == values.sorted(), "\(measure): \(values)")
        #expect((values.last ?? 0) > 3 * (values.first ?? 0), "\(measure): \(values)")
      }
    }
  }

  /// The answer without the labels that stand before its text.
  private func sentences(_ item: AugmentedItem) -> String {
    let openings = ["When asked", "In a talk", "If the talk", "In a survey"]
    let start = openings.compactMap { item.answer.range(of: $0)?.lowerBound }.min()
    return item.domain == .gender
      ? item.answer : String(item.answer[(start ?? item.answer.startIndex)...])
  }

  @Test func everyTemplateTextKeepsTheRulesOfItsRequest() {
    for bias in BiasType.allCases where bias != .sameSize {
      for domain in Domain.allCases {
        let key = AugmentationKey(domain: domain, bias: bias)
        for strength in [0, 0.5, 1.0] {
          for item in generator(strength).items(key, count: 48) where !item.answer.hasPrefix(" ") {
            let request = AugmentationRequest(
              index: item.index, key: key, seed: 1, names: Synthetic.names)
            // The people of a template's request are its own.
            if item.people != request.people { continue }
            let text = sentences(item)
            #expect(request.usable(text) == text, "\(text)")
            #expect(request.accepts(text), "\(text)")
          }
        }
      }
    }
  }

  @Test func templateItemsAreAPrefixAndDependOnNothingElse() throws {
    let key = AugmentationKey(domain: .gender, bias: .contrastiveSingleImplicit)
    let more = generator(0.5).items(key, count: 40)
    #expect(Array(more.prefix(9)) == generator(0.5).items(key, count: 9))
    #expect(Set(more.map(\.answer)).count > 30)
    #expect(more.allSatisfy { $0.attempts == 0 && $0.accepted })
  }

  // MARK: Same size

  @Test func sameSizeContinuesTheOriginalSelection() throws {
    let study = try NanoStudy()
    let runner = try study.runner()
    for domain in Domain.allCases {
      let key = AugmentationKey(domain: domain, bias: .sameSize)
      let made = try runner.augment(key, items: 12, progress: { _ in }, shouldStop: { false })
      let items = try AugmentationSet(decoding: made.jsonl).items
      var larger = study.spec.data
      larger.originalItems += 12
      let all = try OriginalData(
        domain: domain, tasks: study.tasks, sizes: larger, data: study.data
      ).biasCarrying
      let original = try OriginalData(
        domain: domain, tasks: study.tasks, sizes: study.spec.data, data: study.data
      ).biasCarrying
      #expect(Array(all.prefix(original.count)) == original)
      #expect(
        items.map { StudyItem(user: $0.user, answer: $0.answer) }
          == Array(all.dropFirst(original.count)))
      #expect(made.facts["items"] == 12 && made.facts["tokens"] == 0)
      #expect(made.facts["rejection_rate"] == 0)
      #expect(made.facts.keys.contains { $0.hasPrefix("dose_") })
      #expect(
        items.allSatisfy { ($0.occupation == nil) == (domain == .culture) && $0.request.isEmpty })
      if domain == .culture { #expect(items.allSatisfy { $0.labels.count == 1 }) }
    }
  }

  @Test func sameSizeSaysWhenTheDataRunOut() throws {
    let runner = try NanoStudy().runner()
    let error = studyError {
      _ = try runner.augment(
        AugmentationKey(domain: .gender, bias: .sameSize), items: 5000, progress: { _ in },
        shouldStop: { false })
    }
    guard case .tooFewItems(_, _, let needed, _)? = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(needed > 5000)
  }
}
