import Foundation
import Synchronization

/// Keeps a fine-tune's checkpoint up to date while it trains.
///
/// The training thread only copies the state into memory that is used again each time; digest,
/// writing and synchronising happen on another thread. If a checkpoint costs more than a fiftieth
/// of the time between two, as with full fine-tuning of a large model, the next one waits longer.
/// A checkpoint that cannot be written stops nothing.
package final class CheckpointWriter: Sendable {
  /// What a writer has done so far.
  package struct Totals: Sendable, Hashable {
    /// Checkpoints written.
    package var written = 0
    /// How long training stood still for them.
    package var stall = Duration.zero
    /// Processor time that their digests and writing took beside training.
    package var background = Duration.zero
  }

  private struct Status {
    var isBusy = false
    var totals = Totals()
    /// When the last state was taken, at first when the writer was made.
    var last = ContinuousClock.now
    var lastStep: Int?
    /// Time of training that the last checkpoint took.
    var lastCost = Duration.zero
  }

  private let path: String
  private let identity: FineTuningIdentity
  private let interval: Duration
  private let threads: Int
  private let state: FineTuningState
  private let written: @Sendable (_ step: Int) -> Void
  private let failed: @Sendable (any Error) -> Void
  private let queue = DispatchQueue(label: "biassweep.checkpoint")
  private let status = Mutex(Status())

  /// Largest share of the time that checkpoints may take.
  package static let shareMax = 0.02

  /// - Parameters:
  ///   - path: of the one file; its directory must exist.
  ///   - interval: least time between two checkpoints, and before the first.
  ///   - written: called on another thread when the file holds the state after `step` steps.
  ///   - failed: called on another thread when it could not be written; training goes on.
  package init(
    for tuner: FineTuner, identity: FineTuningIdentity, path: String, interval: Duration,
    written: @escaping @Sendable (_ step: Int) -> Void,
    failed: @escaping @Sendable (any Error) -> Void
  ) {
    self.path = path
    self.identity = identity
    self.interval = interval
    threads = tuner.threadCount
    state = tuner.emptyState()
    self.written = written
    self.failed = failed
  }

  package var totals: Totals { status.withLock { $0.totals } }

  /// Begins a checkpoint of `tuner` if one is due and none is being written. Call between steps, on
  /// the thread that trains.
  package func offer(_ tuner: FineTuner) {
    let isDue = status.withLock { status in
      let since = status.last.duration(to: .now)
      guard !status.isBusy, status.lastStep != tuner.step, since >= interval,
        since >= status.lastCost * (1 / Self.shareMax)
      else { return false }
      status.isBusy = true
      return true
    }
    if isDue { begin(tuner) }
  }

  /// Writes the present state, unless it is in the file already, and waits until it is durable.
  package func finish(_ tuner: FineTuner) {
    queue.sync {}
    let isNeeded = status.withLock { status in
      guard status.lastStep != tuner.step, tuner.step > 0 else { return false }
      status.isBusy = true
      return true
    }
    if isNeeded { begin(tuner) }
    queue.sync {}
  }

  /// Waits until nothing is being written.
  package func wait() { queue.sync {} }

  private func begin(_ tuner: FineTuner) {
    let start = ContinuousClock.now
    tuner.capture(into: state)
    let stall = start.duration(to: .now)
    let step = tuner.step
    status.withLock { status in
      status.last = start
      status.lastStep = step
    }
    queue.async { self.write(step: step, stall: stall) }
  }

  private func write(step: Int, stall: Duration) {
    let before = Self.threadTime
    var failure: (any Error)?
    do {
      try FineTuningCheckpoint.write(state, identity: identity, to: path)
    } catch {
      failure = error
    }
    let background = Self.threadTime - before
    status.withLock { status in
      status.isBusy = false
      status.totals.written += failure == nil ? 1 : 0
      status.totals.stall += stall
      status.totals.background += background
      status.lastCost = stall + background / threads
      if failure != nil { status.lastStep = nil }
    }
    if let failure { failed(failure) } else { written(step) }
  }

  /// Processor time of the calling thread.
  private static var threadTime: Duration {
    var time = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return .seconds(time.tv_sec) + .nanoseconds(time.tv_nsec)
  }
}
