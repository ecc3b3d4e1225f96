import Foundation
import Synchronization

/// Feeds parsers of outside input with mutated bytes, guided by coverage (libFuzzer), and exercises
/// the training core for the sanitizers. `scripts/fuzz` and `scripts/sanitize` build and run it.
@main
enum BiasSweepFuzz {
  private static let usage = """
    usage: biassweep-fuzz TARGET [--seconds S] [--seed N] [--corpus DIR]... [--artifacts DIR]
           biassweep-fuzz TARGET --input FILE...
           biassweep-fuzz exercise [--threads N]
           biassweep-fuzz seeds DIR
           biassweep-fuzz list

    Fuzzes one parser until the time is over or an input breaks it; that input is written to the
    artifacts' directory (default: the current one). The first corpus directory receives inputs that
    reached new code. --input runs given inputs and nothing else, also without libFuzzer: this is
    how a finding is reproduced. exercise trains, generates and scores with tiny random models. seeds
    writes valid inputs of the targets checkpoint and trunk, for the corpus.

    EXAMPLES:
      scripts/fuzz --seconds 60                         every target, built with a sanitizer
      biassweep-fuzz gguf --seconds 60 --seed 7 --corpus fuzz/corpus/gguf
      biassweep-fuzz gguf --input crash-da39a3ee

    EXIT STATUS: 0 no defect, 1 a defect, 64 usage; libFuzzer has others for what it finds.
    """

  private struct Options {
    var seconds = 60
    var seed = 1
    var threads = 4
    var corpora: [String] = []
    var artifacts = "."
    var inputs: [String] = []

    init?(_ arguments: ArraySlice<String>) {
      var rest = arguments
      while let name = rest.popFirst() {
        if name == "--input" {
          inputs += rest
          return
        }
        guard let value = rest.popFirst() else { return nil }
        let number = Int(value).flatMap { $0 > 0 ? $0 : nil }
        switch name {
        case "--seconds": if let number { seconds = number } else { return nil }
        case "--seed": if let number { seed = number } else { return nil }
        case "--threads": if let number { threads = number } else { return nil }
        case "--corpus": corpora.append(value)
        case "--artifacts": artifacts = value
        default: return nil
        }
      }
    }
  }

  static func main() throws {
    let arguments = CommandLine.arguments
    let name = arguments.dropFirst().first ?? "--help"
    if name == "--help" || name == "-h" { return print(usage) }
    if name == "list" {
      for target in FuzzTarget.all { print("\(target.name): \(target.summary)") }
      return
    }
    if name == "seeds", arguments.count == 3 {
      return try SmallFineTune.writeSeeds(to: arguments[2])
    }
    guard let options = Options(arguments.dropFirst(2)) else { fail(usage, status: 64) }
    if name == "exercise" {
      do {
        return try Exercise.run(threads: options.threads)
      } catch {
        fail("\(error)", status: 1)
      }
    }
    guard let target = FuzzTarget.all.first(where: { $0.name == name }) else {
      fail("biassweep-fuzz: there is no target \(name)\n\n\(usage)", status: 64)
    }
    Running.target.withLock { $0 = target }
    if !options.inputs.isEmpty { return try run(options.inputs) }
    exit(fuzz(options))
  }

  private static func fail(_ message: String, status: Int32) -> Never {
    FileHandle.standardError.write(Data((message + "\n").utf8))
    exit(status)
  }

  private static func run(_ inputs: [String]) throws {
    for path in inputs {
      let bytes = Array(try Data(contentsOf: URL(fileURLWithPath: path)))
      print("\(path): \(Running.parse(bytes) ? "accepted" : "refused")")
    }
  }

  /// Hands the process to libFuzzer, if the program was linked with it.
  private static func fuzz(_ options: Options) -> Int32 {
    typealias Callback = @convention(c) (UnsafePointer<UInt8>?, Int) -> Int32
    typealias Driver =
      @convention(c) (
        UnsafeMutablePointer<Int32>,
        UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>>,
        Callback
      ) -> Int32
    guard let symbol = dlsym(nil, "LLVMFuzzerRunDriver") else {
      fail(
        "biassweep-fuzz: built without libFuzzer, so only --input works; use scripts/fuzz",
        status: 64)
    }
    let drive = unsafeBitCast(symbol, to: Driver.self)
    let words =
      [CommandLine.arguments[0]] + options.corpora + [
        "-max_total_time=\(options.seconds)", "-seed=\(options.seed)",
        "-artifact_prefix=\(options.artifacts)/", "-timeout=20", "-rss_limit_mb=2048",
        "-malloc_limit_mb=1024", "-max_len=65536", "-print_final_stats=1", "-verbosity=1",
      ]
    var pointers: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
    var count = Int32(words.count)
    return pointers.withUnsafeMutableBufferPointer { buffer in
      // The array ends with nil and is not empty.
      var base = buffer.baseAddress!
      return drive(&count, &base) { bytes, size in
        _ = Running.parse(Array(UnsafeBufferPointer(start: bytes, count: size)))
        return 0
      }
    }
  }
}

/// What the C callback of libFuzzer needs and cannot be given.
private enum Running {
  static let target = Mutex<FuzzTarget?>(nil)

  /// Files go to memory where there is a file system for it.
  private static let directory: String = {
    let parent =
      FileManager.default.isWritableFile(atPath: "/dev/shm") ? "/dev/shm/" : NSTemporaryDirectory()
    let path = parent + "biassweep-fuzz-\(getpid())"
    do {
      try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    } catch {
      preconditionFailure("cannot make \(path): \(error)")
    }
    atexit { try? FileManager.default.removeItem(atPath: Running.directory) }
    return path
  }()

  /// Traps on a defect, which is how libFuzzer learns of it.
  static func parse(_ input: [UInt8]) -> Bool {
    guard let target = target.withLock({ $0 }) else { preconditionFailure("no target") }
    do {
      return try target.run(input, directory: directory)
    } catch {
      preconditionFailure("\(target.name): unexpected \(type(of: error)): \(error)")
    }
  }
}
