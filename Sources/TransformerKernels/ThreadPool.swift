import CTransformerKernels
import Synchronization

#if canImport(Darwin)
  import Darwin
#else
  import Glibc
#endif

/// A computation split into pieces that may run at the same time on several threads.
///
/// Conforming types are small structs of pointers and sizes. A piece must write only memory that no
/// other piece touches; which thread runs which piece is not determined.
package protocol ParallelWork {
  /// Computes piece `index`. `scratch` belongs to the running thread for the duration of the call
  /// and holds as many floats as were reserved.
  func run(_ index: Int, scratch: UnsafeMutablePointer<Float>)
}

extension ParallelWork {
  /// Runs a piece of the `Self` that `work` points at: type erasure without an allocation.
  fileprivate static func run(
    at work: UnsafeRawPointer, _ index: Int, scratch: UnsafeMutablePointer<Float>
  ) {
    work.assumingMemoryBound(to: Self.self).pointee.run(index, scratch: scratch)
  }
}

/// A fixed set of threads that share the pieces of one computation at a time.
///
/// Pieces are handed out in order of their index, to whichever thread asks next. Threads spin for
/// some microseconds between computations, then block. Running a computation allocates nothing.
package final class ThreadPool: Sendable {
  /// Number of threads that take part, the caller's included.
  package let threadCount: Int
  private let shared: Shared
  private let threads: [pthread_t]
  private let caller = Mutex<Void>(())

  /// - Parameter threadCount: at least 1; 1 starts no thread.
  package init(threadCount: Int) {
    precondition(threadCount >= 1, "a thread pool needs at least one thread, not \(threadCount)")
    self.threadCount = threadCount
    let shared = Shared(threadCount: threadCount)
    self.shared = shared
    threads = (1..<threadCount).map { index in
      let start = Unmanaged.passRetained(ThreadStart(shared: shared, index: index)).toOpaque()
      #if canImport(Darwin)
        var thread: pthread_t?
        let status = pthread_create(
          &thread, nil,
          { pointer in
            ThreadPool.main(pointer)
            return nil
          }, start)
        precondition(status == 0, "pthread_create failed: error \(status)")
        return thread!
      #else
        var thread = pthread_t()
        let status = pthread_create(
          &thread, nil,
          { pointer in
            if let pointer { ThreadPool.main(pointer) }
            return nil
          }, start)
        precondition(status == 0, "pthread_create failed: error \(status)")
        return thread
      #endif
    }
    reserveScratch(Int(TK_GEMM_SCRATCH))
  }

  deinit {
    shared.stop()
    for thread in threads { pthread_join(thread, nil) }
  }

  /// Makes at least `floats` floats of scratch memory available to each thread. Allocates only when
  /// it grows.
  package func reserveScratch(_ floats: Int) {
    caller.withLock { _ in shared.reserveScratch(floats) }
  }

  /// Runs pieces 0..<`count` of `work` and returns when all are done. Must not be called from a
  /// piece.
  package func run(_ work: some ParallelWork, count: Int) {
    guard count > 0 else { return }
    caller.withLock { _ in
      if threadCount == 1 || count == 1 {
        let scratch = shared.scratch[0]
        for index in 0..<count { work.run(index, scratch: scratch) }
      } else {
        withUnsafePointer(to: work) { shared.run(type(of: work), at: $0, count: count) }
      }
    }
  }

  private static func main(_ pointer: UnsafeMutableRawPointer) {
    let start = Unmanaged<ThreadStart>.fromOpaque(pointer).takeRetainedValue()
    start.shared.work(as: start.index)
  }
}

private final class ThreadStart: Sendable {
  let shared: Shared
  let index: Int

  init(shared: Shared, index: Int) {
    self.shared = shared
    self.index = index
  }
}

