import ArgumentParser
import BiasStudy
import Foundation
import LanguageModel
import SweepCore

/// A grid in a directory: what both sides read, and what each has measured so far.
///
/// - `grid.json`, `items.jsonl`, `questions.jsonl`, `adapter-*.f32`: what `reference_grid.py` reads;
/// - `augmented-BIAS.jsonl`: D_a;
/// - `own-SHARING.jsonl`, `reference.jsonl`: a line for each fine-tune done;
/// - `trunk/`: the disk cache of frozen layers' outputs.
final class GridBench {
  let directory: URL
  let definition: SweepDefinition
  let plan: ShardPlan
  let domain: Domain
  let sharing: Sharing
  private let runner: ShardRunner
  private let model: LanguageModel
  let store: TrunkStore?
  private let trunkCache: TrunkCache?

  init(
    directory: URL, spec definition: SweepDefinition, cache: String, threads: Int, sharing: Sharing
  ) throws {
    self.directory = directory
    self.definition = definition
    self.sharing = sharing
    plan = definition.plan
    domain = definition.tasks[0].domain
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    model = try LanguageModel.load(
      from: cache + "/models/SmolLM2-135M-Instruct.Q4_1.gguf", cacheDirectory: cache)
    store =
      sharing.contains(.trunk)
      ? TrunkStore(directory: directory.appending(path: "trunk").path, byteLimit: 8 << 30) : nil
    trunkCache = sharing.contains(.trunk) ? ShardRunner.trunkCache(store: store) : nil
    runner = try ShardRunner(
      spec: definition.spec, tasks: definition.tasks, model: model,
      data: StudyData(
        store: DatasetStore(directory: cache + "/data"), tasks: definition.spec.definedTasks),
      threads: threads, trunkCache: trunkCache, sharing: sharing)
  }

  // MARK: - What both sides read

  private struct Layout: Codable {
    struct Training: Codable {
      var rank: Int
      var alpha: Double
      var targets: [String]
      var layers: [Int]
      var epochs: Int
      var batch_size: Int
      var learning_rate: Double
      var warmup_fraction: Double
      var weight_decay: Double
      var gradient_clip: Double
    }
    struct Tensor: Codable {
      var name: String
      var offset: Int
    }
    struct AdapterFile: Codable {
      var file: String
      var tensors: [Tensor]
    }
    /// One fine-tune of the reference.
    struct Job: Codable {
      var number: Int
      var conditions: String
      var seed: UInt64
      /// Lines of `items.jsonl`.
      var items: [Int]
      var groups: [String]
      /// Positions in `items` in the order of each epoch.
      var orders: [[Int]]
      var alignment_weight: Double
      var adapter: String
    }
    /// The canonical JSON of the spec.
    var spec: String
    var training: Training
    var adapters: [String: AdapterFile]
    var jobs: [Job]
  }

  private struct Item: Codable, Hashable {
    var tokens: [Int32]
    /// Tokens before this one are the prompt.
    var answer_start: Int
  }

  private struct Question: Codable {
    var task: String
    var kind: String
    var prompts: [[Int32]]
    var answers: [[Int32]]?
    var gold: [Int?]?
    var samples: Int?
    var temperature: Float?
    var top_k: Int?
    var maximum_tokens: Int?
    var stop: [Int32]?
  }

  private func file(_ name: String) -> URL { directory.appending(path: name) }

  private func note(_ text: String) { FileHandle.standardError.write(Data((text + "\n").utf8)) }

