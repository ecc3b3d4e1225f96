import Dispatch
import Foundation
import Synchronization

/// Runs blocking work on threads of its own, away from the async runtime's few. A thread that has
/// ended its work waits for more, because starting one costs as much as dispatching a small shard.
final class BlockingThreads: Sendable {
  private typealias Job = @Sendable () -> Void

  /// What the threads share; they end when it says so.
  private final class Crew: Sendable {
    struct State {
      var jobs: [Job] = []
      /// Threads that wait, less the jobs that wait for them.
      var idle = 0
      var isOver = false
    }
    let state = Mutex(State())
    let wake = DispatchSemaphore(value: 0)

    func work(_ first: @escaping Job) {
      var job: Job? = first
      while let current = job {
        current()
        job = nil
        let isOver = state.withLock { state in
          state.idle += 1
          return state.isOver
        }
        if isOver { return }
        wake.wait()
        job = state.withLock { $0.jobs.isEmpty ? nil : $0.jobs.removeFirst() }
      }
    }
  }

  private let crew = Crew()

  deinit {
    let idle = crew.state.withLock { state in
      state.isOver = true
      return state.idle
    }
    for _ in 0..<idle { crew.wake.signal() }
  }

  /// - Parameter name: of the thread while it does this work.
  func run<Value: Sendable>(
    named name: String, _ work: @escaping @Sendable () throws -> Value
  ) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
      start {
        Thread.current.name = name
        continuation.resume(with: Result { try work() })
      }
    }
  }

  private func start(_ job: @escaping Job) {
    let isTaken = crew.state.withLock { state in
      guard state.idle > 0 else { return false }
      state.idle -= 1
      state.jobs.append(job)
      return true
    }
    if isTaken {
      crew.wake.signal()
    } else {
      let thread = Thread { [crew] in crew.work(job) }
      thread.stackSize = 8 << 20
      thread.start()
    }
  }
}
