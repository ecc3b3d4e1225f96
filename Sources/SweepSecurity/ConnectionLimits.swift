/// How many connections the coordinator holds at a time. Connections that have not yet shown what
/// they want (handshake and first bytes) are counted apart and few, so that strangers cannot take
/// the places of workers.
package struct ConnectionLimits: Sendable, Hashable {
  package var openMax = 8192
  package var openPerAddressMax = 4096
  package var unprovenMax = 2048
  package var unprovenPerAddressMax = 512
  /// A connection that is still unproven after this long is closed.
  package var proofTime = Duration.seconds(10)

  package init() {}
}

/// Counts connections against `ConnectionLimits`.
package struct ConnectionCensus: Sendable {
  private struct Count {
    var open = 0
    var unproven = 0
  }

  private let limits: ConnectionLimits
  private var total = Count()
  private var byAddress: [String: Count] = [:]

  package init(limits: ConnectionLimits) { self.limits = limits }

  package var open: Int { total.open }

  /// Counts a new connection, unproven at first.
  ///
  /// - Returns: the limit that it would break, if it must be closed; it is not counted then.
  package mutating func admit(_ address: String) -> String? {
    let here = byAddress[address] ?? Count()
    if total.open >= limits.openMax { return "\(limits.openMax) connections are open" }
    if here.open >= limits.openPerAddressMax {
      return "\(limits.openPerAddressMax) connections from this address are open"
    }
    if total.unproven >= limits.unprovenMax {
      return "\(limits.unprovenMax) connections are in their handshake"
    }
    if here.unproven >= limits.unprovenPerAddressMax {
      return "\(limits.unprovenPerAddressMax) connections from this address are in their handshake"
    }
    change(address) {
      $0.open += 1
      $0.unproven += 1
    }
    return nil
  }

  /// The connection has shown what it is.
  package mutating func prove(_ address: String) { change(address) { $0.unproven -= 1 } }

  /// The connection has ended.
  package mutating func remove(_ address: String, proven: Bool) {
    change(address) {
      $0.open -= 1
      if !proven { $0.unproven -= 1 }
    }
  }

  private mutating func change(_ address: String, _ body: (inout Count) -> Void) {
    body(&total)
    body(&byAddress[address, default: Count()])
    if byAddress[address]?.open == 0 { byAddress[address] = nil }
  }
}

/// Allows `rate` events a second on average and `burst` at once (a token bucket).
package struct RateLimit: Sendable {
  private let rate: Double
  private let burst: Double
  private var tokens: Double
  private var last: Duration?

  package init(rate: Double, burst: Double) {
    precondition(rate > 0 && burst >= 1, "a rate limit must let something pass")
    self.rate = rate
    self.burst = burst
    tokens = burst
  }

  /// Takes events.
  ///
  /// - Parameter now: monotonic time.
  /// - Returns: how long to wait before they may pass; zero if they may at once.
  package mutating func take(_ count: Int = 1, now: Duration) -> Duration {
    if let last { tokens = min(burst, tokens + max(0, (now - last) / .seconds(1)) * rate) }
    last = now
    tokens -= Double(count)
    return tokens >= 0 ? .zero : .seconds(-tokens / rate)
  }

  /// Takes one event if it may pass at once.
  package mutating func allows(now: Duration) -> Bool {
    guard take(now: now) == .zero else {
      tokens += 1
      return false
    }
    return true
  }
}
