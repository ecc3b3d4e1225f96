import Foundation
import SweepCoordinator
import SweepCore
import SweepLedger
import SweepRPC
import Testing

/// What a coordinator starts from.
struct RecoveryTests {
  private let deployment: Deployment

  init() throws { deployment = try Deployment(seeds: 2) }

  /// Some shards completed, one leased, by a worker that is gone.
  private var events: [SweepEvent] {
    let worker = WorkerInfo(id: "gone", host: "h", processID: 1, slots: 4, threads: 1)
    var events: [SweepEvent] = [.inputsFixed(["model": "m"]), .workerJoined(worker)]
    for (index, shard) in deployment.plan.shards.prefix(4).enumerated() {
      let token = LeaseToken(UInt64(index + 1))
      events.append(.shardLeased(shard: shard.id, worker: "gone", token: token, attempt: 1))
      if index == 3 { break }
      events += shard.trials.map {
        .trialCompleted(trial: $0.id, token: token, metrics: ["accuracy": 0.5], notes: [:])
      }
      events.append(
        .shardCompleted(
          shard: shard.id, token: token,
          artifact: shard.trials.isEmpty ? ContentDigest(of: [1]) : nil, facts: [:]))
    }
    return events
  }

  private func scheduler(after events: some Sequence<SweepEvent>) -> Scheduler {
    var scheduler = Scheduler(plan: deployment.plan, policy: deployment.definition.policy, seed: 1)
    for event in events { scheduler.apply(event, now: .zero) }
    return scheduler
  }

  private func recovered(saving state: (Int, Data)?) async throws -> SweepSummary {
    let path = deployment.directory.appendingPathComponent("\(UUID().uuidString).ledger").path
    let ledger = try Ledger(
      path: path, spec: deployment.definition.spec, plan: deployment.plan, version: "test", now: 0)
    let saved = state?.0 ?? 0
    try ledger.append(Array(events.prefix(saved)), now: 1, state: state?.1)
    try ledger.append(Array(events.dropFirst(saved)), now: 2)
    let coordinator = try Coordinator(
      definition: deployment.definition, plan: deployment.plan, ledger: ledger, version: "test",
      keepLeases: true, logger: Deployment.logger)
    defer { #expect(throws: Never.self) { try ledger.close() } }
    return await coordinator.summary()
  }

  @Test func savedStateAndReplayLeadToTheSame() async throws {
    let replayed = try await recovered(saving: nil)
    #expect(replayed.shardsCompleted == 3 && replayed.shardsRunning == 1)
    for saved in 1...events.count {
      let state = try scheduler(after: events.prefix(saved)).snapshot(now: .zero)
      #expect(try await recovered(saving: (saved, state)) == replayed, "saved after \(saved)")
    }
  }

  @Test func unreadableStateCostsOnlyTime() async throws {
    let replayed = try await recovered(saving: nil)
    #expect(try await recovered(saving: (5, Data("of another version".utf8))) == replayed)
  }

  /// A restart must not have to replay a long run: the state is saved in time.
  @Test func stateIsSavedDuringARun() async throws {
    let long = try Deployment(seeds: 400)
    let listening = Signal<Int>()
    async let summary = long.serve(unsavedEventsMin: 2_000) { port, _ in
      listening.send(port)
    }
    let port = try #require(await listening.next())
    try await Deployment.worker("one", port: port, slots: 8).run()
    #expect(try await summary.trialsCompleted == long.plan.grid.trials.count)
    let found = try LedgerVerification(path: long.ledgerPath, artifacts: nil, version: "test")
    #expect(found.problems.isEmpty && found.unchecked.isEmpty)
    let saved = try #require(found.snapshotSequence)
    #expect(found.events > 4_000 && found.events - Int(saved) < 2_500)
  }
}

/// Messages between the ends of a session.
struct OutboxTests {
  @Test func everythingArrivesOnceAndInOrder() async throws {
    let outbox = Outbox<Int>()
    let count = 10_000
    let producer = Task.detached {
      for value in 0..<count where value % 3 == 0 {
        outbox.add(Array(value..<min(value + 3, count)))
      }
      outbox.finish()
      outbox.add([-1])
    }
    var seen: [Int] = []
    var batches = 0
    try await outbox.drain { batch in
      #expect(!batch.isEmpty && batch.count <= 64)
      seen += batch
      batches += 1
    }
    await producer.value
    #expect(seen == Array(0..<count))
    #expect(batches < count)
  }

  @Test func whoeverDoesNotReadFillsItsOutbox() {
    let outbox = Outbox<Int>(capacity: 3)
    #expect(outbox.add([1, 2]))
    #expect(!outbox.add([3, 4]))
    #expect(outbox.add([3]))
  }

  @Test func aBatchIsItsMessagesInOrder() throws {
    let messages = (1...5).map { number in WorkerMessage.with { $0.request = UInt64(number) } }
    let sent = WorkerMessage(batch: messages)
    let bytes: [UInt8] = try sent.serializedBytes()
    #expect(try WorkerMessage(serializedBytes: bytes).batch == messages)
    #expect(WorkerMessage(batch: [messages[0]]) == messages[0])
  }
}
