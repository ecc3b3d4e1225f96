import SweepCore

/// Short names of the generated types.
package typealias WorkerMessage = Biassweep_V1_WorkerMessage
package typealias CoordinatorMessage = Biassweep_V1_CoordinatorMessage

extension Biassweep_V1_Hello {
  package init(worker: WorkerInfo, version: String, specDigest: ContentDigest?) {
    self.init()
    self.version = version
    self.worker = worker.id
    host = worker.host
    processID = Int64(worker.processID)
    slots = UInt32(clamping: worker.slots)
    threads = UInt32(clamping: worker.threads)
    self.specDigest = specDigest?.description ?? ""
    memoryBytes = UInt64(clamping: worker.memoryBytes ?? 0)
  }

  /// - Returns: nil unless every field is within its limits.
  package var workerInfo: WorkerInfo? {
    guard (1...128).contains(worker.utf8.count), host.utf8.count <= 255,
      (1...1024).contains(slots), (1...4096).contains(threads)
    else { return nil }
    return WorkerInfo(
      id: worker, host: host, processID: Int(processID), slots: Int(slots), threads: Int(threads),
      memoryBytes: memoryBytes > 0 ? Int(clamping: memoryBytes) : nil)
  }
}

extension Scheduler.Command {
  /// The command that a worker's message stands for; nil for messages of the session itself and for
  /// those that break a limit.
  package init?(_ message: WorkerMessage, worker: String, connection: UInt64, info: WorkerInfo) {
    switch message.body {
    case .ready(let ready):
      guard ready.holding.count <= Self.leasesMax, Self.fits(ready.inputs) else { return nil }
      self = .connect(
        info, connection: connection, holding: ready.holding.map { LeaseToken($0) },
        inputs: ready.inputs, lifetime: Self.lifetime(seconds: ready.lifetimeSeconds))
    case .workRequest(let request):
      self = .requestWork(worker: worker, slots: Int(request.slots))
    case .heartbeat(let heartbeat):
      guard heartbeat.leases.count <= Self.leasesMax else { return nil }
      self = .heartbeat(
        worker: worker,
        leases: heartbeat.leases.map {
          Scheduler.LeaseProgress(
            token: LeaseToken($0.token), fraction: $0.fraction.isFinite ? $0.fraction : 0,
            tokensPerSecond: $0.tokensPerSecond.isFinite ? $0.tokensPerSecond : 0)
        })
    case .trial(let report):
      guard Self.fits(report.metrics), Self.fits(report.notes),
        let items = Self.items(report.items)
      else { return nil }
      self = .completeTrial(
        worker: worker, token: LeaseToken(report.token), trial: TrialID(report.trial),
        metrics: report.metrics, notes: report.notes, items: items)
    case .shard(let report):
      guard let artifact = Self.artifact(report.artifact), Self.fits(report.facts) else {
        return nil
      }
      self = .completeShard(
        worker: worker, token: LeaseToken(report.token), artifact: artifact, facts: report.facts,
        wasResumed: report.resumed)
    case .failure(let report):
      self = .failShard(
        worker: worker, token: LeaseToken(report.token),
        evidence: String(report.evidence.prefix(Self.evidenceCharactersMax)))
    case .release(let release):
      self = .releaseShard(worker: worker, token: LeaseToken(release.token))
    case .hello, nil:
      return nil
    }
  }

  /// - Returns: nil for no limit. A year is as good as none, and no number overflows.
  private static func lifetime(seconds: Double) -> Duration? {
    guard seconds > 0, seconds < 365 * 86_400 else { return nil }
    return .seconds(seconds)
  }

  private static let evidenceCharactersMax = 4000
  /// Twice the slots that a worker may have.
  private static let leasesMax = 2048
  private static let valuesMax = 1000
  private static let nameBytesMax = 256
  private static let textBytesMax = 4096

  private static func fits<Value>(_ values: [String: Value]) -> Bool {
    values.count <= valuesMax
      && values.allSatisfy { name, value in
        name.utf8.count <= nameBytesMax
          && (value as? String).map { $0.utf8.count <= textBytesMax } ?? true
      }
  }

