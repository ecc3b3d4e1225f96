import Crypto

/// A SHA-256 in lower-case hexadecimal.
package struct ContentDigest: Hashable, Sendable, Comparable, Codable, CustomStringConvertible {
  package let description: String

  /// - Returns: nil unless `hex` is 64 lower-case hexadecimal digits, so that a digest is always
  ///   safe as a file name.
  package init?(hex: String) {
    guard hex.utf8.count == 64,
      hex.utf8.allSatisfy({ (48...57).contains($0) || (97...102).contains($0) })
    else { return nil }
    description = hex
  }

  package init(of bytes: some Sequence<UInt8>) {
    var hash = SHA256()
    hash.update(data: Array(bytes))
    description = Self.hex(hash.finalize())
  }

  /// The digest that a SHA-256 computation ended with.
  package init(_ hash: SHA256Digest) {
    description = Self.hex(hash)
  }

  package init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    guard let digest = ContentDigest(hex: try container.decode(String.self)) else {
      throw DecodingError.dataCorruptedError(
        in: container, debugDescription: "expected 64 lower-case hexadecimal digits")
    }
    self = digest
  }

  package func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }

  package static func < (left: ContentDigest, right: ContentDigest) -> Bool {
    left.description < right.description
  }

  private static func hex(_ bytes: some Sequence<UInt8>) -> String {
    let digits = Array("0123456789abcdef".utf8)
    return String(
      decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
  }
}

/// One metric of one trial.
package struct ResultRow: Hashable, Sendable {
  package let trial: TrialID
  package let metric: String
  package let value: Double

  package init(trial: TrialID, metric: String, value: Double) {
    self.trial = trial
    self.metric = metric
    self.value = value
  }
}

extension ContentDigest {
  /// Digest of a sweep's results: SHA-256 over the rows sorted by trial and metric, each as
  /// `trial TAB metric TAB value LF` with the value as a C hexadecimal float. Equal digests mean
  /// equal results to the last bit; timings and hosts are not part of it.
  package init(results rows: some Sequence<ResultRow>) {
    let sorted = rows.sorted { ($0.trial, $0.metric) < ($1.trial, $1.metric) }
    var text = ""
    for row in sorted {
      text += "\(row.trial)\t\(row.metric)\t\(row.value.hexadecimal)\n"
    }
    self.init(of: text.utf8)
  }
}

extension Double {
  /// The value as glibc's `%a` prints it: exact, and the same on every platform.
  package var hexadecimal: String {
    let signText = sign == .minus ? "-" : ""
    guard isFinite, self != 0 else { return signText + (self == 0 ? "0x0p+0" : "\(magnitude)") }
    var digits = String(significandBitPattern, radix: 16)
    digits = String(repeating: "0", count: 13 - digits.count) + digits
    while digits.last == "0" { digits.removeLast() }
    let leading = isNormal ? "1" : "0"
    let power = isNormal ? Int(exponent) : -1022
    return signText + "0x\(leading)" + (digits.isEmpty ? "" : ".\(digits)")
      + "p" + (power < 0 ? "\(power)" : "+\(power)")
  }
}