/// What the threads of a pool share.
///
/// `tickets` holds the number of pieces (upper half) and the next piece to hand out (lower half).
/// A thread that takes a piece by compare-and-exchange may read `type` and `work`, because the
/// computation cannot end, and these cannot change, before that piece is reported in `finished`.
private final class Shared: @unchecked Sendable {
  private let tickets = Atomic<UInt64>(0)
  private let finished = Atomic<Int>(0)
  private let sleepers = Atomic<Int>(0)
  private let stopping = Atomic<Bool>(false)
  private var type: any ParallelWork.Type = NoWork.self
  private var work = UnsafeRawPointer(bitPattern: 1)!
  /// One region for each thread.
  private(set) var scratch: [UnsafeMutablePointer<Float>]
  private var scratchCount = 0
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let wakeUp: UnsafeMutablePointer<pthread_cond_t>

  /// About 40 microseconds on current x86-64 processors: longer than the gaps inside a training
  /// step, short enough not to disturb other processes of the machine.
  private static let spins = 1000

  init(threadCount: Int) {
    scratch = (0..<threadCount).map { _ in alignedFloats(16) }
    mutex = .allocate(capacity: 1)
    wakeUp = .allocate(capacity: 1)
    pthread_mutex_init(mutex, nil)
    pthread_cond_init(wakeUp, nil)
  }

  deinit {
    scratch.forEach { free($0) }
    pthread_cond_destroy(wakeUp)
    pthread_mutex_destroy(mutex)
    wakeUp.deallocate()
    mutex.deallocate()
  }

  func reserveScratch(_ floats: Int) {
    guard floats > scratchCount else { return }
    scratchCount = floats
    for index in scratch.indices {
      free(scratch[index])
      scratch[index] = alignedFloats(floats)
    }
  }

  func run(_ type: any ParallelWork.Type, at work: UnsafeRawPointer, count: Int) {
    precondition(count <= Int(UInt32.max), "\(count) pieces of work are too many for one call")
    self.type = type
    self.work = work
    finished.store(0, ordering: .relaxed)
    tickets.store(UInt64(count) << 32, ordering: .sequentiallyConsistent)
    if sleepers.load(ordering: .sequentiallyConsistent) > 0 { wakeAll() }
    while takePiece(scratch: scratch[0]) {}
    var spins = 0
    while finished.load(ordering: .acquiring) < count {
      spins += 1
      if spins < Self.spins { tk_pause() } else { sched_yield() }
    }
  }

  /// The life of thread `index`.
  func work(as index: Int) {
    var idle = 0
    while !stopping.load(ordering: .relaxed) {
      if hasPiece, takePiece(scratch: scratch[index]) {
        idle = 0
      } else if idle < Self.spins {
        idle += 1
        tk_pause()
      } else {
        sleep()
        idle = 0
      }
    }
  }

  func stop() {
    stopping.store(true, ordering: .sequentiallyConsistent)
    wakeAll()
  }

  private var hasPiece: Bool {
    let now = tickets.load(ordering: .sequentiallyConsistent)
    return now & 0xffff_ffff < now >> 32
  }

  private func takePiece(scratch: @autoclosure () -> UnsafeMutablePointer<Float>) -> Bool {
    var now = tickets.load(ordering: .acquiring)
    while now & 0xffff_ffff < now >> 32 {
      let (taken, found) = tickets.weakCompareExchange(
        expected: now, desired: now + 1, ordering: .acquiringAndReleasing)
      if taken {
        type.run(at: work, Int(now & 0xffff_ffff), scratch: scratch())
        finished.add(1, ordering: .releasing)
        return true
      }
      now = found
    }
    return false
  }

  private func sleep() {
    pthread_mutex_lock(mutex)
    sleepers.add(1, ordering: .sequentiallyConsistent)
    while !hasPiece && !stopping.load(ordering: .sequentiallyConsistent) {
      pthread_cond_wait(wakeUp, mutex)
    }
    sleepers.subtract(1, ordering: .sequentiallyConsistent)
    pthread_mutex_unlock(mutex)
  }

  private func wakeAll() {
    pthread_mutex_lock(mutex)
    pthread_cond_broadcast(wakeUp)
    pthread_mutex_unlock(mutex)
  }
}

private struct NoWork: ParallelWork {
  func run(_ index: Int, scratch: UnsafeMutablePointer<Float>) {}
}
