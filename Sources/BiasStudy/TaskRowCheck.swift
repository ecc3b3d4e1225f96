import SweepCore

/// Checks rows of a task's data one after another.
struct TaskRowCheck {
  static let questionBiasFields: [String?] = ["condition", "unknown", "biased"]

  /// Without records: it makes items of those that are checked.
  private let items: TaskItems
  private let mention: TaskTemplate?
  private let preference: [TaskTemplate]
  private var splits: [String: Bool] = [:]

  init(_ definition: TaskDefinition, file: String) {
    items = TaskItems(definition: definition, training: [], test: [], file: file)
    mention = definition.answers.mention.map { TaskTemplate($0) }
    let texts = definition.preference.map {
      [$0.prompt, $0.stereotype, $0.antiStereotype, $0.unrelated]
    }
    preference = (texts ?? []).map { TaskTemplate($0) }
  }

  /// Whether a record is for testing.
  ///
  /// - Throws: `StudyError.malformed` if it lacks what the task needs.
  mutating func isTest(checking record: TaskRecord) throws(StudyError) -> Bool {
    let definition = items.definition
    let isTest = try TaskItems.isTest(record, definition, file: items.file, splits: &splits)
    for field in definition.data.balance { _ = try text(field, "`data.balance`", record) }
    // Of a selection the groups are those of its choices.
    if definition.kind != .selection {
      for field in definition.groups { _ = try text(field, "`groups`", record) }
    }
    let item = try items.item(record, index: 0, cluster: 0)
    if definition.kind != .text, let label = definition.answers.label {
      for form in item.forms where form.fields[label] != nil && form.text(label) == nil {
        throw malformed(record, TaskItems.noField(label, "`answers.label`", record))
      }
    }
    if isTest { try checkMeasured(item) } else { try checkExample(item) }
    return isTest
  }

  /// What becomes a format example has an answer.
  private func checkExample(_ item: TaskItem) throws(StudyError) {
    let answers = items.definition.answers
    guard answers.hasFormatExamples, let label = answers.label,
      item.forms.contains(where: { $0.fields[label] != nil })
    else { return }
    for form in item.forms { _ = try items.answer(form, item.record) }
  }

  /// What is tested has what the metrics read.
  private func checkMeasured(_ item: TaskItem) throws(StudyError) {
    let definition = items.definition
    let record = item.record
    let form = item.forms[0]
    if let mention { _ = try items.fill(mention, form.fields, record, "`answers.mention`") }
    if definition.metrics.contains(.preference) {
      for template in preference {
        _ = try items.fill(template, record.fields, record, "`preference`")
      }
    }
    if let field = definition.favoured, !definition.forms.isEmpty {
      try expect(
        text(field, "`favoured`", record), field, among: definition.forms.map(\.name), "forms",
        record)
    }
    if definition.kind == .survey, let field = definition.answers.shares {
      let found = record.list(field) ?? []
      let shares = found.map { Double($0) ?? .nan }
      guard shares.count == form.choices.count, shares.allSatisfy({ $0.isFinite && $0 >= 0 }),
        shares.contains(where: { $0 > 0 })
      else {
        throw malformed(
          record,
          "the field \"\(field)\" holds \"\(found.joined(separator: "|"))\", not a share for each of "
            + "the \(form.choices.count) choices, numbers from 0 that are not all 0")
      }
    }
    if definition.metrics.contains(.selections), form.gold == nil {
      for field in definition.groups {
        let groups = record.list(field) ?? []
        guard groups.count == form.choices.count else {
          throw malformed(
            record,
            "the field \"\(field)\", which `groups` names, lists \(groups.count) groups, but there "
              + "are \(form.choices.count) choices")
        }
      }
    }
    if definition.metrics.contains(.questionBias) {
      let condition = try text("condition", "`question_bias`", record)
      try expect(
        condition, "condition", among: ["ambiguous", "disambiguated"], "conditions", record)
      for field in ["unknown", "biased"] {
        try expect(
          text(field, "`question_bias`", record), field, among: form.choices, "choices", record)
      }
    }
  }

  private func text(
    _ field: String, _ place: String, _ record: TaskRecord
  ) throws(StudyError) -> String {
    guard let text = record.text(field) else {
      throw malformed(record, TaskItems.noField(field, place, record))
    }
    return text
  }

  private func expect(
    _ value: String, _ field: String, among known: [String], _ what: String, _ record: TaskRecord
  ) throws(StudyError) {
    guard !known.contains(value) else { return }
    throw malformed(
      record,
      "\"\(value)\" in the field \"\(field)\" is not among the \(what) "
        + known.joined(separator: ", ") + value.spellingHint(among: known))
  }

  private func malformed(_ record: TaskRecord, _ problem: String) -> StudyError {
    .malformed(file: items.file, line: record.line, problem: problem)
  }
}
