import Foundation
import SweepSecurity
import SweepSimulation
import SweepTestKit
import Testing

@Suite struct CredentialTests {
  private let directory: TemporaryDirectory
  private let authority: CertificateAuthority
  private let now = Date()

  init() throws {
    directory = try TemporaryDirectory()
    authority = try CertificateAuthority(days: 10, now: now)
  }

  private func file(
    _ role: PeerRole, days: Int = 5, made: Date? = nil, mode: Int = 0o600
  ) throws -> String {
    let path = directory.file("\(UUID()).pem")
    try authority.issue(
      PeerIdentity(role: role, name: "node7"), days: days, now: made ?? now
    ).write(to: path)
    try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
    return path
  }

  @Test func writtenCredentialsAreReadBack() throws {
    let path = directory.file("new.pem")
    let made = try authority.issue(
      PeerIdentity(role: .worker, name: "node7"), days: 5, now: now)
    try made.write(to: path)
    let mode = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
    #expect(mode == 0o600)
    let read = try Credentials(path: path, roles: [.worker], now: now)
    #expect(read.identity == made.identity)
    #expect(read.certificate == made.certificate)
  }

  @Test func certificatesNeverOutliveTheirAuthority() throws {
    let made = try authority.issue(
      PeerIdentity(role: .worker, name: "node7"), days: 100, now: now)
    #expect(made.certificate.notValidAfter == authority.certificate.notValidAfter)
  }

  @Test func anAuthorityThatWasReadBackSigns() throws {
    let path = directory.file("ca.pem")
    try authority.write(to: path)
    let again = try CertificateAuthority(path: path)
    let made = try again.issue(
      PeerIdentity(role: .operator, name: "alice"), days: 1, now: now)
    let key = again.certificate.publicKey
    #expect(key.isValidSignature(made.certificate.signature, for: made.certificate))
    // Its file is no credentials: its key must not end up on a worker.
    #expect(throws: CredentialError.self) {
      try Credentials(path: path, roles: PeerRole.allCases, now: now)
    }
  }

  @Test func existingFilesStay() throws {
    let path = try file(.worker)
    let before = try Data(contentsOf: URL(fileURLWithPath: path))
    #expect(throws: CredentialError.exists(path: path)) { try authority.write(to: path) }
    #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == before)
  }

  @Test func aKeyThatOthersCanReadIsRefused() throws {
    let path = try file(.worker, mode: 0o644)
    #expect(throws: CredentialError.exposed(path: path, mode: "644")) {
      try Credentials(path: path, roles: [.worker], now: now)
    }
  }

  @Test func validityIsChecked() throws {
    let expired = try file(.worker, days: 1, made: now.addingTimeInterval(-3 * 86_400))
    let error = #expect(throws: CredentialError.self) {
      try Credentials(path: expired, roles: [.worker], now: now)
    }
    #expect("\(String(describing: error))".contains("has expired"))
    let early = try file(.worker, made: now.addingTimeInterval(86_400))
    #expect(throws: CredentialError.self) {
      try Credentials(path: early, roles: [.worker], now: now)
    }
  }

  @Test func otherRolesAreRefused() throws {
    let path = try file(.worker)
    #expect(throws: CredentialError.otherRole(path: path, found: .worker, needed: [.coordinator])) {
      try Credentials(path: path, roles: [.coordinator], now: now)
    }
  }

  /// Cut, swapped and damaged files are refused with a message, whatever is wrong with them.
  @Test func damagedFilesAreRefused() throws {
    let whole = try String(contentsOfFile: try file(.worker), encoding: .utf8)
    let other = try String(contentsOfFile: try file(.worker), encoding: .utf8)
    let marker = "-----END"
    let parts = whole.components(separatedBy: marker)
    let otherParts = other.components(separatedBy: marker)
    var texts = ["", "hello", String(whole.prefix(whole.count / 2))]
    // The certificate of one and the key of the other.
    texts.append(([parts[0]] + otherParts[1...]).joined(separator: marker))
    var random = SeededGenerator(seed: 1)
    for _ in 0..<200 {
      var bytes = Array(whole.utf8)
      for _ in 0..<random.integer(1...8) {
        bytes[random.integer(0...bytes.count - 1)] = UInt8(random.integer(32...126))
      }
      texts.append(String(decoding: bytes, as: UTF8.self))
    }
    var refused = 0
    for (number, text) in texts.enumerated() {
      let path = directory.file("damaged-\(number)")
      try Data(text.utf8).write(to: URL(fileURLWithPath: path))
      try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path)
      do throws(CredentialError) {
        _ = try Credentials(path: path, roles: [.worker], now: now)
      } catch {
        refused += 1
      }
    }
    // A change between the parts may leave all of them whole.
    #expect(refused > texts.count * 9 / 10)
  }

  @Test func namesAreLimited() throws {
    for name in ["", "a/b", "../x", "a b", "ä", String(repeating: "x", count: 65), "a\nb"] {
      #expect(throws: CredentialError.invalidName(name)) {
        try PeerIdentity(role: .worker, name: name)
      }
    }
  }

  @Test func aWorkerSpeaksForItselfAlone() throws {
    let worker = try PeerIdentity(role: .worker, name: "node7")
    #expect(worker.mayBe(worker: "node7") && worker.mayBe(worker: "node7/1"))
    for other in ["node70", "node70/1", "node8/1", "", "NODE7/1", "x/node7/1"] {
      #expect(!worker.mayBe(worker: other))
    }
    #expect(try !PeerIdentity(role: .operator, name: "node7").mayBe(worker: "node7/1"))
  }
}
