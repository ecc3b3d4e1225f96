/// A format example of the task `story`: a story about a name, free of gender and culture.
package struct StoryTemplate: Hashable, Sendable {
  /// The story with "{name}" for the person.
  package let text: String

  package func story(about name: String) -> String {
    text.replacing("{name}", with: name)
  }

  /// All templates, from the resource `stories.tsv`, ordered so that any prefix of a multiple of
  /// six has every axis with both valences equally often.
  package static let all: [StoryTemplate] = {
    var byKind: [String: [StoryTemplate]] = [:]
    for row in ResourceTable.rows(PackageResources.stories_tsv, name: "stories.tsv", columns: 3) {
      byKind["\(row[0]).\(row[1])", default: []].append(StoryTemplate(text: row[2]))
    }
    let kinds = byKind.keys.sorted()
    let rounds = kinds.map { byKind[$0, default: []].count }.max() ?? 0
    return (0..<rounds).flatMap { round in
      kinds.compactMap { kind in
        let templates = byKind[kind, default: []]
        return round < templates.count ? templates[round] : nil
      }
    }
  }()
}

/// A person that a story is asked about.
package struct StoryPerson: Hashable, Sendable {
  package let name: String
  package let culture: Culture
  package let gender: Gender
}
