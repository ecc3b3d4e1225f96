import BiasStudy
import LanguageModel
import StudyDocuments
import SweepCore
import Testing
import TransformerKernels

/// Written answers of tasks in which one of several people is chosen.
struct SelectionTests {
  private static let names = [
    "Mary Jordan", "Jordan Smith", "José Núñez", "Ann Lee", "Ann Lee Cole",
  ]

  @Test(arguments: [
    ("Mary Jordan", 0), ("mary jordan.", 0), ("I would hire MARY.", 0), ("Jordan Smith", 1),
    ("It is Jordan  Smith's turn", 1), ("José", 2), ("JOSÉ NÚÑEZ, a baker", 2), ("Ann Lee", 3),
    ("Ann Lee Cole", 4), ("Ann-Lee", 3), ("Mary. Yes, Mary Jordan!", 0), ("\n\tMary", 0),
    // Read from the left: "Mary Jordan", then "Smith", which is nobody's first name.
    ("Mary Jordan Smith", 0),
  ]) func theOneCandidateNamedIsFound(text: String, candidate: Int) {
    #expect(SelectionParser.candidate(in: text, names: Self.names) == candidate)
  }

  @Test(arguments: [
    // Nobody, words that only hold a name, and what two of them are called.
    "", " ", "nobody", "Maryland", "Smith", "Jose", "Jordan", "Ann", "Lee", "M a r y",
    // Several.
    "Mary Jordan or Jordan Smith", "Ann Lee, not Ann Lee Cole", "Mary and José",
    "\u{0}\u{FFFD}\u{1F600}",
  ]) func nobodyAndSeveralAreNotRead(text: String) {
    #expect(SelectionParser.candidate(in: text, names: Self.names) == nil)
  }

  @Test func oddListsOfNamesAreNoTrouble() {
    #expect(SelectionParser.candidate(in: "Ann", names: []) == nil)
    #expect(SelectionParser.candidate(in: "Ann", names: ["", "  ", "!"]) == nil)
    #expect(SelectionParser.candidate(in: "Ann", names: ["Ann", "ANN"]) == nil)
    #expect(SelectionParser.candidate(in: "Ann Cole", names: ["Ann", "Ann Cole"]) == 1)
    #expect(SelectionParser.candidate(in: "Ann", names: ["Ann", "Ann Cole"]) == 0)
  }

