import Foundation

/// The durable state as bytes, so that a coordinator need not replay every event of a large sweep.
///
/// A snapshot only saves time: whoever cannot read it (another version, another plan) replays the
/// events instead, and both ways lead to the same state.
extension Scheduler {
  /// Raise with every change of `DurableState`, of what follows, or of what they mean.
  private static let snapshotVersion = 3

  private struct Snapshot: Codable {
    var version: Int
    /// Of the plan's shards in their order, because shards are named by their place in it.
    var plan: ContentDigest
    /// The columns of the state, one shard after the other, as variable-length integers: nearly all
    /// of the snapshot, so they are kept small.
    var shards: Data
    /// Without its columns.
    var state: DurableState
    /// Seconds until a shard that failed may run again.
    var delays: [Int: Double]
  }

  /// - Parameter now: as for `handle`.
  /// - Throws: `EncodingError`, which a correct scheduler never gives rise to.
  package func snapshot(now: Duration) throws -> Data {
    let now = max(now, lastHandled)
    let state = durableState
    var packed = PackedIntegers()
    var delays: [Int: Double] = [:]
    for ordinal in records.indices {
      packed.append(UInt64(state.phases[ordinal].rawValue))
      packed.append(UInt64(state.attempts[ordinal]))
      packed.append(UInt64(state.failures[ordinal]))
      packed.append(UInt64(state.losses[ordinal]))
      if state.phases[ordinal] == .completed { packed.append(state.completedBy[ordinal]) }
      if case .queued(let notBefore) = records[ordinal].state, notBefore > now {
        delays[ordinal] = (notBefore - now) / .seconds(1)
      }
    }
    return try JSONEncoder().encode(
      Snapshot(
        version: Self.snapshotVersion, plan: planDigest, shards: Data(packed.bytes), state: state,
        delays: delays))
  }

  /// The state that a snapshot holds; the events after it are still to be applied.
  ///
  /// - Returns: nil for what is not a snapshot of this version for this plan.
  package init?(
    plan: ShardPlan, policy: ExecutionPolicy, seed: UInt64, snapshot bytes: Data, now: Duration
  ) {
    guard let snapshot = try? JSONDecoder().decode(Snapshot.self, from: bytes),
      snapshot.version == Self.snapshotVersion, snapshot.plan == plan.digest
    else { return nil }
    var state = snapshot.state
    var packed = PackedIntegers(bytes: [UInt8](snapshot.shards))
    for _ in plan.shards {
      guard let code = packed.next(), let small = UInt8(exactly: code),
        let phase = DurableState.Phase(rawValue: small),
        let attempts = packed.next(), let failures = packed.next(), let losses = packed.next()
      else { return nil }
      state.phases.append(phase)
      state.attempts.append(Int(attempts))
      state.failures.append(Int(failures))
      state.losses.append(Int(losses))
      guard phase == .completed else {
        state.completedBy.append(0)
        continue
      }
      guard let token = packed.next() else { return nil }
      state.completedBy.append(token)
    }
    self.init(
      plan: plan, policy: policy, seed: seed, restoring: state, delays: snapshot.delays, now: now)
  }
}

/// Unsigned integers in seven-bit groups, the lowest first (LEB128).
private struct PackedIntegers {
  private(set) var bytes: [UInt8]
  private var position = 0

  init(bytes: [UInt8] = []) { self.bytes = bytes }

  mutating func append(_ value: UInt64) {
    var rest = value
    while rest >= 0x80 {
      bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
      rest >>= 7
    }
    bytes.append(UInt8(rest))
  }

  /// - Returns: nil at the end, and for what is no integer.
  mutating func next() -> UInt64? {
    var value: UInt64 = 0
    var shift: UInt64 = 0
    while position < bytes.count, shift < 64 {
      let byte = bytes[position]
      position += 1
      value |= UInt64(byte & 0x7F) << shift
      if byte < 0x80 { return value }
      shift += 7
    }
    return nil
  }
}
