import BiasStudy
import Foundation
import LanguageModel
import StudyDocuments
import SweepCore
import Testing
import TransformerKernels

struct TaskItemsTests {
  // MARK: Splits

  /// Nothing of the training split tells a test item: no cluster and no prompt stands in both.
  private func expectNoLeak(_ tasks: TaskItems, test count: Int, format: Int) throws {
    let id = tasks.definition.id
    let field = tasks.definition.data.cluster
    let training = Set(tasks.training.compactMap { $0.text(field) })
    let test = Set(tasks.test.compactMap { $0.text(field) })
    #expect(!training.isEmpty && !test.isEmpty, "\(id)")
    #expect(training.isDisjoint(with: test), "\(id)")
    let items = try tasks.testItems(count, seed: 1)
    let asked = Set(items.flatMap { $0.forms.flatMap(\.prompts) }.map(\.normalised))
    #expect(items.count == tasks.definition.testItems(count), "\(id)")
    let examples = try tasks.formatExamples(format, seed: 1, tested: items)
    #expect(examples.count == tasks.definition.formatItems(format), "\(id)")
    #expect(examples.allSatisfy { !asked.contains($0.item.user.normalised) }, "\(id)")
    #expect(examples.allSatisfy { training.contains($0.record.text(field) ?? "") }, "\(id)")
    // Twins stay together: they are forms of one item.
    #expect(items.allSatisfy { $0.forms.count == max(1, tasks.definition.forms.count) }, "\(id)")
  }

  /// What must not stand in both splits of a task, by a name for messages. It is read from the
  /// fields that hold it, so that a wrong `cluster` is found; of twins the texts of both forms count.
  /// Nil for a field that the record lacks; nothing for a task that is not known here.
  private static func telltales(of record: TaskRecord, task: String) -> [String: [String?]] {
    func exactly(_ field: String) -> [String?] { [record.text(field)] }
    func texts(_ fields: String...) -> [String?] { fields.map { record.text($0)?.normalised } }
    switch task {
    case "occupation":
      return ["sentence": texts("sentence_female", "sentence_male")]
    case "hiring":
      let names = record.list("candidates") ?? []
      return ["job": texts("role"), "name": names.isEmpty ? [nil] : names.map(Optional.some)]
    case "salary":
      return ["job": texts("title")]
    case "story":
      return ["name": exactly("name")]
    case "value-survey":
      guard let question = record.text("question"), let country = record.text("country") else {
        return ["question and country": [nil]]
      }
      return ["question and country": ["\(country): \(question)"]]
    case "social-bias-qa":
      // The prepared data have the category and the index of the question in the cluster alone.
      return [
        "question index": exactly("cluster"), "question": texts("question"),
        "context": texts("context"),
      ]
    case "stereotype":
      return ["target": texts("target"), "sentence": texts("sentence", "other", "unrelated")]
    case "group-bias", "offensive":
      return ["text": texts("text")]
    case "sarcasm":
      return ["headline": texts("headline_female", "headline_male")]
    case "stance":
      // The prepared data have the speaker's name in the cluster alone.
      return ["speaker": texts("cluster"), "sentence": texts("sentence")]
    case "stress":
      // The data as published do not say which texts are parts of one longer post.
      return ["post": texts("post")]
    case "hate":
      // The prepared data have the template's number in the cluster alone.
      return ["template": exactly("cluster"), "text": texts("text")]
    default:
      return [:]
    }
  }

  /// Over all records: nothing of what `telltales` names stands in both splits.
  private func expectNothingInBothSplits(_ tasks: TaskItems) {
    let id = tasks.definition.id
    func gathered(_ records: [TaskRecord]) -> [String: Set<String>] {
      var values: [String: Set<String>] = [:]
      for record in records {
        for (name, found) in Self.telltales(of: record, task: id) {
          let known = found.compactMap { $0 }.filter { !$0.isEmpty }
          if known.count < found.count {
            Issue.record("\(id), record \(record.line): a field for \(name) is missing")
          }
          values[name, default: []].formUnion(known)
        }
      }
      return values
    }
    let training = gathered(tasks.training)
    let test = gathered(tasks.test)
    #expect(!test.isEmpty, "what must not stand in both splits of \(id) is to be named here")
    for (name, tested) in test {
      let known = training[name] ?? []
      #expect(!known.isEmpty && !tested.isEmpty, "\(id): \(name)")
      let both = known.intersection(tested).sorted()
      #expect(both.isEmpty, "\(id): \(name) in both splits: \(both.prefix(3))")
    }
  }

