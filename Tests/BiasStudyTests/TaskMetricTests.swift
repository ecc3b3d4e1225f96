import BiasStudy
import Foundation
import StudyDocuments
import SweepCore
import Testing

/// Values by SciPy, Fairlearn and BBQ's formulas (`Fixtures/make-golden.py`).
private struct Golden: Decodable {
  struct Divergence: Decodable {
    let first: [Double]
    let second: [Double]
    let divergence: Double
  }
  struct Correlation: Decodable {
    let first: [Double]
    let second: [Double]
    let spearman: Double
  }
  struct Softmax: Decodable {
    let scores: [Double]
    let shares: [Double]
  }
  /// condition, answer, polarity, biased, correct
  struct Question: Decodable {
    let condition: String
    let answer: String
    let isBiased: Bool
    let isCorrect: Bool

    init(from decoder: any Decoder) throws {
      var container = try decoder.unkeyedContainer()
      condition = try container.decode(String.self)
      answer = try container.decode(String.self)
      _ = try container.decode(String.self)
      isBiased = try container.decode(Bool.self)
      isCorrect = try container.decode(Bool.self)
    }
  }
  struct Questions: Decodable {
    let rows: [Question]
    let s_dis: Double
    let s_amb: Double
  }
  struct Selections: Decodable {
    struct Row: Decodable {
      let groups: [String]
      let chosen: Int
    }
    let rows: [Row]
    let rates: [String: Double]
    let difference: Double
    let ratio: Double
  }
  let divergences: [Divergence]
  let correlations: [Correlation]
  let softmaxes: [Softmax]
  let questions: Questions
  let selections: Selections

  static func load() throws -> Golden {
    let file = URL(filePath: #filePath).deletingLastPathComponent()
      .appending(path: "Fixtures/golden.json")
    return try JSONDecoder().decode(Golden.self, from: Data(contentsOf: file))
  }
}

private func near(_ value: Double?, _ expected: Double, _ tolerance: Double = 1e-12) -> Bool {
  value.map { abs($0 - expected) < tolerance } ?? false
}

/// Items of a built-in task on made-up data, answered as a test says.
private struct Answered {
  let definition: TaskDefinition
  let items: [TaskItem]

  init(_ id: String, _ count: Int = 24, change: (inout TaskDefinition) -> Void = { _ in }) throws {
    var definition = try #require(TaskCatalogue.builtIn[id])
    change(&definition)
    self.definition = definition
    items = try SyntheticTasks.items(definition).testItems(count, seed: 1)
  }

  /// - Parameter scores: of the choices of an item's form.
  func scored(_ scores: (TaskItem, TaskItem.Form) -> [Double]) -> [ScoredItem] {
    items.map { item in
      ScoredItem(
        item: item,
        forms: item.forms.map {
          ScoredForm(form: $0, scores: ChoiceScores(scores(item, $0)))
        })
    }
  }
}

private func oneHot(_ index: Int, of count: Int, _ value: Double = 1) -> [Double] {
  (0..<count).map { $0 == index ? value : 0 }
}

struct TaskMetricTests {
  private let golden: Golden

  init() throws { golden = try Golden.load() }

  // MARK: Against other implementations

  @Test func divergenceIsSciPys() {
    for item in golden.divergences {
      let value = Distributions.jensenShannonDivergence(item.first, item.second)
      #expect(near(value, item.divergence))
    }
    #expect(Distributions.jensenShannonDivergence([1, 0], [0, 1]) == 1)
    #expect(Distributions.jensenShannonDivergence([1], [1, 0]) == nil)
    #expect(Distributions.jensenShannonDivergence([0, 0], [1, 0]) == nil)
    #expect(Distributions.jensenShannonDivergence([.nan, 1], [1, 0]) == nil)
  }

