import SweepCore

/// Checks a user's task against its data before anything runs: every name in its file has to stand
/// for something, and every row has to have what the task needs.
///
/// What needs no data, such as parts of the file that need each other, is checked where the file is
/// decoded.
package struct TaskCheck {
  private static let defectsShownMax = 5
  /// Where the check of the rows ends.
  private static let defectsMax = 1000

  private let definition: TaskDefinition
  private let document: SpecNode
  private var problems: [SpecProblem] = []

  private init(_ definition: TaskDefinition, _ document: SpecNode) {
    self.definition = definition
    self.document = document
  }

  /// What is wrong with a task's names and data; empty if it can be used.
  ///
  /// A user's own data have to be in the store. Those of the manifest need not be there yet, and
  /// what needs them is not checked then.
  ///
  /// - Parameter document: the task file, which says where its parts stand.
  package static func problems(
    of definition: TaskDefinition, document: SpecNode, store: DatasetStore
  ) -> [SpecProblem] {
    var check = TaskCheck(definition, document)
    check.checkReplacedFields()
    check.checkData(in: store)
    return check.problems
  }

  // MARK: Names

  /// Fields that forms and content-free inputs replace are read by something.
  private mutating func checkReplacedFields() {
    let answers = definition.answers
    let asked = TaskTemplate(definition.prompt).fields
    var read = asked
    if let mention = answers.mention { read += TaskTemplate(mention).fields }
    for field in [answers.label, answers.truth, answers.choicesField, answers.listedField] {
      if let field { read.append(field) }
    }
    for form in definition.forms {
      for field in form.fields.keys.sorted() {
        expect(
          field, among: read, at: ["forms", form.name, field],
          "neither the prompt nor `answers` name the field \"\(field)\"")
      }
    }
    for (index, fields) in definition.contentFree.enumerated() {
      for field in fields.keys.sorted() {
        expect(
          field, among: asked, at: ["content_free", "\(index)", field],
          "the prompt does not name the field \"\(field)\"")
      }
    }
  }

  /// Fields that the task names are fields of some item.
  private mutating func checkFields(of records: [TaskRecord]) {
    var known: Set<String> = []
    for record in records { known.formUnion(record.fields.keys) }
    let data = definition.data
    let answers = definition.answers
    expect([data.cluster], among: known, at: ["data", "cluster"])
    expect([data.splitField], among: known, at: ["data", "split"])
    for (index, field) in data.balance.enumerated() {
      expect([field], among: known, at: ["data", "balance", "\(index)"])
    }
    for (index, field) in definition.groups.enumerated() {
      expect([field], among: known, at: ["groups", "\(index)"])
    }
    expect([definition.favoured], among: known, at: ["favoured"])
    expect([answers.shares], among: known, at: ["answers", "shares"])
    for form in definition.forms {
      for (field, text) in form.fields.sorted(by: { $0.key < $1.key }) {
        expect(TaskTemplate(text).fields, among: known, at: ["forms", form.name, field])
      }
    }
    if let preference = definition.preference {
      for (key, text) in [
        ("prompt", preference.prompt), ("stereotype", preference.stereotype),
        ("anti_stereotype", preference.antiStereotype), ("unrelated", preference.unrelated),
      ] {
        expect(TaskTemplate(text).fields, among: known, at: ["preference", key])
      }
    }
    if definition.metrics.contains(.questionBias) {
      expect(TaskRowCheck.questionBiasFields, among: known, at: ["metrics"])
    }
    // The rest is read of an item's forms, which may have fields of their own.
    known.formUnion(definition.forms.flatMap { $0.fields.keys })
    expect([answers.label], among: known, at: ["answers", "label"])
    expect([answers.truth], among: known, at: ["answers", "truth"])
    expect([answers.choicesField], among: known, at: ["answers", "choices_field"])
    expect([answers.listedField], among: known, at: ["answers", "listed_field"])
    if let mention = answers.mention {
      expect(TaskTemplate(mention).fields, among: known, at: ["answers", "mention"])
    }
    if definition.kind != .text { known.insert("options") }
    expect(TaskTemplate(definition.prompt).fields, among: known, at: ["prompt"])
  }

  /// Values that `keep` lists occur in the data.
  ///
  /// - Parameter kept: the records that it lets through.
  private mutating func checkKeep(_ kept: [TaskRecord], _ store: DatasetStore) {
    var everything: [TaskRecord]?
    for (field, values) in definition.data.keep.sorted(by: { $0.key < $1.key }) {
      let found = Set(kept.compactMap { $0.text(field) })
      for (index, value) in values.enumerated() where !found.contains(value) {
        // The values of another field may have left out all that have this one.
        if everything == nil {
          var unfiltered = definition
          unfiltered.data.keep = [:]
          everything = try? Self.records(of: unfiltered, in: store).records
        }
        guard let all = everything else { return }
        expect(
          value, among: Set(all.compactMap { $0.text(field) }),
          at: ["data", "keep", field, "\(index)"],
          "no item has \"\(value)\" in the field \"\(field)\"")
      }
    }
  }

  /// Headlines are metrics and measures that the task gives.
  private mutating func checkHeadlines(of items: TaskItems) {
    guard let given = TaskMetricNames(of: items) else { return }
    for (index, headline) in definition.headlines.enumerated() {
      expect(
        headline.metric, among: given.metrics, at: ["headlines", "\(index)", "metric"],
        "\"\(headline.metric)\" is no metric that this task gives with its data")
      if let measure = headline.items {
        expect(
          measure, among: given.measures, at: ["headlines", "\(index)", "items"],
          "\"\(measure)\" is no per-item measure that this task gives")
      }
    }
  }

  // MARK: Data

  private mutating func checkData(in store: DatasetStore) {
    let place: [String]
    switch definition.data.source {
    case .file: place = ["data", "path"]
    case .dataset(let name, let file):
      place = ["data", "dataset"]
      let files = DataManifest.files.filter { $0.dataset == name }.map(\.file)
      guard
        expect(
          name, among: DataManifest.datasets, at: place, "there is no data set \"\(name)\""),
        expect(
          file, among: files, at: ["data", "file"],
          "the data set \(name) has no file \"\(file)\"")
      else { return }
    case .collection(let name):
      place = ["data", "collection"]
      guard
        expect(
          name, among: TaskCollection.allCases.map(\.rawValue), at: place,
          "there is no collection \"\(name)\"")
      else { return }
    }
    let records: [TaskRecord]
    let file: String
    do {
      let found = try Self.records(of: definition, in: store)
      records = found.records
      file = found.file
    } catch {
      switch error {
      case .missingFile, .wrongDigest: break
      default: report("\(error)", at: place)
      }
      return
    }
    let before = problems.count
    checkKeep(records, store)
    if records.isEmpty, problems.count == before {
      let filter = definition.data.keep.isEmpty ? "" : " that `data.keep` lets through"
      report("\(file) has no items\(filter)", at: place)
    }
    if !records.isEmpty { checkFields(of: records) }
    // Every row would say once more that a name stands for nothing.
    guard problems.count == before else { return }
    checkRows(records, file, at: place)
  }

  private mutating func checkRows(_ records: [TaskRecord], _ file: String, at place: [String]) {
    var rows = TaskRowCheck(definition, file: file)
    var test: [TaskRecord] = []
    var shown: [String] = []
    var defects = 0
    for record in records {
      do {
        if try rows.isTest(checking: record) { test.append(record) }
      } catch {
        defects += 1
        if shown.count < Self.defectsShownMax { shown.append("\n    \(error)") }
        if defects == Self.defectsMax { break }
      }
    }
    if defects > 0 {
      let few = defects == Self.defectsMax ? "at least " : ""
      let more = defects - shown.count
      if more > 0 { shown.append("\n    … and \(more) more") }
      report(
        "\(few)\(defects) of \(records.count) rows cannot be used; correct them, or leave them out "
          + "with `data.keep`\(shown.joined())", at: place)
    } else if test.isEmpty {
      let remedy =
        definition.data.splitField == nil
        ? "add items of other clusters, or name a field with the split in `data.split`"
        : "write \"test\" into the field that `data.split` names"
      report(
        "none of the \(records.count) items of \(file) is for testing; \(remedy)", at: place)
    } else {
      checkHeadlines(
        of: TaskItems(definition: definition, training: [], test: test, file: file))
    }
  }

  /// The records that `keep` lets through, and how errors name their source.
  private static func records(
    of definition: TaskDefinition, in store: DatasetStore
  ) throws(StudyError) -> (records: [TaskRecord], file: String) {
    if case .file(let name, let digest) = definition.data.source {
      let bytes = try store.read(name, sha256: digest)
      return (try TaskRecords.read(bytes, file: name, keep: definition.data.keep), name)
    }
    let data = try StudyData(store: store, tasks: [definition])
    guard let items = data.tasks[definition.id] else { return ([], definition.id) }
    return (items.training + items.test, items.file)
  }

  // MARK: Reports

  /// - Parameter path: keys of mappings and indices of lists.
  private mutating func report(_ message: String, at path: [String]) {
    var shown = ""
    for part in path {
      shown += Int(part) != nil ? "[\(part)]" : shown.isEmpty ? part : ".\(part)"
    }
    problems.append(
      SpecProblem(path: shown, position: document.place(of: path[...]), message: message))
  }

  /// Reports a name that is not known, with the one that may be meant.
  @discardableResult
  private mutating func expect(
    _ name: String, among known: some Collection<String>, at path: [String], _ problem: String
  ) -> Bool {
    if known.contains(name) { return true }
    var hint = name.spellingHint(among: known)
    if hint.isEmpty, !known.isEmpty {
      hint = "; there are \(known.sorted().prefix(20).joined(separator: ", "))"
    }
    report(problem + hint, at: path)
    return false
  }

  /// Reports fields that no item has.
  private mutating func expect(
    _ fields: [String?], among known: Set<String>, at path: [String]
  ) {
    for field in Set(fields.compactMap { $0 }).sorted() {
      expect(field, among: known, at: path, "no item has the field \"\(field)\"")
    }
  }
}

extension SpecNode {
  /// Where a part stands; of one that there is not, what it would be in.
  fileprivate func place(of path: ArraySlice<String>) -> SpecPosition {
    guard let first = path.first else { return position }
    let part: SpecNode?
    switch self {
    case .mapping(let entries, _): part = entries.first { $0.key == first }?.value
    case .sequence(let elements, _):
      part = Int(first).flatMap { elements.indices.contains($0) ? elements[$0] : nil }
    case .scalar: part = nil
    }
    return part?.place(of: path.dropFirst()) ?? position
  }
}
