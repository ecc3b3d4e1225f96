import Crypto
import Foundation
import GRPCCore
import SweepCore
import SweepRPC

/// Artifacts, checkpoints and input files, in pieces.
extension CoordinationService {
  /// Bytes of one message of a download.
  static let chunkBytes = 1 << 20

  func upload(
    request: RPCAsyncSequence<Biassweep_V1_ArtifactChunk, any Error>, context: ServerContext
  ) async throws -> Biassweep_V1_UploadReply {
    do {
      var incoming = request.makeAsyncIterator()
      guard let first = try await incoming.next(), let digest = ContentDigest(hex: first.digest),
        let offset = Int(exactly: first.offset), let bytes = Int(exactly: first.bytes)
      else {
        throw SessionRefusal.protocolViolation("an upload starts with the artifact's SHA-256")
      }
      guard first.hasCheckpointOf else {
        let owner = owner(context)
        let upload = try artifacts.upload(digest, from: offset)
        var count = offset
        func append(_ data: Data) throws {
          count += data.count
          do {
            try coordinator.workerSpace.take(max(count, bytes), for: digest, by: owner)
          } catch {
            // Nothing of it stays, so it takes no room either.
            upload.discard()
            coordinator.workerSpace.release(digest)
            throw error
          }
          try upload.append(data)
        }
        try append(first.data)
        while let chunk = try await incoming.next() { try append(chunk.data) }
        count = try await onDiskThread { try upload.finish() }
        return .with {
          $0.bytes = UInt64(count)
          $0.complete = true
        }
      }
      let holder = try holder(first.checkpointOf, context)
      let (store, shard) = try await checkpointStore(for: holder)
      let upload = try store.upload(digest, of: shard, bytes: bytes, from: offset)
      try upload.append(first.data)
      while let chunk = try await incoming.next() { try upload.append(chunk.data) }
      let count = try await onDiskThread { try upload.seal() }
      // The lease may have ended meanwhile: only the coordinator's loop can tell.
      do {
        try await coordinator.acceptCheckpoint(
          upload, bytes: count, worker: holder.worker, token: holder.token)
      } catch {
        upload.discard()
        throw error
      }
      return .with {
        $0.bytes = UInt64(count)
        $0.complete = true
      }
    } catch let refusal as SessionRefusal {
      throw refusal.rpcError
    }
  }

  func uploadPosition(
    request: Biassweep_V1_UploadPositionRequest, context: ServerContext
  ) async throws -> Biassweep_V1_UploadReply {
    do {
      guard let digest = ContentDigest(hex: request.digest) else {
        throw SessionRefusal.protocolViolation("an upload is named by the artifact's SHA-256")
      }
      let position: (bytes: Int, isComplete: Bool)
      if request.hasCheckpointOf {
        let holder = try holder(request.checkpointOf, context)
        let (store, shard) = try await checkpointStore(for: holder)
        position = store.position(digest, of: shard)
      } else {
        position = artifacts.position(digest)
      }
      return .with {
        $0.bytes = UInt64(position.bytes)
        $0.complete = position.isComplete
      }
    } catch let refusal as SessionRefusal {
      throw refusal.rpcError
    }
  }

  private struct Holder: Sendable {
    let worker: String
    let token: LeaseToken

  }

  /// - Throws: `SessionRefusal.forbidden` when the caller's certificate is another worker's.
  private func holder(
    _ message: Biassweep_V1_LeaseHolder, _ context: ServerContext
  ) throws -> Holder {
    if let identity = peers.identity(of: context.remotePeer),
      !identity.mayBe(worker: message.worker)
    {
      throw SessionRefusal.forbidden(
        "the certificate of \(identity.name) does not allow to speak for worker \(message.worker)")
    }
    return Holder(worker: message.worker, token: LeaseToken(message.token))
  }

