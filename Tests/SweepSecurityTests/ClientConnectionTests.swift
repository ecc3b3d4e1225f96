import SweepSecurity
import Testing

@Suite struct ClientConnectionTests {
  @Test(arguments: [
    "", "10.0.0.5", "0.0.0.0", "head", "localhost.example.org", "127.0.0.1.example.org",
  ])
  func plaintextStaysOnThisMachine(host: String) {
    #expect(!ConnectionSecurity.isLoopback(host))
    let error = #expect(throws: CredentialError.self) {
      _ = try ConnectionSecurity.plaintext.clientTransport(host: host, port: 7077)
    }
    #expect(error == .plaintextOffLoopback(host: host))
    #expect("\(String(describing: error))".contains("biassweep certs init"))
  }

  @Test(arguments: ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
  func theLoopbackAddressIsThisMachine(host: String) {
    #expect(ConnectionSecurity.isLoopback(host))
  }
}
