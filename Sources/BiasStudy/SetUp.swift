/// What a machine brings to a sweep, as `biassweep doctor` finds it. Nil: not known here.
package struct SetUp: Hashable, Sendable, Codable {
  package var processor: String?
  package var architecture = ""
  package var threads = 1
  /// Instruction sets of the processor that matter here: "avx2", "fma", "avx512f", "neon".
  package var instructionSets: [String] = []
  /// The kernels in use: "avx512", "avx2", "generic", "openblas SkylakeX".
  package var kernels = ""
  /// Names the bits that results will have (docs/NUMERICS.md).
  package var arithmetic = ""
  /// Version and kernels of OpenBLAS, whether or not it is in use.
  package var openBLAS = ""
  /// Matrix products, 10⁹ operations a second.
  package var gigaflopsOneThread = 0.0
  package var gigaflops = 0.0
  /// Reading, 10⁹ bytes a second with all threads.
  package var memoryBandwidth = 0.0
  package var memoryBytes: Int?
  package var availableMemoryBytes: Int?
  package var swappedBytes: Int?
  package var cacheDirectory = ""
  package var freeDiskBytes: Int?
  /// Median time of writing 4 KiB durably in the current directory, where ledgers go by default.
  package var syncSeconds: Double?
  package var openFilesMax: Int?
  package var models: [Model] = []
  package var datasets: [Dataset] = []
  /// Presets whose model and data are all there.
  package var readyPresets: [String] = []
  /// Presets that lack something.
  package var unreadyPresets: [String] = []

  package init() {}

  package struct Model: Hashable, Sendable, Codable {
    package let name: String
    package let path: String
    package let parameters: Int?
    package let weights: Weights
    /// Why the model or its weights cannot be used.
    package let problem: String?

    package init(
      name: String, path: String, parameters: Int?, weights: Weights, problem: String?
    ) {
      self.name = name
      self.path = path
      self.parameters = parameters
      self.weights = weights
      self.problem = problem
    }
  }

  /// The converted weights in the cache.
  package enum Weights: String, Hashable, Sendable, Codable {
    /// Every block has its digest.
    case verified
    /// Made at the first use.
    case absent
    case damaged
  }

  package struct Dataset: Hashable, Sendable, Codable {
    package let name: String
    package let state: State
    package let problem: String?

    package init(name: String, state: State, problem: String?) {
      self.name = name
      self.state = state
      self.problem = problem
    }

    package enum State: String, Hashable, Sendable, Codable {
      /// All files are there and have their digests.
      case verified
      case absent
      case damaged
    }
  }

  enum CodingKeys: String, CodingKey {
    case processor, architecture, threads
    case instructionSets = "instruction_sets"
    case kernels, arithmetic
    case openBLAS = "openblas"
    case gigaflopsOneThread = "gflops_one_thread"
    case gigaflops = "gflops"
    case memoryBandwidth = "memory_gb_per_second"
    case memoryBytes = "memory_bytes"
    case availableMemoryBytes = "available_memory_bytes"
    case swappedBytes = "swapped_bytes"
    case cacheDirectory = "cache_directory"
    case freeDiskBytes = "free_disk_bytes"
    case syncSeconds = "sync_seconds"
    case openFilesMax = "open_files_max"
    case models, datasets
    case readyPresets = "ready_presets"
    case unreadyPresets = "unready_presets"
  }
}

/// Something about a machine that its user should know.
package struct Finding: Hashable, Sendable, Codable {
  package enum Level: String, Hashable, Sendable, Codable {
    /// Sweeps would be slow, or might fail.
    case warning
    /// A sweep cannot run.
    case error
  }
  package let level: Level
  package let problem: String
  /// What to do about it.
  package let remedy: String

  package init(_ level: Level, _ problem: String, remedy: String) {
    self.level = level
    self.problem = problem
    self.remedy = remedy
  }
}

extension SetUp {
  /// A worker of a small model needs some 1.1 GB, and another for its frozen layers' outputs.
  private static let workerBytes = 2 << 30
  /// A model, its converted weights and the data.
  private static let diskBytes = 3 << 30
  private static let openFilesMin = 1024
  /// A commit waits for the disk; the coordinator gathers reports meanwhile, up to a point.
  private static let slowSyncSeconds = 0.05
  /// Two threads do not reach twice the speed of one, but should come near.
  private static let scalingMin = 0.5

  /// What is wrong or slow, errors first.
  package var findings: [Finding] {
    (speedFindings + resourceFindings + inputFindings).sorted {
      ($0.level == .error ? 0 : 1) < ($1.level == .error ? 0 : 1)
    }
  }

