extension Scheduler {
  /// What the scheduler's parts say against each other; empty in a correct scheduler at any time.
  /// Everything is counted anew, so this is for tests and simulation.
  package func contradictions() -> [String] {
    var found: [String] = []
    func require(_ holds: Bool, _ claim: @autoclosure () -> String) {
      if !holds { found.append(claim()) }
    }

    let queued = Set(ready.ordinals).union(delayed.unordered.map(\.ordinal))
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
      case .leased(let tokens):
        leased += tokens.count
        require(
          (1...2).contains(tokens.count) && Set(tokens).count == tokens.count,
          "\(shard.id) is leased as \(tokens)")
        let holders = Set(tokens.compactMap { live[$0]?.lease.worker })
        require(
          holders.count == tokens.count, "\(shard.id) runs twice on one worker of \(holders)")
        for token in tokens {
          guard let held = live[token], held.ordinal == ordinal else {
            found.append("lease \(token) of \(shard.id) is not live")
            continue
          }
          require(
            workers[held.lease.worker]?.leases.contains(token) == true,
            "worker \(held.lease.worker) does not know its lease \(token)")
          require(token.value <= lastToken, "token \(token) is from the future")
          require(
            nextExpiry.map { $0 <= held.lease.deadline } == true,
            "lease \(token) ends before anybody looks")
        }
      case .completed:
        require(
          shard.trials.allSatisfy { completedTrials.contains($0.id) },
          "\(shard.id) is completed without all its results")
      case .quarantined, .cancelled: break
      }
      if record.state != .blocked, !record.state.isGivenUp {
        require(dependencyCompleted != false, "\(shard.id) runs before its dependency")
      }
      if !isSettled(ordinal) { open += 1 }
      require(
        record.failures <= policy.attempts && record.losses <= policy.losses,
        "\(shard.id) had \(record.failures) failures and \(record.losses) losses")
    }
    require(live.count == leased, "\(live.count) live tokens for \(leased) leases of shards")
    require(unsettled == open, "unsettled is \(unsettled), counted \(open)")
    let given = records.count { if case .quarantined = $0.state { true } else { false } }
    require(quarantined == given, "quarantined is \(quarantined), counted \(given)")
    var onData: [Int: Int] = [:]
    for worker in workers.values {
      if let data = worker.data { onData[data, default: 0] += 1 }
    }
    require(
      workersOnData.filter { $0.value != 0 } == onData,
      "workers by data are \(workersOnData), counted \(onData)")

    var held = 0
    for id in workerOrder {
      guard let worker = workers[id] else { continue }
      held += worker.leases.count
      let capacity = capacity(of: worker)
      require(
        worker.leases.count <= capacity && wanted[id, default: 0] <= capacity,
        "worker \(id) has \(worker.leases.count) leases and wants \(wanted[id, default: 0]) more "
          + "with room for \(capacity)")
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
