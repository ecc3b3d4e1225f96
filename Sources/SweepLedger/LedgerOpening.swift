import Dispatch
import Foundation
import SweepCore
import Synchronization

/// A ledger that is being opened: it is locked, and examined by a thread of its own, because to read
/// all of a large one takes about as long as to plan its sweep.
package final class LedgerOpening: Sendable {
  let path: String
  let spec: SweepSpec
  let version: String
  let lock: LedgerLock
  private let failure = Mutex<(any Error)?>(nil)
  private let examination = DispatchGroup()

  /// - Throws: `LedgerError.inUse`, or that the lock cannot be had. What is wrong with the file is
  ///   said by `Ledger.init`.
  package init(path: String, spec: SweepSpec, version: String) throws {
    self.path = path
    self.spec = spec
    self.version = version
    lock = try LedgerLock(ledger: path)
    let size = (try? FileManager.default.attributesOfItem(atPath: path))?[.size] as? Int ?? 0
    guard size > 0 else { return }
    DispatchQueue.global().async(group: examination) {
      do {
        try Ledger.checkFormat(path: path, of: spec, version: version)
      } catch {
        self.failure.withLock { $0 = error }
      }
    }
  }

  /// - Throws: `LedgerError`; nothing was written.
  func waitForExamination() throws {
    examination.wait()
    if let failure = failure.withLock({ $0 }) { throw failure }
  }
}