  /// Makes D_a and the files of the reference, unless they are there.
  func prepare() throws {
    let spec = try definition.spec.canonicalJSON()
    if let data = try? Data(contentsOf: file("grid.json")) {
      guard try JSONDecoder().decode(Layout.self, from: data).spec == spec else {
        throw GridBenchError.otherGrid(directory: directory.path)
      }
      return
    }
    for shard in plan.shards {
      guard case .augmentation(let key, let items) = shard.work else { continue }
      let target = augmentationFile(key.bias)
      guard !FileManager.default.fileExists(atPath: target.path) else { continue }
      note("making \(items) items of \(shard.id)")
      let made = try runner.augment(
        key, items: items, progress: { _ in }, shouldStop: { false })
      try Data(made.jsonl).write(to: target, options: .atomic)
    }

    var items: [Item] = []
    var numbers: [Item: Int] = [:]
    var adapters: [String: Layout.AdapterFile] = [:]
    var jobs: [Layout.Job] = []
    // Every combination of the axes, each for all tasks of the domain.
    for point in plan.grid.points where point.task == definition.tasks[0] {
      let key = TrainingKey(
        domain: domain, bias: point.bias, ratio: point.ratio, mitigation: point.mitigation,
        seed: point.seed)
      let sequences = try runner.trainingSequences(key, augmentation: augmentation(key))
      let options = runner.options(key)
      let tuner = try FineTuner(
        weights: model.weights, options: options, pool: .init(threadCount: 1))
      let adapter = "\(point.seed)"
      if adapters[adapter] == nil { adapters[adapter] = try write(tuner, seed: point.seed) }
      let lines = sequences.map { sequence in
        let item = Item(
          tokens: sequence.tokens,
          answer_start: sequence.supervised.firstIndex(of: true) ?? sequence.tokens.count)
        if let number = numbers[item] { return number }
        numbers[item] = items.count
        items.append(item)
        return items.count - 1
      }
      jobs.append(
        Layout.Job(
          number: jobs.count, conditions: key.conditions, seed: key.seed, items: lines,
          groups: sequences.map(\.group.rawValue),
          orders: (0..<options.epochs).map { tuner.order(ofEpoch: $0, count: sequences.count) },
          alignment_weight: Double(options.alignmentWeight), adapter: adapter))
    }
    try write(items, to: "items.jsonl")
    try write(definition.tasks.map(question), to: "questions.jsonl")

    let training = definition.spec.training
    let layers = model.configuration.layerCount
    let layout = Layout(
      spec: spec,
      training: Layout.Training(
        rank: training.rank, alpha: training.alpha,
        targets: training.targets.map {
          "\($0.rawValue)_proj"
        }, layers: Array(max(0, layers - (training.topLayers ?? layers))..<layers),
        epochs: training.epochs, batch_size: training.batchSize,
        learning_rate: training.learningRate, warmup_fraction: training.warmupFraction,
        weight_decay: training.weightDecay, gradient_clip: training.gradientClip),
      adapters: adapters, jobs: jobs)
    try JSONEncoder().encode(layout).write(to: file("grid.json"), options: .atomic)
  }

  private func write(_ tuner: FineTuner, seed: UInt64) throws -> Layout.AdapterFile {
    let name = "adapter-\(seed).f32"
    var tensors: [Layout.Tensor] = []
    var values: [Float] = []
    for tensor in tuner.tensorNames where tensor.contains("lora_A") {
      tensors.append(Layout.Tensor(name: tensor, offset: values.count))
      values += tuner.value(tensor) ?? []
    }
    try values.withUnsafeBytes { Data($0) }.write(to: file(name))
    return Layout.AdapterFile(file: name, tensors: tensors)
  }

  private func question(_ task: DownstreamTask) throws -> Question {
    switch try runner.questions(task) {
    case nil:
      throw ValidationError("the reference does not know tasks like \(task.id)")
    case .choices(let prompts, let answers, let gold):
      Question(task: task.id, kind: "choices", prompts: prompts, answers: answers, gold: gold)
    case .texts(let prompts, let samples, let options):
      Question(
        task: task.id, kind: "texts", prompts: prompts, samples: samples,
        temperature: options.temperature, top_k: options.topK,
        maximum_tokens: options.maximumTokens, stop: options.stopTokens.sorted())
    }
  }

