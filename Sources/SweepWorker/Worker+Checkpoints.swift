import Foundation
import GRPCCore
import SweepCore
import SweepRPC

/// Where a worker keeps the checkpoints of its shards, and what they need of others.
package struct CheckpointPlace: Sendable {
  /// A directory; several workers may share it.
  package let directory: String
  /// Whether they are sent to the coordinator too, for workers that do not share the directory.
  package let uploads: Bool

  /// A checkpoint that was not touched for this long belongs to a sweep that nobody goes on with.
  static let staleSeconds = 7 * 86_400.0

  package init(directory: String, uploads: Bool) {
    self.directory = directory
    self.uploads = uploads
  }

  /// The file of one shard of a sweep.
  func path(sweep: ContentDigest, shard: ShardID) -> String {
    "\(directory)/\(sweep.description.prefix(16))/\(ContentDigest(of: shard.description.utf8))"
  }

  /// The local copy of an artifact that shards of a sweep need.
  func path(sweep: ContentDigest, artifact: ContentDigest) -> String {
    "\(directory)/\(sweep.description.prefix(16))/artifact-\(artifact)"
  }

  /// Removes what nobody goes on with, as far as that is possible.
  func removeStale() {
    let manager = FileManager.default
    func isStale(_ path: String) -> Bool {
      let date = (try? manager.attributesOfItem(atPath: path))?[.modificationDate] as? Date
      return date.map { -$0.timeIntervalSinceNow > Self.staleSeconds } ?? false
    }
    for sweep in (try? manager.contentsOfDirectory(atPath: directory)) ?? [] {
      let sweepPath = "\(directory)/\(sweep)"
      // An empty directory may be one that a worker is about to write into, unless it is old.
      let isOld = isStale(sweepPath)
      for name in (try? manager.contentsOfDirectory(atPath: sweepPath)) ?? []
      where isStale("\(sweepPath)/\(name)") {
        unlink("\(sweepPath)/\(name)")
      }
      if isOld { rmdir(sweepPath) }
    }
  }

  /// Removes the files of a shard that is complete, those that a killed process left too.
  func remove(sweep: ContentDigest, shard: ShardID) {
    let url = URL(fileURLWithPath: path(sweep: sweep, shard: shard))
    let directory = url.deletingLastPathComponent().path
    for name in (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
    where name.hasPrefix(url.lastPathComponent) {
      unlink("\(directory)/\(name)")
    }
  }

  /// Of a checkpoint that came from the coordinator.
  static let fetchedSuffix = ".fetched"
}

/// The files of one shard's checkpoints.
package struct CheckpointFiles: Sendable {
  /// The file to write, and to continue from if it is there.
  package let path: String
  /// Others that may be continued from, if they are there.
  package let alternatives: [String]
  /// Least time of work between two checkpoints.
  package let interval: Duration

  /// Whether there is anything to continue from.
  var exist: Bool {
    ([path] + alternatives).contains { FileManager.default.fileExists(atPath: $0) }
  }
}

extension Worker {
  /// An upload of a shard's checkpoints.
  struct CheckpointUpload {
    var task: Task<Void, Never>?
    /// The file was written again while it was uploaded.
    var isOutdated = false
  }

  /// Where `shard` keeps its checkpoints; what the coordinator has of earlier attempts is fetched.
  ///
  /// Whatever goes wrong here, the shard begins from the start instead.
  func checkpointFiles(
    for shard: ShardID, newest: String, control: ShardControl
  ) async -> CheckpointFiles? {
    guard let place = checkpoints, let sweep else { return nil }
    let path = place.path(sweep: sweep.digest, shard: shard)
    let fetched = path + CheckpointPlace.fetchedSuffix
    do {
      try LocalFile.makeDirectory(URL(fileURLWithPath: path).deletingLastPathComponent().path)
      if let digest = ContentDigest(hex: newest) {
        let isHere = try await threads.run(named: "checkpoint") {
          try LocalFile.identity(of: path)?.digest == digest
        }
        if !isHere { try await download(digest, to: fetched) { control.isCancelled } }
      }
    } catch {
      logger.warning(
        "checkpoint not fetched, the shard starts from the beginning",
        metadata: ["shard.id": "\(shard)", "error": "\(error)"])
    }
    return CheckpointFiles(
      path: path, alternatives: [fetched], interval: sweep.checkpointInterval)
  }

  /// A shard's file holds a new checkpoint.
  func checkpointWritten(_ token: LeaseToken) {
    guard checkpoints?.uploads == true, let control = running[token],
      let path = control.takeCheckpoint()
    else { return }
    guard uploads[token] == nil else {
      uploads[token]?.isOutdated = true
      return
    }
    uploads[token] = CheckpointUpload()
    // A shard that ends because the worker stops still hands over where it got.
    uploads[token]?.task = Task { await self.keepUploading(token, path, control) }
  }

  private func keepUploading(
    _ token: LeaseToken, _ path: String, _ control: ShardControl
  ) async {
    repeat {
      uploads[token]?.isOutdated = false
      do {
        try await uploadCheckpoint(path, token: token) { control.isRevoked }
      } catch is CancellationError {
        break
      } catch {
        // It stays on this machine; the next one may find room.
        logger.warning(
          "checkpoint not uploaded",
          metadata: ["lease.token": "\(token)", "error": "\(error)"])
      }
    } while uploads[token]?.isOutdated == true
    uploads[token] = nil
  }

  /// Waits until a stopping shard's last checkpoint is with the coordinator, `limit` at most.
  func finishUpload(_ token: LeaseToken, within limit: Duration) async {
    checkpointWritten(token)
    guard let task = uploads[token]?.task else { return }
    await withTaskGroup(of: Void.self) { group in
      group.addTask { await task.value }
      group.addTask { try? await Task.sleep(for: limit) }
      await group.next()
      task.cancel()
      group.cancelAll()
    }
  }
}
