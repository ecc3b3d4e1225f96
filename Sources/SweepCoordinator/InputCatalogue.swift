import Foundation
import Logging
import SweepCore

/// The model and data files that the coordinator hands out to workers that lack them. Found and
/// digested when a worker asks first, once.
package actor InputCatalogue {
  private let load: @Sendable () throws -> [(file: InputFile, path: String)]
  private let logger: Logger
  private var loading: Task<[(file: InputFile, path: String)], Never>?

  /// - Parameter load: finds the files; may block.
  package init(
    logger: Logger, load: @escaping @Sendable () throws -> [(file: InputFile, path: String)]
  ) {
    self.logger = logger
    self.load = load
  }

  /// Nothing to hand out: workers have what they need.
  package static var empty: InputCatalogue {
    InputCatalogue(logger: Logger(label: "inputs")) { [] }
  }

  func files() async -> [InputFile] { await entries().map(\.file) }

  /// Where the file with this content lies; nil if it is not handed out.
  func path(of digest: ContentDigest) async -> String? {
    await entries().first { $0.file.digest == digest }?.path
  }

  private func entries() async -> [(file: InputFile, path: String)] {
    if let loading { return await loading.value }
    let load = self.load
    let logger = self.logger
    let task = Task {
      await withCheckedContinuation { continuation in
        DispatchQueue.global().async {
          do {
            continuation.resume(returning: try load())
          } catch {
            logger.warning(
              "no input files are handed out: workers must have model and data themselves",
              metadata: ["error": "\(error)"])
            continuation.resume(returning: [])
          }
        }
      }
    }
    loading = task
    return await task.value
  }
}
