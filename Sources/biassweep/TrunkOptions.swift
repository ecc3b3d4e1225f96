import ArgumentParser
import LanguageModel

/// Options about the disk cache of frozen layers' outputs.
struct TrunkOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Most disk space for outputs of frozen layers, shared by all workers of the machine: "
        + "8GB, 500MB; 0 for none. Default: a quarter of the free space, at most 16GB.",
      valueName: "size"))
  var trunkCache: ByteSize?

  var byteLimit: Int {
    trunkCache?.bytes ?? TrunkStore.defaultByteLimit(directory: Cache.trunk)
  }

  /// The same options for another process.
  var arguments: [String] { trunkCache.map { ["--trunk-cache", "\($0.bytes)"] } ?? [] }
}

/// A number of bytes, as people write it: `8GB`, `500MB`, `1024`.
struct ByteSize: ExpressibleByArgument, Hashable, CustomStringConvertible {
  let bytes: Int

  init(bytes: Int) { self.bytes = bytes }

  init?(argument: String) {
    let units = [("KB", 1 << 10), ("MB", 1 << 20), ("GB", 1 << 30), ("TB", 1 << 40), ("", 1)]
    let text = argument.uppercased()
    guard let (suffix, factor) = units.first(where: { text.hasSuffix($0.0) }),
      let number = Double(text.dropLast(suffix.count)), number >= 0,
      number * Double(factor) < Double(1 << 60)
    else { return nil }
    bytes = Int(number * Double(factor))
  }

  var description: String {
    let units = [("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)]
    guard let (name, factor) = units.first(where: { bytes >= $0.1 }) else { return "\(bytes) B" }
    let tenths = (Double(bytes) / Double(factor) * 10).rounded() / 10
    return tenths >= 10 ? "\(Int(tenths.rounded())) \(name)" : "\(tenths) \(name)"
  }
}
