import BiasStudy
import Foundation
import Testing

/// What `doctor` concludes from what it found.
struct SetUpTests {
  /// A machine without fault.
  private static var good: SetUp {
    var setUp = SetUp()
    setUp.architecture = "x86_64"
    setUp.threads = 4
    setUp.instructionSets = ["avx2", "fma", "avx512f"]
    setUp.kernels = "avx512"
    setUp.arithmetic = "own-fma, fused loops"
    setUp.gigaflopsOneThread = 100
    setUp.gigaflops = 380
    setUp.memoryBytes = 32_000_000_000
    setUp.availableMemoryBytes = 20_000_000_000
    setUp.swappedBytes = 0
    setUp.freeDiskBytes = 100_000_000_000
    setUp.syncSeconds = 0.001
    setUp.openFilesMax = 4096
    setUp.models = [
      SetUp.Model(name: "m", path: "/m", parameters: 1, weights: .verified, problem: nil)
    ]
    setUp.readyPresets = ["smoke"]
    return setUp
  }

  @Test func aGoodMachineHasNoFindings() {
    #expect(Self.good.findings.isEmpty)
  }

  @Test func slowKernelsAreWarnings() {
    var setUp = Self.good
    setUp.arithmetic = "own-fma, portable loops"
    expectFinding(in: setUp, .warning, "portable build")
    setUp = Self.good
    setUp.instructionSets = []
    setUp.kernels = "openblas Prescott"
    #expect(setUp.findings.contains { $0.problem.contains("2004") })
    setUp = Self.good
    setUp.kernels = "openblas Haswell"
    expectFinding(in: setUp, .warning, "BIASSWEEP_GEMM")
  }

  @Test func scarceResourcesAreWarnings() {
    var setUp = Self.good
    setUp.threads = 1
    expectFinding(in: setUp, .warning, "one processor")
    setUp = Self.good
    setUp.gigaflops = 110
    expectFinding(in: setUp, .warning, "1.1 times")
    setUp = Self.good
    setUp.instructionSets = []
    expectFinding(in: setUp, .warning, "no AVX2")
    setUp = Self.good
    setUp.availableMemoryBytes = 500_000_000
    expectFinding(in: setUp, .warning, "0.5 GB of memory")
    setUp = Self.good
    setUp.swappedBytes = 10_000_000_000
    expectFinding(in: setUp, .warning, "swapped")
    setUp = Self.good
    setUp.freeDiskBytes = 1_000_000_000
    expectFinding(in: setUp, .warning, "1.0 GB of disk")
    setUp = Self.good
    setUp.syncSeconds = 0.2
    expectFinding(in: setUp, .warning, "200 ms")
    setUp = Self.good
    setUp.openFilesMax = 256
    expectFinding(in: setUp, .warning, "ulimit")
  }

  @Test func whatIsUnknownIsNotAFault() {
    var setUp = Self.good
    setUp.availableMemoryBytes = nil
    setUp.memoryBytes = nil
    setUp.swappedBytes = nil
    setUp.freeDiskBytes = nil
    setUp.syncSeconds = nil
    setUp.openFilesMax = nil
    #expect(setUp.findings.isEmpty)
  }

  @Test func missingAndDamagedInputsAreErrorsAndComeFirst() {
    var setUp = Self.good
    setUp.models = []
    setUp.readyPresets = []
    setUp.unreadyPresets = ["smoke"]
    setUp.openFilesMax = 256
    #expect(setUp.findings.map(\.level) == [.error, .error, .warning])
    setUp = Self.good
    setUp.models = [
      SetUp.Model(
        name: "m", path: "/m", parameters: 1, weights: .damaged, problem: "block 7 is wrong")
    ]
    expectFinding(in: setUp, .error, "block 7")
    setUp = Self.good
    setUp.datasets = [SetUp.Dataset(name: "bug", state: .damaged, problem: "another digest")]
    expectFinding(in: setUp, .error, "fetch-data bug")
    setUp.datasets = [SetUp.Dataset(name: "bug", state: .absent, problem: nil)]
    #expect(setUp.findings.isEmpty)
  }

  @Test func everyPresetsDataAreInTheManifest() {
    #expect(!DataManifest.datasets(ofPreset: "smoke").isEmpty)
    #expect(
      Set(DataManifest.datasets(ofPreset: "all")).isSubset(of: Set(DataManifest.datasets)))
  }

  private func expectFinding(in setUp: SetUp, _ level: Finding.Level, _ words: String) {
    let found = setUp.findings
    #expect(found.count == 1, "\(found)")
    #expect(found.first?.level == level)
    #expect(found.first.map { ($0.problem + $0.remedy).contains(words) } ?? false, "\(found)")
  }
}
