import SweepCore

/// A test item, or a format example, with its prompts in words.
package struct TaskItem: Hashable, Sendable {
  /// One way of asking the item: in one identity, with the choices listed in one or several orders.
  package struct Form: Hashable, Sendable {
    /// Empty where the task has no forms.
    package let name: String
    package let fields: [String: TaskRecord.Value]
    /// One for each order of the choices.
    package let prompts: [String]
    /// As `prompts`, with inputs that say nothing.
    package let contentFree: [String]
    /// In the order of the data, whatever order the prompts list them in.
    package let choices: [String]
    /// Index of the right choice; nil where there is none.
    package let gold: Int?

    package init(
      name: String, fields: [String: TaskRecord.Value], prompts: [String], contentFree: [String],
      choices: [String], gold: Int?
    ) {
      self.name = name
      self.fields = fields
      self.prompts = prompts
      self.contentFree = contentFree
      self.choices = choices
      self.gold = gold
    }

    package func text(_ field: String) -> String? {
      if case .text(let text) = fields[field] { text } else { nil }
    }
  }

  package let record: TaskRecord
  /// Number of the cluster among the test items.
  package let cluster: Int
  package let forms: [Form]

  package init(record: TaskRecord, cluster: Int, forms: [Form]) {
    self.record = record
    self.cluster = cluster
    self.forms = forms
  }
}

