import CAllocationCount
import LanguageModel
import Testing
import TransformerKernels

/// A warm training step takes no memory from the heap.
@Suite(
  .enabled(
    if: allocation_count_works() == 1, "allocations are counted with glibc and no sanitizer only"))
struct AllocationTests {
  /// Allocations of three steps that follow two others on the same sequences.
  private func allocations(
    _ options: FineTuningOptions, cache: TrunkCache? = nil, headRows: Int = 16
  ) throws -> Int {
    // One thread: what other tests do at the same time is not counted.
    let tuner = try FineTuner(
      weights: oddWeights, options: options, pool: ThreadPool(threadCount: 1), trunkCache: cache,
      headRows: headRows)
    let sequences = randomSequences([9, 70, 20, 11])
    for _ in 0..<2 { try tuner.takeStep(sequences, learningRate: 1e-3) }
    let before = allocation_count_of_thread()
    for _ in 0..<3 { try tuner.takeStep(sequences, learningRate: 1e-3) }
    return allocation_count_of_thread() - before
  }

  /// What a step can be asked for besides, by name.
  enum Extra: String, CaseIterable {
    case none, recomputation, apart, alignment, reweighting, both

    func add(to options: inout FineTuningOptions) {
      switch self {
      case .none: break
      case .recomputation: options.recomputesActivations = true
      case .apart: options.sharesPrefixes = false
      case .alignment: options.alignmentWeight = 0.3
      case .reweighting: options.reweightingExponent = 1.5
      case .both:
        options.alignmentWeight = 0.3
        options.reweightingExponent = 1.5
      }
    }
  }

  @Test(arguments: [Adapter.full, .upperLayers(from: 2), upperAdapter], Extra.allCases)
  func aWarmStepAllocatesNothing(adapter: Adapter, extra: Extra) throws {
    for parts in [1, 2] {
      var options = options(adapter, accumulationSteps: parts)
      extra.add(to: &options)
      // Logits in several chunks and in one.
      for headRows in [16, 256] {
        #expect(
          try allocations(options, headRows: headRows) == 0,
          "parts \(parts), rows of logits \(headRows)")
      }
    }
  }

  /// Outputs of frozen layers that are in the cache's memory cost none either. One that is computed or
  /// read from the disk takes the memory that the cache then keeps it in.
  @Test(arguments: [Adapter.upperLayers(from: 2), upperAdapter], Extra.allCases)
  func aWarmStepFromTheTrunkCacheAllocatesNothing(adapter: Adapter, extra: Extra) throws {
    for parts in [1, 2] {
      var options = options(adapter, accumulationSteps: parts)
      extra.add(to: &options)
      let cache = TrunkCache(byteLimit: 1 << 24)
      #expect(try allocations(options, cache: cache) == 0, "parts \(parts)")
      #expect(cache.statistics.hits == 4 * 4 && cache.statistics.misses == 4)
    }
  }

  /// A checkpoint is a copy, so that the step after it need not make one.
  @Test func theStepAfterACheckpointAllocatesNothing() throws {
    let tuner = try FineTuner(
      weights: oddWeights, options: options(upperAdapter, alignmentWeight: 0.3),
      pool: ThreadPool(threadCount: 1))
    let sequences = randomSequences([9, 70, 20, 11])
    let state = tuner.emptyState()
    for _ in 0..<2 {
      try tuner.takeStep(sequences, learningRate: 1e-3)
      tuner.capture(into: state)
    }
    let before = allocation_count_of_thread()
    try tuner.takeStep(sequences, learningRate: 1e-3)
    #expect(allocation_count_of_thread() == before)
  }

  @Test func theCounterSeesAnAllocation() {
    let before = allocation_count_of_thread()
    let array = [Int](unsafeUninitializedCapacity: 1000) { _, count in count = 0 }
    #expect(withExtendedLifetime(array) { allocation_count_of_thread() } > before)
  }
}
