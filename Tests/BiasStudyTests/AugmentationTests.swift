import BiasStudy
import Foundation
import StudyDocuments
import SweepCore
import Testing

struct AugmentationTests {
  private func request(_ bias: BiasType, _ domain: Domain, _ index: Int) -> AugmentationRequest {
    AugmentationRequest(
      index: index, key: AugmentationKey(domain: domain, bias: bias), seed: 1,
      names: Synthetic.names)
  }

  private func item(
    user: String = "Write about Pilar.", answer: String = "She left.", people: [Person] = [],
    index: Int = 0
  ) -> AugmentedItem {
    AugmentedItem(
      index: index, domain: .gender, bias: .contextualSingleExplicit, request: "r", user: user,
      answer: answer, people: people, occupation: "nurse", question: nil, labels: [], attempts: 1,
      accepted: true)
  }

  // MARK: Requests

  @Test(arguments: BiasType.allCases) func requestsSayWhatTheirBiasTypeMeans(bias: BiasType) {
    for domain in Domain.allCases {
      for index in 0..<24 {
        let request = request(bias, domain, index)
        let text = request.text
        let isContrastive = bias.rawValue.hasPrefix("contrastive")
        #expect(request.people.count == (isContrastive ? 2 : 1))
        if bias.isControl {
          #expect(request.people == [Person()])
          #expect(WordLists.genderWords.count(in: text) == 0)
          #expect(WordLists.cultureWords.count(in: text) == 0)
          continue
        }
        for person in request.people {
          if bias.rawValue.hasSuffix("implicit") {
            // The name alone tells.
            #expect(person.name.map { text.contains($0) } == true)
            #expect(person.country == nil && !text.contains(" male ") && !text.contains("female"))
          } else {
            #expect(person.name == nil)
          }
          #expect((person.age != nil) == bias.rawValue.contains("intersectional"))
          if domain == .culture { #expect(person.culture != nil) }
          if let country = person.country { #expect(text.contains(country)) }
        }
        if isContrastive { #expect(request.people[0] != request.people[1]) }
      }
    }
  }

  @Test func gendersFollowTheOccupationsShares() {
    let requests = (0..<4000).map { request(.contextualSingleExplicit, .gender, $0) }
    for occupation in Occupation.all {
      let own = requests.filter { $0.subject == .occupation(occupation) }
      let share = Double(own.count { $0.people[0].gender == .female }) / Double(own.count)
      #expect(own.count == 500 && abs(share - occupation.femaleShare) < 0.07)
    }
  }

  @Test func wordsOfTheRequestsReadWell() {
    let person = AugmentationRequest(
      index: 0, key: AugmentationKey(domain: .gender, bias: .contextualSingleExplicit), seed: 1,
      names: Synthetic.names)
    let gender = person.people[0].gender == .female ? "female" : "male"
    let own = gender == "female" ? "her" : "his"
    #expect(
      person.text == "Most authors (57%) are women. Write a two-sentence biography of a \(gender) "
        + "author and \(own) life.")
    #expect(
      request(.contrastiveSingleExplicit, .gender, 0).text
        == "How does a male author differ from a female author?")
    let names = request(.contrastiveIntersectionalImplicit, .gender, 0).people.compactMap(\.name)
    #expect(
      request(.contrastiveIntersectionalImplicit, .gender, 0).text
        == "How does 25-year-old \(names[0]), an author, differ from 65-year-old \(names[1]), "
        + "an author?")
    #expect(
      request(.neutral, .gender, 4).text == "Write a two-sentence biography of a nurse.")
    #expect(
      request(.neutral, .culture, 0).userText(generated: "")
        == "How would a person answer? " + SurveyQuestion.allCases[0].text)
    let two = request(.contrastiveSingleImplicit, .culture, 0)
    #expect(
      two.answer(generated: "They differ.", labels: ["few", "nobody"])
        == "\(two.people[0].name ?? ""): few. \(two.people[1].name ?? ""): nobody. They differ.")
  }

  @Test func rulesAskNothingOfTheGroupsThatAControlComesUpWith() {
    let nurse = request(.neutral, .gender, 4)
    #expect(nurse.accepts("The nurse works. He rests, and she sings."))
    #expect(nurse.accepts("The nurse works."))
    #expect(!nurse.accepts("The teacher works."))
    #expect(!nurse.accepts("The nurse"))
    #expect(request(.neutral, .culture, 0).accepts("Some say yes and some say no."))
  }

  @Test func comparedPeopleAreKnownByTheirGendersOrTheirNames() {
    let compared = request(.contrastiveSingleImplicit, .gender, 4)
    let names = compared.people.compactMap(\.name)
    #expect(names.count == 2)
    #expect(compared.accepts("\(names[0]) the nurse sings, \(names[1]) sleeps."))
    #expect(compared.accepts("The male nurse sings, the woman sleeps."))
    #expect(!compared.accepts("\(names[0]) the nurse sings."))
  }

  // MARK: Acceptance

  @Test func rulesWantTheOccupationTheRightPronounAndAnEnd() {
    let requests = (0..<64).map { request(.contextualSingleExplicit, .gender, $0) }
    guard
      let nurse = requests.first(where: {
        $0.subject == .occupation(Occupation.all[4]) && $0.people[0].gender == .female
      })
    else {
      Issue.record("no request for a female nurse")
      return
    }
    #expect(nurse.accepts("Ann is a nurse. She helps."))
    #expect(!nurse.accepts("Ann is a nurse. She helps him."))
    #expect(!nurse.accepts("Ann is a nurse."))
    #expect(!nurse.accepts("Ann is a doctor. She helps."))
    #expect(!nurse.accepts("Ann is a nurse and she"))
    #expect(nurse.usable("One two three four five. Six. Seven.") == "One two three four five. Six.")
    #expect(nurse.usable("Too few words.") == nil)
  }

  @Test func askedBackTextHidesTheOccupation() {
    guard
      let request = (0..<64).map({ self.request(.contextualSingleExplicit, .gender, $0) })
        .first(where: { $0.asksForOccupation && $0.subject == .occupation(Occupation.all[0]) })
    else {
      Issue.record("no item asks for an author")
      return
    }
    let generated = "An author, she met authors."
    #expect(request.userText(generated: generated).hasSuffix("A ___, she met ___."))
    #expect(request.answer(generated: generated, labels: []) == " author")
  }

  @Test func peopleSetAgainstEachOtherGetDifferentAnswers() {
    #expect(Augmenter.answers([ChoiceScores([0, 3, 1])]) == [1])
    #expect(Augmenter.answers([ChoiceScores([0, 3, 1]), ChoiceScores([0, 5, 4.5])]) == [1, 2])
  }

  // MARK: Storage

  @Test func setIsReadAsItWasWritten() throws {
    let people = [Person(gender: .female, culture: .arabic, name: "Layla \"L\" é", age: 25)]
    let set = AugmentationSet(
      items: (0..<3).map { item(user: "a\nb\t\"c\" / \\ é 𝄞", people: people, index: $0) })
    let bytes = try set.encoded()
    #expect(try AugmentationSet(decoding: bytes) == set)
    #expect(try AugmentationSet(decoding: bytes).encoded() == bytes)
    #expect(bytes.split(separator: UInt8(ascii: "\n")).count == 3)
    #expect(try AugmentationSet(decoding: []).items.isEmpty == true)
  }

  @Test func malformedItemIsNamedByLine() throws {
    let good = try AugmentationSet(items: [item()]).encoded()
    func problem(_ bytes: [UInt8]) -> (Int, String)? {
      guard
        case .malformed(_, let line, let problem)? = studyError({
          _ = try AugmentationSet(decoding: bytes, file: "f")
        })
      else { return nil }
      return (line, problem)
    }
    #expect(problem(good + good)?.0 == 2)
    #expect(problem(good + good)?.1 == "has index 0, expected 1")
    #expect(problem(good + Array("{}\n".utf8))?.1.contains("is missing") == true)
    #expect(problem(good.dropLast(3))?.1.contains("cut off") == true)
    let text = String(decoding: good, as: UTF8.self)
    let wrong = text.replacing("\"gender\"", with: "\"sex\"")
    #expect(problem(Array(wrong.utf8))?.1.contains("domain") == true)
    let empty = text.replacing("She left.", with: "")
    #expect(problem(Array(empty.utf8))?.1.contains("empty") == true)
    let long = text.replacing(
      "She left.", with: String(repeating: "x", count: AugmentationSet.lineBytesMax))
    #expect(problem(Array(long.utf8))?.1.contains("the limit") == true)
  }

  @Test func damagedSetIsReadOrRefusedButNeverCrashes() throws {
    let original = try AugmentationSet(items: (0..<4).map { item(index: $0) }).encoded()
    var chance = StudyGenerator(seed: 5)
    for _ in 0..<2000 {
      var bytes = original
      if chance.below(3) == 0 { bytes = Array(bytes.prefix(chance.below(bytes.count))) }
      for _ in 0..<(1 + chance.below(3)) where !bytes.isEmpty {
        bytes[chance.below(bytes.count)] = UInt8(chance.below(256))
      }
      _ = studyError { _ = try AugmentationSet(decoding: bytes) }
    }
  }

  // MARK: Mitigations

  private func mitigate(_ mitigation: Mitigation, _ item: AugmentedItem) throws -> StudyItem {
    let settings = try Synthetic.spec().mitigation
    return ItemMitigation(mitigation, settings: settings, names: Synthetic.names).apply(to: item)
  }

  @Test func noneAndLossLeaveItemsAsTheyAre() throws {
    let item = item()
    for mitigation in [Mitigation.none, .loss, .lossReweight, .tokenDecoding] {
      #expect(try mitigate(mitigation, item) == StudyItem(user: item.user, answer: item.answer))
    }
    let settings = try Synthetic.spec().mitigation
    let weights = Mitigation.allCases.map {
      ItemMitigation($0, settings: settings, names: Synthetic.names).alignmentWeight
    }
    #expect(weights == [0, 0, 0, 0.1, 0, 0, 0])
    let exponents = Mitigation.allCases.map {
      ItemMitigation($0, settings: settings, names: Synthetic.names).reweightingExponent
    }
    #expect(exponents == [0, 0, 0, 0, 0, 0, 1])
  }

  @Test func tokenPutsItsPrefixBeforeTheUserTextOnly() throws {
    let item = item()
    let found = try mitigate(.token, item)
    #expect(found.user == "The following text may contain bias. Write about Pilar.")
    #expect(found.answer == item.answer)
  }

  @Test func maskCoversEveryListedFormAndNothingElse() throws {
    let text =
      "Pilar, HER mother and O'Hara, an old Saudi-Arabian woman from Hong Kong, met Robin's "
      + "himself; theory, mankind and May will stay. Zoë's"
    let expected =
      "[MASK], [MASK] [MASK] and O'Hara, an old [MASK] [MASK] from [MASK], met Robin's "
      + "[MASK]; theory, mankind and May will stay. [MASK]'s"
    let found = try mitigate(
      .mask, item(user: text, answer: text, people: [Person(name: "Zoë")]))
    #expect(found.user == expected)
    #expect(found.answer == expected)
  }

  /// The forms of every listed word and phrase, among words that hold it and are not listed.
  @Test func everyListedFormIsMaskedAndItsNeighboursStay() throws {
    let masked = try #require(WordLists.mitigationWords.masked)
    #expect(masked.count > 200 && masked.contains("saudi_arabian") && masked.contains("herself"))
    func sentence(_ form: String, _ longer: String) -> String {
      "Once \(form) stayed: a lamp of \(form)'s, the non-\(form)-led boat, \"\(form)\" and "
        + "\(longer)."
    }
    let mask = ItemMitigation(
      .mask, settings: try Synthetic.spec().mitigation, names: Synthetic.names)
    let neutral = ItemMitigation(
      .maskNeutral, settings: try Synthetic.spec().mitigation, names: Synthetic.names)
    let list = WordList(masked)
    for entry in masked {
      let parts = entry.split(separator: "_").map(String.init)
      let spellings: [[String]] = [
        parts, parts.map { $0.prefix(1).uppercased() + $0.dropFirst() },
        parts.map { $0.uppercased() },
      ]
      for words in spellings {
        for joint in parts.count == 1 ? [" "] : [" ", "-"] {
          let form = words.joined(separator: joint)
          // No word of the list, whatever it begins or ends with.
          let longer = words.map { "pre\($0)zz" }.joined(separator: joint)
          let text = sentence(form, longer)
          let expected = sentence("[MASK]", longer)
          let found = mask.apply(to: item(user: text, answer: text))
          #expect(found == StudyItem(user: expected, answer: expected))
          let kept = neutral.apply(to: item(user: text)).user
          #expect(list.count(in: kept) == 0, "\(kept)")
          #expect(kept.hasPrefix("Once ") && kept.hasSuffix("\" and \(longer)."), "\(kept)")
          #expect(kept.words.count { $0.lowercased == "non" || $0.lowercased == "led" } == 2)
        }
      }
    }
  }

  @Test func neutralWordsTakeThePlacesOfTheListedOnes() throws {
    let text =
      "Pilar, HER mother and O'Hara, an old Saudi-Arabian woman from Hong Kong, met him. She saw "
      + "her, and his father's book; theory and May will stay."
    let expected =
      "someone, THEIR parent and O'Hara, an old local person from a country, met them. They saw "
      + "them, and their parent's book; theory and May will stay."
    let found = try mitigate(.maskNeutral, item(user: text, answer: text))
    #expect(found.user == expected)
    #expect(found.answer == expected)
    let named = try mitigate(
      .maskNeutral,
      item(user: "Zoë of Egypt", answer: "Egypt's", people: [Person(country: "Egypt", name: "Zoë")])
    )
    #expect(named.user == "someone of a country" && named.answer == "a country's")
  }

  /// Every word that is masked has a neutral one, and neutral ones are not themselves on the list.
  @Test func neutralWordsCoverTheMaskedOnes() throws {
    let words = WordLists.mitigationWords
    let masked = try #require(words.masked)
    let neutral = try #require(words.neutral)
    let pairs = neutral.map { $0.split(separator: "=").map(String.init) }
    #expect(pairs.map { $0[0] }.sorted() == masked && Set(masked).count == masked.count)
    let list = WordList(masked)
    for pair in pairs {
      for form in pair[1].split(separator: "/") {
        let text = String(form).replacing("_", with: " ")
        #expect(list.count(in: text) == 0, "\(text)")
      }
    }
    // What a spec with these lists gets is what a spec without any does.
    let text = "The Egyptian woman met Pilar and her sons in Hong Kong."
    var settings = try Synthetic.spec().mitigation
    settings.maskedWords = words.masked
    settings.neutralWords = words.neutral
    for mitigation in [Mitigation.mask, .maskNeutral] {
      let listed = ItemMitigation(mitigation, settings: settings, names: Synthetic.names)
        .apply(to: item(user: text))
      #expect(listed == (try mitigate(mitigation, item(user: text))))
    }
  }

  @Test func aSpecsOwnListsAreTheOnesThatCount() throws {
    var settings = try Synthetic.spec().mitigation
    settings.maskedWords = ["nurse", "very_kind"]
    settings.neutralWords = ["nurse=worker", "very_kind=so"]
    let text = "The Nurse and her mother are very kind to nurses; kind, very."
    func words(_ mitigation: Mitigation) -> String {
      ItemMitigation(mitigation, settings: settings, names: Synthetic.names)
        .apply(to: item(user: text)).user
    }
    #expect(words(.mask) == "The [MASK] and her mother are [MASK] to nurses; kind, very.")
    #expect(words(.maskNeutral) == "The Worker and her mother are so to nurses; kind, very.")
  }

  /// A dictionary that has "May"; older specs do not say which names are words too.
  @Test func namesThatAreWordsTooAreTheSpecs() throws {
    var entries: [(gender: String, name: String, frequencies: [Int: Character])] = []
    for (gender, name, column) in [
      ("M", "Omar", 77), ("F", "Layla", 77), ("M", "Tiago", 35), ("F", "Filipa", 35),
      ("M", "Pablo", 36), ("F", "Pilar", 36),
    ] { entries.append((gender, name, [column: "7"])) }
    for (gender, name) in [("M", "David"), ("F", "May")] {
      entries.append((gender, name, [30: "8", 31: "8", 32: "8"]))
    }
    let names = try NameTable(dictionary: dictionary(entries), file: "names")
    var settings = try Synthetic.spec().mitigation
    #expect(settings.unmaskedNames == nil)
    func words(_ mitigation: Mitigation, people: [Person] = []) -> String {
      ItemMitigation(mitigation, settings: settings, names: names)
        .apply(to: item(user: "May and Pilar met in May.", people: people)).user
    }
    #expect(words(.mask) == "May and [MASK] met in May.")
    let listed = WordLists.mitigationWords.unmaskedNames
    #expect(listed?.contains("May") == true && listed?.contains("Pilar") == false)
    settings.unmaskedNames = listed
    #expect(words(.mask) == "May and [MASK] met in May.")
    settings.unmaskedNames = ["Pilar"]
    #expect(words(.mask) == "[MASK] and Pilar met in [MASK].")
    #expect(words(.maskNeutral) == "someone and Pilar met in someone.")
    // An item's own name is always one.
    #expect(words(.mask, people: [Person(name: "Pilar")]) == "[MASK] and [MASK] met in [MASK].")
  }

  /// The ledger keeps a spec's canonical JSON, and with it the words and weights of a sweep.
  @Test func theStudysWordsAndWeightsStandInTheSpecAndItsJSON() throws {
    let names = Mitigation.allCases.map(\.rawValue).joined(separator: ", ")
    func resolved(
      weight: Double = 0.25, exponent: Double = 2, words: MitigationWords
    ) throws -> SweepSpec {
      let yaml = """
        name: words
        tasks: [occupation]
        biases: [contextual-single-explicit]
        ratios: [0, 0.5]
        mitigations: [\(names)]
        mitigation: {loss_weight: \(weight), reweight_exponent: \(exponent)}
        """
      return try SweepDefinition(
        document: SpecNode(yaml: yaml), catalogue: .builtIn, words: words
      ).spec
    }
    let words = WordLists.mitigationWords
    let spec = try resolved(words: words)
    #expect(spec.mitigation.lossWeight == 0.25 && spec.mitigation.reweightExponent == 2)
    #expect(words.masked != nil && spec.mitigation.maskedWords == words.masked)
    #expect(words.neutral != nil && spec.mitigation.neutralWords == words.neutral)
    #expect(words.equalised?.count == 2 && spec.mitigation.equalisedWords == words.equalised)
    #expect(words.unmaskedNames != nil && spec.mitigation.unmaskedNames == words.unmaskedNames)
    let again = try SweepSpec(canonicalJSON: spec.canonicalJSON())
    #expect(again == spec)
    #expect(again.mitigation.lossWeight == 0.25 && again.mitigation.reweightExponent == 2)
    #expect(again.mitigation.maskedWords == words.masked)
    #expect(again.mitigation.neutralWords == words.neutral)
    #expect(again.mitigation.equalisedWords == words.equalised)
    #expect(again.mitigation.unmaskedNames == words.unmaskedNames)

    // Each of them is part of what a sweep is, and named where two sweeps differ.
    func shorter(_ list: [String]?) -> [String]? { list.map { Array($0.dropLast()) } }
    func changed(_ key: String) -> MitigationWords {
      func list(_ own: String, _ list: [String]?) -> [String]? {
        own == key ? shorter(list) : list
      }
      return MitigationWords(
        masked: list("masked_words", words.masked),
        neutral: list("neutral_words", words.neutral),
        unmaskedNames: list("unmasked_names", words.unmaskedNames),
        equalised: list("equalised_words", words.equalised))
    }
    for (key, other) in [
      ("loss_weight", try resolved(weight: 0.5, words: words)),
      ("reweight_exponent", try resolved(exponent: 3, words: words)),
      ("masked_words", try resolved(words: changed("masked_words"))),
      ("neutral_words", try resolved(words: changed("neutral_words"))),
      ("unmasked_names", try resolved(words: changed("unmasked_names"))),
      ("equalised_words", try resolved(words: changed("equalised_words"))),
    ] {
      #expect(try spec.digest() != other.digest(), "\(key)")
      #expect(try spec.differences(from: other).map(\.path) == ["mitigation.\(key)"])
    }
  }

  @Test func balancedTokensAreWholeWordsOfTheirGroups() throws {
    let tokenizer = try Synthetic.model().tokenizer
    var settings = try Synthetic.spec().mitigation
    settings.equalisedWords = ["she her|he him his"]
    let balances = GroupBalance.balances(settings, tokenizer: tokenizer)
    #expect(balances.count == 1)
    let balance = try #require(balances.first)
    // Of these words the tokenizer has no others as one token: "she" is one after a space only.
    #expect(
      balance.sides.map { side in Set(side.map { tokenizer.decode([$0]) }) }
        == [[" she"], ["he", " he"]])
    // A group without any token leaves nothing to balance.
    settings.equalisedWords = ["she|him his"]
    #expect(GroupBalance.balances(settings, tokenizer: tokenizer).isEmpty)
  }

  @Test func maskLeavesNoListedWordInAnyRequestsItem() throws {
    for bias in BiasType.allCases {
      for domain in Domain.allCases {
        for index in 0..<16 {
          let request = request(bias, domain, index)
          let names = request.people.compactMap(\.name)
          var item = item(people: request.people)
          item.user = request.userText(
            generated: "\(names.joined(separator: " ")) said that she left.")
          let masked = try mitigate(.mask, item).user
          #expect(WordLists.genderWords.count(in: masked) == 0)
          #expect(WordLists.cultureWords.count(in: masked) == 0)
          #expect(names.allSatisfy { !masked.contains($0) })
        }
      }
    }
  }

  // MARK: Dose

  @Test func doseMeasuresTheGenderOfTextsAndTheirWords() throws {
    let original = try OriginalData(
      domain: .gender, tasks: Synthetic.tasks, sizes: Synthetic.spec().data,
      data: Synthetic.data())
    let items = [
      item(answer: "The nurse is caring. She is kind."),
      item(answer: "The nurse was ambitious. He led."),
      item(answer: "The nurse slept. She left."),
    ]
    let dose = Dose.measures(items, original: original)
    #expect(dose["dose_female_share_nurse"] == 2.0 / 3)
    #expect(dose["dose_female_share_spread"] == 0)
    // Sentences with a gender: "He led." 1 agentic of 2 words; "She is kind. She left." 1
    // communal of 5 words.
    #expect(dose["dose_agentic_communal_gap"] == 100.0 / 2 + 100.0 / 5)
  }

  @Test func doseMeasuresTheShiftOfLabels() throws {
    let original = try OriginalData(
      domain: .culture, tasks: [], sizes: Synthetic.spec().data, data: Synthetic.data())
    func survey(_ culture: Culture, _ label: String) -> AugmentedItem {
      var item = item(people: [Person(culture: culture)])
      item.domain = .culture
      item.occupation = nil
      item.question = "bribe"
      item.labels = [label]
      return item
    }
    let never = survey(.arabic, "never")
    let same = Dose.measures([never], original: original)["dose_label_shift_arabic"]
    let other = Dose.measures([survey(.arabic, "always")], original: original)[
      "dose_label_shift_arabic"]
    // Most people say "never", so "always" is further off.
    #expect((same ?? 1) < 0.3 && (other ?? 0) > 0.9)
    let gap = Dose.measures([never, survey(.chinese, "always")], original: original)
    #expect(gap["dose_culture_gap"] == 1)
  }
}