/// The items of a task: its data, cut into splits, of which selections are made.
///
/// Everything here is a pure function of definition, data and selection seed.
package struct TaskItems: Sendable {
  package let definition: TaskDefinition
  package let training: [TaskRecord]
  package let test: [TaskRecord]
  let file: String
  private let prompt: TaskTemplate
  private let formFields: [[(field: String, template: TaskTemplate)]]

  /// - Parameters:
  ///   - records: those that `keep` lets through.
  ///   - file: how errors name their source.
  /// - Throws: `StudyError.malformed` if a record lacks what the definition names, or if a cluster
  ///   stands in both splits.
  package init(
    definition: TaskDefinition, records: [TaskRecord], file: String
  ) throws(StudyError) {
    var training: [TaskRecord] = []
    var test: [TaskRecord] = []
    var splits: [String: Bool] = [:]
    for record in records {
      if try Self.isTest(record, definition, file: file, splits: &splits) {
        test.append(record)
      } else {
        training.append(record)
      }
    }
    self.init(definition: definition, training: training, test: test, file: file)
  }

  /// Records that are cut into splits already.
  init(
    definition: TaskDefinition, training: [TaskRecord], test: [TaskRecord], file: String
  ) {
    self.definition = definition
    self.training = training
    self.test = test
    self.file = file
    prompt = TaskTemplate(definition.prompt)
    formFields = definition.forms.map { form in
      form.fields.sorted { $0.key < $1.key }.map { ($0.key, TaskTemplate($0.value)) }
    }
  }

  /// Whether a record is for testing.
  ///
  /// - Parameter splits: the same for the clusters of the records before it; its own is added.
  static func isTest(
    _ record: TaskRecord, _ definition: TaskDefinition, file: String,
    splits: inout [String: Bool]
  ) throws(StudyError) -> Bool {
    func malformed(_ problem: String) -> StudyError {
      .malformed(file: file, line: record.line, problem: problem)
    }
    let data = definition.data
    guard let cluster = record.text(data.cluster) else {
      throw malformed(noField(data.cluster, "`data.cluster`", record))
    }
    guard let field = data.splitField else {
      return StudyGenerator.seed(["task-split", definition.id, cluster]) & 1 == 1
    }
    let isTest: Bool
    switch record.text(field) {
    case "test": isTest = true
    case "training", "train": isTest = false
    case let other:
      throw malformed(
        "the split in the field \"\(field)\" is \(other.map { "\"\($0)\"" } ?? "missing"); "
          + "expected training or test")
    }
    if splits.updateValue(isTest, forKey: cluster) ?? isTest != isTest {
      throw malformed(
        "the cluster \"\(cluster)\" stands in both splits, so that test items would be known "
          + "from training; put all its items into one, or leave `data.split` out")
    }
    return isTest
  }

  static func noField(_ field: String, _ place: String, _ record: TaskRecord) -> String {
    "no text in the field \"\(field)\", which \(place) names; the record has "
      + record.fields.keys.sorted().joined(separator: ", ")
  }

  // MARK: Selection

  /// Test items, drawn evenly over the balanced fields.
  ///
  /// - Parameter count: as the sweep asks for; a task whose data have no more has fewer.
  /// - Throws: `StudyError.tooFewItems`, `StudyError.malformed`.
  package func testItems(_ count: Int, seed: UInt64) throws(StudyError) -> [TaskItem] {
    let records = try selection(
      of: test, count: definition.testItems(count), purpose: "test", seed: seed,
      what: "test items of \(definition.id)", key: "data.test_items")
    var clusters: [String: Int] = [:]
    var items: [TaskItem] = []
    for (index, record) in records.enumerated() {
      let name = record.text(definition.data.cluster) ?? ""
      let cluster = clusters[name] ?? clusters.count
      clusters[name] = cluster
      items.append(try item(record, index: index, cluster: cluster))
    }
    return items
  }

  /// Format examples: records of the training split with their answers, each in one form, the forms
  /// in turn.
  ///
  /// - Parameter tested: the test items; a record with the prompt of one of them is left out.
  /// - Throws: `StudyError.tooFewItems`, `StudyError.malformed`.
  package func formatExamples(
    _ count: Int, seed: UInt64, tested: [TaskItem]
  ) throws(StudyError) -> [(item: StudyItem, record: TaskRecord)] {
    let count = definition.formatItems(count)
    guard count > 0 else { return [] }
    let labelled = training.filter { record in
      guard let label = definition.answers.label else { return false }
      return record.fields[label] != nil || definition.forms.contains { $0.fields[label] != nil }
    }
    let what = "format examples of \(definition.id)"
    let key = "data.format_items"
    let records = try selection(
      of: labelled, count: labelled.count, purpose: "format", seed: seed, what: what, key: key)
    let known = Set(tested.flatMap { $0.forms.flatMap(\.prompts) }.map(\.normalised))
    let cells = max(1, Set(labelled.map(cell)).count)
    var examples: [(item: StudyItem, record: TaskRecord)] = []
    for record in records {
      if examples.count == count { break }
      let index = examples.count
      let item = try item(record, index: index, cluster: 0)
      if item.forms.contains(where: { $0.prompts.contains { known.contains($0.normalised) } }) {
        continue
      }
      // The cells of the balanced fields come in turn: the form changes with each round.
      let form = item.forms[index / cells % item.forms.count]
      examples.append(
        (
          StudyItem(
            user: form.prompts[index % form.prompts.count], answer: try answer(form, record)),
          record
        ))
    }
    guard examples.count == count else {
      throw .tooFewItems(what: what, available: examples.count, needed: count, key: key)
    }
    return examples
  }

  func answer(_ form: TaskItem.Form, _ record: TaskRecord) throws(StudyError) -> String {
    if definition.kind != .text, let gold = form.gold { return Prompts.label(form.choices[gold]) }
    guard let label = definition.answers.label, let text = form.text(label) else {
      throw .malformed(
        file: file, line: record.line,
        problem: Self.noField(definition.answers.label ?? "?", "`answers.label`", record))
    }
    return definition.kind == .text ? text : Prompts.label(text)
  }

  private func cell(_ record: TaskRecord) -> [String] {
    definition.data.balance.map { record.text($0) ?? "" }
  }

  /// Cells of the balanced fields in turn, records of each in a random order; an exhausted cell is
  /// skipped.
  private func selection(
    of records: [TaskRecord], count: Int, purpose: String, seed: UInt64, what: String, key: String
  ) throws(StudyError) -> [TaskRecord] {
    var cells: [[String]: [TaskRecord]] = [:]
    for record in records { cells[cell(record), default: []].append(record) }
    var generator = StudyGenerator(
      purpose: "task-selection", definition.id, purpose, "\(seed)")
    let order = cells.keys.sorted { $0.lexicographicallyPrecedes($1) }
    let queues = order.map { generator.shuffled(cells[$0, default: []]) }
    return try OriginalData.inTurn(queues, count: count, what: what, key: key)
  }

  // MARK: Items in words

  func item(
    _ record: TaskRecord, index: Int, cluster: Int
  ) throws(StudyError) -> TaskItem {
    var forms: [TaskItem.Form] = []
    if definition.forms.isEmpty {
      forms.append(try form("", record.fields, record, index: index))
    }
    for (form, own) in zip(definition.forms, formFields) {
      var fields = record.fields
      for (field, template) in own {
        fields[field] = .text(
          try fill(template, record.fields, record, "the form \"\(form.name)\""))
      }
      forms.append(try self.form(form.name, fields, record, index: index))
    }
    return TaskItem(record: record, cluster: cluster, forms: forms)
  }

  private func form(
    _ name: String, _ fields: [String: TaskRecord.Value], _ record: TaskRecord, index: Int
  ) throws(StudyError) -> TaskItem.Form {
    func malformed(_ problem: String) -> StudyError {
      .malformed(file: file, line: record.line, problem: problem)
    }
    let own = TaskRecord(line: record.line, fields: fields)
    let answers = definition.answers
    var choices = answers.choices
    if let field = answers.choicesField {
      guard let found = own.list(field), found.count > 1, Set(found).count == found.count else {
        throw malformed("the field \"\(field)\" holds no list of two or more different choices")
      }
      choices = found
    }
    var listed = choices
    if let field = answers.listedField {
      guard let found = own.list(field), found.count == choices.count else {
        throw malformed("the field \"\(field)\" lists not as many options as there are choices")
      }
      listed = found
    }
    var prompts: [String] = []
    var contentFree: [String] = []
    for order in 0..<answers.orders {
      var withOptions = fields
      if !listed.isEmpty {
        let shift = (index + order) % listed.count
        withOptions["options"] = .text(
          (listed[shift...] + listed[..<shift]).joined(separator: "\n"))
      }
      prompts.append(try fill(prompt, withOptions, record, "the prompt"))
      for replaced in definition.contentFree {
        let fields = withOptions.merging(replaced.mapValues { .text($0) }) { $1 }
        contentFree.append(try fill(prompt, fields, record, "the prompt"))
      }
    }
    return TaskItem.Form(
      name: name, fields: fields, prompts: prompts, contentFree: contentFree, choices: choices,
      gold: try gold(own, choices))
  }

  private func gold(_ record: TaskRecord, _ choices: [String]) throws(StudyError) -> Int? {
    func malformed(_ problem: String) -> StudyError {
      .malformed(file: file, line: record.line, problem: problem)
    }
    let answers = definition.answers
    switch definition.kind {
    case .text: return nil
    case .number:
      let field = answers.truth ?? ""
      guard let text = record.text(field) else {
        throw malformed(Self.noField(field, "`answers.truth`", record))
      }
      guard let truth = Double(text), truth > 0, truth.isFinite else {
        throw malformed("\"\(text)\" in the field \"\(field)\" is no number above 0")
      }
      return NumberChoices(choices).nearest(to: truth)
    case .classification, .survey, .selection:
      guard let field = answers.label, let label = record.text(field) else {
        guard definition.kind == .classification else { return nil }
        throw malformed(Self.noField(answers.label ?? "?", "`answers.label`", record))
      }
      guard let index = choices.firstIndex(of: label) else {
        throw malformed(
          "the label \"\(label)\" in the field \"\(field)\" is not among the choices "
            + choices.joined(separator: ", ") + label.spellingHint(among: choices))
      }
      return index
    }
  }

  func fill(
    _ template: TaskTemplate, _ fields: [String: TaskRecord.Value], _ record: TaskRecord,
    _ place: String
  ) throws(StudyError) -> String {
    try Self.fill(template, fields, record, place, file: file)
  }

  static func fill(
    _ template: TaskTemplate, _ fields: [String: TaskRecord.Value], _ record: TaskRecord,
    _ place: String, file: String
  ) throws(StudyError) -> String {
    var missing: String?
    let text = template.filled(missing: &missing) { field in
      switch fields[field] {
      case .text(let text): text
      case .list(let elements): elements.joined(separator: ", ")
      case nil: nil
      }
    }
    if let missing {
      throw .malformed(
        file: file, line: record.line, problem: noField(missing, place, record))
    }
    return text
  }
}
