import GRPCCore

/// Why a worker ended without the sweep being over.
package enum WorkerError: Error, Sendable, CustomStringConvertible {
  /// The coordinator turned the worker away for good.
  case refused(address: String, reason: String)
  /// One side does not accept the other's certificate.
  case untrusted(address: String, detail: String)
  /// Nobody answered for too long.
  case unreachable(address: String, detail: String)
  case cannotPrepare(String)

  package var description: String {
    switch self {
    case .refused(let address, let reason):
      "The coordinator at \(address) refused this worker: \(reason)."
    case .untrusted(let address, let detail):
      "No trust between this worker and the coordinator at \(address): \(detail). Both need "
        + "unexpired credentials of one authority, the coordinator's with the host name or address "
        + "that the worker uses; see `biassweep certs --help`."
    case .unreachable(let address, let detail):
      "No coordinator answers at \(address) (\(detail)). Check the address and that it is running: "
        + "`biassweep coordinator` prints where it listens."
    case .cannotPrepare(let detail):
      detail
    }
  }
}

/// Waiting times between attempts to reconnect: doubling from `first` to `longest`, a random half
/// of each, so that many workers do not return at the same instant.
package struct Backoff: Sendable {
  private var next: Duration
  private let first: Duration
  private let longest: Duration

  package init(first: Duration = .milliseconds(100), longest: Duration = .seconds(5)) {
    self.first = first
    self.longest = longest
    next = first
  }

  package mutating func delay(using generator: inout some RandomNumberGenerator) -> Duration {
    let delay = next * Double.random(in: 0.5...1, using: &generator)
    next = min(next * 2, longest)
    return delay
  }

  package mutating func reset() { next = first }
}
