import ArgumentParser
import Foundation
import SweepCore

struct TasksCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "tasks", abstract: "List the downstream tasks, bias types and mitigations.")

  func run() throws {
    Console.output("tasks")
    for task in TaskCatalogue.builtIn.tasks {
      let name = task.id.padding(toLength: 14, withPad: " ", startingAt: 0)
      Console.output("  \(name)\(task.domain.rawValue) domain: \(task.summary)")
    }
    Console.output("bias types")
    for bias in BiasType.allCases { Console.output("  \(bias.rawValue)") }
    Console.output("mitigations")
    for mitigation in Mitigation.allCases { Console.output("  \(mitigation.rawValue)") }
  }
}
