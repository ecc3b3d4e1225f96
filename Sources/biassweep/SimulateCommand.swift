import ArgumentParser
import StudyDocuments
import SweepCore
import SweepSimulation

struct SimulateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "simulate",
    abstract: "Predict makespan, utilisation and lost work of a sweep on a cluster.",
    discussion: """
      Runs the scheduler of real sweeps in a simulated cluster whose workers fail, with every \
      message and heartbeat, in virtual time. Equal options give equal answers. Times are numbers \
      with a unit: 500ms, 30s, 10m, 6h, 2d.

      EXAMPLES:
        biassweep simulate --workers 1000 --trials 100000 --mtbf 6h
        biassweep simulate --workers 64 --trials 5000 --shard-time 10m --preemption 1h --json
        biassweep simulate --workers 16 --grid mine.yaml --shard-time 20m --checkpoint none
      """)

  @Option(help: "Worker processes.")
  var workers = 100

  @Option(help: "Shards that a worker runs at once.")
  var slots = 1

  @Option(help: "Trials of a made-up sweep. Default: 10000, unless --preset or --grid is given.")
  var trials: Int?

  @Option(help: "Simulate a sweep that comes with BiasSweep: \(Preset.names).")
  var preset: Preset?

  @Option(help: "Simulate the sweep of a YAML file.")
  var grid: String?

  @Option(help: "Mean time of a shard; shards differ as their costs in the plan do.")
  var shardTime = TimeSpan(60)

  @Option(help: "Spread of shards of equal cost: standard deviation of the time's logarithm.")
  var shardSpread = 0.3

  @Option(help: "Mean time between failures of one worker, or none.")
  var mtbf = TimeSpan.never

  @Option(help: "Mean time until a worker is preempted and gives its shards back, or none.")
  var preemption = TimeSpan.never

  @Option(help: "Mean time between failures of the coordinator, or none.")
  var coordinatorMtbf = TimeSpan.never

  @Option(help: "Longest time until a worker that failed is replaced.")
  var restart = TimeSpan(60)

  @Option(help: "Time between checkpoints of a shard, or none.")
  var checkpoint = TimeSpan(10)

  @Option(help: "How long a silent worker keeps its leases.")
  var lease = TimeSpan(15)

  @Option(help: "Slowest host's time relative to the fastest's.")
  var hostSpread = 1.0

  @Option(help: "Share of attempts that take six times as long.")
  var stragglers = 0.0

  @Option(help: "Seed of everything random.")
  var seed: UInt64 = 1

  @Flag(help: "Print one JSON object.")
  var json = false

  func validate() throws {
    func require(_ holds: Bool, _ message: String) throws {
      if !holds { throw ValidationError(message) }
    }
    try require((1...100_000).contains(workers), "--workers takes a number from 1 to 100000.")
    try require((1...1024).contains(slots), "--slots takes a number from 1 to 1024.")
    try require(
      (1...1_000_000).contains(trials ?? 1), "--trials takes a number from 1 to 1000000.")
    try require(
      [trials != nil, preset != nil, grid != nil].count { $0 } <= 1,
      "Name the sweep with one of --trials, --preset and --grid.")
    try require((0...3).contains(shardSpread), "--shard-spread takes a number from 0 to 3.")
    try require((1...100).contains(hostSpread), "--host-spread takes a number from 1 to 100.")
    try require((0...0.9).contains(stragglers), "--stragglers takes a share from 0 to 0.9.")
    for (name, time) in [("shard-time", shardTime), ("restart", restart), ("lease", lease)] {
      try require(time.seconds != nil, "--\(name) takes a time such as 30s.")
    }
  }

  private func definition() throws -> SweepDefinition {
    if preset == nil && grid == nil {
      return try SweepDefinition(
        document: CapacityQuestion.syntheticSweep(trials: trials ?? 10_000), catalogue: .builtIn)
    }
    var selection = SweepSelection()
    selection.preset = preset
    selection.grid = grid
    var tasks = TaskSelection()
    tasks.tasks = nil
    selection.taskSelection = tasks
    return try selection.definition()
  }

  private var question: CapacityQuestion {
    var question = CapacityQuestion()
    question.workers = workers
    question.slots = slots
    question.shardSeconds = shardTime.seconds ?? question.shardSeconds
    question.shardSpread = shardSpread
    question.checkpointSeconds = checkpoint.seconds
    question.leaseSeconds = lease.seconds ?? question.leaseSeconds
    question.workerFailures = mtbf.seconds
    question.preemptions = preemption.seconds
    question.coordinatorFailures = coordinatorMtbf.seconds
    question.restartSeconds = max(restart.seconds ?? 1, 0.6)
    question.hostSpread = hostSpread
    question.stragglerShare = stragglers
    question.seed = seed
    return question
  }

  private struct Output: Encodable {
    let answer: CapacityQuestion.Answer

    enum CodingKeys: String, CodingKey {
      case trials, shards
      case trialsCompleted = "trials_completed"
      case makespanSeconds = "makespan_seconds"
      case utilisation
      case busySeconds = "busy_seconds"
      case lostSeconds = "lost_seconds"
      case leases
      case attemptsLost = "attempts_lost"
      case attemptsReleased = "attempts_released"
      case copiesSuperseded = "copies_superseded"
      case shardsQuarantined = "shards_quarantined"
      case workerStarts = "worker_starts"
      case coordinatorStarts = "coordinator_starts"
    }

    func encode(to encoder: any Encoder) throws {
      var container = encoder.container(keyedBy: CodingKeys.self)
      try container.encode(answer.trials, forKey: .trials)
      try container.encode(answer.shards, forKey: .shards)
      try container.encode(answer.trialsCompleted, forKey: .trialsCompleted)
      try container.encode(answer.makespanSeconds, forKey: .makespanSeconds)
      try container.encode(answer.utilisation, forKey: .utilisation)
      try container.encode(answer.busySeconds, forKey: .busySeconds)
      try container.encode(answer.lostSeconds, forKey: .lostSeconds)
      try container.encode(answer.leases, forKey: .leases)
      try container.encode(answer.attemptsLost, forKey: .attemptsLost)
      try container.encode(answer.attemptsReleased, forKey: .attemptsReleased)
      try container.encode(answer.copiesSuperseded, forKey: .copiesSuperseded)
      try container.encode(answer.shardsQuarantined, forKey: .shardsQuarantined)
      try container.encode(answer.workerStarts, forKey: .workerStarts)
      try container.encode(answer.coordinatorStarts, forKey: .coordinatorStarts)
    }
  }

  func run() throws {
    let answer = question.answer(try definition())
    if let problem = answer.problem {
      throw InfrastructureError(description: "The simulation went wrong: \(problem)")
    }
    if json {
      try Console.output(json: Output(answer: answer))
      return
    }
    func percent(_ share: Double) -> String { "\((share * 1000).rounded() / 10) %" }
    Console.output(
      """
      sweep        \(answer.trials) trials in \(answer.shards) shards; \
      \(answer.trialsCompleted) trials completed, \(answer.shardsQuarantined) shards quarantined
      makespan     \(Seconds(answer.makespanSeconds))
      utilisation  \(percent(answer.utilisation)) of \(workers * slots) slots
      lost work    \(Seconds(answer.lostSeconds)), \
      \(percent(answer.lostSeconds / max(1, answer.busySeconds))) of what was done
      attempts     \(answer.leases), of which \(answer.attemptsLost) lost, \
      \(answer.attemptsReleased) given back, \(answer.copiesSuperseded) overtaken by a copy
      starts       \(answer.workerStarts) of workers, \(answer.coordinatorStarts) of the coordinator
      """)
  }
}

/// A length of time on the command line: `500ms`, `30s`, `10m`, `6h`, `2d`, or `none`.
struct TimeSpan: ExpressibleByArgument, CustomStringConvertible {
  /// Nil for `none`.
  let seconds: Double?

  static let never = TimeSpan(nil)

  init(_ seconds: Double?) { self.seconds = seconds }

  init?(argument: String) {
    if argument == "none" {
      self = .never
      return
    }
    let units: [(suffix: String, seconds: Double)] = [
      ("ms", 0.001), ("s", 1), ("m", 60), ("h", 3600), ("d", 86_400),
    ]
    guard let unit = units.first(where: { argument.hasSuffix($0.suffix) }),
      let number = Double(argument.dropLast(unit.suffix.count)), number > 0,
      number * unit.seconds <= 1e8
    else { return nil }
    seconds = number * unit.seconds
  }

  var description: String {
    seconds.map { $0 == $0.rounded() ? "\(Int($0))s" : "\($0)s" } ?? "none"
  }
  var defaultValueDescription: String { description }
}
