import Logging
import NIOCore
import Synchronization
import X509

/// The connections of a listener: how many, and who is at their other ends.
package final class ConnectedPeers: Sendable {
  private struct State {
    var census: ConnectionCensus
    var identities: [String: PeerIdentity] = [:]
    // Strangers must not be able to fill the log.
    var logLines = RateLimit(rate: 2, burst: 100)
    var unlogged = 0
  }

  let limits: ConnectionLimits
  /// Whether peers show certificates.
  package let authenticated: Bool
  private let state: Mutex<State>
  private let start = SuspendingClock.now

  init(limits: ConnectionLimits, authenticated: Bool) {
    self.limits = limits
    self.authenticated = authenticated
    state = Mutex(State(census: ConnectionCensus(limits: limits)))
  }

  /// Connections that are open now.
  package var count: Int { state.withLock { $0.census.open } }

  /// A peer's address as gRPC names it in a call's context.
  static func name(of address: SocketAddress?) -> String {
    switch address {
    case .v4(let remote): "ipv4:\(remote.host):\(address?.port ?? 0)"
    case .v6(let remote): "ipv6:[\(remote.host)]:\(address?.port ?? 0)"
    default: "<unknown>"
    }
  }

  /// - Parameter peer: the remote peer of a call's context.
  /// - Returns: nil where nobody shows certificates.
  package func identity(of peer: String) -> PeerIdentity? {
    state.withLock { $0.identities[peer] }
  }

  func admit(_ address: String) -> String? { state.withLock { $0.census.admit(address) } }

  func prove(_ address: String) { state.withLock { $0.census.prove(address) } }

  func remove(_ peer: String, address: String, proven: Bool) {
    state.withLock { state in
      state.census.remove(address, proven: proven)
      state.identities[peer] = nil
    }
  }

  /// - Returns: whether the certificate (DER) names a role and a name.
  func identify(_ peer: String, certificate: [UInt8]) throws -> Bool {
    guard let identity = PeerIdentity(certificate: try Certificate(derEncoded: certificate)) else {
      return false
    }
    state.withLock { $0.identities[peer] = identity }
    return true
  }

  /// One line for each refusal, as long as there are not too many.
  package func logRefusal(_ logger: Logger, peer: String, reason: String) {
    let now = start.duration(to: .now)
    let unlogged: Int? = state.withLock { state in
      guard state.logLines.allows(now: now) else {
        state.unlogged += 1
        return nil
      }
      defer { state.unlogged = 0 }
      return state.unlogged
    }
    guard let unlogged else { return }
    var metadata: Logger.Metadata = ["peer": "\(peer)", "reason": "\(reason)"]
    if unlogged > 0 { metadata["refusals.unlogged"] = "\(unlogged)" }
    logger.warning("connection refused", metadata: metadata)
  }
}
