/// What goes wrong in a simulated cluster, and how often. Times are virtual seconds; a mean
/// interval of nil means never.
package struct FaultPlan: Sendable, Hashable {
  /// Faults happen until this time and not after it.
  package var endsAfter = 0.0
  /// Largest delay of a message.
  package var delayMax = 0.002
  /// Largest time of an append to the ledger.
  package var commitMax = 0.005
  /// Mean intervals between faults of a kind, anywhere in the cluster.
  package var brokenConnections: Double?
  /// Connections that carry nothing any more while both sides believe in them.
  package var halfOpenConnections: Double?
  package var oneWayPartitions: Double?
  package var twoWayPartitions: Double?
  package var workerCrashes: Double?
  package var workerExits: Double?
  package var drains: Double?
  /// An operator pauses the sweep, and lets it go on later.
  package var pauses: Double?
  /// An operator cancels a shard, or gives one new attempts.
  package var shardCommands: Double?
  /// An operator cancels the sweep, and starts it anew later.
  package var cancellations: Double?
  package var coordinatorCrashes: Double?
  /// The coordinator's machine is suspended and goes on later.
  package var suspensions: Double?
  /// The person at the terminal stops the sweep and starts it again.
  package var interruptions: Double?
  /// Appends that take seconds.
  package var slowCommits: Double?
  /// The coordinator's clock jumps by up to a minute, forwards or backwards.
  package var clockJumps: Double?
  /// The disk of the ledger is full for a while.
  package var fullDisks: Double?
  /// Mean time that the workers of some hosts have before they end; nil if all may go on for ever.
  package var lifetimes: Double?
  /// Share of messages that arrive twice.
  package var duplicatedShare = 0.0
  /// Share of messages, other than reports, that arrive out of order.
  package var reorderedShare = 0.0
  /// Share of attempts that take six times as long.
  package var stragglerShare = 0.0
  /// Longest time in seconds until a crashed worker is replaced.
  package var restartMax = 20.0
  /// Share of shards' attempts that fail.
  package var failureShare = 0.0
  /// Share of reports that are sent again after a reconnection although they were acknowledged.
  package var repeatedReportShare = 0.0
  /// Hosts on which every attempt fails at once.
  package var badHosts = 0
  /// Hosts that take several times as long.
  package var slowHosts = 0

  package static let none = FaultPlan()

  package init() {}

  /// Draws a mixture in which each kind of fault is absent, rare or frequent, so that seeds differ
  /// in kind and not in degree only.
  package init(using random: inout SeededGenerator) {
    func interval() -> Double? {
      random.chance(0.5)
        ? nil : random.chance(0.6) ? random.uniform(40, 200) : random.uniform(5, 40)
    }
    endsAfter = random.uniform(30, 300)
    delayMax = random.chance(0.3) ? random.uniform(0.1, 2) : random.uniform(0.001, 0.1)
    commitMax = random.chance(0.3) ? random.uniform(0.05, 0.5) : 0.01
    brokenConnections = interval()
    halfOpenConnections = interval()
    oneWayPartitions = interval()
    twoWayPartitions = interval()
    workerCrashes = interval()
    workerExits = interval()
    drains = random.chance(0.7) ? nil : random.uniform(20, 100)
    pauses = random.chance(0.6) ? nil : random.uniform(20, 100)
    shardCommands = interval()
    cancellations = random.chance(0.85) ? nil : random.uniform(50, 300)
    coordinatorCrashes = interval()
    suspensions = interval().map { $0 * 2 }
    interruptions = random.chance(0.7) ? nil : random.uniform(20, 100)
    slowCommits = interval()
    clockJumps = interval().map { $0 * 2 }
    fullDisks = random.chance(0.6) ? nil : random.uniform(40, 200)
    lifetimes = random.chance(0.5) ? nil : random.uniform(20, 120)
    duplicatedShare = random.chance(0.5) ? 0 : random.uniform(0, 0.2)
    reorderedShare = random.chance(0.5) ? 0 : random.uniform(0, 0.5)
    stragglerShare = random.chance(0.5) ? 0 : random.uniform(0, 0.2)
    failureShare = random.chance(0.4) ? 0 : random.uniform(0, 0.3)
    repeatedReportShare = random.chance(0.5) ? 0 : random.uniform(0, 0.5)
    badHosts = random.chance(0.25) ? 1 : 0
    slowHosts = random.chance(0.3) ? random.integer(1...2) : 0
  }
}
