import NIOSSL
import Synchronization

/// A listener's credentials, which may be renewed while it listens: certificates are valid for
/// shorter than sweeps may take. Connections that stand already go on.
package final class RenewableSecurity: Sendable {
  private let state: Mutex<NIOSSLContext?>
  package let isAuthenticated: Bool

  /// - Throws: what the TLS library says about the credentials.
  package init(_ security: ConnectionSecurity) throws {
    let context = try security.serverContext()
    isAuthenticated = context != nil
    state = Mutex(context)
  }

  /// For connections from now on.
  ///
  /// - Throws: what the TLS library says about the credentials, `CredentialError.otherSecurity`
  ///   when TLS would begin or end; then all stays as it was.
  package func renew(_ security: ConnectionSecurity) throws {
    let context = try security.serverContext()
    guard (context != nil) == isAuthenticated else { throw CredentialError.otherSecurity }
    state.withLock { $0 = context }
  }

  var serverContext: NIOSSLContext? { state.withLock { $0 } }
}
