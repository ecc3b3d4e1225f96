import SweepCore

/// A mistake that the simulated coordinator can be told to make, one for each invariant, so that
/// tests can see that the mistake is noticed.
package enum PlantedDefect: CaseIterable, Sendable {
  case recordsRepeatedReports, acknowledgesBeforeCommit, acceptsStaleReports, reusesTokens
  case leasesTwice, leasesBlockedShards, completesEarly, repeatsSettledShards, allowsMoreAttempts
  case doublesSlots, forgetsDrains, leasesAfterStop, leasesWhilePaused, leasesCancelled
  case ignoresPriorities, trustsBadHosts, forgetsLifetimes
  case misreadsReports, losesEvents, miscounts
  case ignoresWorkRequests

  /// The invariant that the mistake violates.
  package var violates: SweepInvariant {
    switch self {
    case .recordsRepeatedReports: .oneResultPerTrial
    case .acknowledgesBeforeCommit: .acknowledgedIsKept
    case .acceptsStaleReports: .deadLeaseIsRefused
    case .reusesTokens: .tokensGrow
    case .leasesTwice: .copiesAreForStragglers
    case .ignoresPriorities: .priorityComesFirst
    case .trustsBadHosts: .suspendedHostGetsNothing
    case .forgetsLifetimes: .lifetimeIsRespected
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
  func distort(
    _ command: inout Scheduler.Command, plan: ShardPlan, scheduler: Scheduler, now: Duration
  ) {
    switch (self, command) {
    case (.ignoresWorkRequests, .requestWork):
      command = .tick
    case (.ignoresPriorities, .requestWork(let worker, _))
    where Self.leastUrgent(for: worker, plan, scheduler, now) != nil:
      // So that it can give the worker something else.
      command = .requestWork(worker: worker, slots: 0)
    case (.forgetsLifetimes, .connect(let info, let connection, let holding, let inputs, _)):
      command = .connect(
        info, connection: connection, holding: holding, inputs: inputs, lifetime: nil)
    case (
      .doublesSlots, .connect(let info, let connection, let holding, let inputs, let lifetime)
    ):
      let doubled = WorkerInfo(
        id: info.id, host: info.host, processID: info.processID, slots: info.slots * 2,
        threads: info.threads)
      command = .connect(
        doubled, connection: connection, holding: holding, inputs: inputs, lifetime: lifetime)
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

  private static func host(of worker: String) -> String { String(worker.prefix { $0 != "." }) }

  /// A queued shard that the worker could have if its priority were not lower than another's.
  private static func leastUrgent(
    for worker: String, _ plan: ShardPlan, _ scheduler: Scheduler, _ now: Duration
  ) -> ShardID? {
    guard scheduler.stopReason == nil, scheduler.pauseReason == nil,
      scheduler.room(of: worker) > 0, !scheduler.drained.contains(worker),
      !scheduler.hasLimitedTime(worker), !scheduler.isSuspended(host(of: worker), now)
    else { return nil }
    let queued = plan.shards.map(\.id).filter {
      if case .queued = scheduler.state(of: $0) { true } else { false }
    }
    guard let least = queued.min(by: { scheduler.priority(of: $0) < scheduler.priority(of: $1) }),
      queued.contains(where: { scheduler.priority(of: $0) > scheduler.priority(of: least) })
    else { return nil }
    return least
  }

  /// Changes what the scheduler decided.
  func distort(
    _ step: inout Scheduler.Step, of command: Scheduler.Command, plan: ShardPlan,
    scheduler: inout Scheduler, now: Duration
  ) {
    func decide(_ event: SweepEvent) {
      scheduler.apply(event, now: now)
      step.events.append(event)
    }
    func lease(_ worker: String, where chosen: (Shard) -> Bool) {
      guard let shard = plan.shards.first(where: chosen) else { return }
      decide(
        .shardLeased(
          shard: shard.id, worker: worker,
          token: LeaseToken(scheduler.durableState.lastToken + 1),
          attempt: scheduler.attempts(of: shard.id) + 1))
    }
    func isQueued(_ shard: Shard) -> Bool {
      if case .queued = scheduler.state(of: shard.id) { true } else { false }
    }
    let mayLease = scheduler.stopReason == nil && scheduler.pauseReason == nil

    switch (self, command) {
    case (
      .recordsRepeatedReports, .completeTrial(_, let token, let trial, let metrics, let notes, _)
    )
    where step.reply == .accepted && step.events.isEmpty:
      step.events.append(
        .trialCompleted(trial: trial, token: token, metrics: metrics, notes: notes))
    case (.acceptsStaleReports, .completeTrial(_, let token, let trial, let metrics, let notes, _))
    where step.reply == .stale && !scheduler.hasResult(trial):
      decide(
        .trialCompleted(trial: trial, token: token, metrics: metrics, notes: notes))
      step.reply = .accepted
    case (.completesEarly, .heartbeat):
      for lease in scheduler.leases
      where scheduler.state(of: lease.shard) == .leased([lease.lease.token]) {
        decide(
          .shardCompleted(
            shard: lease.shard, token: lease.lease.token, artifact: nil, facts: [:],
            seconds: nil))
        return
      }
    case (.leasesTwice, .requestWork(let worker, _))
    where plan.shards.contains { isQueued($0) && scheduler.attempts(of: $0.id) == 0 }:
      lease(worker) {
        if case .leased(let tokens) = scheduler.state(of: $0.id) {
          tokens.count == 1
        } else {
          false
        }
      }
    case (.leasesBlockedShards, .requestWork(let worker, _)):
      lease(worker) { scheduler.state(of: $0.id) == .blocked }
    case (.repeatsSettledShards, .requestWork(let worker, _)):
      lease(worker) {
        if case .completed = scheduler.state(of: $0.id) { true } else { false }
      }
    case (.leasesAfterStop, .requestWork(let worker, _))
    where scheduler.stopReason != nil && scheduler.pauseReason == nil:
      lease(worker) { isQueued($0) }
    case (.leasesWhilePaused, .requestWork(let worker, _)) where scheduler.pauseReason != nil:
      lease(worker) { isQueued($0) }
    case (.forgetsDrains, .requestWork(let worker, _))
    where scheduler.drained.contains(worker) && mayLease && !scheduler.hasLimitedTime(worker):
      lease(worker) { isQueued($0) }
    case (.leasesCancelled, .requestWork(let worker, _)):
      lease(worker) {
        if case .cancelled = scheduler.state(of: $0.id) { true } else { false }
      }
    case (.ignoresPriorities, .requestWork(let worker, _)):
      if let least = Self.leastUrgent(for: worker, plan, scheduler, now) {
        lease(worker) { $0.id == least }
      } else {
        // There is nothing to do wrong any more: the worker gets what it asked for.
        let honest = scheduler.handle(
          .requestWork(worker: worker, slots: scheduler.room(of: worker)), now: now)
        step.events += honest.events
        step.directives += honest.directives
      }
    case (.trustsBadHosts, .requestWork(let worker, _))
    where mayLease && scheduler.isSuspended(Self.host(of: worker), now)
      && !scheduler.drained.contains(worker)
      && !scheduler.leases.contains { $0.lease.worker == worker }:
      let most = plan.shards.filter(isQueued).map { scheduler.priority(of: $0.id) }.max()
      lease(worker) { isQueued($0) && scheduler.priority(of: $0.id) == most }
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
      if let queued = plan.shards.first(where: isQueued) {
        scheduler.apply(.shardCancelled(shard: queued.id, reason: "unrecorded"), now: now)
      }
    default: break
    }
  }
}
