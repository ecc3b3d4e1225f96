import SweepCore

/// The names of what a task gives when it is evaluated.
struct TaskMetricNames {
  /// Metrics, whether a trial has values of them or notes that say why not.
  let metrics: Set<String>
  let measures: Set<String>

  /// Items with different groups that are looked at; more groups have no use.
  private static let itemsMax = 500

  /// From the metrics of made-up answers to items that have all groups between them. Each of them
  /// stands several times, since measures of too few items are left out.
  ///
  /// - Returns: nil if there are too many groups for that, or if an item is malformed.
  init?(of tasks: TaskItems) {
    let definition = tasks.definition
    guard let covering = Self.items(of: tasks) else { return nil }
    let items = covering.flatMap { Array(repeating: $0, count: Mean.itemsMin) }
    var found: TrialMetrics
    switch definition.kind {
    case .classification:
      found = ChoiceTaskMetrics.classification(definition, Self.scored(items))
      if definition.metrics.contains(.preference) {
        PreferenceMetrics.record(
          items.map { _ in
            PreferenceMetrics.Likelihoods(stereotype: 0, antiStereotype: 0, unrelated: 0)
          }, &found)
      }
    case .survey:
      found = ChoiceTaskMetrics.survey(definition, Self.scored(items))
    case .selection:
      found = SelectionMetrics.metrics(
        definition, Self.scored(items), written: items.indices.map { (item: $0, choice: 0) })
    case .number:
      found = AmountMetrics.metrics(definition, Self.scored(items), samples: [])
    case .text:
      found = TextTaskMetrics.metrics(
        definition, items, mentions: items.map { _ in nil },
        texts: items.indices.map { WrittenText(item: $0, text: "") },
        try? SentimentLexicon(lexicon: Array("good\t1".utf8), file: "lexicon"))
    }
    metrics = Set(found.values.keys).union(found.notes.keys).union(definition.references.keys)
    measures = Set(found.items.keys)
  }

  private static func scored(_ items: [TaskItem]) -> [ScoredItem] {
    items.map { item in
      ScoredItem(
        item: item,
        forms: item.forms.map { form in
          ScoredForm(form: form, scores: ChoiceScores(form.choices.map { _ in 0 }))
        })
    }
  }

  /// The first test item, and each further one of a group that none before it has. Items with and
  /// without a right choice are told apart, as selections do.
  private static func items(of tasks: TaskItems) -> [TaskItem]? {
    let definition = tasks.definition
    var seen: Set<[String]> = []
    var items: [TaskItem] = []
    for record in tasks.test {
      let label = definition.answers.label.flatMap { record.text($0) }
      let kind = label == nil ? "" : "labelled"
      var isNew = items.isEmpty
      for field in definition.groups {
        let groups =
          definition.kind == .selection
          ? record.list(field) ?? [] : [record.text(field)].compactMap { $0 }
        for group in groups where seen.insert([field, group, kind]).inserted { isNew = true }
      }
      guard isNew else { continue }
      guard items.count < itemsMax, let item = try? tasks.item(record, index: 0, cluster: 0) else {
        return nil
      }
      items.append(item)
    }
    return items
  }
}
