import Foundation
import LanguageModel
import RandomStreams
import Synchronization
import Testing
import TransformerKernels

@Suite struct CheckpointTests {
  private static let sequences = randomSequences([9, 14, 20, 11, 8, 17, 12])
  private let directory: URL

  init() throws {
    directory = FileManager.default.temporaryDirectory
      .appending(path: "biassweep-checkpoint-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
  }

  private var path: String { directory.appending(path: "state.safetensors").path }

  private func tuner(_ options: FineTuningOptions, threads: Int = 2) throws -> FineTuner {
    try FineTuner(
      weights: oddWeights, options: options, pool: ThreadPool(threadCount: threads))
  }

  private func identity(_ tuner: FineTuner, _ purpose: String = "test") -> FineTuningIdentity {
    tuner.identity(of: Self.sequences, purpose: purpose)
  }

  /// LoRA and full fine-tuning, with and without the alignment term, whose running means are state,
  /// accumulation, and weighted losses.
  static let courses = [
    reweighted,
    options(upperAdapter), options(.full), options(upperAdapter, alignmentWeight: 0.5),
    options(.full, accumulationSteps: 2, alignmentWeight: 0.5, recomputes: true),
    options(.upperLayers(from: 2), alignmentWeight: 0.5),
  ]

  private static let reweighted = {
    var options = options(upperAdapter)
    options.reweightingExponent = 1.5
    return options
  }()

  @Test(arguments: courses) func resumingAtAnyStepGivesTheSameBits(options: FineTuningOptions)
    throws
  {
    defer { remove() }
    let whole = try tuner(options)
    var boundaries = 0
    var files: [String] = []
    let state = whole.emptyState()
    try whole.train(Self.sequences, shouldStop: { false }) { progress in
      whole.capture(into: state)
      let file = directory.appending(path: "\(progress.step)").path
      files.append(file)
      boundaries = progress.stepCount
      // A failed write shows as a missing file below.
      try? FineTuningCheckpoint.write(state, identity: identity(whole), to: file)
    }
    #expect(files.count == boundaries && boundaries == 4)
    for (index, file) in files.enumerated() {
      // Another process on another machine: nothing is shared but the file.
      let heir = try tuner(options, threads: 1 + index % 3)
      let read = heir.emptyState()
      try FineTuningCheckpoint.read(path: file, identity: identity(heir), into: read)
      heir.restore(read)
      #expect(heir.step == index + 1)
      var steps = 0
      try heir.train(Self.sequences, progress: { _ in steps += 1 })
      #expect(steps == boundaries - index - 1)
      #expect(bits(heir.allValues) == bits(whole.allValues))
      #expect(bits(heir.losses) == bits(whole.losses))
      #expect(heir.tokens == whole.tokens)
    }
  }

  @Test func capturedStateIsACopy() throws {
    defer { remove() }
    let tuner = try tuner(options(upperAdapter))
    try tuner.takeStep(Self.sequences, learningRate: 1e-2)
    let state = tuner.emptyState()
    tuner.capture(into: state)
    let before = tuner.allValues
    try tuner.takeStep(Self.sequences, learningRate: 1e-2)
    #expect(bits(tuner.allValues) != bits(before))
    tuner.restore(state)
    #expect(bits(tuner.allValues) == bits(before) && tuner.step == 1)
  }

  @Test func anyDamageIsFound() throws {
    defer { remove() }
    let tuner = try tuner(options(upperAdapter, alignmentWeight: 0.5))
    try tuner.train(Self.sequences)
    let state = tuner.emptyState()
    tuner.capture(into: state)
    try FineTuningCheckpoint.write(state, identity: identity(tuner), to: path)
    let good = try Data(contentsOf: URL(fileURLWithPath: path))
    try FineTuningCheckpoint.read(path: path, identity: identity(tuner), into: state)

    var random = RandomStream(seed: 5, purpose: "damage")
    for _ in 0..<200 {
      var bad = good
      bad[random.index(below: bad.count)] ^= UInt8(1 << random.index(below: 8))
      try bad.write(to: URL(fileURLWithPath: path))
      #expect(throws: (any Error).self) {
        try FineTuningCheckpoint.read(path: path, identity: identity(tuner), into: state)
      }
    }
    for length in [0, 7, 100, good.count / 2, good.count - 1] {
      try good.prefix(length).write(to: URL(fileURLWithPath: path))
      #expect(throws: (any Error).self) {
        try FineTuningCheckpoint.read(path: path, identity: identity(tuner), into: state)
      }
    }
  }

  @Test func checkpointOfOtherWorkIsRefusedByName() throws {
    defer { remove() }
    let tuner = try tuner(options(upperAdapter))
    try tuner.train(Self.sequences)
    let state = tuner.emptyState()
    tuner.capture(into: state)
    try FineTuningCheckpoint.write(state, identity: identity(tuner), to: path)

    func differences(_ identity: FineTuningIdentity) throws -> [String] {
      do {
        try FineTuningCheckpoint.read(path: path, identity: identity, into: state)
        return []
      } catch CheckpointError.foreign(_, let names) {
        return names
      }
    }
    #expect(try differences(identity(tuner)) == [])
    #expect(try differences(identity(tuner, "another shard")) == ["purpose"])
    let fewer = tuner.identity(of: Array(Self.sequences.dropLast()), purpose: "test")
    #expect(try differences(fewer) == ["data"])
    var regrouped = Self.sequences
    regrouped[0].group = .augmented
    #expect(try differences(tuner.identity(of: regrouped, purpose: "test")) == ["data"])
    let other = try self.tuner(options(upperAdapter, seed: 12))
    #expect(try differences(identity(other)) == ["options"])
  }

  @Test func everyOptionThatDecidesABitIsPartOfTheIdentity() {
    let base = options(upperAdapter)
    let changes: [(inout FineTuningOptions) -> Void] = [
      { $0.adapter = .full }, { $0.adapter = .upperLayers(from: 1) },
      { $0.adapter = .upperLayers(from: 2) }, { $0.epochs = 3 }, { $0.batchSize = 5 },
      { $0.accumulationSteps = 2 }, { $0.learningRate = 4e-3 }, { $0.warmupFraction = 0.3 },
      { $0.weightDecay = 0.5 }, { $0.gradientClip = nil }, { $0.alignmentWeight = 1 },
      { $0.reweightingExponent = 1 },
      { $0.seed = 12 }, { $0.beta1 = 0.5 }, { $0.beta2 = 0.5 }, { $0.epsilon = 1e-3 },
      { $0.paddingToken = 1 }, { $0.sharesPrefixes = false },
      { $0.change { $0.rank = 4 } }, { $0.change { $0.alpha = 8 } },
      { $0.change { $0.targets = [.query] } }, { $0.change { $0.layers = 1..<4 } },
      { $0.change { $0.rankStabilised = true } },
    ]
    var texts: Set<String> = [base.courseDescription]
    for change in changes {
      var changed = base
      change(&changed)
      #expect(texts.insert(changed.courseDescription).inserted)
    }
    // A new option must be looked at here: does it decide a bit?
    #expect(Mirror(reflecting: base).children.count == 17)
    var recomputing = base
    recomputing.recomputesActivations = true
    #expect(recomputing.courseDescription == base.courseDescription)
  }

  @Test func oldFormatIsNamed() throws {
    defer { remove() }
    let tuner = try tuner(options(upperAdapter))
    try SafetensorsFile.write(
      [.init(name: "values", shape: [1])], metadata: ["format": "biassweep-fine-tune-0"], to: path,
      values: { _ in [0] })
    let error = #expect(throws: CheckpointError.self) {
      try FineTuningCheckpoint.read(
        path: path, identity: identity(tuner), into: tuner.emptyState())
    }
    #expect("\(String(describing: error))".contains("biassweep-fine-tune-0"))
  }

  @Test func writerKeepsTheFileUpToDateAndFinishesAtTheLastStep() throws {
    defer { remove() }
    let tuner = try tuner(options(upperAdapter))
    let steps = Mutex<[Int]>([])
    let writer = CheckpointWriter(
      for: tuner, identity: identity(tuner), path: path, interval: .zero,
      written: { step in steps.withLock { $0.append(step) } },
      failed: { Issue.record("cannot write: \($0)") })
    try tuner.train(Self.sequences, progress: { _ in writer.offer(tuner) })
    writer.finish(tuner)
    #expect(steps.withLock { $0 }.last == 4)
    #expect(writer.totals.written == steps.withLock { $0.count })
    let state = tuner.emptyState()
    try FineTuningCheckpoint.read(path: path, identity: identity(tuner), into: state)
    #expect(state.step == 4)
    // Nothing has changed since: nothing is written.
    writer.offer(tuner)
    writer.finish(tuner)
    #expect(writer.totals.written == steps.withLock { $0.count })
  }

  @Test func writerThatCannotWriteStopsNothing() throws {
    defer { remove() }
    let tuner = try tuner(options(upperAdapter))
    let failures = Mutex(0)
    let writer = CheckpointWriter(
      for: tuner, identity: identity(tuner), path: path + "/no/directory", interval: .zero,
      written: { _ in Issue.record("nothing can be written") },
      failed: { _ in failures.withLock { $0 += 1 } })
    try tuner.train(Self.sequences, progress: { _ in writer.offer(tuner) })
    writer.finish(tuner)
    #expect(failures.withLock { $0 } > 0)
    #expect(tuner.step == 4)
  }

  @Test func nothingIsDueBeforeTheInterval() throws {
    defer { remove() }
    let tuner = try tuner(options(upperAdapter))
    let writer = CheckpointWriter(
      for: tuner, identity: identity(tuner), path: path, interval: .seconds(3600),
      written: { _ in }, failed: { _ in })
    try tuner.train(Self.sequences, progress: { _ in writer.offer(tuner) })
    #expect(writer.totals.written == 0)
    #expect(!FileManager.default.fileExists(atPath: path))
  }

  private func remove() {
    // A directory that stays behind harms no test.
    try? FileManager.default.removeItem(at: directory)
  }
}

extension FineTuningOptions {
  fileprivate mutating func change(_ body: (inout LoRAConfiguration) -> Void) {
    guard case .lora(var lora) = adapter else { return }
    body(&lora)
    adapter = .lora(lora)
  }
}
