import Foundation
import SweepCore
import SweepLedger
import SweepTestKit
import Testing

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

private let canMount: Bool = {
  guard geteuid() == 0, let disk = try? SmallDisk(kilobytes: 64) else {
    print("LedgerDiskTests are skipped: this user may not mount a tmpfs")
    return false
  }
  return FileManager.default.fileExists(atPath: disk.path)
}()

/// Disks that are full or cannot be written. Permissions do not bind root, so these need a small
/// file system of their own, which only root may mount.
@Suite(.enabled(if: canMount, "only root with CAP_SYS_ADMIN may mount a tmpfs"))
struct LedgerDiskTests {
  @Test func fullDiskLosesNothingAcknowledged() throws {
    let disk = try SmallDisk(kilobytes: 1024)
    let path = disk.path + "/sweep.sqlite"
    let sample = try SampleSweep()
    var acknowledged: [SweepEvent] = []
    var failure: (any Error)?
    do {
      let ledger = try sample.ledger(path)
      // Workers come and go until the disk is full.
      for index in 0..<100_000 {
        let event = SweepEvent.workerJoined(
          WorkerInfo(id: "w-\(index)", host: "h", processID: 1, slots: 1, threads: 1))
        do {
          try ledger.append([event], now: 2_000)
        } catch {
          failure = error
          break
        }
        acknowledged.append(event)
      }
    }
    guard case .diskFull = failure as? LedgerError else {
      Issue.record("expected LedgerError.diskFull, found \(String(describing: failure))")
      return
    }
    #expect(acknowledged.count > 10)

    // On a larger disk the sweep goes on from there.
    let other = try TemporaryDirectory()
    let rescued = other.file("sweep.sqlite")
    for suffix in ["", "-wal"] where FileManager.default.fileExists(atPath: path + suffix) {
      try FileManager.default.copyItem(atPath: path + suffix, toPath: rescued + suffix)
    }
    let ledger = try sample.ledger(rescued)
    #expect(try ledger.events() == acknowledged)
    try ledger.append(sample.run, now: 3_000)
  }

  @Test func ledgerThatCannotBeStartedOnAFullDiskSaysSo() throws {
    let disk = try SmallDisk(kilobytes: 64)
    let path = disk.path + "/sweep.sqlite"
    do {
      _ = try SampleSweep().ledger(path)
      Issue.record("a ledger needs more than 64 kB")
    } catch let error as LedgerError {
      guard case .diskFull = error else {
        Issue.record("expected LedgerError.diskFull, found \(error)")
        return
      }
    }
  }

  @Test func readOnlyDiskIsRefused() throws {
    let disk = try SmallDisk(kilobytes: 2048)
    let path = disk.path + "/sweep.sqlite"
    let sample = try SampleSweep()
    try sample.finishedLedger(path)
    try disk.makeReadOnly()
    do {
      _ = try sample.ledger(path)
      Issue.record("a read-only ledger was opened for writing")
    } catch let error as LedgerError {
      guard case .readOnly = error else {
        Issue.record("expected LedgerError.readOnly, found \(error)")
        return
      }
    }
  }
}

/// A tmpfs of fixed size; unmounted with the value.
private final class SmallDisk: Sendable {
  private let directory: TemporaryDirectory
  var path: String { directory.path }

  init(kilobytes: Int) throws {
    directory = try TemporaryDirectory()
    try Self.run("mount", "-t", "tmpfs", "-o", "size=\(kilobytes)k", "tmpfs", directory.path)
  }

  func makeReadOnly() throws {
    try Self.run("mount", "-o", "remount,ro", path)
  }

  deinit {
    do {
      try Self.run("umount", "--lazy", path)
    } catch {
      print("cannot unmount \(path): \(error)")
    }
  }

  private struct CommandFailed: Error {
    let command: [String]
    let status: Int32
  }

  private static func run(_ command: String...) throws {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = command
    process.standardError = FileHandle.nullDevice
    try process.run()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
      throw CommandFailed(command: command, status: process.terminationStatus)
    }
  }
}
