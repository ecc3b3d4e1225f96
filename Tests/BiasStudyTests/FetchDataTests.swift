import BiasStudy
import Foundation
import Testing

/// The script that fetches the data sets, without a network.
struct FetchDataTests {
  private let scratch: Scratch
  private let cache: URL
  private let mirror: URL
  private static let script = URL(filePath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .appending(path: "scripts/fetch-data").path

  init() throws {
    scratch = try Scratch()
    cache = scratch.url.appending(path: "cache")
    mirror = scratch.url.appending(path: "mirror")
    for directory in [cache, mirror] {
      try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    }
  }

  private func fetch(_ arguments: String...) throws -> (status: Int32, output: String) {
    let process = Process()
    process.executableURL = URL(filePath: Self.script)
    process.arguments = ["--cache", cache.path] + arguments
    process.environment = ProcessInfo.processInfo.environment.merging(["PIP_NO_INDEX": "1"]) { $1 }
    let file = cache.appending(path: "output")
    try Data().write(to: file)
    let handle = try FileHandle(forWritingTo: file)
    process.standardOutput = handle
    process.standardError = handle
    process.standardInput = FileHandle.nullDevice
    try process.run()
    process.waitUntilExit()
    return (process.terminationStatus, String(decoding: try Data(contentsOf: file), as: UTF8.self))
  }

  private var lexicon: URL { cache.appending(path: "data/vader/vader_lexicon.txt") }

  private func putIntoMirror(_ data: Data) throws {
    let directory = mirror.appending(path: "vader")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    try data.write(to: directory.appending(path: "vader_lexicon.txt"))
  }

  @Test func listShowsEveryFileWithItsLicence() throws {
    let list = try fetch("--list")
    #expect(list.status == 0)
    for file in DataManifest.files {
      #expect(list.output.contains("\(file.dataset)/\(file.file)"))
      #expect(list.output.contains("licence \(file.licence)"))
    }
  }

  @Test func wrongUsageHasItsOwnStatus() throws {
    #expect(try fetch("--help").status == 0)
    for arguments in ["--bogus", "no-such-data"] {
      let result = try fetch(arguments)
      #expect(result.status == 64 && result.output.contains(arguments))
    }
    #expect(try fetch("--preset", "none").status == 64)
  }

  @Test func withoutANetworkItSaysSoAndLeavesNothing() throws {
    let result = try fetch("vader")
    #expect(result.status == 2 && result.output.contains("Check the network"))
    #expect(!FileManager.default.fileExists(atPath: lexicon.path))
    let left = try FileManager.default.contentsOfDirectory(
      atPath: cache.appending(path: "data").path)
    #expect(left.allSatisfy { !$0.hasPrefix(".fetch") })
  }

  @Test func brokenFileIsNeverUsed() throws {
    try putIntoMirror(Data("good\t1\n".utf8))
    let result = try fetch("--from", mirror.path, "vader")
    #expect(result.status == 2 && result.output.contains("SHA-256"))
    #expect(!FileManager.default.fileExists(atPath: lexicon.path))
  }

  @Test(.enabled(if: RealData.isPresent)) func secondCallDoesNothingAndDamageIsNoticed() throws {
    let path = RealData.store.path("vader", "vader_lexicon.txt")
    let real = try Data(contentsOf: URL(filePath: path))
    try putIntoMirror(real)
    #expect(try fetch("--from", mirror.path, "vader").status == 0)
    #expect(try Data(contentsOf: lexicon) == real)
    // Now neither mirror nor network is needed.
    let second = try fetch("vader")
    #expect(second.status == 0 && second.output.contains("all there"))
    var damaged = real
    damaged[1000] ^= 1
    try damaged.write(to: lexicon)
    #expect(try fetch("vader").status == 2)
    #expect(try fetch("--from", mirror.path, "vader").status == 0)
    #expect(try Data(contentsOf: lexicon) == real)
  }
}
