import Foundation
import SweepCore
import SweepLedger

extension Coordinator {
  /// The state that the ledger holds: the one that was saved last with the events after it, or, if
  /// none can be used, a replay of all events.
  ///
  /// - Returns: also how many events there are, and how many of them were replayed.
  static func recover(
    plan: ShardPlan, policy: ExecutionPolicy, ledger: Ledger, now: Duration
  ) throws -> (scheduler: Scheduler, events: Int, replayed: Int) {
    // Jitter should differ from run to run.
    let seed = UInt64(Date().timeIntervalSince1970 * 1e6)
    let saved = try ledger.snapshot()
    let restored = saved.flatMap {
      Scheduler(plan: plan, policy: policy, seed: seed, snapshot: $0.state, now: now)
    }
    var scheduler = restored ?? Scheduler(plan: plan, policy: policy, seed: seed)
    let before = restored == nil ? 0 : saved?.sequence ?? 0
    let events = try ledger.events(after: before)
    for event in events { scheduler.apply(event, now: now) }
    return (scheduler, Int(before) + events.count, events.count)
  }
}
