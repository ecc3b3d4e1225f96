import Foundation
import GRPCCore
import SweepCoordinator
import SweepCore
import SweepLedger
import SweepRPC
import SweepWorker
import Testing

/// What operators see of a running sweep, and what they ask of it, over real TCP.
@Suite(.timeLimit(.minutes(3)))
struct SteeringTests {
  private func steer(
    _ siege: Siege, _ request: Biassweep_V1_SteerRequest
  ) async throws -> Biassweep_V1_SteerReply {
    try await siege.withClient { try await Siege.Control(wrapping: $0).steer(request) }
  }

  private func workers(_ siege: Siege) async throws -> [Biassweep_V1_WorkerRow] {
    try await siege.withClient {
      try await Siege.Control(wrapping: $0).workers(.init()) { response in
        var rows: [Biassweep_V1_WorkerRow] = []
        for try await page in response.messages { rows += page.rows }
        return rows
      }
    }
  }

  private func shards(
    _ siege: Siege, inState state: String = ""
  ) async throws -> [Biassweep_V1_ShardRow] {
    try await siege.withClient {
      try await Siege.Control(wrapping: $0).shards(.with { $0.state = state }) { response in
        var rows: [Biassweep_V1_ShardRow] = []
        for try await page in response.messages { rows += page.rows }
        return rows
      }
    }
  }

  private func attempts(
    _ siege: Siege, at shard: String = ""
  ) async throws -> [Biassweep_V1_AttemptRow] {
    try await siege.withClient {
      try await Siege.Control(wrapping: $0).attempts(.with { $0.shard = shard }) { response in
        var rows: [Biassweep_V1_AttemptRow] = []
        for try await page in response.messages { rows += page.rows }
        return rows
      }
    }
  }

  @Test func aPrioritisedShardComesFirst() async throws {
    let deployment = try Deployment(seeds: 2)
    let last = try #require(deployment.plan.shards.last { $0.dependency != nil })
    let listening = Signal<Int>()
    async let summary = deployment.serve { port, _ in listening.send(port) }
    let port = try #require(await listening.next())
    let siege = Siege(deployment: deployment, port: port, recorder: LogRecorder())
    let reply = try await steer(
      siege,
      .with {
        $0.prioritise = .with {
          $0.shard = last.id.description
          $0.priority = 5
        }
      })
    #expect(reply.accepted)
    let unknown = try await steer(siege, .with { $0.prioritise = .with { $0.shard = "tune/x" } })
    #expect(!unknown.accepted && unknown.message.contains("tune/x"))
    try await Deployment.worker("w", port: port).run()
    _ = try await summary
    let order = try deployment.reader.attempts(at: nil).sorted { $0.token < $1.token }
      .map(\.shard)
    #expect(Array(order.prefix(2)) == [try #require(last.dependency).description, "\(last.id)"])
  }

  /// A sweep with one worker that holds its first shard until `body` lets it go.
  private func besideABusyWorker(
    _ body: (_ siege: Siege, _ running: ShardID, _ gate: Gate) async throws -> Void
  ) async throws {
    let deployment = try Deployment(seeds: 1)
    let listening = Signal<Int>()
    let started = Signal<ShardID>()
    let gate = Gate()
    async let summary = deployment.serve { port, _ in listening.send(port) }
    let port = try #require(await listening.next())
    let busy = Task {
      try await Deployment.worker("busy", port: port) { assignment, control in
        started.send(assignment.shard.id)
        gate.wait()
        return try Deployment.compute(assignment, control)
      }.run()
    }
    let running = try #require(await started.next())
    try await body(
      Siege(deployment: deployment, port: port, recorder: LogRecorder()), running, gate)
    gate.open(1000)
    try await busy.value
    _ = try await summary
  }

  @Test func rowsSayWhatRuns() async throws {
    try await besideABusyWorker { siege, running, _ in
      let worker = try #require(try await workers(siege).first)
      #expect(worker.id == "busy" && worker.state == "connected" && !worker.drained)
      #expect(worker.leases.map(\.shard) == [running.description])
      #expect(try await shards(siege).count == siege.deployment.plan.shards.count)
      #expect(try await shards(siege, inState: "leased").map(\.id) == [running.description])
      let attempt = try #require(try await attempts(siege, at: running.description).first)
      #expect(attempt.worker == "busy" && attempt.ending == "running" && attempt.seconds < 0)
    }
  }

  @Test func aPausedSweepLeasesNothingUntilItIsResumed() async throws {
    try await besideABusyWorker { siege, running, gate in
      #expect(try await steer(siege, .with { $0.pause = .with { $0.reason = "noon" } }).accepted)
      gate.open(1000)
      // The busy worker reports its shard and asks for more; a second one asks, too.
      let idle = Task { try await Deployment.worker("idle", port: siege.port).run() }
      var isQuiet = false
      while !isQuiet {
        let completed = try await shards(siege, inState: "completed")
        let present = try await workers(siege)
        isQuiet = !completed.isEmpty && present.count == 2
      }
      #expect(try await shards(siege, inState: "leased").isEmpty)
      #expect(try await attempts(siege).map(\.shard) == [running.description])
      #expect(try await steer(siege, .with { $0.resume = .init() }).accepted)
      try await idle.value
    }
  }

  @Test func aDrainedWorkerGetsNothing() async throws {
    try await besideABusyWorker { siege, running, gate in
      #expect(
        try await steer(
          siege,
          .with {
            $0.drain = .with {
              $0.worker = "busy"
              $0.reason = "new disk"
            }
          }
        ).accepted)
      gate.open(1000)
      try await Deployment.worker("other", port: siege.port).run()
      let byBusy = try siege.deployment.reader.attempts(at: nil).filter { $0.worker == "busy" }
      #expect(byBusy.map(\.shard) == [running.description])
    }
  }

  @Test func aCancelledShardEndsAndIsTriedAgainOnRequest() async throws {
    try await besideABusyWorker { siege, running, _ in
      let name = running.description
      #expect(
        try await steer(
          siege,
          .with {
            $0.cancelShard = .with {
              $0.shard = name
              $0.reason = "wrong"
            }
          }
        ).accepted)
      let cancelled = try await shards(siege, inState: "cancelled")
      #expect(cancelled.map(\.id) == [name] && cancelled.map(\.reason) == ["wrong"])
      #expect(try await attempts(siege, at: name).map(\.ending) == ["cancelled"])
      #expect(try await steer(siege, .with { $0.retry = .with { $0.shard = name } }).accepted)
      #expect(try await shards(siege, inState: "cancelled").isEmpty)
    }
  }

  @Test func whatMakesNoSenseIsRefusedWithAReason() async throws {
    try await besideABusyWorker { siege, running, _ in
      let requests: [Biassweep_V1_SteerRequest] = [
        .with { $0.cancelShard = .with { $0.shard = "no/such" } },
        .with { $0.retry = .with { $0.shard = "no/such" } },
        .with { $0.retry = .with { $0.shard = running.description } },
        .with { $0.drain = .with { $0.worker = "nobody" } },
      ]
      for request in requests {
        let reply = try await steer(siege, request)
        #expect(!reply.accepted && !reply.message.isEmpty)
      }
      let error = await #expect(throws: RPCError.self) { try await steer(siege, .init()) }
      #expect(error?.code == .invalidArgument)
    }
  }
}
