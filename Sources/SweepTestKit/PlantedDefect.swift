import SweepCore

/// A mistake that the simulated coordinator can be told to make, one for each invariant, so that
/// tests can see that the mistake is noticed.
package enum PlantedDefect: CaseIterable, Sendable {
  case recordsRepeatedReports, acknowledgesBeforeCommit, acceptsStaleReports, reusesTokens
  case leasesTwice, leasesBlockedShards, completesEarly, repeatsSettledShards, allowsMoreAttempts
  case doublesSlots, forgetsDrains, leasesAfterStop, leasesWhilePaused, leasesCancelled
  case misreadsReports, losesEvents, miscounts
  case ignoresWorkRequests

  /// The invariant that the mistake violates.
  package var violates: SweepInvariant {
    switch self {
    case .recordsRepeatedReports: .oneResultPerTrial
    case .acknowledgesBeforeCommit: .acknowledgedIsKept
    case .acceptsStaleReports: .deadLeaseIsRefused
    case .reusesTokens: .tokensGrow
    case .leasesTwice: .oneLeasePerShard
    case .leasesBlockedShards: .dependencyComesFirst
    case .completesEarly: .completedHasResults
    case .repeatsSettledShards: .settledIsNotRepeated
    case .allowsMoreAttempts: .attemptsAreBounded
    case .doublesSlots: .slotsAreRespected
    case .forgetsDrains: .drainedGetsNothing
    case .leasesAfterStop: .stoppedLeasesNothing
    case .leasesWhilePaused: .pausedLeasesNothing
    case .leasesCancelled: .settledIsNotRepeated
    case .misreadsReports: .honestIsUnderstood
    case .losesEvents: .replayEqualsLive
    case .miscounts: .countsAgree
    case .ignoresWorkRequests: .sweepEnds
    }
  }

  /// Changes what the scheduler is told.
  func distort(_ command: inout Scheduler.Command, plan: ShardPlan) {
    switch (self, command) {
    case (.ignoresWorkRequests, .requestWork):
      command = .tick
    case (.doublesSlots, .connect(let info, let connection, let holding, let inputs)):
      let doubled = WorkerInfo(
        id: info.id, host: info.host, processID: info.processID, slots: info.slots * 2,
        threads: info.threads)
      command = .connect(doubled, connection: connection, holding: holding, inputs: inputs)
    case (.doublesSlots, .requestWork(let worker, let slots)):
      command = .requestWork(worker: worker, slots: slots * 2)
    case (
      .misreadsReports,
      .completeTrial(let worker, let token, let trial, let metrics, let notes, _)
    ):
      let other = plan.shards.first { shard in
        !shard.trials.isEmpty && !shard.trials.contains { $0.id == trial }
      }
      command = .completeTrial(
        worker: worker, token: token, trial: other?.trials.first?.id ?? TrialID("none"),
        metrics: metrics, notes: notes)
    default: break
    }
  }

  /// Changes what the scheduler decided.
  func distort(
    _ step: inout Scheduler.Step, of command: Scheduler.Command, plan: ShardPlan,
    scheduler: inout Scheduler, now: Duration
  ) {
    func decide(_ event: SweepEvent, _ scheduler: inout Scheduler, _ step: inout Scheduler.Step) {
      scheduler.apply(event, now: now)
      step.events.append(event)
    }
    func lease(
      _ worker: String, _ scheduler: inout Scheduler, _ step: inout Scheduler.Step,
      where chosen: (Scheduler.ShardState?) -> Bool
    ) {
      guard let shard = plan.shards.first(where: { chosen(scheduler.state(of: $0.id)) }) else {
        return
      }
      decide(
        .shardLeased(
          shard: shard.id, worker: worker,
          token: LeaseToken(scheduler.durableState.lastToken + 1),
          attempt: scheduler.attempts(of: shard.id) + 1),
        &scheduler, &step)
    }

    switch (self, command) {
    case (.recordsRepeatedReports, .completeTrial(_, let token, let trial, let metrics, let notes, _))
    where step.reply == .accepted && step.events.isEmpty:
      step.events.append(
        .trialCompleted(trial: trial, token: token, metrics: metrics, notes: notes))
    case (.acceptsStaleReports, .completeTrial(_, let token, let trial, let metrics, let notes, _))
    where step.reply == .stale && !scheduler.durableState.trials.contains(trial):
      decide(
        .trialCompleted(trial: trial, token: token, metrics: metrics, notes: notes), &scheduler,
        &step)
      step.reply = .accepted
    case (.completesEarly, .heartbeat):
      for lease in scheduler.leases.prefix(1) {
        decide(
          .shardCompleted(
            shard: lease.shard, token: lease.lease.token, artifact: nil, facts: [:]), &scheduler,
          &step)
      }
    case (.leasesTwice, .requestWork(let worker, _)):
      lease(worker, &scheduler, &step) { if case .leased = $0 { true } else { false } }
    case (.leasesBlockedShards, .requestWork(let worker, _)):
      lease(worker, &scheduler, &step) { $0 == .blocked }
    case (.repeatsSettledShards, .requestWork(let worker, _)):
      lease(worker, &scheduler, &step) { if case .completed = $0 { true } else { false } }
    case (.leasesAfterStop, .requestWork(let worker, _))
    where scheduler.stopReason != nil && scheduler.pauseReason == nil:
      lease(worker, &scheduler, &step) { if case .queued = $0 { true } else { false } }
    case (.leasesWhilePaused, .requestWork(let worker, _)) where scheduler.pauseReason != nil:
      lease(worker, &scheduler, &step) { if case .queued = $0 { true } else { false } }
    case (.forgetsDrains, .requestWork(let worker, _))
    where scheduler.drained.contains(worker) && scheduler.stopReason == nil
      && scheduler.pauseReason == nil:
      lease(worker, &scheduler, &step) { if case .queued = $0 { true } else { false } }
    case (.leasesCancelled, .requestWork(let worker, _)):
      lease(worker, &scheduler, &step) { if case .cancelled = $0 { true } else { false } }
    case (.reusesTokens, _):
      step.events = step.events.map { event in
        guard case .shardLeased(let shard, let worker, let token, let attempt) = event else {
          return event
        }
        return .shardLeased(
          shard: shard, worker: worker, token: LeaseToken(token.value - 1), attempt: attempt)
      }
    case (.losesEvents, _):
      step.events.removeAll { if case .workerLeft = $0 { true } else { false } }
    case (.miscounts, .requestWork):
      let queued = plan.shards.first { shard in
        if case .queued = scheduler.state(of: shard.id) { true } else { false }
      }
      if let queued {
        scheduler.apply(.shardCancelled(shard: queued.id, reason: "unrecorded"), now: now)
      }
    default: break
    }
  }
}