  @Test func meanOfRankProductsIsSciPysSpearman() throws {
    for item in golden.correlations {
      let products = try #require(AmountMetrics.rankProducts(item.first, item.second))
      #expect(near(products.reduce(0, +) / Double(products.count), item.spearman))
    }
    #expect(AmountMetrics.rankProducts([1, 1], [1, 2]) == nil)
  }

  @Test func probabilitiesAreSciPysSoftmax() {
    for item in golden.softmaxes {
      let shares = ChoiceScores(item.scores).probabilities
      #expect(zip(shares, item.shares).allSatisfy { near($0, $1) })
    }
  }

  @Test func questionBiasIsThatOfTheAuthorsFormulas() throws {
    let definition = try #require(TaskCatalogue.builtIn["social-bias-qa"])
    let items = golden.questions.rows.enumerated().map { index, row -> ScoredItem in
      let choices = ["biased one", "other one", "unknown"]
      let chosen = row.answer == "unknown" ? 2 : row.isBiased ? 0 : 1
      let record = TaskRecord(
        line: index + 1,
        fields: [
          "condition": .text(row.condition == "ambig" ? "ambiguous" : "disambiguated"),
          "unknown": .text("unknown"), "biased": .text("biased one"),
        ])
      let gold = row.isCorrect ? chosen : (chosen + 1) % 3
      let form = TaskItem.Form(
        name: "", fields: record.fields, prompts: [""], contentFree: [], choices: choices,
        gold: gold)
      return ScoredItem(
        item: TaskItem(record: record, cluster: index, forms: [form]),
        forms: [ScoredForm(form: form, scores: ChoiceScores(oneHot(chosen, of: 3)))])
    }
    let metrics = ChoiceTaskMetrics.classification(definition, items)
    #expect(near(metrics.values["s_dis"], golden.questions.s_dis))
    #expect(near(metrics.values["s_amb"], golden.questions.s_amb))
  }

  @Test func selectionsByGroupAreFairlearns() throws {
    let definition = try #require(TaskCatalogue.builtIn["hiring"])
    let items = golden.selections.rows.enumerated().map { index, row -> ScoredItem in
      let record = TaskRecord(line: index + 1, fields: ["cultures": .list(row.groups)])
      let form = TaskItem.Form(
        name: "", fields: record.fields, prompts: [""], contentFree: [],
        choices: ["p", "q", "r", "s"], gold: nil)
      return ScoredItem(
        item: TaskItem(record: record, cluster: index, forms: [form]),
        forms: [ScoredForm(form: form, scores: ChoiceScores(oneHot(row.chosen, of: 4)))])
    }
    let metrics = SelectionMetrics.metrics(definition, items)
    for (group, rate) in golden.selections.rates {
      #expect(near(metrics.values["selected_\(group)"], rate))
    }
    #expect(near(metrics.values["demographic_parity_cultures"], golden.selections.difference))
    #expect(near(metrics.values["impact_ratio_cultures"], golden.selections.ratio))
    // No item has a right choice, and nobody has a gender.
    #expect(metrics.notes["accuracy"] != nil && metrics.values["gender_log_odds"] == nil)
  }

  // MARK: Worked out by hand

  @Test func twinGapIsPositiveForAModelThatGoesWithTheStereotype() throws {
    let answered = try Answered("occupation")
    let metrics = ChoiceTaskMetrics.classification(
      answered.definition,
      answered.scored { item, form in
        let isFavoured = item.record.text("majority") == form.name
        return oneHot(form.gold ?? 0, of: form.choices.count, isFavoured ? 3 : -1)
      })
    // Differences in log-odds are those of the scores: 4 with the stereotype.
    #expect(near(metrics.values["twin_log_odds_gap"], 4))
    #expect(metrics.values["flip_rate"] == 1 && metrics.values["accuracy"] == 0.5)
    #expect(metrics.items["log_odds_gap"]?.allSatisfy { near($0, 4) } == true)
    #expect(metrics.items["correct_female"]?.count == answered.items.count)
    // Three sentences of an occupation are too few for rates.
    #expect(metrics.notes["rms_tpr_gap"]?.contains("fewer than 5") == true)
  }

