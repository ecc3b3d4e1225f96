import Foundation
import LanguageModel
import Synchronization
import Testing
import TransformerKernels

/// Outputs of frozen layers on disk: whatever happens to the files, results stay the same.
@Suite(.enabled(if: MultiplicationBackend.selected == .own, "a BLAS promises no bits"))
struct TrunkStoreTests {
  private let directory: URL
  private let sequences = randomSequences([3, 17, 64, 65, 9, 30, 2, 101, 12])

  init() throws {
    directory = FileManager.default.temporaryDirectory
      .appending(path: "biassweep-trunk-\(UUID().uuidString)")
  }

  private func store(
    limit: Int = 1 << 30, warn: @escaping @Sendable (String) -> Void = { _ in }
  ) -> TrunkStore {
    TrunkStore(directory: directory.path, byteLimit: limit, warn: warn)
  }

  /// Losses and final values of a fine-tune.
  private func course(_ cache: TrunkCache?) throws -> [UInt32] {
    let tuner = try FineTuner(
      weights: oddWeights, options: options(upperAdapter), pool: ThreadPool(threadCount: 2),
      trunkCache: cache)
    var losses: [Float] = []
    try tuner.train(sequences, progress: { losses.append($0.loss) })
    return bits(losses + tuner.allValues)
  }

  private var segments: [URL] {
    get throws {
      try FileManager.default.contentsOfDirectory(at: directory, includingPropertiesForKeys: nil)
    }
  }

  private func bytesOnDisk() throws -> Int {
    try segments.reduce(0) { try $0 + Data(contentsOf: $1).count }
  }

  @Test func anotherProcessFindsWhatOneComputed() throws {
    defer { try? FileManager.default.removeItem(at: directory) }
    let plain = try course(nil)
    let first = TrunkCache(byteLimit: 1 << 24, store: store())
    // Opened before there is anything to find.
    let second = TrunkCache(byteLimit: 0, store: store())
    #expect(try course(first) == plain)
    #expect(first.statistics.misses == sequences.count)
    #expect(first.statistics.hits == sequences.count && first.statistics.storeHits == 0)
    #expect(try course(second) == plain)
    #expect(second.statistics.misses == 0)
    #expect(second.statistics.storeHits == 2 * sequences.count)
    // Many entries, one file.
    #expect(try segments.count == 1)
    // Other weights have other entries.
    let other = ModelWeights.random(configuration: oddWeights.configuration, seed: 4)
    let tuner = try FineTuner(
      weights: other, options: options(upperAdapter), pool: ThreadPool(threadCount: 1),
      trunkCache: second)
    try tuner.train(sequences)
    #expect(second.statistics.misses == sequences.count)
  }

  enum Damage: CaseIterable {
    case flippedBits, cutOff, noHeader, foreignFile, emptied, removed
  }

  @Test(arguments: Damage.allCases) func damagedEntriesAreComputedAgain(damage: Damage) throws {
    defer { try? FileManager.default.removeItem(at: directory) }
    let plain = try course(TrunkCache(byteLimit: 0, store: store()))
    let early = TrunkCache(byteLimit: 0, store: store())
    let file = try #require(try segments.first)
    var bytes = try Data(contentsOf: file)
    switch damage {
    case .flippedBits:
      // One in each kibibyte, headers and payloads alike.
      for offset in stride(from: 500, to: bytes.count, by: 1024) { bytes[offset] ^= 0x10 }
    case .cutOff: bytes = bytes.prefix(bytes.count / 2 + 3)
    case .noHeader: bytes.replaceSubrange(0..<64, with: repeatElement(0, count: 64))
    case .foreignFile: bytes = Data(repeating: 0x54, count: 100_000)
    case .emptied: bytes = Data()
    case .removed: break
    }
    if damage == .removed {
      try FileManager.default.removeItem(at: file)
    } else {
      // In place, as damage comes, under the eyes of those who have it open.
      let handle = try FileHandle(forWritingTo: file)
      try handle.truncate(atOffset: 0)
      try handle.write(contentsOf: bytes)
      try handle.close()
    }
    let late = TrunkCache(byteLimit: 0, store: store())
    #expect(try course(early) == plain)
    #expect(try course(late) == plain)
    // What is recomputed is found again.
    let after = TrunkCache(byteLimit: 0, store: store())
    #expect(try course(after) == plain)
    #expect(after.statistics.misses == 0 || damage == .flippedBits)
    if damage == .flippedBits { #expect((early.store?.statistics.damaged ?? 0) > 0) }
    if damage != .removed { #expect(early.statistics.misses + late.statistics.misses > 0) }
  }

  @Test func theLimitHoldsAndOldSegmentsGo() throws {
    defer { try? FileManager.default.removeItem(at: directory) }
    let plain = try course(nil)
    let limit = 200_000
    let store = store(limit: limit)
    let cache = TrunkCache(byteLimit: 0, store: store)
    for round in 0..<4 {
      #expect(try course(cache) == plain)
      // Something new in each round.
      let model = try FineTuner(
        weights: oddWeights, options: options(upperAdapter), pool: ThreadPool(threadCount: 1),
        trunkCache: cache
      ).adapted
      _ = try model.hiddenStates((0..<3).map { randomTokens(90, seed: UInt64(100 * round + $0)) })
      #expect(try bytesOnDisk() <= limit)
    }
    #expect(store.statistics.evictions > 0)
    #expect(store.statistics.hits > 0)
    // A smaller limit is kept from the start.
    _ = self.store(limit: 50_000)
    #expect(try bytesOnDisk() <= 50_000)
  }

  @Test func withoutARoomForItWorkGoesOn() throws {
    // A file where the directory should be.
    try Data().write(to: directory)
    defer { try? FileManager.default.removeItem(at: directory) }
    let warnings = Mutex<[String]>([])
    let store = store { text in warnings.withLock { $0.append(text) } }
    let cache = TrunkCache(byteLimit: 0, store: store)
    #expect(try course(cache) == course(nil))
    #expect(!store.statistics.isWritable)
    #expect(warnings.withLock { $0.count } == 1)
    #expect(warnings.withLock { $0.first }?.contains(directory.path) == true)
  }

  /// Six handles as of six processes, in a directory so small that they evict each other's segments
  /// while reading and writing.
  @Test func manyProcessesCannotCorruptIt() async throws {
    defer { try? FileManager.default.removeItem(at: directory) }
    let plain = try course(nil)
    let results = try await withThrowingTaskGroup(of: [Bool].self) { group in
      for index in 0..<6 {
        group.addTask {
          let store = TrunkStore(
            directory: directory.path, byteLimit: index % 2 == 0 ? 120_000 : 60_000)
          let cache = TrunkCache(byteLimit: 0, store: store)
          return try (0..<4).map { _ in try course(cache) == plain }
        }
      }
      return try await group.reduce(into: []) { $0 += $1 }
    }
    #expect(results.count == 24 && results.allSatisfy { $0 })
  }
}
