import Foundation
import SweepCore
import SweepLedger
import SweepTestKit
import Testing

/// A ledger of 100,000 distinct trials.
struct LedgerScaleTests {
  @Test func statusCountsAHundredThousandTrials() throws {
    let directory = try TemporaryDirectory()
    let path = directory.file("sweep.sqlite")
    let seeds = (1...12_500 / 2).map(String.init).joined(separator: ", ")
    let sample = try SampleSweep(
      sketch: """
        name: large
        tasks: [story, group-bias]
        biases: [contextual-single-explicit, contrastive-single-explicit]
        ratios: [0.2, 0.5]
        mitigations: [none, mask]
        seeds: [\(seeds)]
        """)
    #expect(sample.plan.grid.trials.count == 100_000)
    let clock = ContinuousClock()
    var ledger: Ledger? = try sample.ledger(path)
    let shards = sample.plan.shards.count
    // All but ten: three in work, two given up, five not begun.
    var events = sample.opening + (0..<shards - 10).flatMap { sample.completion(of: $0) }
    events += (shards - 10..<shards - 8).flatMap { sample.failure(of: $0, evidence: "x") }
    events += (shards - 8..<shards - 5).map {
      .shardLeased(
        shard: sample.plan.shards[$0].id, worker: "worker-1", token: LeaseToken(UInt64($0 + 1)),
        attempt: 1)
    }
    let append = try clock.measure { try ledger?.append(events, now: 2_000) }

    let readStart = clock.now
    let status = try LedgerReader(path: path).status(now: 2_100)
    let read = clock.now - readStart
    print("100,000 trials: append of \(events.count) events \(append), status \(read)")
    #expect(status.trials == 100_000 && status.declared == 100_000)
    #expect(status.completed == 100_000 - 20)
    #expect(status.failed == 4)
    #expect(status.running == 6 && status.shardsRunning == 3)
    #expect(status.shards == shards && status.shardsCompleted == shards - 10)
    #expect(status.shardsQuarantined == 2)
    #expect(status.fineTunesRun == shards - 10 - sample.plan.augmentationCount)
    #expect(status.attempts == shards - 5)
    #expect(status.workers == 1 && status.coordinatorRunning)

    ledger = nil
    let reopen = try clock.measure { ledger = try sample.ledger(path) }
    let replayStart = clock.now
    let replayed = try ledger?.events().count
    let replay = clock.now - replayStart
    #expect(replayed == events.count)
    print("100,000 trials: reopening \(reopen), reading all events \(replay)")
  }
}
