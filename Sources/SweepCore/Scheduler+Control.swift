/// What operators ask for.
extension Scheduler {
  mutating func carryOut(_ control: Control, _ now: Duration, _ step: inout Step) -> Reply {
    switch control {
    case .pause(let reason):
      if let stopReason { return .refused("the sweep was stopped: \(stopReason)") }
      if pauseReason == nil { emit(.leasingPaused(reason: reason), now, &step) }
    case .resume:
      if let stopReason {
        return .refused("the sweep was stopped (\(stopReason)); start it again instead")
      }
      if pauseReason != nil { emit(.leasingContinued, now, &step) }
    case .cancelShard(let shard, let reason):
      return cancel(shard, reason: reason, now, &step)
    case .cancelSweep(let reason):
      if isCancelled { return .accepted }
      for token in live.keys.sorted() { revoke(token, .cancelled, evidence: reason, now, &step) }
      emit(.sweepCancelled(reason: reason), now, &step)
    case .retry(let shard):
      return retry(shard, now, &step)
    case .prioritise(let shard, let priority):
      guard let ordinal = ordinals[shard] else {
        return .refused("the sweep has no shard \(shard)")
      }
      if records[ordinal].priority != priority {
        emit(.shardPrioritised(shard: shard, priority: priority), now, &step)
      }
    case .drain(let worker, let reason):
      if drained.contains(worker) { return .accepted }
      guard workers[worker] != nil else {
        return .refused("no worker \(worker) is part of the sweep")
      }
      emit(.workerDrained(worker: worker, reason: reason), now, &step)
    }
    return .accepted
  }

  private mutating func cancel(
    _ shard: ShardID, reason: String, _ now: Duration, _ step: inout Step
  ) -> Reply {
    guard let ordinal = ordinals[shard] else { return .refused("the sweep has no shard \(shard)") }
    switch records[ordinal].state {
    case .cancelled: return .accepted
    case .completed: return .refused("shard \(shard) is completed, and its results stay")
    case .leased(let tokens):
      for token in tokens { revoke(token, .cancelled, evidence: reason, now, &step) }
    case .blocked, .queued, .quarantined: break
    }
    emit(.shardCancelled(shard: shard, reason: reason), now, &step)
    return .accepted
  }

  private mutating func retry(_ shard: ShardID, _ now: Duration, _ step: inout Step) -> Reply {
    guard let ordinal = ordinals[shard] else { return .refused("the sweep has no shard \(shard)") }
    let record = records[ordinal]
    if let stopReason { return .refused("the sweep was stopped: \(stopReason)") }
    switch record.state {
    case .completed: return .refused("shard \(shard) is completed; its results stay")
    case .leased(let tokens):
      let names = tokens.compactMap { live[$0]?.lease.worker }.joined(separator: " and ")
      return .refused("shard \(shard) is running on worker \(names)")
    case .blocked:
      if let obstacle = obstacle(of: ordinal) {
        return .refused(
          "shard \(shard) waits for \(obstacle.shard.id), which was given up; retry that")
      }
      return .accepted
    case .queued:
      if record.failures == 0 && record.losses == 0 { return .accepted }
    case .quarantined, .cancelled: break
    }
    emit(.shardRetried(shard: shard), now, &step)
    return .accepted
  }
}