  /// - Returns: nil for values that break a limit; nil items for none.
  private static func items(_ measures: [Biassweep_V1_ItemMeasure]) -> TrialItems?? {
    if measures.isEmpty { return .some(nil) }
    guard measures.count <= TrialItems.measuresMax,
      measures.allSatisfy({ (1...nameBytesMax).contains($0.name.utf8.count) })
    else { return .none }
    let values = Dictionary(measures.map { ($0.name, $0.values) }) { first, _ in first }
    guard values.count == measures.count, let items = TrialItems(values) else { return .none }
    return .some(items)
  }

  /// - Returns: nil for text that is no digest; a nil digest for no text.
  private static func artifact(_ text: String) -> ContentDigest?? {
    if text.isEmpty { return .some(nil) }
    return ContentDigest(hex: text).map { .some($0) } ?? .none
  }
}

extension Scheduler.Control {
  /// What an operator's request asks for; nil if that is nothing.
  package init?(_ request: Biassweep_V1_SteerRequest) {
    func reason(_ text: String) -> String {
      text.isEmpty ? "by an operator" : String(text.prefix(Self.reasonCharactersMax))
    }
    switch request.action {
    case .pause(let pause):
      self = .pause(reason: reason(pause.reason))
    case .resume:
      self = .resume
    case .cancelShard(let cancel):
      self = .cancelShard(ShardID(cancel.shard), reason: reason(cancel.reason))
    case .cancelSweep(let cancel):
      self = .cancelSweep(reason: reason(cancel.reason))
    case .retry(let retry):
      self = .retry(ShardID(retry.shard))
    case .drain(let drain):
      self = .drain(worker: drain.worker, reason: reason(drain.reason))
    case .prioritise(let change):
      self = .prioritise(ShardID(change.shard), priority: Int(change.priority))
    case nil:
      return nil
    }
  }

  private static let reasonCharactersMax = 1000
}

extension CoordinatorMessage {
  package static func welcome(
    spec: SweepSpec, policy: ExecutionPolicy
  ) throws -> CoordinatorMessage {
    var welcome = Biassweep_V1_Welcome()
    welcome.spec = try spec.canonicalJSON()
    // The spec's digest, without encoding it a second time.
    welcome.specDigest = ContentDigest(of: welcome.spec.utf8).description
    welcome.heartbeatSeconds = policy.heartbeatSeconds
    welcome.leaseSeconds = policy.leaseSeconds
    welcome.checkpointSeconds = policy.checkpointSeconds
    return CoordinatorMessage.with { $0.welcome = welcome }
  }

  /// - Parameter checkpoint: the newest one of the shard's earlier attempts.
  package static func assignment(
    _ assignment: Scheduler.Assignment, checkpoint: ContentDigest?
  ) -> CoordinatorMessage {
    CoordinatorMessage.with { message in
      message.assignment = Biassweep_V1_Assignment.with {
        $0.shard = assignment.shard.id.description
        $0.token = assignment.token.value
        $0.attempt = UInt32(clamping: assignment.attempt)
        $0.trials = assignment.remainingTrials.map(\.id.description)
        $0.input = assignment.input?.description ?? ""
        $0.checkpoint = checkpoint?.description ?? ""
      }
    }
  }

  package static func acknowledgement(
    of request: UInt64, _ reply: Scheduler.Reply
  ) -> CoordinatorMessage {
    CoordinatorMessage.with { message in
      message.acknowledgement = Biassweep_V1_Acknowledgement.with {
        $0.request = request
        switch reply {
        case .accepted: $0.outcome = .accepted
        case .stale: $0.outcome = .stale
        case .refused(let reason):
          $0.outcome = .refused
          $0.message = reason
        }
      }
    }
  }

  package static func revocation(_ token: LeaseToken) -> CoordinatorMessage {
    CoordinatorMessage.with { $0.revocation = .with { $0.token = token.value } }
  }

  package static func goodbye(_ reason: String) -> CoordinatorMessage {
    CoordinatorMessage.with { $0.goodbye = .with { $0.reason = reason } }
  }
}
