import GRPCCore
import GRPCNIOTransportHTTP2Posix
import NIOCore
import NIOSSL

extension ConnectionSecurity {
  /// A transport to the coordinator that notices within seconds when its peer has vanished.
  ///
  /// - Parameter host: IPv4 address or DNS name; its certificate must name it.
  /// - Throws: `CredentialError.plaintextOffLoopback`, or what the TLS library says about the
  ///   credentials.
  package func clientTransport(host: String, port: Int) throws -> HTTP2ClientTransport.Posix {
    let context = try clientContext()
    guard context != nil || Self.isLoopback(host) else {
      throw CredentialError.plaintextOffLoopback(host: host)
    }
    let isAddress = host.allSatisfy { $0.isNumber || $0 == "." }
    var configuration = HTTP2ClientTransport.Posix.Config.defaults
    configuration.connection.keepalive = .init(
      time: .seconds(10), timeout: .seconds(5), allowWithoutCalls: true)
    configuration.backoff.initial = .milliseconds(100)
    configuration.backoff.max = .seconds(1)
    if let context {
      // The transport's own TLS would take version 1.2 too, and cannot be told otherwise.
      configuration.channelDebuggingCallbacks.onCreateTCPConnection = { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHandler(
            NIOSSLClientHandler(context: context, serverHostname: isAddress ? nil : host),
            position: .first)
        }
      }
    }
    return try HTTP2ClientTransport.Posix(
      target: isAddress ? .ipv4(address: host, port: port) : .dns(host: host, port: port),
      transportSecurity: context == nil ? .plaintext : .customSecure, config: configuration)
  }
}

/// What is wrong with the certificates of either side, if that is why a call failed; then trying
/// again does not help.
package func certificateProblem(in error: RPCError) -> String? {
  var causes: [any Error] = [error]
  while let next = (causes.last as? RPCError)?.cause ?? (causes.last as? RuntimeError)?.cause {
    causes.append(next)
  }
  let text = causes.map { "\($0)" }.joined(separator: " ").uppercased()
  let problems: [(mark: String, meaning: String)] = [
    ("CERTIFICATE_REQUIRED", "the coordinator asks for credentials (--credentials)"),
    ("ALERT_CERTIFICATE_EXPIRED", "this side's certificate has expired"),
    ("ALERT_UNKNOWN_CA", "this side's certificate is of another authority"),
    ("ALERT_UNSUPPORTED_CERTIFICATE", "this side's certificate is for another role"),
    ("ALERT_BAD_CERTIFICATE", "this side's certificate is damaged"),
    ("ALERT_DECRYPT_ERROR", "this side's certificate is of another authority"),
    (
      "CERTIFICATE_VERIFY_FAILED",
      "the coordinator's certificate has expired, is of another authority, or is for another role"
    ),
    ("HOSTNAME", "the coordinator's certificate does not name this host"),
  ]
  return problems.first { text.contains($0.mark) }?.meaning
}