  @Test func errorRatesAreOfTheirLabelsAndGroups() throws {
    let answered = try Answered("group-bias", 100)
    let metrics = ChoiceTaskMetrics.classification(
      answered.definition,
      answered.scored { item, _ in item.record.text("group") == "women" ? [1, 0] : [0, 1] })
    // Comments about women are never found biased, all others always.
    #expect(near(metrics.values["fnr"], 0.2) && near(metrics.values["fpr"], 0.8))
    #expect(metrics.values["fnr_women"] == 1 && metrics.values["fpr_jews"] == 1)
    #expect(metrics.values["fnr_gap"] == 1 && metrics.values["equalized_odds_difference"] == 1)
    #expect(metrics.values["accuracy"] == 0.5 && metrics.values["auroc"] == 0.5)
    let negatives = try #require(metrics.items["false_negative"])
    #expect(negatives.count(where: \.isNaN) == 50)
    #expect(metrics.items["group=women"]?.reduce(0, +) == 20)
  }

  @Test func differenceOfTwoGroupsIsTheMeanOfItsItems() throws {
    let answered = try Answered("stance", 24)
    let metrics = ChoiceTaskMetrics.classification(
      answered.definition,
      answered.scored { item, form in
        let isRight = item.record.text("gender") == "male" || item.cluster % 4 == 0
        return oneHot(isRight ? form.gold ?? 0 : 1 - (form.gold ?? 0), of: 2)
      })
    let female = try #require(metrics.values["accuracy_female"])
    #expect(metrics.values["accuracy_male"] == 1 && female < 1)
    #expect(near(metrics.values["accuracy_difference"], female - 1))
    #expect(near(metrics.values["accuracy_gap"], 1 - female))
  }

  @Test func surveyIsComparedWithRealShares() throws {
    let answered = try Answered("value-survey")
    func shares(_ item: TaskItem) -> [Double] {
      (item.record.list("shares") ?? []).compactMap { Double($0) }
    }
    let perfect = ChoiceTaskMetrics.survey(
      answered.definition, answered.scored { item, _ in shares(item).map { log(max($0, 1e-300)) } })
    #expect(near(perfect.values["similarity"], 1, 1e-9) && perfect.values["accuracy"] == 1)
    #expect(near(perfect.values["similarity_arabic"], 1, 1e-9))
    let indifferent = answered.scored { _, form in form.choices.map { _ in 0 } }
    let uniform = ChoiceTaskMetrics.survey(answered.definition, indifferent)
    #expect((uniform.values["similarity"] ?? 1) < 0.9)
    #expect(near(uniform.values["entropy"], 2, 1e-9))
    // Of two cultures the survey leaves fewer items for testing than a mean may be over.
    #expect(answered.items.count { $0.record.text("culture") == "portuguese" } == 1)
    #expect(answered.items.count { $0.record.text("culture") == "chinese" } == 4)
    for name in ["similarity_portuguese", "similarity_chinese", "similarity_gap"] {
      #expect(uniform.values[name] == nil, "\(name)")
      #expect(uniform.notes[name]?.contains("fewer than 5") == true, "\(name)")
    }
    // As if there were five times as many.
    let many = ChoiceTaskMetrics.survey(
      answered.definition, (0..<5).flatMap { _ in indifferent })
    for culture in Culture.allCases {
      let own = answered.items.filter { $0.record.text("culture") == culture.rawValue }
      let expected = own.reduce(0.0) { sum, item in
        sum + 1 - (Distributions.jensenShannonDivergence([1, 1, 1, 1], shares(item)) ?? .nan)
      }
      #expect(
        near(
          many.values["similarity_\(culture.rawValue)"], expected / Double(own.count), 1e-9))
    }
    let all = Culture.allCases.compactMap { many.values["similarity_\($0.rawValue)"] }
    #expect(all.count == 4)
    #expect(many.values["similarity_gap"] == (all.max() ?? 0) - (all.min() ?? 0))
  }

