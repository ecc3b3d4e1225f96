extension Scheduler {
  /// What the scheduler's parts say against each other; empty in a correct scheduler at any time.
  /// Everything is counted anew, so this is for tests and simulation.
  package func contradictions() -> [String] {
    var found: [String] = []
    func require(_ holds: Bool, _ claim: @autoclosure () -> String) {
      if !holds { found.append(claim()) }
    }

    let queued = Set(ready.unordered).union(delayed.unordered.map(\.ordinal))
    var leased = 0
    var open = 0
    for (ordinal, record) in records.enumerated() {
      let shard = record.shard
      let dependencyCompleted = shard.dependency.flatMap { ordinals[$0] }
        .map { records[$0].state.isCompleted }
      switch record.state {
      case .blocked:
        require(dependencyCompleted == false, "\(shard.id) is blocked by nothing")
      case .queued:
        require(queued.contains(ordinal), "\(shard.id) is queued but in no queue")
      case .leased(let lease):
        leased += 1
        require(live[lease.token] == ordinal, "lease \(lease.token) of \(shard.id) is not live")
        require(
          workers[lease.worker]?.leases.contains(lease.token) == true,
          "worker \(lease.worker) does not know its lease \(lease.token)")
        require(lease.token.value <= lastToken, "token \(lease.token) is from the future")
        require(
          nextExpiry.map { $0 <= lease.deadline } == true,
          "lease \(lease.token) ends before anybody looks")
      case .completed:
        require(
          shard.trials.allSatisfy { completedTrials.contains($0.id) },
          "\(shard.id) is completed without all its results")
      case .quarantined, .cancelled: break
      }
      if record.state != .blocked, !record.state.isGivenUp {
        require(dependencyCompleted != false, "\(shard.id) runs before its dependency")
      }
      if !isSettled(record) { open += 1 }
      require(
        record.failures <= policy.attempts && record.losses <= policy.losses,
        "\(shard.id) had \(record.failures) failures and \(record.losses) losses")
    }
    require(live.count == leased, "\(live.count) live tokens for \(leased) leased shards")
    require(unsettled == open, "unsettled is \(unsettled), counted \(open)")

    var held = 0
    for id in workerOrder {
      guard let worker = workers[id] else { continue }
      held += worker.leases.count
      require(
        worker.leases.count + wanted[id, default: 0] <= worker.info.slots,
        "worker \(id) has \(worker.leases.count) leases and wants \(wanted[id, default: 0]) more "
          + "for \(worker.info.slots) slots")
      if let ends = worker.graceEnds {
        require(worker.connection == nil, "worker \(id) is connected and awaited")
        require(nextExpiry.map { $0 <= ends } == true, "grace of \(id) ends before anybody looks")
      } else {
        require(worker.connection != nil, "worker \(id) is neither connected nor awaited")
      }
    }
    for id in drained.sorted() where wanted[id] != nil {
      found.append("drained \(id) may get work")
    }
    require(!isCancelled || stopReason != nil, "the sweep is cancelled and not stopped")
    require(held == leased, "workers hold \(held) leases, shards \(leased)")
    for (id, count) in wanted.sorted(by: { $0.key < $1.key }) {
      require(
        count > 0 && workers[id]?.connection != nil,
        "absent worker \(id) wants \(count) shards")
    }
    return found
  }
}
