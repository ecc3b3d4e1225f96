import ArgumentParser
import Foundation
import GRPCCore
import GRPCNIOTransportHTTP2Posix
import SweepCore
import SweepRPC
import Synchronization

/// Many workers in one process that hold real sessions but only wait instead of training, to load a
/// coordinator as a large cluster would. They know no plan, so that hundreds fit into a process.
struct LightClients: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "clients", abstract: "Workers without work, for `dispatch --processes`.",
    shouldDisplay: false)

  @Option var port: Int
  @Option var workers: Int
  @Option var slots: Int
  /// Number of the first worker.
  @Option var first: Int
  @Option var shardSeconds: Double
  /// Milliseconds from the start of one worker to that of the next.
  @Option var apart = 10

  /// What the workers of a process saw, as one JSON object on standard output.
  struct Output: Codable {
    /// Seconds from the report of a shard to the next assignment, of every slot.
    var gaps: [Double] = []
    var busySeconds = 0.0
    var shards = 0
    var cpuSeconds = 0.0
  }

  func run() async throws {
    let clients = (first..<first + workers).map {
      LightClient(number: $0, port: port, slots: slots, shardSeconds: shardSeconds)
    }
    try await withThrowingTaskGroup(of: Void.self) { group in
      for client in clients {
        group.addTask { try await client.run() }
        // A cluster does not start at one instant either.
        try await Task.sleep(for: .milliseconds(apart))
      }
      try await group.waitForAll()
    }
    var output = Output()
    for client in clients {
      let seen = await client.seen
      output.gaps += seen.gaps
      output.busySeconds += seen.busySeconds
      output.shards += seen.shards
    }
    output.cpuSeconds = BenchmarkOutput.cpuSeconds()
    try BenchmarkOutput.print(output)
  }
}

actor LightClient {
  private let number: Int
  private let port: Int
  private let slots: Int
  private let shardTime: Duration
  private let onAssignment: @Sendable () -> Void
  private let clock = ContinuousClock()
  private let outbox = Outbox<WorkerMessage>()
  private var lastRequest: UInt64 = 0
  private var running: Set<UInt64> = []
  /// As the coordinator wants them; for the first one, as a worker that has not heard from it yet.
  private var heartbeat = Duration.seconds(1)
  /// When slots became free, oldest first.
  private var ends: [ContinuousClock.Instant] = []
  private(set) var seen = LightClients.Output()

  /// - Parameter onAssignment: called at every assignment.
  init(
    number: Int, port: Int, slots: Int, shardSeconds: Double,
    onAssignment: @escaping @Sendable () -> Void = {}
  ) {
    self.onAssignment = onAssignment
    self.number = number
    self.port = port
    self.slots = slots
    shardTime = .seconds(shardSeconds)
  }

  func run() async throws {
    let outbox = self.outbox
    try await withGRPCClient(
      transport: .http2NIOPosix(
        target: .ipv4(address: "127.0.0.1", port: port), transportSecurity: .plaintext)
    ) { client in
      let service = Biassweep_V1_Coordination.Client(wrapping: client)
      outbox.add([
        .with {
          $0.hello = Biassweep_V1_Hello(
            worker: WorkerInfo(
              id: "light-\(self.number)", host: "localhost", processID: 1, slots: self.slots,
              threads: 1), version: "bench", specDigest: nil)
        }
      ])
      let heartbeats = Task { try await self.sendHeartbeats() }
      defer { heartbeats.cancel() }
      var options = CallOptions.defaults
      options.waitForReady = true
      try await service.session(
        options: options,
        requestProducer: { writer in
          try await outbox.drain { try await writer.write(WorkerMessage(batch: $0)) }
        },
        onResponse: { response in
          for try await message in response.messages { await self.handle(message.batch) }
        })
    }
  }

  private func handle(_ messages: [CoordinatorMessage]) {
    for message in messages {
      switch message.body {
      case .welcome(let welcome):
        heartbeat = .seconds(welcome.heartbeatSeconds)
        outbox.add([
          request { $0.ready = .with { $0.inputs = ["bench": "none"] } },
          .with { $0.workRequest = .with { $0.slots = UInt32(self.slots) } },
        ])
      case .assignment(let assignment): start(assignment)
      case .goodbye: outbox.finish()
      case .acknowledgement, .revocation, nil: break
      }
    }
  }

  private func start(_ assignment: Biassweep_V1_Assignment) {
    let started = clock.now
    onAssignment()
    if !ends.isEmpty { seen.gaps.append(ends.removeFirst().duration(to: started) / .seconds(1)) }
    running.insert(assignment.token)
    Task {
      try await Task.sleep(for: shardTime)
      end(assignment, after: started.duration(to: clock.now) / .seconds(1))
    }
  }

  private func end(_ assignment: Biassweep_V1_Assignment, after seconds: Double) {
    running.remove(assignment.token)
    seen.busySeconds += seconds
    seen.shards += 1
    ends.append(clock.now)
    outbox.add(
      assignment.trials.map { trial in
        request {
          $0.trial = .with {
            $0.token = assignment.token
            $0.trial = trial
            $0.metrics = ["value": 1]
          }
        }
      } + [
        request { $0.shard = .with { $0.token = assignment.token } },
        .with { $0.workRequest = .with { $0.slots = 1 } },
      ])
  }

  private func request(_ fill: (inout WorkerMessage) -> Void) -> WorkerMessage {
    lastRequest += 1
    return .with {
      $0.request = lastRequest
      fill(&$0)
    }
  }

  private func sendHeartbeats() async throws {
    while true {
      try await Task.sleep(for: heartbeat)
      let tokens = running.sorted()
      outbox.add([
        .with { $0.heartbeat.leases = tokens.map { token in .with { $0.token = token } } }
      ])
    }
  }
}
