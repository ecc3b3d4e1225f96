/// What is wrong with a certificate or a file that holds one, or that there is none.
package enum CredentialError: Error, Sendable, Hashable, CustomStringConvertible {
  case unreadable(path: String, detail: String)
  /// Anybody on the machine may read the private key.
  case exposed(path: String, mode: String)
  /// Not the certificate, key and authority that the file should hold.
  case malformed(path: String, detail: String)
  case exists(path: String)
  case unwritable(path: String, detail: String)
  case expired(path: String, since: String)
  case notYetValid(path: String, until: String)
  /// The certificate is for another use, such as a worker's certificate in a coordinator.
  case otherRole(path: String, found: PeerRole, needed: [PeerRole])
  case invalidName(String)
  case invalidDays(Int)
  /// Others could read along, and pose as the coordinator.
  case plaintextOffLoopback(host: String)
  /// TLS cannot begin or end while a listener runs.
  case otherSecurity

  package var description: String {
    switch self {
    case .unreadable(let path, let detail):
      "Cannot read the credentials file \(path): \(detail). `biassweep certs init` makes one."
    case .exposed(let path, let mode):
      "The credentials file \(path) has mode \(mode), so others on this machine can read its "
        + "private key. Make it private: chmod 600 \(path)"
    case .malformed(let path, let detail):
      "The credentials file \(path) cannot be used: \(detail). Make it anew with `biassweep certs`."
    case .exists(let path):
      "The file \(path) exists already and is not overwritten. Name another directory, or remove it."
    case .unwritable(let path, let detail):
      "Cannot write the credentials file \(path): \(detail)."
    case .expired(let path, let since):
      "The certificate in \(path) has expired on \(since). Make a new one with `biassweep certs`."
    case .notYetValid(let path, let until):
      "The certificate in \(path) is not valid before \(until). Check this machine's clock."
    case .otherRole(let path, let found, let needed):
      "The credentials in \(path) are those of \(found.article) \(found.rawValue), but "
        + "\(needed.map(\.rawValue).joined(separator: " or ")) credentials are needed here."
    case .invalidName(let name):
      "\"\(name)\" is no name for a certificate: 1 to 64 letters, digits, dots and hyphens."
    case .otherSecurity:
      "Whether connections are encrypted cannot change while the program runs. Start it again."
    case .plaintextOffLoopback(let host):
      "Without credentials a program connects to the loopback address alone, because anybody "
        + "between it and \(host) could read along and pose as the coordinator. Make credentials "
        + "with `biassweep certs init` and name this program's with --credentials."
    case .invalidDays(let days):
      "A certificate cannot be valid for \(days) days: 1 to 3650."
    }
  }
}
