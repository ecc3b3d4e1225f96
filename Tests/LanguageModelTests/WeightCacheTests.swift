import Foundation
import LanguageModel
import Synchronization
import Testing

@Suite struct WeightCacheTests {
  private let scratch: ScratchDirectory
  private let configuration = TinyModel().configuration
  private let digest = String(repeating: "ab", count: 32)

  init() throws { scratch = try ScratchDirectory() }

  private var cache: WeightCache { WeightCache(directory: scratch.file("weights")) }

  /// Opens the cache; says whether the weights had to be built.
  private func load(value: Float = 1) throws -> (weights: ModelWeights, built: Bool) {
    var built = false
    let weights = try cache.weights(digest: digest, configuration: configuration) { sink in
      built = true
      let count = ParameterLayout(configuration).elementCount
      try [Float](repeating: value, count: count).withUnsafeBufferPointer { try sink(0, $0) }
    }
    return (weights, built)
  }

  private func damage(at offset: Int) throws {
    var content = try bytes(of: cache.path(digest: digest))
    content[offset] ^= 1
    // In a new file, as a disk or a copy would leave it; the mapped one must not change.
    try FileManager.default.removeItem(atPath: cache.path(digest: digest))
    try Data(content).write(to: URL(fileURLWithPath: cache.path(digest: digest)))
  }

  @Test func weightsAreBuiltOnce() throws {
    let first = try load()
    #expect(first.built)
    let second = try load()
    #expect(!second.built)
    #expect(second.weights.base[0] == 1)
    #expect(UInt(bitPattern: second.weights.base) % 64 == 0)
    try cache.verify(digest: digest, configuration: configuration)
    let files = try FileManager.default.contentsOfDirectory(atPath: cache.directory).sorted()
    #expect(files == ["\(digest)-v1.f32", "\(digest)-v1.f32.lock"])
  }

  @Test func damageToTheHeaderOrTheSizeLeadsToARebuild() throws {
    _ = try load()
    let path = cache.path(digest: digest)
    let size = try bytes(of: path).count
    for offset in [0, 30, 4095, size - 1] {
      try damage(at: offset)
      #expect(try load().built, "byte \(offset)")
      #expect(try !load().built)
    }
    for content in [Data(), Data(try bytes(of: path).dropLast()), Data(count: size)] {
      try content.write(to: URL(fileURLWithPath: path))
      #expect(try load().built)
    }
  }

  @Test func damageToAWeightIsFoundByVerification() throws {
    _ = try load()
    try damage(at: 4096 + 1000)
    let error = modelFileError {
      try cache.verify(digest: digest, configuration: configuration)
    }
    guard case .malformed(cache.path(digest: digest), .byte(4096), _) = error else {
      Issue.record("\(error as Any)")
      return
    }
  }

  @Test func weightsOfAnotherModelOrShapeAreNotTaken() throws {
    _ = try load()
    var other = configuration
    other.headCount = 2
    other.headDimension = 12
    other.keyValueHeadCount = 1
    #expect(ParameterLayout(other).elementCount == ParameterLayout(configuration).elementCount)
    #expect(try cache.cached(digest: digest, configuration: other) == nil)
    let foreign = String(repeating: "cd", count: 32)
    try FileManager.default.moveItem(
      atPath: cache.path(digest: digest), toPath: cache.path(digest: foreign))
    #expect(try cache.cached(digest: foreign, configuration: configuration) == nil)
  }

