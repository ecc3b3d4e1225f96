import ArgumentParser
import Foundation
import LanguageModel
import RandomStreams
import TransformerKernels

/// Times batched greedy generation, beside transformers when a Python with it is given.
struct GenerateBenchmark: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "generate",
    abstract: "Time the generation of texts, beside transformers if a Python is given.",
    discussion: """
      Prints one line of JSON for each batch size: tokens/s with the prompt's computation included \
      and, with --python, those of transformers in float32 on the same prompts, taken in turns, and \
      the median of the ratios.

        biassweep-bench generate --python venv/bin/python --reference-model smollm2-hf
      """)

  @Option(help: "The path of a .gguf file or Hugging Face directory; by default SmolLM2-135M.")
  var model: String?
  @Option(help: "Texts generated at once, one measurement for each number.") var batch = [1, 32]
  @Option(help: "Tokens of a prompt.") var prompt = 64
  @Option(name: .customLong("new-tokens"), help: "Tokens generated for each.") var newTokens = 64
  @Option(help: "Threads.") var threads = 2
  @Option(help: "Timed rounds, after one that is not.") var rounds = 3
  @Flag(
    help: "Draw from the 50 most probable tokens instead of taking the first; not with --python.")
  var sample = false
  @Option(help: "A Python with torch and transformers.") var python: String?
  @Option(
    name: .customLong("reference-model"), help: "The same model as a Hugging Face directory.")
  var referenceModel: String?
  @Option(name: .customLong("reference-script"), help: "What the Python runs.")
  var referenceScript = "scripts/reference_generate.py"
  @Option(help: "Directory of models and data; $BIASSWEEP_CACHE or the user's cache by default.")
  var cache: String?

  func validate() throws {
    for (name, value) in [
      ("prompt", prompt), ("new-tokens", newTokens), ("threads", threads), ("rounds", rounds),
      ("batch", batch.min() ?? 0),
    ] where value < 1 {
      throw ValidationError("--\(name) must be at least 1, not \(value)")
    }
    if python != nil && (referenceModel == nil || sample) {
      throw ValidationError("--python needs --reference-model, and does not go with --sample")
    }
  }

  func run() throws {
    let directory = cache ?? defaultCacheDirectory()
    let path = model ?? directory + "/models/SmolLM2-135M-Instruct.Q4_1.gguf"
    let weights = try ModelWeights.load(from: path, cacheDirectory: directory)
    let adapted = AdaptedModel(weights: weights, pool: ThreadPool(threadCount: threads))
    var reference: ReferenceGenerator?
    if let python, let referenceModel {
      reference = try ReferenceGenerator(
        python: python, script: referenceScript, model: referenceModel, threads: threads)
    }
    let options = AdaptedModel.SamplingOptions(
      temperature: sample ? 1 : 0, topK: sample ? 50 : 0, maximumTokens: newTokens)
    for count in batch {
      var random = RandomStream(seed: 1, purpose: "benchmark prompts")
      let prompts = (0..<count).map { _ in
        (0..<prompt).map { _ in Int32(random.index(below: weights.configuration.vocabularySize)) }
      }
      resetPeakMemory()
      var ours: [Double] = []
      var theirs: [Double] = []
      var equalTexts = 0
      for round in 0...rounds {
        let start = ContinuousClock.now
        let texts = try adapted.generate(
          prompts, seeds: prompts.indices.map(UInt64.init), options: options)
        let seconds = start.duration(to: .now).seconds
        let answer = try reference?.generate(prompts, newTokens: newTokens)
        equalTexts = answer.map { zip($0.texts, texts).count { $0 == $1 } } ?? 0
        guard round > 0 else { continue }
        ours.append(Double(texts.reduce(0) { $0 + $1.count }) / seconds)
        if let answer { theirs.append(Double(count * newTokens) / answer.seconds) }
      }
      try BenchmarkOutput.print(
        Report(
          model: (path as NSString).lastPathComponent, batch: count, prompt: prompt,
          new_tokens: newTokens, threads: threads, kernel: MultiplicationBackend.kernelName,
          tokens_per_s: median(ours).rounded(to: 1),
          compressed_mb: weights.compressed.map { Double($0.byteCount >> 20) },
          peak_rss_mb: peakMemoryMegabytes().rounded(), reference: reference?.versions,
          reference_tokens_per_s: reference.map { _ in median(theirs).rounded(to: 1) },
          ratio: reference.map { _ in
            median(zip(ours, theirs).map { $0 / $1 }).rounded(to: 2)
          },
          equal_texts: reference.map { _ in equalTexts }))
    }
  }

  private struct Report: Encodable {
    let model: String
    let batch: Int
    let prompt: Int
    let new_tokens: Int
    let threads: Int
    let kernel: String
    let tokens_per_s: Double
    let compressed_mb: Double?
    let peak_rss_mb: Double
    let reference: String?
    let reference_tokens_per_s: Double?
    let ratio: Double?
    let equal_texts: Int?
  }
}

/// transformers in a Python process, asked for one batch at a time.
private final class ReferenceGenerator {
  let versions: String
  private let process = Process()
  private let questions = Pipe()
  private let answers = Pipe()
  private var buffer = Data()

  struct Answer: Decodable {
    let seconds: Double
    let texts: [[Int32]]
  }

  private struct Question: Encodable {
    let prompts: [[Int32]]
    let new_tokens: Int
  }

  private struct Ready: Decodable { let ready: String }

  init(python: String, script: String, model: String, threads: Int) throws {
    process.executableURL = URL(fileURLWithPath: python)
    process.arguments = [script, model, "\(threads)"]
    process.standardInput = questions
    process.standardOutput = answers
    try process.run()
    var line = Data()
    versions = try Self.read(Ready.self, from: answers, &line).ready
    buffer = line
  }

  deinit {
    questions.fileHandleForWriting.closeFile()
    process.waitUntilExit()
  }

  func generate(_ prompts: [[Int32]], newTokens: Int) throws -> Answer {
    var line = try JSONEncoder().encode(Question(prompts: prompts, new_tokens: newTokens))
    line.append(UInt8(ascii: "\n"))
    try questions.fileHandleForWriting.write(contentsOf: line)
    return try Self.read(Answer.self, from: answers, &buffer)
  }

  /// Decodes the next line; what follows it stays in `buffer`.
  private static func read<Value: Decodable>(
    _ type: Value.Type, from pipe: Pipe, _ buffer: inout Data
  ) throws -> Value {
    while true {
      if let end = buffer.firstIndex(of: UInt8(ascii: "\n")) {
        let value = try JSONDecoder().decode(type, from: Data(buffer[..<end]))
        buffer = Data(buffer[(end + 1)...])
        return value
      }
      let part = pipe.fileHandleForReading.availableData
      guard !part.isEmpty else {
        throw ValidationError("the Python process ended; its errors are above")
      }
      buffer.append(part)
    }
  }
}

/// The middle of `values`, or the mean of the two in the middle.
func median(_ values: [Double]) -> Double {
  let sorted = values.sorted()
  let middle = sorted.count / 2
  return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}
