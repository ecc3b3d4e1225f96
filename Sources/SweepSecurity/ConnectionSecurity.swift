import NIOSSL

/// How a connection is protected.
package enum ConnectionSecurity: Sendable {
  /// Neither encrypted nor authenticated: for the loopback address alone.
  case plaintext
  /// TLS 1.3, where each side shows a certificate of the same authority.
  case mutualTLS(Credentials)

  /// Whether an address stays within this machine.
  package static func isLoopback(_ host: String) -> Bool {
    host == "localhost" || host == "::1"
      || (host.hasPrefix("127.") && host.allSatisfy { $0.isNumber || $0 == "." })
  }

  /// The client's side: TLS 1.3 or nothing, and no server but one whose certificate is the
  /// authority's, is for serving, and names the host that the client meant.
  ///
  /// - Throws: what the TLS library says about the credentials.
  func clientContext() throws -> NIOSSLContext? {
    try context(verification: .fullVerification) { certificate, privateKey in
      var configuration = TLSConfiguration.makeClientConfiguration()
      configuration.certificateChain = [certificate]
      configuration.privateKey = privateKey
      return configuration
    }
  }

  /// The server's side: TLS 1.3 or nothing, and no client without a certificate of the authority.
  ///
  /// - Throws: what the TLS library says about the credentials.
  func serverContext() throws -> NIOSSLContext? {
    try context(verification: .noHostnameVerification) {
      .makeServerConfiguration(certificateChain: [$0], privateKey: $1)
    }
  }

  private func context(
    verification: CertificateVerification,
    _ side: (NIOSSLCertificateSource, NIOSSLPrivateKeySource) -> TLSConfiguration
  ) throws -> NIOSSLContext? {
    guard case .mutualTLS(let credentials) = self else { return nil }
    let der = try credentials.der()
    var configuration = side(
      .certificate(try NIOSSLCertificate(bytes: der.certificate, format: .der)),
      .privateKey(try NIOSSLPrivateKey(bytes: der.privateKey, format: .der)))
    configuration.minimumTLSVersion = .tlsv13
    configuration.certificateVerification = verification
    configuration.trustRoots = .certificates([
      try NIOSSLCertificate(bytes: der.authority, format: .der)
    ])
    configuration.applicationProtocols = ["h2"]
    return try NIOSSLContext(configuration: configuration)
  }
}

extension ConnectionSecurity {
  /// Whether a worker that called itself so may go on with these credentials.
  package func allows(worker: String) -> Bool {
    switch self {
    case .plaintext: false
    case .mutualTLS(let credentials): credentials.identity.mayBe(worker: worker)
    }
  }

  /// The name of a worker process: its certificate's name, where it has one, and something unique.
  package func workerID(unique: String) -> String {
    switch self {
    case .plaintext: unique
    case .mutualTLS(let credentials): "\(credentials.identity.name)/\(unique)"
    }
  }
}
