import Foundation
import SwiftASN1
import X509

/// What one party needs for mutual TLS, in one PEM file: its certificate, its private key, and the
/// certificate of the authority that it trusts.
package struct Credentials: Sendable {
  package let certificate: Certificate
  package let identity: PeerIdentity
  let privateKey: Certificate.PrivateKey
  let authority: Certificate
  /// For messages: where the credentials come from.
  package let path: String

  init(
    certificate: Certificate, privateKey: Certificate.PrivateKey, authority: Certificate,
    path: String
  ) throws(CredentialError) {
    guard let identity = PeerIdentity(certificate: certificate) else {
      throw .malformed(path: path, detail: "its certificate names no role and name")
    }
    guard certificate.publicKey == privateKey.publicKey else {
      throw .malformed(path: path, detail: "its private key is not that of its certificate")
    }
    guard authority.publicKey.isValidSignature(certificate.signature, for: certificate) else {
      throw .malformed(path: path, detail: "its certificate was not signed by its authority")
    }
    self.certificate = certificate
    self.privateKey = privateKey
    self.authority = authority
    self.identity = identity
    self.path = path
  }

  /// Reads a file made by `biassweep certs`.
  ///
  /// - Parameters:
  ///   - roles: those that fit the caller.
  ///   - now: for the check of the validity period.
  /// - Throws: `CredentialError`.
  package init(path: String, roles: [PeerRole], now: Date) throws(CredentialError) {
    let documents = try SecretFile.documents(path: path)
    var certificates: [Certificate] = []
    var keys: [Certificate.PrivateKey] = []
    do {
      for document in documents {
        switch document.discriminator {
        case Certificate.defaultPEMDiscriminator:
          certificates.append(try Certificate(pemDocument: document))
        default: keys.append(try Certificate.PrivateKey(pemDocument: document))
        }
      }
    } catch {
      throw .malformed(path: path, detail: "\(error)")
    }
    guard certificates.count == 2, keys.count == 1 else {
      throw .malformed(
        path: path,
        detail: "it holds \(certificates.count) certificates and \(keys.count) private keys "
          + "instead of a certificate, its key and the authority's certificate")
    }
    try self.init(
      certificate: certificates[0], privateKey: keys[0], authority: certificates[1], path: path)
    guard roles.contains(identity.role) else {
      throw .otherRole(path: path, found: identity.role, needed: roles)
    }
    guard now >= certificate.notValidBefore else {
      throw .notYetValid(path: path, until: certificate.notValidBefore.formatted(.iso8601))
    }
    guard now <= certificate.notValidAfter else {
      throw .expired(path: path, since: certificate.notValidAfter.formatted(.iso8601))
    }
  }

  /// Writes the file that `init(path:roles:now:)` reads, for the owner's eyes only.
  ///
  /// - Throws: `CredentialError.exists` or `.unwritable`.
  package func write(to path: String) throws(CredentialError) {
    try SecretFile.create(
      path: path,
      documents: {
        [
          try certificate.serializeAsPEM(), try privateKey.serializeAsPEM(),
          try authority.serializeAsPEM(),
        ]
      })
  }

  /// DER bytes for the TLS library.
  func der() throws -> (certificate: [UInt8], privateKey: [UInt8], authority: [UInt8]) {
    (
      try certificate.serializeAsPEM().derBytes, try privateKey.serializeAsPEM().derBytes,
      try authority.serializeAsPEM().derBytes
    )
  }
}

/// PEM files with private keys.
enum SecretFile {
  private static let bytesMax = 1 << 20

  static func documents(path: String) throws(CredentialError) -> [PEMDocument] {
    var status = stat()
    guard stat(path, &status) == 0 else {
      throw .unreadable(path: path, detail: String(cString: strerror(errno)))
    }
    let mode = status.st_mode & 0o7777
    guard mode & 0o007 == 0 else {
      throw .exposed(path: path, mode: String(mode, radix: 8))
    }
    guard status.st_size <= bytesMax else {
      throw .malformed(path: path, detail: "it has \(status.st_size) bytes")
    }
    do {
      let text = try String(contentsOfFile: path, encoding: .utf8)
      return try PEMDocument.parseMultiple(pemString: text)
    } catch let error as CocoaError {
      throw .unreadable(path: path, detail: error.localizedDescription)
    } catch {
      throw .malformed(path: path, detail: "\(error)")
    }
  }

  /// Writes a new file with mode 0600; an existing one stays as it is.
  static func create(
    path: String, documents: () throws -> [PEMDocument]
  ) throws(CredentialError) {
    let text: String
    do {
      text = try documents().map { $0.pemString + "\n" }.joined()
    } catch {
      throw .unwritable(path: path, detail: "\(error)")
    }
    let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else {
      if errno == EEXIST { throw .exists(path: path) }
      throw .unwritable(path: path, detail: String(cString: strerror(errno)))
    }
    let file = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
    do {
      try file.write(contentsOf: Data(text.utf8))
      try file.synchronize()
    } catch {
      throw .unwritable(path: path, detail: "\(error)")
    }
  }
}
