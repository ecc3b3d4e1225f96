import Foundation
import GRPCCore
import SweepCore
import SweepLedger
import SweepRPC

/// The gRPC side of what operators see and ask for. Who may call it is `CallGuard`'s matter.
struct ControlService: Biassweep_V1_Control.SimpleServiceProtocol {
  let coordinator: Coordinator

  private static let pageRows = 500

  func workers(
    request: Biassweep_V1_WorkersRequest, response: RPCWriter<Biassweep_V1_WorkersPage>,
    context: ServerContext
  ) async throws {
    let live = await coordinator.presences()
    let rows = try await reading { try $0.workers() }
    for page in rows.pages(of: Self.pageRows) {
      try await response.write(
        .with { $0.rows = page.map { Biassweep_V1_WorkerRow($0, live: live[$0.id]) } })
    }
  }

  func shards(
    request: Biassweep_V1_ShardsRequest, response: RPCWriter<Biassweep_V1_ShardsPage>,
    context: ServerContext
  ) async throws {
    let state = request.state.isEmpty ? nil : request.state
    let rows = try await reading { try $0.shards(inState: state) }
    for page in rows.pages(of: Self.pageRows) {
      try await response.write(.with { $0.rows = page.map(Biassweep_V1_ShardRow.init) })
    }
  }

  func attempts(
    request: Biassweep_V1_AttemptsRequest, response: RPCWriter<Biassweep_V1_AttemptsPage>,
    context: ServerContext
  ) async throws {
    let shard = request.shard.isEmpty ? nil : request.shard
    let rows = try await reading { try $0.attempts(at: shard) }
    for page in rows.pages(of: Self.pageRows) {
      try await response.write(.with { $0.rows = page.map(Biassweep_V1_AttemptRow.init) })
    }
  }

  func steer(
    request: Biassweep_V1_SteerRequest, context: ServerContext
  ) async throws -> Biassweep_V1_SteerReply {
    guard let control = Scheduler.Control(request) else {
      throw RPCError(code: .invalidArgument, message: "nothing is asked for")
    }
    let reply: Scheduler.Reply
    do {
      reply = try await coordinator.control(control)
    } catch let refusal as SessionRefusal {
      throw refusal.rpcError
    }
    return .with {
      switch reply {
      case .accepted: $0.accepted = true
      case .stale: $0.message = "the lease is over"
      case .refused(let reason): $0.message = reason
      }
    }
  }

  /// Reads the ledger beside the coordinator, away from the async runtime's threads; readers do not
  /// block the writer.
  private func reading<Value: Sendable>(
    _ body: @escaping @Sendable (LedgerReader) throws -> Value
  ) async throws -> Value {
    let path = coordinator.ledgerPath
    return try await withCheckedThrowingContinuation { continuation in
      DispatchQueue.global().async {
        continuation.resume(with: Result { try body(LedgerReader(path: path)) })
      }
    }
  }
}

extension Biassweep_V1_WorkerRow {
  init(_ worker: WorkerRow, live: Scheduler.Presence?) {
    self.init()
    id = worker.id
    host = worker.host
    processID = Int64(worker.processID)
    slots = UInt32(clamping: worker.slots)
    threads = UInt32(clamping: worker.threads)
    drained = worker.isDrained
    joinedAt = worker.joinedAt
    leftAt = worker.leftAt ?? 0
    leftReason = worker.leftReason ?? ""
    guard let live else {
      state = "left"
      return
    }
    state = live.isConnected ? "connected" : "awaited"
    leases = live.leases.map { shard, lease in
      .with {
        $0.shard = shard.description
        $0.token = lease.token.value
        $0.fraction = lease.fraction
        $0.tokensPerSecond = lease.tokensPerSecond
      }
    }
  }
}

extension Biassweep_V1_ShardRow {
  init(_ shard: ShardRow) {
    self.init()
    id = shard.id
    kind = shard.kind
    state = shard.state
    attempts = UInt32(clamping: shard.attempts)
    trials = UInt32(clamping: shard.trials)
    trialsCompleted = UInt32(clamping: shard.trialsCompleted)
    worker = shard.worker ?? ""
    reason = shard.reason ?? ""
  }
}

extension Biassweep_V1_AttemptRow {
  init(_ attempt: AttemptRow) {
    self.init()
    token = UInt64(clamping: attempt.token)
    shard = attempt.shard
    self.attempt = UInt32(clamping: attempt.number)
    worker = attempt.worker
    host = attempt.host
    startedAt = attempt.startedAt
    seconds = attempt.seconds ?? -1
    ending = attempt.ending
    evidence = attempt.evidence ?? ""
  }
}

extension Array {
  /// The elements in order, `size` at a time; the last page may be shorter.
  fileprivate func pages(of size: Int) -> [ArraySlice<Element>] {
    stride(from: 0, to: count, by: size).map { self[$0..<Swift.min($0 + size, count)] }
  }
}