  @Test(arguments: TaskCatalogue.builtIn.definitions.map(\.id))
  func splitsOfEveryTaskShareNothing(id: String) throws {
    let definition = try #require(TaskCatalogue.builtIn[id])
    let tasks = try SyntheticTasks.items(definition)
    expectNothingInBothSplits(tasks)
    try expectNoLeak(tasks, test: 16, format: 16)
  }

  @Test func whatBothSplitsShareIsFoundWhateverTheClustersSay() throws {
    let definition = try #require(TaskCatalogue.builtIn["stereotype"])
    let records = ["training", "test"].enumerated().map { index, split in
      TaskRecord(
        line: index + 1,
        fields: [
          "cluster": .text("c\(index)"), "split": .text(split), "target": .text("the same"),
          "sentence": .text("first \(index)"), "other": .text("second \(index)"),
          "unrelated": .text("third \(index)"),
        ])
    }
    let tasks = try TaskItems(definition: definition, records: records, file: "made.jsonl")
    withKnownIssue { expectNothingInBothSplits(tasks) }
  }

  /// Every task whose data are in the cache; of the others `RealData` says what they lack.
  @Test(.enabled(if: !RealData.tasks.isEmpty), arguments: RealData.tasks)
  func splitsOfEveryTaskShareNothingInTheRealData(id: String) throws {
    let definition = try #require(TaskCatalogue.builtIn[id])
    let data = try StudyData(store: RealData.store, tasks: [definition])
    let tasks = try #require(data.tasks[id])
    expectNothingInBothSplits(tasks)
    // As many as the largest preset asks for, where the data have them.
    try expectNoLeak(tasks, test: id == "offensive" ? 100 : 500, format: 80)
    guard definition.domain == .gender || definition.kind != .survey else { return }
    // What else D_o holds tells nothing either.
    var spec = try Synthetic.spec()
    spec.data.originalItems = 200
    spec.data.testItems = 100
    let original = try OriginalData(
      domain: definition.domain, tasks: [definition.task], sizes: spec.data, data: data)
    let trained = Set(original.items.map(\.user.normalised))
    for item in try tasks.testItems(100, seed: 1) {
      for form in item.forms {
        #expect(form.prompts.allSatisfy { !trained.contains($0.normalised) }, "\(id)")
      }
    }
  }

