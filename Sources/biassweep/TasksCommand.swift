import ArgumentParser
import Foundation
import StudyDocuments
import SweepCore

struct TasksCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "tasks",
    abstract: "List the downstream tasks with their sources and licences, bias types, mitigations.",
    discussion: """
      EXAMPLES:
        biassweep tasks
        biassweep tasks --tasks my-tasks    checks your own task files and lists them too
        biassweep tasks --json | jq -r '.tasks[] | [.id, .licence] | @tsv'
      """)

  @OptionGroup var selection: TaskSelection

  @Flag(help: "Print one JSON object, with the resolved definitions.")
  var json = false

  private struct Output: Encodable {
    struct Task: Encodable {
      let id: String
      let summary: String
      let domain: Domain
      let kind: TaskDefinition.Kind
      let relation: TaskDefinition.Relation
      let testItemsMax: Int?
      let source: String
      let licence: String
      let citation: String
      let definition: TaskDefinition

      enum CodingKeys: String, CodingKey {
        case id, summary, domain, kind, relation
        case testItemsMax = "test_items_max"
        case source, licence, citation, definition
      }
    }
    let tasks: [Task]
    let biases: [BiasType]
    let mitigations: [Mitigation]
  }

  func run() throws {
    let tasks = try selection.catalogue().definitions
    if json {
      try Console.output(
        json: Output(
          tasks: tasks.map { task in
            Output.Task(
              id: task.id, summary: task.summary, domain: task.domain, kind: task.kind,
              relation: task.relation, testItemsMax: task.data.testItemsMax,
              source: task.origin.source, licence: task.origin.licence,
              citation: task.origin.citation, definition: task)
          }, biases: BiasType.allCases, mitigations: Mitigation.allCases))
      return
    }
    Console.output("tasks")
    for task in tasks {
      let name = task.id.padding(toLength: max(16, task.id.count + 1), withPad: " ", startingAt: 0)
      let items = task.data.testItemsMax.map { ", at most \($0) test items" } ?? ""
      Console.output(
        """
          \(name)\(task.summary)
                          \(task.domain.rawValue), \(task.kind.rawValue), \
        \(task.relation.rawValue)\(items)
                          data: \(task.origin.source)
                          licence: \(task.origin.licence)
        """)
    }
    Console.output("bias types")
    for bias in BiasType.allCases { Console.output("  \(bias.rawValue)") }
    Console.output("mitigations")
    for mitigation in Mitigation.allCases { Console.output("  \(mitigation.rawValue)") }
  }
}