  private func write(_ values: [some Encodable], to name: String) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys]
    var data = Data()
    for value in values {
      data += try encoder.encode(value)
      data.append(UInt8(ascii: "\n"))
    }
    try data.write(to: file(name), options: .atomic)
  }

  private func augmentationFile(_ bias: BiasType) -> URL {
    file("augmented-\(bias.rawValue).jsonl")
  }

  private func augmentation(_ key: TrainingKey) throws -> [UInt8]? {
    guard let bias = key.bias else { return nil }
    return [UInt8](try Data(contentsOf: augmentationFile(bias)))
  }

  // MARK: - Running

  struct OwnLine: Codable {
    var number: Int
    var conditions: String
    var seconds: Double
    var training_seconds: Double
    var processor_seconds: Double
    var final_loss: Double
    var misses: Int
    var metrics: [String: [String: Double]]
  }

  struct ReferenceLine: Codable {
    struct Task: Codable {
      var accuracy: Double?
    }
    var job: Int
    var conditions: String
    var seconds: Double
    var training_seconds: Double
    var processor_seconds: Double
    var final_loss: Double
    var tasks: [String: Task]
    var torch: String
  }

  func lines<Line: Decodable>(_ name: String, _ type: Line.Type) throws -> [Line] {
    guard let data = try? Data(contentsOf: file(name)) else { return [] }
    return try data.split(separator: UInt8(ascii: "\n")).map {
      try JSONDecoder().decode(type, from: $0)
    }
  }

  func ownFile(_ sharing: Sharing) -> String {
    let parts = Sharing.named.filter { sharing.contains($0.part) }.map(\.name)
    return "own-\(sharing == .all ? "all" : parts.isEmpty ? "none" : parts.joined(separator: "+"))"
      + ".jsonl"
  }

  /// Runs our fine-tunes that have no line yet until `seconds` have passed.
  func run(seconds: Double, every: Int) throws {
    let started = ContinuousClock.now
    let done = Set(try lines(ownFile(sharing), OwnLine.self).map(\.number))
    let fineTunes = Array(sharing.fineTunes(of: plan).enumerated())
    for (number, work) in fineTunes where number % every == 0 && !done.contains(number) {
      if started.duration(to: .now).seconds >= seconds { break }
      var metrics: [String: [String: Double]] = [:]
      let augmentation = try augmentation(work.key)
      let missesBefore = trunkCache?.statistics.misses ?? 0
      let processorBefore = processorSeconds()
      let before = ContinuousClock.now
      var trained = before
      let facts = try runner.fineTune(
        work.key, augmentation: augmentation, trials: work.trials,
        progress: { if $0.phase == "training" { trained = .now } }, shouldStop: { false }
      ) { metrics[$0.trial.description] = $0.metrics }
      let line = OwnLine(
        number: number, conditions: work.key.conditions,
        seconds: before.duration(to: .now).seconds,
        training_seconds: before.duration(to: trained).seconds,
        processor_seconds: processorSeconds() - processorBefore,
        final_loss: facts["final_loss"] ?? .nan,
        misses: (trunkCache?.statistics.misses ?? 0) - missesBefore, metrics: metrics)
      var data = try JSONEncoder().encode(line)
      data.append(UInt8(ascii: "\n"))
      try append(data, to: ownFile(sharing))
      note(
        "\(line.conditions): \(line.seconds.rounded(to: 2)) s, of it training "
          + "\(line.training_seconds.rounded(to: 2)) s, \(line.misses) items new")
    }
  }

  private func append(_ data: Data, to name: String) throws {
    if !FileManager.default.fileExists(atPath: file(name).path) {
      try Data().write(to: file(name))
    }
    let handle = try FileHandle(forWritingTo: file(name))
    defer { handle.closeFile() }
    try handle.seekToEnd()
    try handle.write(contentsOf: data)
  }

  /// Runs `count` fine-tunes of the reference that have no line yet, spread over the grid.
  func runReference(python: String, script: String, model: String, count: Int) throws {
    let done = Set(try lines("reference.jsonl", ReferenceLine.self).map(\.job))
    let jobs = Self.spread(plan.grid.points.count / definition.tasks.count)
      .filter { !done.contains($0) }.prefix(count)
    guard !jobs.isEmpty else { return }
    let process = Process()
    process.executableURL = URL(filePath: "/usr/bin/env")
    process.arguments = [
      python, script, "--directory", directory.path, "--model", model, "--jobs",
      jobs.map(String.init).joined(separator: ","),
    ]
    process.standardOutput = FileHandle.standardError
    try process.run()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
      throw GridBenchError.referenceFailed(status: process.terminationStatus)
    }
  }

  /// 0..<count in an order whose every beginning is spread evenly over ratios and the rest.
  private static func spread(_ count: Int) -> [Int] {
    // A step near the golden section that has no divisor in common with the count.
    var step = Int(Double(count) * 0.382)
    func divisor(_ a: Int, _ b: Int) -> Int { b == 0 ? a : divisor(b, a % b) }
    while divisor(max(1, step), count) != 1 { step += 1 }
    return (0..<count).map { $0 * max(1, step) % count }
  }
}

enum GridBenchError: Error, CustomStringConvertible {
  case otherGrid(directory: String)
  case referenceFailed(status: Int32)

  var description: String {
    switch self {
    case .otherGrid(let directory):
      "\(directory) holds another grid; use the options it was made with, or another directory"
    case .referenceFailed(let status):
      "the reference ended with status \(status); what it said stands above"
    }
  }
}