  /// Texts put together from pieces of the names: nobody is found who is not there, and a text with
  /// one full name and nothing else of the others is read.
  @Test func textsOfPiecesAreReadOnlyWhereOneIsNamed() {
    let pieces = [
      "Mary", "Jordan", "Smith", "josé", "Núñez", "ann", "Lee", "Cole", "-", ",", " ", "\n", "'s",
      "é", "\u{301}", "🙂", "12", "Mar", "y",
    ]
    var stream = StudyGenerator(purpose: "pieces of names")
    var read = 0
    for _ in 0..<4000 {
      let text = (0..<stream.below(8)).map { _ in stream.element(of: pieces) }
        .joined(separator: stream.below(2) == 0 ? " " : "")
      guard let found = SelectionParser.candidate(in: text, names: Self.names) else { continue }
      read += 1
      let first = Self.names[found].words[0].lowercased
      #expect(text.words.contains { $0.lowercased == first }, "\(text)")
      #expect(
        SelectionParser.candidate(in: text, names: Self.names.reversed())
          == Self.names.count - 1 - found, "\(text)")
    }
    #expect(read > 100)
  }

  // MARK: Metrics

  private let definition: TaskDefinition
  private let items: [ScoredItem]

  /// Items with a right choice (the first one) and without, in turn; women stand in the first half.
  init() throws {
    definition = try #require(TaskCatalogue.builtIn["hiring"])
    items = (0..<12).map { index in
      let record = TaskRecord(
        line: index + 1,
        fields: [
          "genders": .list(["female", "female", "male", "male"]),
          "cultures": .list(["a", "b", "a", "b"]),
        ])
      let form = TaskItem.Form(
        name: "", fields: record.fields, prompts: ["?"], contentFree: [],
        choices: ["p", "q", "r", "s"], gold: index % 2 == 0 ? 0 : nil)
      return ScoredItem(
        item: TaskItem(record: record, cluster: index, forms: [form]),
        forms: [ScoredForm(form: form, scores: ChoiceScores([0, 0, 0, 1]))])
    }
  }

  @Test func writtenChoicesAreCountedByHand() throws {
    // Of six answers to items with a right choice one says nothing and four of five are right; of
    // six others one says nothing, four choose the first man and one the second woman.
    var written: [(item: Int, choice: Int?)] = []
    for (index, choice) in [nil, 0, 0, 0, 0, 3].enumerated() {
      written.append((item: 2 * index, choice: choice))
    }
    for (index, choice) in [2, 2, 2, 2, 1, nil].enumerated() {
      written.append((item: 2 * index + 1, choice: choice))
    }
    let metrics = SelectionMetrics.metrics(definition, items, written: written)
    #expect(metrics.values["parse_rate"] == 10.0 / 12)
    #expect(metrics.values["written_accuracy"] == 0.8)
    #expect(metrics.values["written_selected_male"] == 0.4)
    #expect(metrics.values["written_selected_female"] == 0.1)
    #expect(metrics.values["written_selected_a"] == 0.4)
    #expect(metrics.values["written_selected_b"] == 0.1)
    // What the probabilities say stands beside it.
    #expect(metrics.values["selected_male"] == 0.5 && metrics.values["accuracy"] == 0)
  }

  @Test func tooFewWrittenChoicesSayWhy() {
    let four: [(item: Int, choice: Int?)] = (0..<4).map { (item: $0, choice: 0) }
    let few = SelectionMetrics.metrics(definition, items, written: four)
    for name in ["parse_rate", "written_accuracy", "written_selected_male"] {
      #expect(
        few.values[name] == nil && few.notes[name]?.contains("fewer than 5") == true, "\(name)")
    }
    // Many answers, none of which can be read.
    let unread: [(item: Int, choice: Int?)] = items.indices.map { (item: $0, choice: nil) }
    let silent = SelectionMetrics.metrics(definition, items, written: unread)
    #expect(silent.values["parse_rate"] == 0 && silent.notes["written_accuracy"] != nil)
    #expect(silent.notes["written_selected_b"] != nil)
  }

  /// Sweeps from before answers were written go on with the same results.
  @Test func aTaskThatWritesNothingSaysNothingOfIt() {
    var definition = definition
    definition.answers.sampledItems = 0
    let metrics = SelectionMetrics.metrics(definition, items)
    #expect(metrics.values["parse_rate"] == nil && metrics.notes["parse_rate"] == nil)
    let names = Set(metrics.values.keys).union(metrics.notes.keys)
    #expect(!names.contains { $0.hasPrefix("written") })
  }

  // MARK: Asking a model

  @Test func theFirstItemsAreAnsweredInAllOrdersByTheirSeeds() throws {
    let spec = try Synthetic.spec()
    let data = try Synthetic.data()
    let model = try Synthetic.model()
    let encoder = PromptEncoder(model)
    let tasks = try #require(data.tasks["hiring"])
    let answers = definition.answers
    let adapted = AdaptedModel(base: model, pool: ThreadPool(threadCount: 1))
    let options = AdaptedModel.SamplingOptions(
      temperature: Float(spec.evaluation.temperature), topK: spec.evaluation.topK,
      maximumTokens: 12, stopTokens: [encoder.endOfAnswer])
    func text(_ item: Int, _ order: Int, _ prompt: String) throws -> String {
      let tokens = try adapted.generate(
        [encoder.prompt(prompt)],
        seeds: [StudyGenerator.seed(["hiring", "1", "\(item)", "\(order)"])], options: options)
      return model.tokenizer.decode(tokens[0], skipControl: true)
    }
    // A random model names nobody, so somebody is called what it writes.
    let items = try tasks.testItems(12, seed: 1).enumerated().map { index, item -> TaskItem in
      let form = item.forms[0]
      let word = try text(index, 0, form.prompts[0]).words.first.map { String($0.text) }
      return TaskItem(
        record: item.record, cluster: item.cluster,
        forms: [
          TaskItem.Form(
            name: form.name, fields: form.fields, prompts: form.prompts,
            contentFree: form.contentFree,
            choices: [word ?? "Nobody", "Qa Qb", "Qc Qd", "Qe Qf"], gold: form.gold)
        ])
    }
    let evaluator = try TaskEvaluator(
      tasks, items: items, spec: spec, data: data, model: model, encoder: encoder)
    func evaluate(threads: Int) throws -> TrialMetrics {
      try evaluator.evaluate(
        AdaptedModel(base: model, pool: ThreadPool(threadCount: threads)), seed: 1,
        monitor: Monitor(advance: { _ in }, shouldStop: { false }))
    }
    let metrics = try evaluate(threads: 1)
    let again = try evaluate(threads: 3)
    #expect(metrics.values == again.values && metrics.notes == again.notes)
    // What the evaluator reports is what is read out of texts written one by one.
    var read = 0
    for (index, item) in items.prefix(answers.sampledItems).enumerated() {
      let form = item.forms[0]
      for (order, prompt) in form.prompts.enumerated() {
        let text = try text(index, order, prompt)
        if SelectionParser.candidate(in: text, names: form.choices) != nil { read += 1 }
      }
    }
    let asked = answers.sampledItems * answers.orders
    #expect(asked == 40 && read > 0)
    #expect(metrics.values["parse_rate"] == Double(read) / Double(asked))
  }

  @Test func plansCountWhatIsWritten() throws {
    var spec = try Synthetic.spec()
    spec.data.testItems = 4
    let tokens = definition.expectedTokens
    let expected = 4 * definition.answers.orders * (tokens.prompt + tokens.answer)
    #expect(CostEstimate.writtenTokens(definition.task, spec: spec) == expected)
    spec.data.testItems = 100
    #expect(CostEstimate.writtenTokens(definition.task, spec: spec) == expected * 10 / 4)
  }
}
