import ArgumentParser
import Foundation
import SweepCore

struct PlanCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "plan", abstract: "Print what a sweep would run, without running it.",
    discussion: """
      EXAMPLES:
        biassweep plan --preset smoke
        biassweep plan --grid mine.yaml --json
        biassweep plan --preset quick --calibrate    a better estimate, after a minute or two
      """)

  @OptionGroup var selection: SweepSelection

  @OptionGroup var trunk: TrunkOptions

  @Flag(
    help: """
      Do a little of the sweep's own work on this machine and estimate time and tokens from it \
      (model and data must be there); else from the speed of multiplication.
      """)
  var calibrate = false

  @Flag(help: "Print one JSON object.")
  var json = false

  private struct Output: Encodable {
    let trialsDeclared: Int
    let trialsDistinct: Int
    let rounds: Int
    let fineTunes: Int
    let generationShards: Int
    let shards: Int
    let estimatedSeconds: Double
    let estimatedTokens: Int
    let trainedTokens: Int
    let evaluatedTokens: Int
    let generatedTokens: Int
    let calibrated: Bool
    let trunkBytes: Int
    let trunkBytesMax: Int

    enum CodingKeys: String, CodingKey {
      case trialsDeclared = "trials_declared"
      case trialsDistinct = "trials_distinct"
      case rounds
      case fineTunes = "fine_tunes"
      case generationShards = "generation_shards"
      case shards
      case estimatedSeconds = "estimated_seconds"
      case estimatedTokens = "estimated_tokens"
      case trainedTokens = "estimated_tokens_trained"
      case evaluatedTokens = "estimated_tokens_evaluated"
      case generatedTokens = "estimated_tokens_generated"
      case calibrated
      case trunkBytes = "trunk_bytes"
      case trunkBytesMax = "trunk_bytes_max"
    }
  }

  func run() async throws {
    let definition = try selection.definition()
    let plan = definition.plan
    let estimate =
      calibrate
      ? try PlanEstimate(
        calibrating: plan, spec: definition.spec, tasks: definition.tasks,
        trunkLimit: trunk.byteLimit, progress: Console.error)
      : try PlanEstimate(
        plan: plan, spec: definition.spec, tasks: definition.tasks, trunkLimit: trunk.byteLimit)
    if json {
      try Console.output(
        json: Output(
          trialsDeclared: plan.grid.points.count, trialsDistinct: plan.grid.trials.count,
          rounds: definition.spec.rounds, fineTunes: plan.fineTuneCount,
          generationShards: plan.augmentationCount,
          shards: plan.shards.count, estimatedSeconds: estimate.seconds,
          estimatedTokens: estimate.tokens.total, trainedTokens: estimate.tokens.trained,
          evaluatedTokens: estimate.tokens.evaluated, generatedTokens: estimate.tokens.generated,
          calibrated: calibrate,
          trunkBytes: estimate.trunkBytes, trunkBytesMax: estimate.trunkLimit))
      return
    }
    let rounds =
      definition.spec.rounds == 1
      ? ""
      : "rounds           \(definition.spec.rounds)  (the fine-tunes of each write for the next)\n"
    Console.output(
      """
      sweep            \(definition.spec.name)
      model            \(definition.spec.model)
      declared trials  \(plan.grid.points.count)
      distinct trials  \(plan.grid.trials.count)  (at ratio 0 bias and mitigation make no difference)
      \(rounds)fine-tunes       \(plan.fineTuneCount)  (one serves all tasks of its domain)
      generation       \(plan.augmentationCount)  (sets of augmented data)
      shards           \(plan.shards.count)
      trunk cache      \(ByteSize(bytes: estimate.trunkBytes)) of frozen layers' outputs, room for \
      \(ByteSize(bytes: estimate.trunkLimit))
      estimated tokens \(estimate.tokens.trained / 1000) thousand trained on (each epoch counts), \
      \(estimate.tokens.generated / 1000) generated, \(estimate.tokens.evaluated / 1000) evaluated
      estimated time   \(Seconds(estimate.seconds)) on this machine (\(estimate.basis))
      """)
  }
}

/// A duration for people: `3 h 12 min`, `2 min 5 s`, `8 s`.
struct Seconds: CustomStringConvertible {
  let value: Double

  init(_ value: Double) { self.value = value }

  var description: String {
    guard value.isFinite, value >= 0 else { return "?" }
    let whole = Int(min(value, 1e9).rounded())
    switch whole {
    case ..<60: return "\(whole) s"
    case ..<3600: return "\(whole / 60) min \(whole % 60) s"
    default: return "\(whole / 3600) h \(whole % 3600 / 60) min"
    }
  }
}
