import Foundation
import SweepCore

/// Model and data files that the coordinator has, for a worker that prepares itself. The calls block
/// and must not be made on a thread of the async runtime.
package struct InputSource: Sendable {
  /// What the coordinator hands out; empty if nothing.
  ///
  /// - Throws: when it cannot be asked.
  package let files: @Sendable () throws -> [InputFile]
  /// Makes a path hold a file's content, if it does not already. Only whole and right files appear
  /// there, also when several processes do this at once.
  package let fetch: @Sendable (InputFile, _ path: String) throws -> Void

  package init(
    files: @escaping @Sendable () throws -> [InputFile],
    fetch: @escaping @Sendable (InputFile, _ path: String) throws -> Void
  ) {
    self.files = files
    self.fetch = fetch
  }

  /// Of a worker's session.
  init(of worker: Worker) {
    files = { try blocking { try await worker.inputFiles() } }
    fetch = { file, path in
      try blocking { try await worker.download(file.digest, to: path, isPreparing: true) { false } }
    }
  }
}

/// Waits on a thread of the caller's own for asynchronous work.
private func blocking<Value: Sendable>(
  _ work: @escaping @Sendable () async throws -> Value
) throws -> Value {
  let result = Outcome<Value>()
  let done = DispatchSemaphore(value: 0)
  Task {
    do {
      result.value = .success(try await work())
    } catch {
      result.value = .failure(error)
    }
    done.signal()
  }
  done.wait()
  guard let value = result.value else { throw CancellationError() }
  return try value.get()
}

/// Written before the semaphore is signalled, read after it was waited for.
private final class Outcome<Value: Sendable>: @unchecked Sendable {
  var value: Result<Value, any Error>?
}