  private var speedFindings: [Finding] {
    var findings: [Finding] = []
    let hasVectors = instructionSets.contains("avx2") && instructionSets.contains("fma")
    if architecture == "x86_64", hasVectors, arithmetic.contains("portable") {
      findings.append(
        Finding(
          .warning,
          "This is a portable build, several times slower in element-wise loops than the processor "
            + "allows.",
          remedy: "Build without BIASSWEEP_PORTABLE: `swift build -c release`."))
    }
    if architecture == "x86_64", !hasVectors {
      findings.append(
        Finding(
          .warning,
          "The processor (or the virtual machine's view of it) has no AVX2 and FMA; training will "
            + "be some ten times slower.",
          remedy: "Run workers on other machines, or let the hypervisor pass these flags through."))
    }
    if kernels.hasPrefix("openblas"), hasVectors {
      findings.append(
        Finding(
          .warning,
          "OpenBLAS multiplies, though this processor is one that our kernels are written for.",
          remedy: "Unset BIASSWEEP_GEMM, unless results are to be compared with an older sweep."))
    }
    if kernels.hasPrefix("openblas"), kernels.contains("Prescott") {
      findings.append(
        Finding(
          .warning, "OpenBLAS does not know this processor and uses kernels of 2004.",
          remedy:
            "Set OPENBLAS_CORETYPE to the processor's kind (for example SKYLAKEX or HASWELL), "
            + "or install a newer OpenBLAS."))
    }
    if threads == 1 {
      findings.append(
        Finding(
          .warning, "Only one processor is available to this process.",
          remedy: "Give the container or batch job more (`--cpus-per-task` of Slurm)."))
    } else if gigaflopsOneThread > 0,
      gigaflops / gigaflopsOneThread < Double(threads) * Self.scalingMin
    {
      findings.append(
        Finding(
          .warning,
          "\(threads) threads multiply only \((gigaflops / gigaflopsOneThread).rounded(places: 1)) "
            + "times as fast as one.",
          remedy:
            "Other programs may be running, or the processors may be hyper-threads or limited "
            + "by a CPU quota; then give workers fewer `--threads`."))
    }
    return findings
  }

  private var resourceFindings: [Finding] {
    var findings: [Finding] = []
    if let available = availableMemoryBytes, available < Self.workerBytes {
      findings.append(
        Finding(
          .warning,
          "Only \(gigabytes(available)) of memory are available; a worker of a small model wants "
            + "\(gigabytes(Self.workerBytes)).",
          remedy: "End other programs, or run fewer workers and slots."))
    }
    if let memory = memoryBytes, let swapped = swappedBytes, swapped > memory / 20 {
      findings.append(
        Finding(
          .warning, "\(gigabytes(swapped)) are swapped out: the machine is short of memory.",
          remedy: "Run fewer workers, or none beside other large programs."))
    }
    if let free = freeDiskBytes, free < Self.diskBytes {
      findings.append(
        Finding(
          .warning,
          "Only \(gigabytes(free)) of disk are free at \(cacheDirectory); a model, its converted "
            + "weights and the data take up to \(gigabytes(Self.diskBytes)).",
          remedy: "Free space, or set BIASSWEEP_CACHE to a directory on a larger disk."))
    }
    if let seconds = syncSeconds, seconds > Self.slowSyncSeconds {
      findings.append(
        Finding(
          .warning,
          "Writing 4 KiB durably takes \(Int(seconds * 1000)) ms here; each commit of the ledger "
            + "waits for that.",
          remedy: "Put the ledger (`--ledger`) on a local disk rather than a network file system."))
    }
    if let files = openFilesMax, files < Self.openFilesMin {
      findings.append(
        Finding(
          .warning,
          "The limit of open files is \(files); a coordinator needs one for each worker.",
          remedy: "Raise it: `ulimit -n 4096`, or LimitNOFILE= of systemd."))
    }
    return findings
  }

  private var inputFindings: [Finding] {
    var findings: [Finding] = []
    if models.isEmpty {
      findings.append(
        Finding(
          .error, "There is no model in \(cacheDirectory)/models.",
          remedy: "Run `scripts/fetch-model`, or name the path of a GGUF file or Hugging Face "
            + "directory in the spec's `model`."))
    }
    for model in models {
      guard let problem = model.problem else { continue }
      findings.append(
        Finding(
          .error, "Model \(model.name): \(problem)",
          remedy: model.weights == .damaged
            ? "Delete the file that is named; it is made again at the next start."
            : "Fetch the model again: `scripts/fetch-model`."))
    }
    for dataset in datasets where dataset.state == .damaged {
      findings.append(
        Finding(
          .error, "Data set \(dataset.name): \(dataset.problem ?? "damaged")",
          remedy: "Run `scripts/fetch-data \(dataset.name)`."))
    }
    for preset in unreadyPresets {
      findings.append(
        Finding(
          readyPresets.isEmpty ? .error : .warning,
          "Preset \(preset) cannot run: model or data are missing.",
          remedy: "Run `scripts/fetch-model` and `scripts/fetch-data --preset \(preset)`."))
    }
    return findings
  }

  private func gigabytes(_ bytes: Int) -> String {
    "\((Double(bytes) / 1e9).rounded(places: 1)) GB"
  }
}

extension Double {
  fileprivate func rounded(places: Int) -> Double {
    var scale = 1.0
    for _ in 0..<places { scale *= 10 }
    return (self * scale).rounded() / scale
  }
}
