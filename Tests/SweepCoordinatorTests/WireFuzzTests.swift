import Foundation
import SweepCore
import SweepRPC
import SweepSimulation
import SweepTestKit
import SwiftProtobuf
import Testing

/// Whatever bytes arrive, decoding ends with a message or an error, and what is decoded leaves the
/// scheduler in order.
@Suite struct WireFuzzTests {
  private static let names = ["", "w1", "gender", "../x", String(repeating: "n", count: 300)]

  /// A message that a worker might send, or nearly.
  private func message(_ random: inout SeededGenerator, plan: ShardPlan) -> WorkerMessage {
    let token = [0, 1, 2, 3, UInt64.max][random.integer(0...4)]
    let name = random.pick(Self.names) ?? ""
    let number = [0, 1, -1, .nan, .infinity, 1e308][random.integer(0...5)]
    let trial = random.pick(plan.grid.trials)?.id.description ?? ""
    let digest = random.chance(0.5) ? ContentDigest(of: name.utf8).description : name
    return .with {
      $0.request = UInt64(random.integer(0...3))
      switch random.integer(0...8) {
      case 0:
        $0.hello = .with {
          $0.worker = name
          $0.slots = UInt32(truncatingIfNeeded: random.next())
          $0.threads = UInt32(random.integer(0...8))
          $0.processID = Int64(bitPattern: random.next())
        }
      case 1:
        $0.ready = .with {
          $0.inputs = ["model": "m"]
          $0.holding = [token, token]
        }
      case 2: $0.workRequest = .with { $0.slots = UInt32(truncatingIfNeeded: random.next()) }
      case 3:
        $0.heartbeat = .with {
          $0.leases = [
            .with {
              $0.token = token
              $0.fraction = number
              $0.tokensPerSecond = number
            }
          ]
        }
      case 4, 5:
        $0.trial = .with {
          $0.token = token
          $0.trial = random.chance(0.8) ? trial : name
          $0.metrics = ["accuracy": number]
          $0.notes = [name: name]
        }
      case 6:
        $0.shard = .with {
          $0.token = token
          $0.artifact = digest
          $0.facts = [name: number]
        }
      case 7:
        $0.failure = .with {
          $0.token = token
          $0.evidence = name
        }
      default: $0.release = .with { $0.token = token }
      }
    }
  }

  private func damage(_ bytes: inout [UInt8], _ random: inout SeededGenerator) {
    for _ in 0..<random.integer(0...4) {
      switch random.integer(0...2) {
      case 0 where !bytes.isEmpty:
        bytes[random.integer(0...bytes.count - 1)] = UInt8(random.integer(0...255))
      case 1 where !bytes.isEmpty: bytes.removeSubrange(0..<random.integer(0...bytes.count - 1))
      default: bytes.insert(UInt8(random.integer(0...255)), at: random.integer(0...bytes.count))
      }
    }
  }

  @Test(arguments: 0..<20)
  func anyBytesLeaveTheSchedulerInOrder(seed: Int) throws {
    var random = SeededGenerator(seed: UInt64(seed))
    let deployment = try Deployment(seeds: 1)
    let plan = deployment.plan
    var scheduler = Scheduler(plan: plan, policy: deployment.definition.policy, seed: 1)
    let info = WorkerInfo(id: "w1", host: "h", processID: 1, slots: 2, threads: 1)
    var now = Duration.zero
    var understood = 0
    for connection in 1...1000 {
      var bytes: [UInt8]
      if random.chance(0.2) {
        bytes = (0..<random.integer(0...200)).map { _ in UInt8(random.integer(0...255)) }
      } else {
        bytes = try message(&random, plan: plan).serializedBytes()
        damage(&bytes, &random)
      }
      guard let message = try? WorkerMessage(serializedBytes: bytes) else { continue }
      if case .hello(let hello)? = message.body, let info = hello.workerInfo {
        #expect((1...1024).contains(info.slots) && info.id.utf8.count <= 128)
      }
      guard
        let command = Scheduler.Command(
          message, worker: "w1", connection: UInt64(connection), info: info)
      else { continue }
      understood += 1
      now += .milliseconds(random.integer(0...500))
      _ = scheduler.handle(command, now: now)
    }
    #expect(scheduler.contradictions().isEmpty)
    // The same bytes in every run, so the same number; the fuzz reaches behind the decoder.
    #expect(understood > 130)
  }
}
