import SweepCore

extension TaskDefinition {
  /// A definition for tests of what does not look into tasks.
  package static func sample(_ id: String, _ domain: Domain) -> TaskDefinition {
    TaskDefinition(
      id: id, summary: "sample task \(id)", domain: domain, kind: .classification,
      relation: .direct, data: TaskData(source: .collection("samples"), cluster: "id"),
      prompt: "Is {text} right?", answers: TaskAnswers(choices: ["no", "yes"], label: "label"),
      metrics: [.accuracy, .macroF1],
      headlines: [
        Headline(
          metric: "accuracy", items: "correct", role: .skill, chance: 0.5, direction: .better)
      ],
      origin: TaskOrigin(source: "none", licence: "none", citation: "none"))
  }
}

extension TaskCatalogue {
  /// Tasks of both domains, for tests of what does not look into tasks.
  package static let sample = TaskCatalogue(definitions: [
    .sample("occupation", .gender), .sample("story", .culture), .sample("group-bias", .culture),
  ])
}
