import Foundation
import Logging
import Synchronization

/// Worker processes of this machine, children of the `run` command. One that dies is started again,
/// unless workers keep dying at once.
final class LocalWorkers: Sendable {
  private struct State {
    var processes: [Int: Process] = [:]
    var pipes: [Int: Pipe] = [:]
    var quickDeaths = 0
    var stopping = false
  }

  private let count: Int
  private let arguments: [String]
  private let logs: URL
  private let logger: Logger
  private let state = Mutex(State())
  /// Called once, when it makes no sense to go on starting workers.
  private let givesUp: @Sendable (String) -> Void

  private static let quickDeathsMax = 5
  private static let quickDeathSeconds = 5.0

  /// - Parameters:
  ///   - arguments: of `biassweep worker`.
  ///   - logs: directory for `worker-N.log`.
  init(
    count: Int, arguments: [String], logs: URL, logger: Logger,
    givesUp: @escaping @Sendable (String) -> Void
  ) {
    self.count = count
    self.arguments = arguments
    self.logs = logs
    self.logger = logger
    self.givesUp = givesUp
  }

  func start() throws {
    try FileManager.default.createDirectory(at: logs, withIntermediateDirectories: true)
    for index in 1...count { try start(index) }
  }

  private func log(_ index: Int) -> URL { logs.appendingPathComponent("worker-\(index).log") }

  private func start(_ index: Int) throws {
    let process = Process()
    process.executableURL = try Self.executable()
    process.arguments = ["worker"] + arguments + ["--until-input-ends"]
    let input = Pipe()
    process.standardInput = input
    let descriptor = open(log(index).path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else {
      throw InfrastructureError(
        description: "Cannot write \(log(index).path): \(String(cString: strerror(errno)))")
    }
    let output = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
    process.standardOutput = output
    process.standardError = output
    let started = Date()
    process.terminationHandler = { [weak self] process in
      self?.ended(index, process, after: -started.timeIntervalSinceNow)
    }
    try state.withLock { state in
      guard !state.stopping else { return }
      try process.run()
      state.processes[index] = process
      state.pipes[index] = input
    }
  }

  private func ended(_ index: Int, _ process: Process, after seconds: Double) {
    let stopping = state.withLock { state in
      state.processes[index] = nil
      state.pipes[index] = nil
      if process.terminationStatus != 0 || process.terminationReason == .uncaughtSignal {
        state.quickDeaths = seconds < Self.quickDeathSeconds ? state.quickDeaths + 1 : 0
      }
      return state.stopping
    }
    if stopping || (process.terminationReason == .exit && process.terminationStatus == 0) { return }
    let cause =
      process.terminationReason == .uncaughtSignal
      ? "signal \(process.terminationStatus)" : "status \(process.terminationStatus)"
    logger.warning(
      "worker process ended, starting another",
      metadata: ["worker": "\(index)", "cause": "\(cause)", "log": "\(log(index).path)"])
    if state.withLock({ $0.quickDeaths }) >= Self.quickDeathsMax {
      givesUp(
        "Workers end as soon as they start (\(cause)). The last words of worker \(index):\n"
          + lastWords(of: index))
      return
    }
    do {
      try start(index)
    } catch {
      givesUp("A worker cannot be started: \(error.localizedDescription)")
    }
  }

  /// The end of a worker's log.
  private func lastWords(of index: Int) -> String {
    let text = (try? String(contentsOf: log(index), encoding: .utf8)) ?? ""
    return text.split(separator: "\n").suffix(5).map { "  \($0)" }.joined(separator: "\n")
  }

  /// Asks all workers to give their shards back and end.
  func stop() {
    let processes = state.withLock { state in
      state.stopping = true
      return Array(state.processes.values)
    }
    for process in processes { process.terminate() }
  }

  /// Waits until all have ended; after `seconds` they are killed.
  func waitUntilEnded(seconds: Double) {
    let deadline = Date(timeIntervalSinceNow: seconds)
    let processes = state.withLock { state in
      state.stopping = true
      return Array(state.processes.values)
    }
    while processes.contains(where: \.isRunning) && Date() < deadline {
      Thread.sleep(forTimeInterval: 0.01)
    }
    for process in processes where process.isRunning { kill(process.processIdentifier, SIGKILL) }
  }

  private static func executable() throws -> URL {
    let path =
      (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe"))
      ?? Bundle.main.executablePath
    guard let path else {
      throw InfrastructureError(
        description: "Cannot find the program's own file to start workers with.")
    }
    return URL(fileURLWithPath: path)
  }
}
