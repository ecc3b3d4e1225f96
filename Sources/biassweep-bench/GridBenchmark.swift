import ArgumentParser
import BiasStudy
import Foundation
import LanguageModel
import StudyDocuments
import SweepCore

/// The trials of a grid, ours beside transformers and PEFT (`scripts/reference_grid.py`).
struct GridBenchmark: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "grid",
    abstract: "Time a grid of trials beside the same trials in transformers + PEFT.",
    discussion: """
      1 domain × 2 biases × 3 ratios × 4 mitigations × 2 seeds. Augmented data are made first and \
      not timed; both sides read the same items, batches, first adapters and questions from the \
      directory. Each call goes on where the last one ended, so that a long comparison can be made \
      in short parts, and ends with one line of JSON over all that was measured so far.

      The reference is timed on as many fine-tunes as asked for, spread over the grid, and so may \
      our side be (--every). Where not all were timed, the time of the whole grid follows from the \
      mean at each ratio; `own_fine_tunes_timed` and `reference_fine_tunes_timed` say how many.

      EXAMPLES:
        biassweep-bench grid --directory grid8
        biassweep-bench grid --directory grid8 --python python3 --reference-model SmolLM2-hf \\
          --reference-jobs 6
        biassweep-bench grid --directory grid30 --top-layers 30 --seconds 80
        biassweep-bench grid --directory grid8 --sharing none --every 12
      """)

  @Option(help: "Where the grid and all results are kept.") var directory: String
  @Option(help: "gender or culture.") var domain = "culture"
  @Option(help: "The three ratios.") var ratios = "0,0.1,0.2"
  @Option(help: "LoRA on this many of the top layers.") var topLayers = 8
  @Option(help: "Bias-carrying original items.") var originalItems = 64
  @Option(help: "Format examples of each task.") var formatItems = 16
  @Option(help: "Test items of each task.") var testItems = 32
  @Option(help: "Epochs of a fine-tune.") var epochs = 3
  @Option(help: "Items of a step.") var batchSize = 8
  @Option(help: "Threads.") var threads = 2
  @Option(help: "Run our fine-tunes for this long, at least one; 0 for none.")
  var seconds = Double.infinity
  @Option(help: "Run only every so many of our fine-tunes.") var every = 1
  @Option(
    help: """
      What is shared: all, none, or a list of \(Sharing.named.map(\.name).joined(separator: ", ")).
      """)
  var sharing = "all"
  @Option(help: "Python with torch, transformers and peft; without it the reference does not run.")
  var python: String?
  @Option(help: "The model as a Hugging Face name or directory, for the reference.")
  var referenceModel = "HuggingFaceTB/SmolLM2-135M-Instruct"
  @Option(help: "Fine-tunes of the reference to run in this call.") var referenceJobs = 1
  @Option(help: "scripts/reference_grid.py.") var script = "scripts/reference_grid.py"
  @Option(help: "Directory of models and data; $BIASSWEEP_CACHE or the user's cache by default.")
  var cache: String?

  func validate() throws {
    guard Domain(rawValue: domain) != nil else {
      throw ValidationError("--domain takes gender or culture, not \(domain).")
    }
    guard parsedSharing != nil else {
      throw ValidationError("--sharing takes all, none, or parts, not \(sharing).")
    }
    guard every >= 1, threads >= 1, referenceJobs >= 0 else {
      throw ValidationError("--every and --threads take 1 or more, --reference-jobs 0 or more.")
    }
  }

  private var parsedSharing: Sharing? {
    if sharing == "all" { return .all }
    if sharing == "none" { return [] }
    var parts: Sharing = []
    for name in sharing.split(separator: ",") {
      guard let part = Sharing.named.first(where: { $0.name == name })?.part else { return nil }
      parts.insert(part)
    }
    return parts
  }

  func run() throws {
    let bench = try GridBench(
      directory: URL(filePath: directory, directoryHint: .isDirectory), spec: definition(),
      cache: cache ?? defaultCacheDirectory(), threads: threads, sharing: parsedSharing ?? .all)
    try bench.prepare()
    if seconds > 0 { try bench.run(seconds: seconds, every: every) }
    if let python {
      try bench.runReference(
        python: python, script: script, model: referenceModel, count: referenceJobs)
    }
    try BenchmarkOutput.print(bench.report())
  }

  private func definition() throws -> SweepDefinition {
    let tasks = domain == "gender" ? ["occupation"] : ["story", "group-bias"]
    return try SweepDefinition(
      document: BenchmarkSweep.document([
        "name": ["grid"], "tasks": tasks,
        "biases": ["contextual-single-explicit", "contrastive-single-explicit"],
        "ratios": ratios.split(separator: ",").map(String.init),
        "mitigations": ["none", "token", "mask", "loss"],
        "seeds": ["1", "2"],
        "data.original_items": ["\(originalItems)"], "data.format_items": ["\(formatItems)"],
        "data.test_items": ["\(testItems)"],
        "augmentation.maximum_tokens": ["48"],
        "training.top_layers": ["\(topLayers)"], "training.epochs": ["\(epochs)"],
        "training.batch_size": ["\(batchSize)"], "training.learning_rate": ["1e-3"],
        "mitigation.loss_weight": ["0.01"],
        "evaluation.maximum_tokens": ["32"],
      ]), catalogue: .builtIn)
  }
}
