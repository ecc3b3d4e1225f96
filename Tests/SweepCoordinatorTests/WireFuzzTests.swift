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

  /// A message that a worker might send, or nearly; some bring others with them.
  private func message(_ random: inout SeededGenerator, plan: ShardPlan) -> WorkerMessage {
    var message = single(&random, plan: plan)
    if random.chance(0.3) {
      message.more = (0..<random.integer(0...3)).map { _ in single(&random, plan: plan) }
    }
    return message
  }

  private func single(_ random: inout SeededGenerator, plan: ShardPlan) -> WorkerMessage {
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
          $0.memoryBytes = random.next() >> UInt64(random.integer(0...63))
        }
      case 1:
        $0.ready = .with {
          $0.inputs = ["model": "m"]
          $0.holding = [token, token]
          $0.lifetimeSeconds = random.chance(0.5) ? number : 60
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
          if random.chance(0.5) { $0.items = items(&random, name: name, value: number) }
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

  /// Mostly as many values of each measure as of the others.
  private func items(
    _ random: inout SeededGenerator, name: String, value: Double
  ) -> [Biassweep_V1_ItemMeasure] {
    let count = random.integer(0...3)
    return (0...random.integer(0...2)).map { index in
      let surplus = random.chance(0.1) ? 1 : 0
      return Biassweep_V1_ItemMeasure.with {
        $0.name = index == 0 ? name : "measure \(index)"
        $0.values = Array(repeating: value, count: count + surplus)
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
      for message in message.batch {
        if case .hello(let hello)? = message.body, let info = hello.workerInfo {
          #expect((1...1024).contains(info.slots) && info.id.utf8.count <= 128)
          #expect(info.memoryBytes.map { $0 > 0 } ?? true)
        }
        // As in the coordinator, the rest is not read.
        guard
          let command = Scheduler.Command(
            message, worker: "w1", connection: UInt64(connection), info: info)
        else { break }
        understood += 1
        now += .milliseconds(random.integer(0...500))
        _ = scheduler.handle(command, now: now)
      }
    }
    #expect(scheduler.contradictions().isEmpty)
    // The same bytes in every run, so the same number; the fuzz reaches behind the decoder.
    #expect(understood > 130)
  }

  // MARK: Operators

  private func steering(
    _ random: inout SeededGenerator, plan: ShardPlan
  ) -> Biassweep_V1_SteerRequest {
    let name = random.pick(Self.names) ?? ""
    let known = random.pick(plan.shards)?.id.description ?? ""
    let shard = random.chance(0.8) ? known : name
    return .with {
      switch random.integer(0...40) {
      case 0: $0.cancelSweep = .with { $0.reason = name }
      case 1...5: $0.pause = .with { $0.reason = name }
      case 6...12: $0.resume = .init()
      case 13...18:
        $0.cancelShard = .with {
          $0.shard = shard
          $0.reason = name
        }
      case 19...26: $0.retry = .with { $0.shard = shard }
      case 27:
        $0.drain = .with {
          $0.worker = name
          $0.reason = name
        }
      default:
        $0.prioritise = .with {
          $0.shard = shard
          $0.priority = Int32(truncatingIfNeeded: random.next())
        }
      }
    }
  }

  /// Beside a worker that takes shards and gives them back.
  @Test(arguments: 0..<20)
  func whateverOperatorsAskForLeavesTheSchedulerInOrder(seed: Int) throws {
    var random = SeededGenerator(seed: UInt64(seed))
    let deployment = try Deployment(seeds: 1)
    var scheduler = Scheduler(
      plan: deployment.plan, policy: deployment.definition.policy, seed: 1)
    let info = WorkerInfo(id: "w1", host: "h", processID: 1, slots: 2, threads: 1)
    _ = scheduler.handle(
      .connect(info, connection: 1, holding: [], inputs: ["model": "m"]), now: .zero)
    var now = Duration.zero
    var understood = 0
    for _ in 1...500 {
      now += .milliseconds(random.integer(0...500))
      var bytes: [UInt8] = try steering(&random, plan: deployment.plan).serializedBytes()
      damage(&bytes, &random)
      if let request = try? Biassweep_V1_SteerRequest(serializedBytes: bytes),
        let control = Scheduler.Control(request)
      {
        understood += 1
        _ = scheduler.handle(.control(control), now: now)
      }
      if let lease = random.pick(scheduler.leases), random.chance(0.5) {
        _ = scheduler.handle(.releaseShard(worker: "w1", token: lease.lease.token), now: now)
      }
      _ = scheduler.handle(.requestWork(worker: "w1", slots: 1), now: now)
      #expect(scheduler.contradictions().isEmpty)
    }
    #expect(understood > 50)
  }

  // MARK: All other messages

  /// What workers and operators are told, with whatever in it.
  private func answer(_ random: inout SeededGenerator) -> CoordinatorMessage {
    let token = random.next() >> UInt64(random.integer(0...63))
    let name = random.pick(Self.names) ?? ""
    return .with {
      switch random.integer(0...4) {
      case 0:
        $0.welcome = .with {
          $0.spec = name
          $0.specDigest = ContentDigest(of: name.utf8).description
          $0.heartbeatSeconds = Double(bitPattern: token)
          $0.leaseSeconds = 20
        }
      case 1:
        $0.assignment = .with {
          $0.shard = name
          $0.token = token
          $0.trials = [name, name]
          $0.input = name
        }
      case 2:
        $0.acknowledgement = .with {
          $0.request = token
          $0.outcome = .refused
          $0.message = name
        }
      case 3: $0.revocation = .with { $0.token = token }
      default: $0.goodbye = .with { $0.reason = name }
      }
    }
  }

  private func chunk(_ random: inout SeededGenerator) -> Biassweep_V1_ArtifactChunk {
    let name = random.pick(Self.names) ?? ""
    let token = random.next()
    return .with {
      $0.digest = random.chance(0.5) ? ContentDigest(of: name.utf8).description : name
      $0.data = Data((0..<random.integer(0...40)).map { UInt8($0) })
      $0.offset = token
      $0.bytes = token >> 40
      if random.chance(0.5) {
        $0.checkpointOf = .with {
          $0.worker = name
          $0.token = token
        }
      }
    }
  }

  private func rows(_ random: inout SeededGenerator) -> Biassweep_V1_WorkersPage {
    let (token, name) = (random.next(), random.pick(Self.names) ?? "")
    return .with {
      $0.rows = (0..<random.integer(0...3)).map { _ in
        Biassweep_V1_WorkerRow.with {
          $0.id = name
          $0.processID = Int64(bitPattern: token)
          $0.joinedAt = Double(bitPattern: token)
          $0.leases = [
            .with {
              $0.shard = name
              $0.token = token
            }
          ]
        }
      }
    }
  }

  /// Damages a message and reads it.
  ///
  /// - Returns: whether it was understood; what was, can be written and is read again as the same.
  private func survives(
    _ message: some SwiftProtobuf.Message, _ random: inout SeededGenerator
  ) throws -> Bool {
    var bytes: [UInt8] = try message.serializedBytes()
    damage(&bytes, &random)
    return try isStable(type(of: message), bytes)
  }

  private func isStable<Message: SwiftProtobuf.Message>(
    _: Message.Type, _ bytes: [UInt8]
  ) throws -> Bool {
    guard let read = try? Message(serializedBytes: bytes) else { return false }
    let written: [UInt8] = try read.serializedBytes()
    let again: [UInt8] = try Message(serializedBytes: written).serializedBytes()
    #expect(again == written, "\(Message.self): \(bytes)")
    return true
  }

  @Test(arguments: 0..<20)
  func everyOtherMessageIsReadOrRefused(seed: Int) throws {
    var random = SeededGenerator(seed: UInt64(seed))
    let plan = try Deployment(seeds: 1).plan
    var understood = 0
    for _ in 0..<100 {
      var told = answer(&random)
      if random.chance(0.3) {
        told.more = (0..<random.integer(0...3)).map { _ in answer(&random) }
      }
      let outcomes = [
        try survives(told, &random), try survives(chunk(&random), &random),
        try survives(steering(&random, plan: plan), &random),
        try survives(rows(&random), &random),
      ]
      understood += outcomes.count { $0 }
      // Bytes that nobody wrote, for the messages that are left.
      let bytes = (0..<random.integer(0...60)).map { _ in UInt8(random.integer(0...255)) }
      _ = try isStable(Biassweep_V1_UploadPositionRequest.self, bytes)
      _ = try isStable(Biassweep_V1_DownloadRequest.self, bytes)
      _ = try isStable(Biassweep_V1_InputsReply.self, bytes)
      _ = try isStable(Biassweep_V1_ShardsPage.self, bytes)
      _ = try isStable(Biassweep_V1_AttemptsPage.self, bytes)
      _ = try isStable(Biassweep_V1_SteerReply.self, bytes)
    }
    #expect(understood > 60)
  }
}
