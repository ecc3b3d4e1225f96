import X509

/// What a certificate entitles its holder to.
package enum PeerRole: String, Sendable, CaseIterable, Codable {
  /// Serves a sweep.
  case coordinator
  /// Takes shards and reports results; may not steer the sweep.
  case worker
  /// Looks at a running sweep and steers it; takes no shards.
  case `operator`

  var article: String { self == .operator ? "an" : "a" }
}

/// Who is at the other end of a connection: the role and name in its certificate.
package struct PeerIdentity: Hashable, Sendable {
  package let role: PeerRole
  package let name: String

  /// - Throws: `CredentialError.invalidName`.
  package init(role: PeerRole, name: String) throws(CredentialError) {
    guard Self.isName(name) else { throw .invalidName(name) }
    self.role = role
    self.name = name
  }

  /// - Returns: nil unless the subject names exactly one role and one valid name.
  package init?(certificate: Certificate) {
    var names: [String] = []
    var roles: [String] = []
    for part in certificate.subject {
      for attribute in part {
        switch attribute.type {
        case .RDNAttributeType.commonName: names.append(String(attribute.value) ?? "")
        case .RDNAttributeType.organizationalUnitName: roles.append(String(attribute.value) ?? "")
        default: break
        }
      }
    }
    guard names.count == 1, roles.count == 1, let role = PeerRole(rawValue: roles[0]),
      Self.isName(names[0])
    else { return nil }
    self.role = role
    name = names[0]
  }

  /// Whether a worker with this certificate may call itself `worker`: its certificate's name, or
  /// that name followed by a slash and anything. So no worker can speak for another one.
  package func mayBe(worker: String) -> Bool {
    role == .worker && (worker == name || worker.hasPrefix(name + "/"))
  }

  private static func isName(_ text: String) -> Bool {
    (1...64).contains(text.utf8.count)
      && text.utf8.allSatisfy {
        switch $0 {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
          UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "-"):
          true
        default: false
        }
      }
  }
}
