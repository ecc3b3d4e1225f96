import ArgumentParser
import Foundation
import SweepLedger

struct LedgerCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ledger", abstract: "Look after a sweep's ledger as a file.",
    discussion: """
      EXAMPLES:
        biassweep ledger verify --ledger smoke.ledger
        biassweep ledger backup --ledger smoke.ledger smoke-monday.ledger
        biassweep ledger vacuum --ledger smoke.ledger
      """, subcommands: [Verify.self, Backup.self, Vacuum.self])

  struct Verify: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Check that all parts of a ledger say the same.",
      discussion: """
        Checks the file's structure, every table against a replay of the events, the saved state \
        against the events, and the artifacts against their digests. Changes nothing, and may be \
        used while the sweep runs. A sweep of 100,000 trials takes about a quarter of a minute.

        Exit status: 0 sound, 2 not.

        EXAMPLES:
          biassweep ledger verify --ledger smoke.ledger
          biassweep ledger verify --ledger smoke.ledger --json | jq .problems
        """)

    @Option(help: "The sweep's ledger.")
    var ledger: String

    @Flag(help: "Do not read the artifacts beside the ledger.")
    var withoutArtifacts = false

    @Flag(help: "Print one JSON object.")
    var json = false

    private struct Output: Encodable {
      let sound: Bool
      let events: Int
      let trialsCompleted: Int
      let artifacts: Int
      let snapshotEvent: Int64?
      let resultDigest: String
      let problems: [String]
      let unchecked: [String]

      enum CodingKeys: String, CodingKey {
        case sound, events
        case trialsCompleted = "trials_completed"
        case artifacts
        case snapshotEvent = "snapshot_event"
        case resultDigest = "result_digest"
        case problems, unchecked
      }
    }

    func run() throws {
      let found = try LedgerVerification(
        path: ledger,
        artifacts: withoutArtifacts
          ? nil : URL(fileURLWithPath: ledger + ".artifacts", isDirectory: true),
        version: BiasSweep.version)
      let isSound = found.problems.isEmpty
      if json {
        try Console.output(
          json: Output(
            sound: isSound, events: found.events, trialsCompleted: found.trialsCompleted,
            artifacts: found.artifacts, snapshotEvent: found.snapshotSequence,
            resultDigest: found.resultDigest, problems: found.problems,
            unchecked: found.unchecked))
      } else {
        for problem in found.problems { Console.output("problem    \(problem)") }
        for reason in found.unchecked { Console.output("unchecked  \(reason)") }
        if isSound {
          Console.output(
            "sound: \(found.events) events, \(found.trialsCompleted) trials with results, "
              + "\(found.artifacts) artifacts; result digest \(found.resultDigest)")
        }
      }
      if !isSound {
        Console.error(
          "biassweep: the ledger \(ledger) is not sound. Restore it from a backup; if there is "
            + "none, keep this file and start a new one.")
        throw ExitStatus.infrastructure.code
      }
    }
  }

  struct Backup: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Copy a ledger, also while its sweep runs.",
      discussion: """
        The copy is one file that stands alone and holds the state of one instant. It is a ledger \
        like any other: the sweep can go on with it, if LEDGER.artifacts is copied to COPY.artifacts \
        afterwards: what completed shards made is not made again.

        EXAMPLE:
          biassweep ledger backup --ledger smoke.ledger smoke-monday.ledger
        """)

    @Option(help: "The sweep's ledger.")
    var ledger: String

    @Argument(help: "The copy; must not be there yet.")
    var target: String

    @Flag(help: "Print one JSON object.")
    var json = false

    private struct Output: Encodable {
      let path: String
      let bytes: Int
    }

    func run() throws {
      let bytes = try LedgerMaintenance.backup(path: ledger, to: target)
      if json {
        try Console.output(json: Output(path: target, bytes: bytes))
      } else {
        Console.output("copied \(ledger) to \(target), \(bytes) bytes")
      }
    }
  }

  struct Vacuum: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Rewrite a ledger without gaps, while no coordinator is at work.",
      discussion: """
        Needs free space of about the ledger's size. Interrupted at any moment, the ledger stays \
        as it was.

        EXAMPLE:
          biassweep ledger vacuum --ledger smoke.ledger
        """)

    @Option(help: "The sweep's ledger.")
    var ledger: String

    @Flag(help: "Print one JSON object.")
    var json = false

    private struct Output: Encodable {
      let bytesBefore: Int
      let bytesAfter: Int

      enum CodingKeys: String, CodingKey {
        case bytesBefore = "bytes_before"
        case bytesAfter = "bytes_after"
      }
    }

    func run() throws {
      let (before, after) = try LedgerMaintenance.vacuum(path: ledger)
      if json {
        try Console.output(json: Output(bytesBefore: before, bytesAfter: after))
      } else {
        Console.output("\(ledger) took \(before) bytes, and takes \(after) now")
      }
    }
  }
}
