import ArgumentParser
import Foundation
import SweepRPC

struct WorkersCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "workers", abstract: "List the workers of a running sweep, and what they do.",
    discussion: """
      EXAMPLES:
        biassweep workers
        biassweep workers --coordinator head:7077 --credentials certs/operator.pem
        biassweep workers --json | jq '.[] | select(.state == "connected") | .id'
      """)

  @OptionGroup var connection: OperatorConnection

  @Flag(help: "Also those that have left.")
  var all = false

  private struct Output: Encodable {
    struct Lease: Encodable {
      let shard: String
      let token: UInt64
      let fraction: Double
      let tokensPerSecond: Double
    }
    let id: String
    let host: String
    let processID: Int64
    let slots: UInt32
    let threads: UInt32
    let state: String
    let drained: Bool
    let leases: [Lease]
    let joinedAt: Double
    let leftAt: Double?
    let leftReason: String?
  }

  func run() async throws {
    let rows = try await connection.workers().filter { all || $0.state != "left" }
    if connection.json {
      return try Console.output(
        json: rows.map { row in
          Output(
            id: row.id, host: row.host, processID: row.processID, slots: row.slots,
            threads: row.threads, state: row.state, drained: row.drained,
            leases: row.leases.map {
              Output.Lease(
                shard: $0.shard, token: $0.token, fraction: $0.fraction,
                tokensPerSecond: $0.tokensPerSecond)
            },
            joinedAt: row.joinedAt, leftAt: row.leftAt == 0 ? nil : row.leftAt,
            leftReason: row.leftAt == 0 ? nil : row.leftReason)
        })
    }
    Console.output(
      TextTable(
        header: ["worker", "host", "pid", "state", "slots", "tokens/s", "runs"],
        rows: rows.map { row in
          [
            row.id, row.host, "\(row.processID)",
            row.drained && row.state != "left" ? "\(row.state), drained" : row.state,
            "\(row.slots)", "\(Int(row.leases.map(\.tokensPerSecond).reduce(0, +)))",
            row.state == "left"
              ? row.leftReason
              : row.leases.map { "\($0.shard) \(Int($0.fraction * 100)) %" }
                .joined(separator: ", "),
          ]
        }
      ).text)
  }
}

struct ShardsCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "shards", abstract: "List the shards of a running sweep.",
    discussion: """
      EXAMPLES:
        biassweep shards --state leased
        biassweep shards --state quarantined --json | jq -r '.[].reason'
      """)

  @OptionGroup var connection: OperatorConnection

  @Option(
    help: "Only those that are blocked, queued, leased, completed, quarantined or cancelled.")
  var state: String?

  static let states = ["blocked", "queued", "leased", "completed", "quarantined", "cancelled"]

  func validate() throws {
    if let state, !Self.states.contains(state) {
      throw ValidationError("--state takes one of \(Self.states.joined(separator: ", ")).")
    }
  }

  private struct Output: Encodable {
    let id: String
    let kind: String
    let state: String
    let attempts: UInt32
    let trials: UInt32
    let trialsCompleted: UInt32
    let worker: String?
    let reason: String?
  }

  func run() async throws {
    let rows = try await connection.shards(inState: state)
    if connection.json {
      return try Console.output(
        json: rows.map {
          Output(
            id: $0.id, kind: $0.kind, state: $0.state, attempts: $0.attempts, trials: $0.trials,
            trialsCompleted: $0.trialsCompleted, worker: $0.worker.isEmpty ? nil : $0.worker,
            reason: $0.reason.isEmpty ? nil : $0.reason)
        })
    }
    Console.output(
      TextTable(
        header: ["shard", "state", "trials", "attempts", "worker", "reason"],
        rows: rows.map {
          [
            $0.id, $0.state, "\($0.trialsCompleted)/\($0.trials)", "\($0.attempts)", $0.worker,
            $0.reason,
          ]
        }
      ).text)
  }
}

struct AttemptsCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "attempts",
    abstract: "List who worked on what in a running sweep, and how it ended.",
    discussion: """
      EXAMPLES:
        biassweep attempts
        biassweep attempts --shard 'tune/gender/contextual-single-explicit/0.5/none/1'
        biassweep attempts --json | jq '.[] | select(.ending == "failed") | .evidence'
      """)

  @OptionGroup var connection: OperatorConnection

  @Option(help: "Only attempts at this shard.")
  var shard: String?

  private struct Output: Encodable {
    let token: UInt64
    let shard: String
    let attempt: UInt32
    let worker: String
    let host: String
    let startedAt: Double
    let seconds: Double?
    let ending: String
    let evidence: String?
  }

  func run() async throws {
    let shard = self.shard ?? ""
    let rows = try await connection.call { service, options in
      try await service.attempts(.with { $0.shard = shard }, options: options) { response in
        var rows: [Biassweep_V1_AttemptRow] = []
        for try await page in response.messages { rows += page.rows }
        return rows
      }
    }
    if connection.json {
      return try Console.output(
        json: rows.map {
          Output(
            token: $0.token, shard: $0.shard, attempt: $0.attempt, worker: $0.worker, host: $0.host,
            startedAt: $0.startedAt, seconds: $0.seconds < 0 ? nil : $0.seconds,
            ending: $0.ending, evidence: $0.evidence.isEmpty ? nil : $0.evidence)
        })
    }
    Console.output(
      TextTable(
        header: ["lease", "shard", "attempt", "worker", "time", "ending", "evidence"],
        rows: rows.map {
          [
            "\($0.token)", $0.shard, "\($0.attempt)", $0.worker,
            $0.seconds < 0 ? "" : "\(Seconds($0.seconds))", $0.ending,
            $0.evidence.split(separator: "\n").first.map(String.init) ?? "",
          ]
        }
      ).text)
  }
}

extension OperatorConnection {
  func workers() async throws -> [Biassweep_V1_WorkerRow] {
    try await call { service, options in
      try await service.workers(.init(), options: options) { response in
        var rows: [Biassweep_V1_WorkerRow] = []
        for try await page in response.messages { rows += page.rows }
        return rows
      }
    }
  }

  /// - Parameter state: nil for all.
  func shards(inState state: String?) async throws -> [Biassweep_V1_ShardRow] {
    try await call { service, options in
      try await service.shards(.with { $0.state = state ?? "" }, options: options) { response in
        var rows: [Biassweep_V1_ShardRow] = []
        for try await page in response.messages { rows += page.rows }
        return rows
      }
    }
  }
}
