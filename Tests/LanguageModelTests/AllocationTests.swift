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
  private func allocations(_ options: FineTuningOptions, headRows: Int = 16) throws -> Int {
    // One thread: what other tests do at the same time is not counted.
    let tuner = try FineTuner(
      weights: oddWeights, options: options, pool: ThreadPool(threadCount: 1), headRows: headRows)
    let sequences = randomSequences([9, 70, 20, 11])
    for _ in 0..<2 { try tuner.takeStep(sequences, learningRate: 1e-3) }
    let before = allocation_count_of_thread()
    for _ in 0..<3 { try tuner.takeStep(sequences, learningRate: 1e-3) }
    return allocation_count_of_thread() - before
  }

  @Test(arguments: [Adapter.full, .upperLayers(from: 2), upperAdapter], [1, 2])
  func aWarmStepAllocatesNothing(adapter: Adapter, parts: Int) throws {
    #expect(try allocations(options(adapter, accumulationSteps: parts)) == 0)
    #expect(
      try allocations(options(adapter, accumulationSteps: parts, recomputes: true)) == 0)
    var apart = options(adapter, accumulationSteps: parts)
    apart.sharesPrefixes = false
    #expect(try allocations(apart) == 0)
  }

  @Test func theCounterSeesAnAllocation() {
    let before = allocation_count_of_thread()
    let array = [Int](unsafeUninitializedCapacity: 1000) { _, count in count = 0 }
    #expect(withExtendedLifetime(array) { allocation_count_of_thread() } > before)
  }
}
