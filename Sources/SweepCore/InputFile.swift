/// A file that results depend on besides the spec, named by its content so that it can be had from
/// anywhere.
package struct InputFile: Hashable, Sendable {
  /// What a file is part of.
  package enum Input: String, Sendable, CaseIterable {
    case model, data
  }

  package let input: Input
  /// Where it lies within the model or data directory; parts are separated by "/".
  package let name: String
  package let digest: ContentDigest
  package let bytes: Int

  /// - Returns: nil if `name` is not a plain relative path, or `bytes` is negative, so that a file
  ///   of this name always stays in its directory.
  package init?(input: Input, name: String, digest: ContentDigest, bytes: Int) {
    let parts = name.split(separator: "/", omittingEmptySubsequences: false)
    guard bytes >= 0, name.utf8.count <= 1024, !name.utf8.contains(0),
      parts.allSatisfy({ !$0.isEmpty && $0 != "." && $0 != ".." })
    else { return nil }
    self.input = input
    self.name = name
    self.digest = digest
    self.bytes = bytes
  }
}