  /// Who an upload counts for: the name in the caller's certificate, or else the caller's address.
  private func owner(_ context: ServerContext) -> String {
    if let identity = peers.identity(of: context.remotePeer) { return identity.name }
    // Without the port.
    return context.remotePeer.split(separator: ":").dropLast().joined(separator: ":")
  }

  private func checkpointStore(
    for holder: Holder
  ) async throws -> (store: CheckpointStore, shard: ShardID) {
    guard let store = coordinator.checkpoints else {
      throw SessionRefusal.storageFailed("this coordinator keeps no checkpoints")
    }
    guard let shard = await coordinator.shard(heldBy: holder.worker, under: holder.token) else {
      throw SessionRefusal.leaseOver(holder.token.value)
    }
    return (store, shard)
  }

  func download(
    request: Biassweep_V1_DownloadRequest, response: RPCWriter<Biassweep_V1_ArtifactChunk>,
    context: ServerContext
  ) async throws {
    do {
      guard let digest = ContentDigest(hex: request.digest),
        let offset = Int(exactly: request.offset)
      else {
        throw SessionRefusal.protocolViolation("a download names an artifact by its SHA-256")
      }
      let file = try OutgoingFile(path: try await path(of: digest), digest: digest, from: offset)
      // One message at least, so that an empty artifact arrives as one.
      repeat {
        let data = try file.next(Self.chunkBytes)
        try await response.write(.with { $0.data = data })
      } while !file.isAtEnd
      try file.check()
    } catch let refusal as SessionRefusal {
      throw refusal.rpcError
    }
  }

  private func path(of digest: ContentDigest) async throws -> String {
    if artifacts.contains(digest) { return artifacts.url(for: digest).path }
    if let url = coordinator.checkpoints?.url(for: digest) { return url.path }
    if let path = await inputs.path(of: digest) { return path }
    throw SessionRefusal.artifactUnknown(digest.description)
  }

  func inputs(
    request: Biassweep_V1_InputsRequest, context: ServerContext
  ) async throws -> Biassweep_V1_InputsReply {
    let files = await inputs.files()
    return .with { reply in
      reply.files = files.map { file in
        .with {
          $0.input = file.input.rawValue
          $0.name = file.name
          $0.digest = file.digest.description
          $0.bytes = UInt64(file.bytes)
        }
      }
    }
  }
}

/// Runs what waits for the disk away from the async runtime's few threads.
private func onDiskThread<Value: Sendable>(
  _ work: @escaping @Sendable () throws -> Value
) async throws -> Value {
  try await withCheckedThrowingContinuation { continuation in
    DispatchQueue.global().async { continuation.resume(with: Result { try work() }) }
  }
}

/// A file that is sent in pieces. Its digest is checked on the way, if it is sent from the start.
private final class OutgoingFile {
  private let path: String
  private let digest: ContentDigest
  private let handle: FileHandle
  private let isWhole: Bool
  private var hash = SHA256()
  private(set) var isAtEnd = false

  /// - Throws: `SessionRefusal.artifactUnknown` when there is no such file any more.
  init(path: String, digest: ContentDigest, from offset: Int) throws {
    self.path = path
    self.digest = digest
    guard let handle = FileHandle(forReadingAtPath: path) else {
      throw SessionRefusal.artifactUnknown(digest.description)
    }
    self.handle = handle
    isWhole = offset == 0
    try handle.seek(toOffset: UInt64(offset))
  }

  deinit {
    // Nothing was written, so nothing can fail that matters.
    try? handle.close()
  }

  func next(_ count: Int) throws -> Data {
    let data = try handle.read(upToCount: count) ?? Data()
    if isWhole { hash.update(data: data) }
    isAtEnd = data.count < count
    return data
  }

  /// - Throws: `SessionRefusal.artifactDamaged`.
  func check() throws {
    guard !isWhole || ContentDigest(hash.finalize()) == digest else {
      throw SessionRefusal.artifactDamaged(
        "the coordinator's file \(path) is damaged; remove it and run the sweep again")
    }
  }
}