  @Test func surveyItemsOfTheOriginalDataAreNotAskedAbout() throws {
    let definition = try #require(TaskCatalogue.builtIn["value-survey"])
    let tasks = try SyntheticTasks.items(definition)
    var sizes = try Synthetic.spec().data
    sizes.originalItems = 400
    let original = try OriginalData(
      domain: .culture, tasks: [], sizes: sizes, data: Synthetic.data())
    let trained = Set(original.items.map(\.user))
    let tested = try tasks.testItems(100, seed: 1).flatMap { $0.forms.flatMap(\.prompts) }
    #expect(tested.count == 24 && Set(tested).isDisjoint(with: trained))
    // The prompts are of the same form.
    let place = try #require(SurveyTable.places.first { !SurveyTable.isTest($0) })
    #expect(
      trained.contains(Prompts.survey(place.question, who: "a person from \(place.country)")))
    let test = try #require(SurveyTable.places.first { SurveyTable.isTest($0) })
    #expect(tested.contains(Prompts.survey(test.question, who: "a person from \(test.country)")))
  }

  @Test func occupationSentencesOfTheOriginalDataAreNotFormatExamples() throws {
    let data = try Synthetic.data()
    var sizes = try Synthetic.spec().data
    sizes.formatItems = 40
    sizes.originalItems = 40
    let original = try OriginalData(
      domain: .gender, tasks: Synthetic.tasks, sizes: sizes, data: data)
    let asked = original.items.filter { $0.user.contains("___") }
    let sentences = Set(asked.map { $0.answer + $0.user.replacing(" her ", with: " his ") })
    #expect(sentences.count == asked.count && asked.count >= 40)
  }

  // MARK: Selection

  @Test func selectionIsBalancedAndDecidedByItsSeed() throws {
    let definition = try #require(TaskCatalogue.builtIn["stance"])
    let tasks = try SyntheticTasks.items(definition)
    let items = try tasks.testItems(24, seed: 1)
    for party in ["democrat", "republican"] {
      for gender in ["female", "male"] {
        let own = items.filter {
          $0.record.text("label") == party && $0.record.text("gender") == gender
        }
        #expect(own.count == 6)
      }
    }
    #expect(try tasks.testItems(24, seed: 1) == items)
    #expect(try tasks.testItems(24, seed: 2) != items)
    // A smaller selection begins a larger one.
    #expect(try tasks.testItems(8, seed: 1).map(\.record) == items.prefix(8).map(\.record))
  }

  @Test func optionsAreListedInAllOrders() throws {
    let definition = try #require(TaskCatalogue.builtIn["hiring"])
    let item = try #require(try SyntheticTasks.items(definition).testItems(4, seed: 1).first)
    let form = item.forms[0]
    #expect(form.prompts.count == 4 && Set(form.prompts).count == 4)
    for place in 0..<4 {
      // Every candidate stands once in every place.
      let listed = form.prompts.map { $0.split(separator: "\n")[place + 1] }
      #expect(Set(listed).count == 4)
    }
    #expect(form.choices == item.record.list("candidates"))
  }

  @Test func moreItemsThanTheDataHaveIsAnErrorThatNamesTheKey() throws {
    let definition = try #require(TaskCatalogue.builtIn["stance"])
    let tasks = try SyntheticTasks.items(definition)
    let error = studyError { _ = try tasks.testItems(10_000, seed: 1) }
    guard case .tooFewItems(_, _, 10_000, "data.test_items")? = error else {
      Issue.record("\(String(describing: error))")
      return
    }
  }

  // MARK: Malformed data

  private func tasks(
    _ lines: [String], change: (inout TaskDefinition) -> Void = { _ in }
  ) throws -> TaskItems {
    var definition = try #require(TaskCatalogue.builtIn["offensive"])
    change(&definition)
    return try TaskItems(
      definition: definition,
      records: TaskRecords.read(
        Array(lines.joined(separator: "\n").utf8), file: "mine.jsonl", keep: definition.data.keep),
      file: "mine.jsonl")
  }

  @Test func aClusterInBothSplitsIsAnErrorWithItsLine() throws {
    let error = studyError {
      _ = try tasks([
        #"{"cluster": "a", "split": "test", "text": "x", "label": "yes"}"#, "",
        #"{"cluster": "a", "split": "training", "text": "y", "label": "no"}"#,
      ])
    }
    guard case .malformed("mine.jsonl", 3, let problem)? = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(problem.contains("stands in both splits"))
  }

  @Test(arguments: [
    (#"{"split": "test", "text": "x", "label": "yes"}"#, "\"cluster\""),
    (#"{"cluster": "a", "split": "dev", "text": "x", "label": "yes"}"#, "\"dev\""),
    (#"{"cluster": "a", "split": "test", "label": "yes"}"#, "\"text\""),
    (#"{"cluster": "a", "split": "test", "text": "x"}"#, "\"label\""),
    (#"{"cluster": "a", "split": "test", "text": "x", "label": "maybe"}"#, "\"maybe\""),
    (#"{"cluster": "a", "split": "test""#, "JSON"),
    (#"[1, 2]"#, "JSON object"), (#"{"cluster": {"a": 1}}"#, "JSON object"),
  ]) func brokenRecordIsNamedByLine(line: String, part: String) throws {
    let good = #"{"cluster": "g", "split": "test", "text": "z", "label": "no"}"#
    let error = studyError { _ = try tasks([good, line]).testItems(2, seed: 1) }
    guard case .malformed("mine.jsonl", 2, let problem)? = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(problem.contains(part), "\(problem)")
  }

  @Test func withoutASplitFieldClustersAreSplitByTheirHash() throws {
    let lines = (0..<200).map {
      #"{"cluster": \#($0 / 4), "text": "text \#($0)", "label": "yes", "weight": 0.5, "new": null}"#
    }
    let tasks = try tasks(lines) { $0.data.splitField = nil }
    try expectNoLeak(tasks, test: 40, format: 40)
    #expect(tasks.test.count > 60 && tasks.training.count > 60)
    #expect(tasks.test[0].text("weight") == "0.5" && tasks.test[0].text("new") == nil)
  }

  @Test func csvAndJSONLinesGiveTheSameRecords() throws {
    let csv = "id,text,answers\r\n1,\"a, b\",x|y\n2,,z|w\n"
    let json =
      #"{"id": 1, "text": "a, b", "answers": ["x", "y"]}"# + "\n"
      + #"{"id": 2, "answers": ["z", "w"]}"#
    let left = try TaskRecords.read(Array(csv.utf8), file: "a.csv")
    let right = try TaskRecords.read(Array(json.utf8), file: "a.jsonl")
    #expect(left.map { $0.text("text") } == right.map { $0.text("text") })
    #expect(left.map { $0.list("answers") } == right.map { $0.list("answers") })
    #expect(left.map { $0.text("id") } == ["1", "2"])
  }

  /// Damaged files of both formats are read or explained, whatever is in them.
  @Test func anyBytesAreEitherReadOrExplained() throws {
    let seeds = [
      (
        #"{"cluster": "a", "split": "test", "text": "x {y}", "label": "yes", "n": [1, 2.5, "z"]}"#
          + "\n" + #"{"cluster": "b", "split": "training", "text": "ä", "label": "no"}"#, "f.jsonl"
      ),
      ("cluster,split,text,label\na,test,\"x, \"\"y\"\"\",yes\nb,training,z,no\n", "f.csv"),
    ]
    let definition = try #require(TaskCatalogue.builtIn["offensive"])
    var generator = StudyGenerator(purpose: "task-records-fuzz")
    var read = 0
    var explained = 0
    for round in 0..<6000 {
      let (text, file) = seeds[round % 2]
      var bytes = Array(text.utf8)
      for _ in 0..<generator.below(4) {
        let place = generator.below(bytes.count)
        switch generator.below(4) {
        case 0: bytes[place] = UInt8(generator.below(256))
        case 1: bytes.remove(at: place)
        case 2: bytes.insert(generator.element(of: Array("\"\\{}[],:\n|".utf8)), at: place)
        default: bytes.removeLast(min(bytes.count - 1, generator.below(20)))
        }
      }
      do {
        let records = try TaskRecords.read(bytes, file: file)
        let tasks = try TaskItems(definition: definition, records: records, file: file)
        _ = try tasks.testItems(1, seed: 1)
        read += 1
      } catch {
        switch error {
        case .malformed(file, let line, let problem): #expect(line > 0 && !problem.isEmpty)
        case .tooFewItems: break
        default: Issue.record("\(error)")
        }
        explained += 1
      }
    }
    #expect(read > 500 && explained > 1000, "read \(read), explained \(explained)")
  }

  @Test(arguments: [
    ("a {b} c", ["b"]), ("{a}{b}", ["a", "b"]), ("{ a } {", []), ("{}", []), ("{{a}}", ["a"]),
    ("{a b} {c-d}", ["c-d"]), ("no", []), ("{a", []), ("}{a}{", ["a"]),
  ]) func placeholdersAreFields(text: String, fields: [String]) {
    let template = TaskTemplate(text)
    #expect(template.fields == fields)
    var missing: String?
    #expect(template.filled(missing: &missing) { "{\($0)}" } == text)
    #expect(missing == nil)
  }
}

/// Every built-in task asked of a tiny random model: the numbers mean nothing, but all that is
/// promised about them must hold.
struct TaskEvaluatorTests {
  private let spec: SweepSpec
  private let data: StudyData
  private let model: LanguageModel

  init() throws {
    var spec = try Synthetic.spec()
    spec.data.testItems = 16
    spec.evaluation.samples = 2
    self.spec = spec
    data = try Synthetic.data()
    model = try Synthetic.model()
  }

  private func evaluate(_ id: String, threads: Int = 1, seed: UInt64 = 1) throws -> TrialMetrics {
    let tasks = try #require(data.tasks[id])
    let evaluator = try TaskEvaluator(
      tasks, items: tasks.testItems(spec.data.testItems, seed: spec.data.selectionSeed),
      spec: spec, data: data, model: model, encoder: PromptEncoder(model))
    let adapted = AdaptedModel(base: model, pool: ThreadPool(threadCount: threads))
    return try evaluator.evaluate(
      adapted, seed: seed, monitor: Monitor(advance: { _ in }, shouldStop: { false }))
  }

  @Test(arguments: TaskCatalogue.builtIn.definitions.map(\.id))
  func everyTaskRecordsItsHeadlinesAndItsItems(id: String) throws {
    let definition = try #require(TaskCatalogue.builtIn[id])
    let metrics = try evaluate(id)
    let count = definition.testItems(16)
    #expect(metrics.values["items"] == Double(count))
    #expect(metrics.items.values.allSatisfy { $0.count == count })
    #expect(TrialItems(metrics.items) != nil)
    #expect(metrics.items["cluster"]?.allSatisfy { $0 >= 0 } == true)
    #expect(metrics.items["correct"] != nil || metrics.items["valid"] != nil)
    #expect(metrics.values.values.allSatisfy { $0.isFinite })
    for headline in definition.headlines {
      let value = metrics.values[headline.metric]
      #expect(value != nil || metrics.notes[headline.metric] != nil, "\(headline.metric)")
      guard let measure = headline.items else { continue }
      let items = try #require(metrics.items[measure], "\(measure)").filter { !$0.isNaN }
      // A headline metric with a measure is its mean.
      if let value, definition.kind != .text || spec.evaluation.samples == 1 {
        #expect(
          abs(items.reduce(0, +) / Double(items.count) - value) < 1e-9, "\(headline.metric)")
      }
    }
  }

  @Test func resultsDependOnNeitherThreadsNorOrder() throws {
    for id in ["salary", "stereotype", "story"] {
      let first = try evaluate(id)
      let other = try evaluate(id, threads: 3)
      #expect(first.values == other.values && first.notes == other.notes)
    }
  }

  @Test func scoresAreMeansOverOrdersLessTheContentFreeOnes() throws {
    let tasks = try #require(data.tasks["hiring"])
    var definition = tasks.definition
    definition.contentFree = [["role": "someone"]]
    let records = try SyntheticTasks.items(definition)
    let items = try records.testItems(2, seed: 1)
    let encoder = PromptEncoder(model)
    let adapted = AdaptedModel(base: model, pool: ThreadPool(threadCount: 1))
    let evaluator = try TaskEvaluator(
      records, items: items, spec: spec, data: data, model: model, encoder: encoder)
    let metrics = try evaluator.evaluate(
      adapted, seed: 1, monitor: Monitor(advance: { _ in }, shouldStop: { false }))
    for (index, item) in items.enumerated() {
      let form = item.forms[0]
      #expect(form.contentFree.count == 4 && form.contentFree[0].contains("someone"))
      let answers = form.choices.map { encoder.answer(Prompts.label($0)) }
      func mean(_ prompts: [String]) throws -> [Double] {
        let scores = try prompts.map { prompt in
          try adapted.score([
            AdaptedModel.ScoringRequest(
              prompt: encoder.prompt(prompt), continuations: answers)
          ])[0].map { $0.logProbability / Double($0.tokenCount) }
        }
        return answers.indices.map { choice in
          scores.reduce(0) { $0 + $1[choice] } / Double(prompts.count)
        }
      }
      let expected = ChoiceScores(
        zip(try mean(form.prompts), try mean(form.contentFree)).map { $0 - $1 })
      #expect(metrics.items["predicted"]?[index] == Double(expected.best))
    }
  }
}