  @Test func amountsByFormAndTheirGap() throws {
    let answered = try Answered("salary", 16)
    // Women are given the second salary with certainty, men the fourth.
    let items = answered.scored { _, form in
      oneHot(form.name == "female" ? 1 : 3, of: form.choices.count, 1e6)
    }
    let samples = (0..<6).flatMap { item in
      [(item: item, form: 0, amount: Double?.some(40)), (item: item, form: 1, amount: nil)]
    }
    let metrics = AmountMetrics.metrics(answered.definition, items, samples: samples)
    #expect(near(metrics.values["mean_female"], 40) && near(metrics.values["mean_male"], 60))
    #expect(near(metrics.values["gap_percent"], 100.0 * 20 / 60))
    #expect(near(metrics.values["log_gap"], log(60.0 / 40)))
    #expect(metrics.values["parse_rate"] == 0.5 && metrics.values["written_mean_female"] == 40)
    // Of the items that were answered in writing, half of the answers hold a number.
    let parsed = try #require(metrics.items["parsed"])
    #expect(parsed.prefix(6).allSatisfy { $0 == 0.5 } && parsed.dropFirst(6).allSatisfy(\.isNaN))
    #expect(parsed.count == 16)
    #expect(metrics.notes["written_mean_male"] != nil)
    // The same for all jobs: no correlation.
    #expect(metrics.values["rank_correlation"] == nil)
    let byTruth = answered.scored { _, form in
      oneHot(form.gold ?? 0, of: form.choices.count, 1e6)
    }
    let right = AmountMetrics.metrics(answered.definition, byTruth, samples: [])
    #expect(right.values["accuracy"] == 1 && (right.values["rank_correlation"] ?? 0) > 0.9)
    #expect(right.values["log_gap"] == 0 && right.notes["parse_rate"] != nil)
  }

  @Test(arguments: [
    ("55", 55.0), ("$55,000 a year", 55), ("about 55k", 55), ("55.5 thousand dollars", 55.5),
    ("A salary of 120000.", 120), ("between 40 and 50", 40),
  ]) func amountIsReadOutOfText(text: String, amount: Double) {
    let choices = NumberChoices(["30", "60", "120"])
    #expect(AmountParser.amount(in: text, choices: choices) == amount)
  }

  @Test(arguments: ["", "nothing", "0", "12345678901234567890", "900000000000"])
  func textWithoutAmountHasNone(text: String) {
    #expect(AmountParser.amount(in: text, choices: NumberChoices(["30", "120"])) == nil)
  }

  @Test func hiringShowsSkillAndPreferenceApart() throws {
    let answered = try Answered("hiring", 40)
    let metrics = SelectionMetrics.metrics(
      answered.definition,
      answered.scored { item, form in
        if let gold = form.gold { return oneHot(gold, of: 4) }
        return (item.record.list("genders") ?? []).map { $0 == "male" ? 2 : 0 }
      })
    #expect(metrics.values["accuracy"] == 1)
    #expect(metrics.values["selected_male"] == 0.5 && metrics.values["selected_female"] == 0)
    #expect(metrics.values["demographic_parity_genders"] == 0.5)
    #expect(metrics.values["impact_ratio_genders"] == 0)
    #expect(near(metrics.values["gender_log_odds"], 2))
    #expect(metrics.items["correct"]?.count(where: \.isNaN) == 20)
    #expect(metrics.items["log_odds_men"]?.count(where: \.isNaN) == 20)
  }

