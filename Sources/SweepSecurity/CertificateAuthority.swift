import Crypto
import Foundation
import SwiftASN1
import X509

/// The small authority of one cluster: signs the certificates by which coordinator, workers and
/// operators know each other. Its key stays with whoever adds machines.
package struct CertificateAuthority: Sendable {
  package let certificate: Certificate
  private let privateKey: Certificate.PrivateKey

  /// Certificates begin to be valid this long before they are made, for machines whose clocks are
  /// behind.
  private static let clockTolerance = TimeInterval(3600)
  package static let daysMax = 3650

  /// A new authority.
  ///
  /// - Parameters:
  ///   - days: that it is valid.
  /// - Throws: `CredentialError.invalidDays`, or what the signing library says.
  package init(days: Int, now: Date) throws {
    let key = Certificate.PrivateKey(P256.Signing.PrivateKey())
    let subject = try DistinguishedName {
      OrganizationName("BiasSweep")
      CommonName("BiasSweep authority \(UInt32.random(in: .min ... .max))")
    }
    privateKey = key
    certificate = try Certificate(
      version: .v3, serialNumber: Certificate.SerialNumber(), publicKey: key.publicKey,
      notValidBefore: now.addingTimeInterval(-Self.clockTolerance),
      notValidAfter: try Self.end(days: days, now: now), issuer: subject, subject: subject,
      extensions: Certificate.Extensions {
        Critical(BasicConstraints.isCertificateAuthority(maxPathLength: 0))
        Critical(KeyUsage(keyCertSign: true, cRLSign: true))
        SubjectKeyIdentifier(hash: key.publicKey)
      }, issuerPrivateKey: key)
  }

  /// Reads the authority's file.
  ///
  /// - Throws: `CredentialError`.
  package init(path: String) throws(CredentialError) {
    let documents = try SecretFile.documents(path: path)
    guard documents.count == 2 else {
      throw .malformed(
        path: path, detail: "an authority's file holds its certificate and its private key")
    }
    do {
      certificate = try Certificate(pemDocument: documents[0])
      privateKey = try Certificate.PrivateKey(pemDocument: documents[1])
    } catch {
      throw .malformed(path: path, detail: "\(error)")
    }
    guard certificate.publicKey == privateKey.publicKey else {
      throw .malformed(path: path, detail: "its private key is not that of its certificate")
    }
  }

  /// Writes the authority's certificate and key, for the owner's eyes only.
  ///
  /// - Throws: `CredentialError.exists` or `.unwritable`.
  package func write(to path: String) throws(CredentialError) {
    try SecretFile.create(
      path: path,
      documents: { [try certificate.serializeAsPEM(), try privateKey.serializeAsPEM()] })
  }

  /// Makes a key and signs its certificate.
  ///
  /// - Parameters:
  ///   - hosts: DNS names and IP addresses at which a coordinator is reached; of no use to others.
  ///   - days: that the certificate is valid; never longer than the authority.
  ///   - now: begin of the validity; in the past for certificates that have expired.
  /// - Throws: `CredentialError.invalidDays`, or what the signing library says.
  package func issue(
    _ identity: PeerIdentity, hosts: [String] = [], days: Int, now: Date
  ) throws -> Credentials {
    let key = Certificate.PrivateKey(P256.Signing.PrivateKey())
    let issued = try Certificate(
      version: .v3, serialNumber: Certificate.SerialNumber(), publicKey: key.publicKey,
      notValidBefore: now.addingTimeInterval(-Self.clockTolerance),
      notValidAfter: min(try Self.end(days: days, now: now), certificate.notValidAfter),
      issuer: certificate.subject,
      subject: DistinguishedName {
        OrganizationName("BiasSweep")
        OrganizationalUnitName(identity.role.rawValue)
        CommonName(identity.name)
      },
      extensions: Certificate.Extensions {
        Critical(BasicConstraints.notCertificateAuthority)
        Critical(KeyUsage(digitalSignature: true))
        // Without this a worker's certificate could pose as the coordinator's.
        try ExtendedKeyUsage([identity.role == .coordinator ? .serverAuth : .clientAuth])
        SubjectKeyIdentifier(hash: key.publicKey)
        if !hosts.isEmpty { SubjectAlternativeNames(hosts.map(Self.name(of:))) }
      }, issuerPrivateKey: privateKey)
    return try Credentials(
      certificate: issued, privateKey: key, authority: certificate, path: "new credentials")
  }

  private static func end(days: Int, now: Date) throws(CredentialError) -> Date {
    guard (1...daysMax).contains(days) else { throw .invalidDays(days) }
    return now.addingTimeInterval(TimeInterval(days) * 86_400)
  }

  /// IPv4 and IPv6 addresses are compared as bytes, all else as names.
  private static func name(of host: String) -> GeneralName {
    var four = in_addr()
    if inet_pton(AF_INET, host, &four) == 1 {
      return address(withUnsafeBytes(of: &four, Array.init))
    }
    var six = in6_addr()
    if inet_pton(AF_INET6, host, &six) == 1 {
      return address(withUnsafeBytes(of: &six, Array.init))
    }
    return .dnsName(host)
  }

  private static func address(_ bytes: [UInt8]) -> GeneralName {
    .ipAddress(ASN1OctetString(contentBytes: bytes[...]))
  }
}