  @Test func aFailedBuildLeavesNothingBehind() throws {
    struct Stop: Error {}
    #expect(throws: Stop.self) {
      _ = try cache.weights(digest: digest, configuration: configuration) { _ in throw Stop() }
    }
    let files = try FileManager.default.contentsOfDirectory(atPath: cache.directory)
    #expect(files == ["\(digest)-v1.f32.lock"])
    #expect(try load().built)
  }

  @Test func leftoversOfAKilledBuildAreRemoved() throws {
    try FileManager.default.createDirectory(
      atPath: cache.directory, withIntermediateDirectories: true)
    let leftover = cache.path(digest: digest) + ".1-2.partial"
    try Data(count: 10).write(to: URL(fileURLWithPath: leftover))
    _ = try load()
    #expect(!FileManager.default.fileExists(atPath: leftover))
  }

  @Test func severalAtOnceBuildOnce() throws {
    let builds = Atomic<Int>(0)
    let failures = Atomic<Int>(0)
    let count = ParameterLayout(configuration).elementCount
    let (cache, digest, configuration) = (cache, digest, configuration)
    DispatchQueue.concurrentPerform(iterations: 8) { _ in
      do {
        let weights = try cache.weights(digest: digest, configuration: configuration) { sink in
          builds.add(1, ordering: .relaxed)
          try [Float](repeating: 3, count: count).withUnsafeBufferPointer { try sink(0, $0) }
        }
        if weights.base[count - 1] != 3 { failures.add(1, ordering: .relaxed) }
      } catch {
        failures.add(1, ordering: .relaxed)
      }
    }
    #expect(builds.load(ordering: .relaxed) == 1)
    #expect(failures.load(ordering: .relaxed) == 0)
  }

  @Test func aDirectoryThatCannotBeWrittenIsAnError() throws {
    try scratch.write([], to: "file")
    let cache = WeightCache(directory: scratch.file("file/weights"))
    let error = modelFileError {
      _ = try cache.weights(digest: digest, configuration: configuration) { _ in }
    }
    guard case .system = error else {
      Issue.record("\(error as Any)")
      return
    }
  }

  @Test func aChangedSourceIsNoticedThoughItsDigestIsRemembered() throws {
    var builder = TinyModel().gguf
    let path = try scratch.write(builder.build(), to: "m.gguf")
    let directory = scratch.file("cache")
    let first = try ModelWeights.load(from: path, cacheDirectory: directory)
    let again = try ModelWeights.load(from: path, cacheDirectory: directory)
    #expect(first.digest == again.digest)
    let sources = directory + "/weights/sources"
    let memory = try #require(try FileManager.default.contentsOfDirectory(atPath: sources).first)

    // The memory is used: a wrong digest in it shows.
    let memoryPath = "\(sources)/\(memory)"
    let text = String(decoding: try bytes(of: memoryPath), as: UTF8.self)
    let planted = String(repeating: "0", count: 64)
    try Data(text.replacingOccurrences(of: first.digest, with: planted).utf8)
      .write(to: URL(fileURLWithPath: memoryPath))
    #expect(try ModelWeights.load(from: path, cacheDirectory: directory).digest == planted)

    // A damaged memory is not.
    try Data("{".utf8).write(to: URL(fileURLWithPath: memoryPath))
    #expect(try ModelWeights.load(from: path, cacheDirectory: directory).digest == first.digest)

    builder.tensors[0].data[0] ^= 1
    try scratch.write(builder.build(), to: "new.gguf")
    _ = rename(scratch.file("new.gguf"), path)
    let changed = try ModelWeights.load(from: path, cacheDirectory: directory)
    #expect(changed.digest != first.digest)
    #expect(changed.base[0] != first.base[0])
  }

  @Test func randomWeightsDependOnTheSeedOnly() throws {
    let first = ModelWeights.random(configuration: configuration, seed: 1)
    let same = ModelWeights.random(configuration: configuration, seed: 1)
    let other = ModelWeights.random(configuration: configuration, seed: 2)
    let size = first.layout.elementCount * 4
    #expect(memcmp(first.base, same.base, size) == 0)
    #expect(memcmp(first.base, other.base, size) != 0)
    #expect(first.base[first.layout.finalNorm] == 1)
    let embedding = UnsafeBufferPointer(start: first.base, count: 480).map(Double.init)
    let mean = embedding.reduce(0, +) / 480
    let variance = embedding.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / 479
    // Four standard errors around N(0, 0.02²).
    #expect(abs(mean) < 4 * 0.02 / 480.0.squareRoot())
    #expect(abs(variance.squareRoot() - 0.02) < 4 * 0.02 / 960.0.squareRoot())
  }
}
