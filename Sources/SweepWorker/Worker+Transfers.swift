import Foundation
import GRPCCore
import SweepCore
import SweepRPC

/// Artifacts, checkpoints and input files between coordinator and worker. Every transfer goes on
/// where it broke off, and what arrives is checked against its SHA-256.
extension Worker {
  private static let chunkBytes = 1 << 20
  /// Times that the same content may arrive damaged.
  private static let damagesMax = 3

  // MARK: Down

  /// The bytes of the artifact called `name`, which one shard of this machine fetches for all that need
  /// it; nil for an empty name.
  func input(_ name: String, for control: ShardControl) async throws -> [UInt8]? {
    guard let digest = ContentDigest(hex: name), let checkpoints, let sweep else {
      return try await download(name, for: control)
    }
    let path = checkpoints.path(sweep: sweep.digest, artifact: digest)
    do {
      try await download(digest, to: path) { control.isCancelled }
      return try await threads.run(named: "artifact") {
        [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
      }
    } catch WorkerError.localStorage(let problem) {
      logger.warning(
        "artifact not kept on this machine",
        metadata: ["digest": "\(digest)", "error": "\(problem)"])
      return try await download(name, for: control)
    }
  }

  /// The bytes of the artifact called `name`; nil for an empty name.
  func download(_ name: String, for control: ShardControl) async throws -> [UInt8]? {
    guard let digest = ContentDigest(hex: name) else { return nil }
    for _ in 0..<Self.damagesMax {
      let received = Received()
      try await transferring(until: { control.isCancelled }) { service in
        let request = Biassweep_V1_DownloadRequest.with {
          $0.digest = name
          $0.offset = UInt64(received.bytes.count)
        }
        try await service.download(request) { response in
          for try await chunk in response.messages { received.bytes += chunk.data }
        }
      }
      if ContentDigest(of: received.bytes) == digest { return received.bytes }
    }
    throw WorkerError.damagedDownload(digest)
  }

  /// What has arrived of a download, over all its connections; one at a time adds to it.
  private final class Received: @unchecked Sendable {
    var bytes: [UInt8] = []
  }

  /// Makes `path` hold the content of that digest, if it does not.
  ///
  /// - Parameter isPreparing: whether it is needed before any shard can run; see `transferring`.
  /// - Throws: `WorkerError`, `RPCError` when the coordinator has no such file, `CancellationError`.
  func download(
    _ digest: ContentDigest, to path: String, isPreparing: Bool = false,
    until isCancelled: @Sendable () -> Bool
  ) async throws {
    let opened = try await threads.run(named: "download") { try LocalDownload(digest, to: path) }
    guard let file = opened else { return }
    for _ in 0..<Self.damagesMax {
      try await transferring(until: isCancelled, isPreparing: isPreparing) { service in
        let request = Biassweep_V1_DownloadRequest.with {
          $0.digest = digest.description
          $0.offset = UInt64(file.count)
        }
        try await service.download(request) { response in
          for try await chunk in response.messages { try file.append(chunk.data) }
        }
      }
      if try await threads.run(named: "download", { try file.finish() }) { return }
    }
    throw WorkerError.damagedDownload(digest)
  }

  /// The files that the coordinator hands out. Those of kinds or names that this version does not
  /// know are left out.
  func inputFiles() async throws -> [InputFile] {
    try await transferring(until: { false }, isPreparing: true) { service in
      try await service.inputs(.init()).files.compactMap { file in
        guard let input = InputFile.Input(rawValue: file.input),
          let digest = ContentDigest(hex: file.digest), let bytes = Int(exactly: file.bytes)
        else { return nil }
        return InputFile(input: input, name: file.name, digest: digest, bytes: bytes)
      }
    }
  }

  // MARK: Up

  func upload(
    _ bytes: [UInt8], as digest: ContentDigest, for control: ShardControl
  ) async throws {
    try await upload(
      digest, bytes: bytes.count, checkpointOf: nil, until: { control.isCancelled }
    ) { offset, count in Data(bytes[offset..<min(offset + count, bytes.count)]) }
  }

  /// Uploads the file at `path` as it is now, as a checkpoint of the shard under `token`.
  ///
  /// - Throws: `RPCError` when it is refused, `WorkerError`, `CancellationError`.
  func uploadCheckpoint(
    _ path: String, token: LeaseToken, until isCancelled: @escaping @Sendable () -> Bool
  ) async throws {
    // The file may be replaced meanwhile; what is open stays the same.
    let file = try OpenFile(path)
    let (digest, bytes) = try await threads.run(named: "checkpoint") { try file.identity() }
    let holder = Biassweep_V1_LeaseHolder.with {
      $0.worker = info.id
      $0.token = token.value
    }
    try await upload(digest, bytes: bytes, checkpointOf: holder, until: isCancelled) {
      try file.read(at: $0, count: $1)
    }
  }

  private func upload(
    _ digest: ContentDigest, bytes: Int, checkpointOf holder: Biassweep_V1_LeaseHolder?,
    until isCancelled: @Sendable () -> Bool,
    read: @escaping @Sendable (_ offset: Int, _ count: Int) throws -> Data
  ) async throws {
    try await transferring(until: isCancelled) { service in
      let position = try await service.uploadPosition(
        .with {
          $0.digest = digest.description
          if let holder { $0.checkpointOf = holder }
        })
      if position.complete { return }
      let start = min(Int(clamping: position.bytes), bytes)
      _ = try await service.upload(requestProducer: { writer in
        var offset = start
        repeat {
          let data = try read(offset, Self.chunkBytes)
          try await writer.write(
            .with {
              if offset == start {
                $0.digest = digest.description
                $0.offset = UInt64(start)
                $0.bytes = UInt64(bytes)
                if let holder { $0.checkpointOf = holder }
              }
              $0.data = data
            })
          offset += data.count
        } while offset < bytes
      })
    }
  }

  /// Transfers in the current session, and again in the next one if it breaks, until `isCancelled`.
  ///
  /// - Parameter isPreparing: whether the worker waits for it before it can do anything: then it ends
  ///   with the worker, and when the coordinator does not answer for too long.
  private func transferring<Value: Sendable>(
    until isCancelled: @Sendable () -> Bool, isPreparing: Bool = false,
    _ transfer: (Service) async throws -> Value
  ) async throws -> Value {
    var backoff = Backoff()
    var generator = SystemRandomNumberGenerator()
    var failingSince: SuspendingClock.Instant?
    while !isCancelled() && !(isPreparing && isStopping) {
      let start = SuspendingClock.now
      if let service = currentService {
        do {
          return try await transfer(service)
        } catch let error as RPCError where SessionRefusal.isWorthRetrying(error) {
          logger.warning("transfer failed, will retry", metadata: ["error": "\(error.message)"])
          // One that ran for a while moved something before it broke off.
          if start.duration(to: .now) > .seconds(5) { failingSince = nil }
          if isPreparing, let failingSince, failingSince.duration(to: .now) > patience {
            throw WorkerError.unreachable(address: address, detail: error.message)
          }
        }
      }
      failingSince = failingSince ?? start
      try await Task.sleep(for: backoff.delay(using: &generator))
    }
    throw CancellationError()
  }

  /// A file that stays what it was when it was opened.
  private final class OpenFile: Sendable {
    private let path: String
    private let descriptor: Int32

    init(_ path: String) throws {
      self.path = path
      descriptor = open(path, O_RDONLY | O_CLOEXEC)
      guard descriptor >= 0 else { throw LocalFile.failure("read", path) }
    }

    deinit { close(descriptor) }

    func identity() throws -> (digest: ContentDigest, bytes: Int) {
      try LocalFile.identity(of: descriptor, path: path)
    }

    func read(at offset: Int, count: Int) throws -> Data {
      try LocalFile.read(descriptor, at: offset, count: count, path: path)
    }
  }
}
