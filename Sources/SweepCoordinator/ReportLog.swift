import Logging
import SweepCore
import SweepSecurity

/// Says in the log which reports of workers were not accepted, and why; not more often than each
/// worker's quota allows.
struct ReportLog {
  private let logger: Logger
  private var quota = LineQuota()
  /// Who got each lease that was alive since this process began: a report under a worker's own
  /// former lease is usual, any other is not.
  private var holders: [LeaseToken: String]

  /// Of a reason, which may quote what the worker sent.
  private static let reasonCharactersMax = 500

  /// - Parameter leases: those that are alive at the beginning.
  init(logger: Logger, leases: [(shard: ShardID, lease: Scheduler.Lease)]) {
    self.logger = logger
    holders = Dictionary(
      uniqueKeysWithValues: leases.map { ($0.lease.token, $0.lease.worker) })
  }

  mutating func leased(_ token: LeaseToken, to worker: String) { holders[token] = worker }

  /// One line, if a worker's report was not accepted.
  mutating func note(_ reply: Scheduler.Reply, to command: Scheduler.Command, now: Duration) {
    guard reply != .accepted, let report = command.report,
      quota.allows(report.worker, now: now)
    else { return }
    var metadata: Logger.Metadata = [
      "worker.id": "\(report.worker)", "command": "\(report.name)",
    ]
    if let token = report.token { metadata["lease.token"] = "\(token)" }
    if case .refused(let reason) = reply {
      metadata["reason"] = "\(reason.prefix(Self.reasonCharactersMax))"
      logger.warning("report refused", metadata: metadata)
      return
    }
    let holder = report.token.flatMap { holders[$0] }
    let isOwn = holder == report.worker
    if report.token == nil {
      metadata["reason"] = "a newer connection of the worker has taken its place"
    } else if isOwn {
      metadata["reason"] = "its lease has ended"
    } else if let holder {
      metadata["reason"] = "the lease was given to \(holder)"
    } else {
      metadata["reason"] = "no such lease was alive since the coordinator started"
    }
    logger.log(level: isOwn ? .info : .warning, "report stale", metadata: metadata)
  }

  /// One line for each worker that has used up its quota, at the end of the quota's time.
  ///
  /// - Parameter now: nil at the end of the sweep.
  mutating func settle(now: Duration?) {
    for (worker, lines) in quota.settle(now: now) {
      logger.warning(
        "reports left out of the log",
        metadata: ["worker.id": "\(worker)", "count": "\(lines)"])
    }
  }
}

extension Scheduler.Command {
  /// What the log says of a report; nil for what no worker waits to hear an answer to.
  fileprivate var report: (worker: String, name: String, token: LeaseToken?)? {
    switch self {
    case .connect(let info, _, _, _, _): return (info.id, "ready", nil)
    case .requestWork(let worker, _): return (worker, "work request", nil)
    case .completeTrial(let worker, let token, _, _, _, _): return (worker, "trial", token)
    case .completeShard(let worker, let token, _, _, _): return (worker, "shard", token)
    case .failShard(let worker, let token, _): return (worker, "failure", token)
    case .releaseShard(let worker, let token): return (worker, "release", token)
    case .disconnect, .heartbeat, .stop, .control, .tick: return nil
    }
  }
}
