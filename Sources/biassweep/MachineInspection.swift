import BiasStudy
import Foundation
import LanguageModel
import StudyDocuments
import TransformerKernels

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

extension SetUp {
  /// Looks at this machine and measures it.
  ///
  /// - Parameter threads: to measure speed with.
  static func found(threads: Int) -> SetUp {
    var found = SetUp()
    found.threads = threads
    found.inspectProcessor()
    found.inspectMemoryAndDisk()
    found.inspectInputs()
    return found
  }

  private mutating func inspectProcessor() {
    #if arch(x86_64)
      architecture = "x86_64"
    #elseif arch(arm64)
      architecture = "arm64"
      instructionSets = ["neon"]
    #endif
    let information = Self.fields(of: "/proc/cpuinfo")
    processor = information["model name"]
    let flags = Set((information["flags"] ?? "").split(separator: " ").map(String.init))
    instructionSets += ["avx2", "fma", "bmi2", "avx512f"].filter(flags.contains)
    kernels = MultiplicationBackend.kernelName
    arithmetic = MultiplicationBackend.arithmetic
    openBLAS = MultiplicationBackend.libraryDescription
    gigaflopsOneThread = MachineSpeed.multiplication(threads: 1) / 1e9
    gigaflops =
      threads == 1 ? gigaflopsOneThread : MachineSpeed.multiplication(threads: threads) / 1e9
    memoryBandwidth = MachineSpeed.memoryBandwidth(threads: threads) / 1e9
  }

  private mutating func inspectMemoryAndDisk() {
    let memory = Self.fields(of: "/proc/meminfo").compactMapValues { value in
      value.split(separator: " ").first.flatMap { Int($0) }.map { $0 * 1024 }
    }
    memoryBytes = memory["MemTotal"] ?? Int(ProcessInfo.processInfo.physicalMemory)
    availableMemoryBytes = memory["MemAvailable"]
    if let total = memory["SwapTotal"], let free = memory["SwapFree"] {
      swappedBytes = total - free
    }
    cacheDirectory = Cache.root
    var directory = URL(filePath: Cache.root)
    while !FileManager.default.fileExists(atPath: directory.path), directory.path != "/" {
      directory.deleteLastPathComponent()
    }
    let attributes = try? FileManager.default.attributesOfFileSystem(forPath: directory.path)
    freeDiskBytes = (attributes?[.systemFreeSize] as? NSNumber)?.intValue
    syncSeconds = Self.measureSync(in: FileManager.default.currentDirectoryPath)
    var limit = rlimit()
    #if canImport(Glibc)
      let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    #else
      let resource = RLIMIT_NOFILE
    #endif
    if getrlimit(resource, &limit) == 0 { openFilesMax = Int(clamping: limit.rlim_cur) }
  }

  private mutating func inspectInputs() {
    let names =
      (try? FileManager.default.contentsOfDirectory(atPath: Cache.directory("models"))) ?? []
    models = names.sorted().compactMap { name in
      let path = Cache.directory("models/\(name)")
      var isDirectory: ObjCBool = false
      guard FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory) else {
        return nil
      }
      guard isDirectory.boolValue || name.hasSuffix(".gguf") else { return nil }
      return Self.inspectModel(name: name, path: path)
    }
    let store = DatasetStore(directory: Cache.directory("data"))
    datasets = DataManifest.datasets.map { Self.inspectDataset($0, store) }
    let usable = Set(datasets.filter { $0.state == .verified }.map(\.name))
    for preset in Preset.allCases {
      let isReady =
        models.contains { $0.problem == nil }
        && DataManifest.datasets(ofPreset: preset.rawValue).allSatisfy(usable.contains)
      if isReady {
        readyPresets.append(preset.rawValue)
      } else {
        unreadyPresets.append(preset.rawValue)
      }
    }
  }

  private static func inspectModel(name: String, path: String) -> Model {
    var parameters: Int?
    do {
      parameters = try LanguageModel.configuration(at: path).parameterCount
      let hasWeights = try ModelWeights.verifyCache(
        ofModelAt: path, cacheDirectory: Cache.root)
      return Model(
        name: name, path: path, parameters: parameters, weights: hasWeights ? .verified : .absent,
        problem: nil)
    } catch {
      return Model(
        name: name, path: path, parameters: parameters,
        weights: parameters == nil ? .absent : .damaged, problem: "\(error)")
    }
  }

  private static func inspectDataset(_ name: String, _ store: DatasetStore) -> Dataset {
    for file in DataManifest.files where file.dataset == name {
      do throws(StudyError) {
        _ = try store.read(file.dataset, file.file)
      } catch {
        guard case .missingFile = error else {
          return Dataset(name: name, state: .damaged, problem: "\(error)")
        }
        return Dataset(name: name, state: .absent, problem: nil)
      }
    }
    return Dataset(name: name, state: .verified, problem: nil)
  }

  /// The first value of each `name: value` line of a file of /proc; empty where there is none.
  private static func fields(of path: String) -> [String: String] {
    guard let text = try? String(contentsOfFile: path, encoding: .utf8) else { return [:] }
    var fields: [String: String] = [:]
    for line in text.split(separator: "\n") {
      let parts = line.split(separator: ":", maxSplits: 1).map {
        $0.trimmingCharacters(in: .whitespaces)
      }
      if parts.count == 2, fields[parts[0]] == nil { fields[parts[0]] = parts[1] }
    }
    return fields
  }

  /// Median seconds of writing 4 KiB and waiting for the disk; nil where nothing can be written.
  private static func measureSync(in directory: String) -> Double? {
    let path = "\(directory)/.biassweep-doctor-\(getpid())"
    let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { return nil }
    defer {
      close(descriptor)
      unlink(path)
    }
    let page = [UInt8](repeating: 0x42, count: 4096)
    var seconds: [Double] = []
    for _ in 0..<9 {
      let elapsed = ContinuousClock().measure {
        if write(descriptor, page, page.count) == page.count { fsync(descriptor) }
      }
      seconds.append(elapsed / .seconds(1))
    }
    return seconds.sorted()[seconds.count / 2]
  }
}
