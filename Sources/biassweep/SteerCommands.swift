import ArgumentParser
import Foundation
import SweepRPC

struct PauseCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pause",
    abstract: "Lease nothing further until `resume`; what runs goes on.",
    discussion: """
      Survives a restart of the coordinator.

      EXAMPLES:
        biassweep pause --reason "the cluster is needed until noon"
        biassweep pause --coordinator head:7077 --credentials certs/operator.pem --json
      """)

  @OptionGroup var connection: OperatorConnection
  @OptionGroup var grounds: Grounds

  func run() async throws {
    let reason = grounds.text
    try await connection.steer([.with { $0.pause = .with { $0.reason = reason } }])
  }
}

struct ResumeCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "resume", abstract: "Lease again after `pause`.",
    discussion: """
      EXAMPLES:
        biassweep resume
        biassweep resume --json
      """)

  @OptionGroup var connection: OperatorConnection

  func run() async throws {
    try await connection.steer([.with { $0.resume = .init() }])
  }
}

struct CancelCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "cancel", abstract: "Give shards up, or end the whole sweep.",
    discussion: """
      Leases of what is cancelled end at once; results so far stay. A cancelled shard runs again \
      after `retry`. A cancelled sweep stays cancelled when its coordinator is started again, \
      unless with --revive.

      EXAMPLES:
        biassweep cancel 'tune/gender/contextual-single-explicit/0.5/none/1' --reason "wrong prompt"
        biassweep cancel --sweep --reason "enough seen" --json
      """)

  @OptionGroup var connection: OperatorConnection
  @OptionGroup var grounds: Grounds

  @Argument(help: "Shards, as `biassweep shards` names them.")
  var shards: [String] = []

  @Flag(help: "All of it.")
  var sweep = false

  func validate() throws {
    guard sweep == shards.isEmpty else {
      throw ValidationError("Name the shards to cancel, or say --sweep.")
    }
  }

  func run() async throws {
    let reason = grounds.text
    try await connection.steer(
      sweep
        ? [.with { $0.cancelSweep = .with { $0.reason = reason } }]
        : shards.map { shard in
          .with {
            $0.cancelShard = .with {
              $0.shard = shard
              $0.reason = reason
            }
          }
        })
  }
}

struct RetryCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "retry",
    abstract: "Give shards new attempts: quarantined, cancelled, or waiting after a failure.",
    discussion: """
      EXAMPLES:
        biassweep retry 'tune/gender/contextual-single-explicit/0.5/none/1'
        biassweep retry --quarantined --json
      """)

  @OptionGroup var connection: OperatorConnection

  @Argument(help: "Shards, as `biassweep shards` names them.")
  var shards: [String] = []

  @Flag(help: "All that are quarantined.")
  var quarantined = false

  func validate() throws {
    guard quarantined == shards.isEmpty else {
      throw ValidationError("Name the shards to try again, or say --quarantined.")
    }
  }

  func run() async throws {
    let wanted =
      quarantined ? try await connection.shards(inState: "quarantined").map(\.id) : shards
    try await connection.steer(
      wanted.map { shard in .with { $0.retry = .with { $0.shard = shard } } })
  }
}

struct PrioritiseCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "prioritise",
    abstract: "Lease shards, and what they wait for, before others, or after them.",
    discussion: """
      All shards begin with priority 0. Results do not depend on the order.

      EXAMPLES:
        biassweep prioritise 'tune/gender/contextual-single-explicit/0.5/none/1'
        biassweep prioritise 'tune/culture/original/0/none/2' --priority=-1 --json
      """)

  @OptionGroup var connection: OperatorConnection

  @Argument(help: "Shards, as `biassweep shards` names them.")
  var shards: [String]

  @Option(help: "Higher ones are leased first.")
  var priority: Int32 = 1

  func run() async throws {
    let priority = self.priority
    try await connection.steer(
      shards.map { shard in
        .with {
          $0.prioritise = .with {
            $0.shard = shard
            $0.priority = priority
          }
        }
      })
  }
}

struct DrainCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "drain", abstract: "Give workers nothing further; what they run, they finish.",
    discussion: """
      Survives a restart of the coordinator, and the worker's reconnecting. When `biassweep workers` \
      shows that it runs nothing, the machine can be switched off.

      EXAMPLES:
        biassweep drain node7/3f2a1c --reason "new disk"
        biassweep drain 3f2a --json
      """)

  @OptionGroup var connection: OperatorConnection
  @OptionGroup var grounds: Grounds

  @Argument(help: "Workers, as `biassweep workers` names them; the begin of a name is enough.")
  var workers: [String]

  func run() async throws {
    let known = try await connection.workers().filter { $0.state != "left" }.map(\.id)
    let reason = grounds.text
    let wanted = try workers.map { begin in
      let matches = known.contains(begin) ? [begin] : known.filter { $0.hasPrefix(begin) }
      guard matches.count == 1 else {
        throw UsageError(
          description: matches.isEmpty
            ? "No worker's name begins with \(begin); see `biassweep workers`."
            : "\(matches.count) workers' names begin with \(begin): "
              + matches.joined(separator: ", "))
      }
      return matches[0]
    }
    try await connection.steer(
      wanted.map { worker in
        .with {
          $0.drain = .with {
            $0.worker = worker
            $0.reason = reason
          }
        }
      })
  }
}

/// Why an operator does something; the ledger remembers it.
struct Grounds: ParsableArguments {
  @Option(help: "Why, for whoever reads the ledger.")
  var reason: String?

  var text: String { reason ?? "by \(NSUserName())" }
}