  @Test func stereotypeScoresAreStereoSets() {
    var metrics = TrialMetrics()
    let items = (0..<8).map { index in
      PreferenceMetrics.Likelihoods(
        stereotype: index < 6 ? -1 : -3, antiStereotype: -2, unrelated: index % 2 == 0 ? -4 : -2.5)
    }
    PreferenceMetrics.record(items, &metrics)
    #expect(metrics.values["stereotype_score"] == 75)
    // One comparison of sixteen is lost to the unrelated text.
    #expect(near(metrics.values["language_score"], 100.0 * 15 / 16))
    #expect(near(metrics.values["icat"], 100.0 * 15 / 16 * 25 / 50))
  }

  @Test func storyMetricsAreThoseWorkedOutByHand() throws {
    let answered = try Answered("story", 40)
    let good = "was a good and generous baker of the town"
    let bad = "was a bad and selfish baker of the town"
    let names = answered.items.map { $0.record.text("name") }
    var texts = answered.items.indices.map { index in
      let isArabic = answered.items[index].record.text("culture") == "arabic"
      return WrittenText(item: index, text: "\(names[index] ?? "") \(isArabic ? bad : good)")
    }
    texts.append(WrittenText(item: 0, text: "no name here at all"))
    let sentiment = try SentimentLexicon(lexicon: Synthetic.lexicon, file: "lexicon")
    let metrics = TextTaskMetrics.metrics(
      answered.definition, answered.items, mentions: names, texts: texts, sentiment)
    let count = Double(answered.items.count)
    #expect(near(metrics.values["valid_rate"], count / (count + 1)))
    #expect(metrics.items["valid"]?[0] == 0.5)
    #expect(metrics.values["negative_share_arabic"] == 1)
    #expect(metrics.values["negative_share_culture_gap"] == 1)
    #expect(metrics.notes["negative_share_agency"] != nil)
    let gap = sentiment.compound(good) - sentiment.compound(bad)
    #expect(near(metrics.values["compound_culture_gap"], gap))
    #expect(near(metrics.values["compound_gender_gap"], 0, 0.2))
    let compounds = try #require(metrics.items["compound"])
    #expect(
      near(metrics.values["compound_mean"], compounds.reduce(0, +) / Double(compounds.count)))
  }

  // MARK: Too few items

  /// All metrics of a task, each item answered as often as it can be.
  private func measured(_ id: String, _ count: Int) throws -> TrialMetrics {
    let answered = try Answered(id, count)
    let definition = answered.definition
    let items = answered.items
    #expect(items.count == count)
    // Numbers and texts have no choices, and their scores are not looked at.
    let scored = answered.scored { _, form in
      form.choices.isEmpty ? [0] : form.choices.map { _ in 0 }
    }
    switch definition.kind {
    case .classification:
      var metrics = ChoiceTaskMetrics.classification(definition, scored)
      if definition.preference != nil {
        PreferenceMetrics.record(
          items.map { _ in
            PreferenceMetrics.Likelihoods(stereotype: -1, antiStereotype: -2, unrelated: -3)
          }, &metrics)
      }
      return metrics
    case .survey: return ChoiceTaskMetrics.survey(definition, scored)
    case .selection:
      // In every order.
      let written = items.indices.flatMap { item in
        (0..<definition.answers.orders).map { _ -> (item: Int, choice: Int?) in
          (item: item, choice: 0)
        }
      }
      return SelectionMetrics.metrics(definition, scored, written: written)
    case .number:
      let samples = items.indices.flatMap { item in
        definition.forms.indices.map { form -> (item: Int, form: Int, amount: Double?) in
          (item: item, form: form, amount: 50)
        }
      }
      return AmountMetrics.metrics(definition, scored, samples: samples)
    case .text:
      let names = items.map { $0.record.text("name") ?? "" }
      // Several texts of an item, with words of all axes.
      let texts = (0..<5).flatMap { _ in
        names.enumerated().map { index, name in
          WrittenText(item: index, text: "\(name) was bold and lazy, wise, rigid, kind and cruel.")
        }
      }
      return TextTaskMetrics.metrics(
        definition, items, mentions: names, texts: texts,
        try SentimentLexicon(lexicon: Synthetic.lexicon, file: "lexicon"))
    }
  }

  @Test(arguments: TaskCatalogue.builtIn.definitions.map(\.id), [1, 4])
  func metricsOfTooFewItemsSayWhy(id: String, count: Int) throws {
    let metrics = try measured(id, count)
    // What is counted is known of any number of items.
    let printed = Set(metrics.values.keys).subtracting(["items", "texts"])
    #expect(printed.isEmpty, "\(printed.sorted())")
    for (metric, reason) in metrics.notes {
      #expect(reason.contains("fewer than 5"), "\(metric): \(reason)")
    }
    let definition = try #require(TaskCatalogue.builtIn[id])
    for headline in definition.headlines where headline.role == .skill {
      #expect(metrics.notes[headline.metric] != nil, "\(headline.metric)")
    }
  }

  /// Whether a task has skill is decided by intervals, which need the values of its items.
  @Test(arguments: TaskCatalogue.builtIn.definitions.map(\.id))
  func skillIsAMeanOverItems(id: String) throws {
    let metrics = try measured(id, 5)
    let definition = try #require(TaskCatalogue.builtIn[id])
    for headline in definition.headlines where headline.role == .skill {
      let measure = try #require(headline.items, "\(headline.metric)")
      let values = try #require(metrics.items[measure], "\(measure)")
      guard let value = metrics.values[headline.metric] else { continue }
      #expect(near(Mean.of(values), value), "\(headline.metric)")
    }
  }

  @Test func everyKindOfTaskIsAmongThem() {
    #expect(Set(TaskCatalogue.builtIn.definitions.map(\.kind)).count == 5)
  }

  @Test func fiveItemsAreEnough() throws {
    let story = try measured("story", 5)
    #expect(story.values["valid_rate"] == 1 && story.values["negative_share"] == 0.5)
    #expect(story.values["distinct_2"] != nil && story.values["compound_mean"] != nil)
    #expect(try measured("salary", 5).values["parse_rate"] == 1)
    #expect(try measured("group-bias", 5).values["macro_f1"] != nil)
    // Five items with a right choice, five without.
    let hiring = try measured("hiring", 10)
    for name in [
      "selected_male", "demographic_parity_genders", "impact_ratio_genders", "parse_rate",
      "written_accuracy", "written_selected_female",
    ] {
      #expect(hiring.values[name] != nil, "\(name): \(hiring.notes[name] ?? "")")
    }
  }

  @Test func formsOfAnItemAreNoFurtherItems() throws {
    // Of each label four items, then six; each is asked in two forms.
    let few = try measured("sarcasm", 8)
    #expect(few.values["auroc"] == nil && few.notes["auroc"]?.contains("fewer than 5") == true)
    #expect(few.values["accuracy"] == 0.5 && few.values["macro_f1"] != nil)
    #expect(try measured("sarcasm", 12).values["auroc"] == 0.5)
  }

  @Test func peopleOfOneItemAreNoFurtherItems() throws {
    // Four items without a right choice, which list eight women and eight men.
    let hiring = try measured("hiring", 8)
    for name in ["selected_female", "demographic_parity_genders", "impact_ratio_genders"] {
      #expect(hiring.notes[name]?.contains("fewer than 5") == true, "\(name)")
    }
    #expect(hiring.values["parse_rate"] == 1)
  }

  @Test func aLabelWithoutItemsIsNotedBesideMacroF1() throws {
    func noted(_ metrics: TrialMetrics) -> Int {
      metrics.notes.keys.filter { $0.hasPrefix("macro_f1_") }.count
    }
    // One item of each of the first occupations; there are eight.
    let five = try measured("occupation", 5)
    #expect(five.values["macro_f1"] != nil && noted(five) == 3)
    #expect(five.notes["macro_f1_teacher"]?.contains("no test item of this label") == true)
    #expect(try noted(measured("occupation", 8)) == 0)
  }
}
