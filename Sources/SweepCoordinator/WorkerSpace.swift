import SweepCore
import SweepRPC
import Synchronization

/// How much of the coordinator's disk each worker has filled with artifacts that no completed shard
/// accounts for: uploads under way, and products of attempts that ended otherwise. So no worker can
/// fill the disk, whatever it sends.
///
/// Whose they are is forgotten when the coordinator ends: an artifact's file is named by its
/// content alone, and the ledger learns of it when its shard is completed. What lies there at a
/// start counts as nobody's, unless a worker sends the same content again or goes on with it.
/// `CoordinatorServer` logs how much that is, and `ArtifactStore.retain` removes it after a day.
final class WorkerSpace: Sendable {
  private let bytesMax: Int
  private let held = Mutex<[String: [ContentDigest: Int]]>([:])

  init(bytesMax: Int) { self.bytesMax = bytesMax }

  /// Counts an artifact as `bytes` large.
  ///
  /// - Throws: `SessionRefusal.storageFailed` when the worker has no room for it.
  func take(
    _ bytes: Int, for digest: ContentDigest, by worker: String
  ) throws(SessionRefusal) {
    let fits = held.withLock { held in
      let others = held[worker, default: [:]].reduce(0) { $0 + ($1.key == digest ? 0 : $1.value) }
      guard bytes >= 0, bytes <= bytesMax - others else { return false }
      held[worker, default: [:]][digest] = bytes
      return true
    }
    guard fits else {
      throw .storageFailed(
        "\(worker) has filled the \(bytesMax) bytes that it may use for artifacts of shards that "
          + "are not completed")
    }
  }

  /// A completed shard accounts for the artifact.
  func release(_ digest: ContentDigest) {
    held.withLock { held in
      for worker in held.keys { held[worker]?[digest] = nil }
    }
  }
}
