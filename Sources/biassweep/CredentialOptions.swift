import ArgumentParser
import Foundation
import SweepSecurity

/// Who this process is towards its peers.
struct CredentialOptions: ParsableArguments {
  @Option(
    help: """
      File with this party's certificate, key and authority, made by `biassweep certs`. Without it \
      connections are neither encrypted nor authenticated and only within this machine. \
      Environment: BIASSWEEP_CREDENTIALS.
      """)
  var credentials: String?

  /// - Parameter roles: whose credentials fit.
  /// - Throws: `CredentialError`.
  func security(_ roles: PeerRole...) throws -> ConnectionSecurity {
    let named = credentials ?? ProcessInfo.processInfo.environment["BIASSWEEP_CREDENTIALS"]
    guard let path = named, !path.isEmpty else { return .plaintext }
    return .mutualTLS(try Credentials(path: path, roles: roles, now: Date()))
  }
}

/// A coordinator's address.
struct Address: ExpressibleByArgument {
  let host: String
  let port: Int

  var defaultValueDescription: String { "\(host):\(port)" }

  init(host: String, port: Int) {
    self.host = host
    self.port = port
  }

  init?(argument text: String) {
    guard let colon = text.lastIndex(of: ":"), colon != text.startIndex,
      let port = Int(text[text.index(after: colon)...]), (1...65535).contains(port)
    else { return nil }
    self.init(host: String(text[..<colon]), port: port)
  }
}
