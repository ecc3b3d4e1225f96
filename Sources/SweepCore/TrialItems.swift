/// The values of a trial's test items, by measure: what a metric is the mean of, and what pairs items
/// of one trial with the same items of another.
///
/// Items stand in the task's order, which is the same in every trial; NaN means that the measure is
/// undefined for an item. An event of the ledger has only the digest of the values: they stand in a
/// table of their own, and nothing is decided by them.
package struct TrialItems: Sendable {
  /// SHA-256 over the measures in the order of their names: name, count, and the values' bits.
  package let digest: ContentDigest
  /// Empty where only the digest is known.
  package let values: [String: [Double]]

  package static let measuresMax = 64
  package static let itemsMax = 100_000

  /// - Returns: nil for values that break a limit, are infinite, or differ in number.
  package init?(_ values: [String: [Double]]) {
    let count = values.first?.value.count ?? 0
    guard !values.isEmpty, values.count <= Self.measuresMax, count <= Self.itemsMax,
      values.allSatisfy({ $0.value.count == count && !$0.value.contains(where: \.isInfinite) })
    else { return nil }
    self.values = values
    digest = Self.digest(of: values)
  }

  /// Of any values, also of those that a ledger should not have.
  package static func digest(of values: [String: [Double]]) -> ContentDigest {
    var bytes: [UInt8] = []
    for (measure, values) in values.sorted(by: { $0.key < $1.key }) {
      bytes += Array("\(measure)\n\(values.count)\n".utf8)
      bytes += encoded(values)
    }
    return ContentDigest(of: bytes)
  }

  /// As little-endian 64-bit floating-point numbers; every NaN is the same one.
  package static func encoded(_ values: [Double]) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(values.count * 8)
    for value in values {
      let bits = value.isNaN ? Double.nan.bitPattern : value.bitPattern
      withUnsafeBytes(of: bits.littleEndian) { bytes.append(contentsOf: $0) }
    }
    return bytes
  }

  /// - Returns: nil unless there are eight bytes for each value.
  package static func decoded(_ bytes: [UInt8]) -> [Double]? {
    guard bytes.count.isMultiple(of: 8) else { return nil }
    return stride(from: 0, to: bytes.count, by: 8).map { start in
      var bits: UInt64 = 0
      for offset in 0..<8 { bits |= UInt64(bytes[start + offset]) << UInt64(8 * offset) }
      return Double(bitPattern: bits)
    }
  }
}

extension TrialItems: Hashable {
  package static func == (left: TrialItems, right: TrialItems) -> Bool {
    left.digest == right.digest
  }

  package func hash(into hasher: inout Hasher) { hasher.combine(digest) }
}

extension TrialItems: Codable {
  package init(from decoder: any Decoder) throws {
    digest = try decoder.singleValueContainer().decode(ContentDigest.self)
    values = [:]
  }

  package func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(digest)
  }
}
