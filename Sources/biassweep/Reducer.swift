import Dispatch
import Foundation
import Logging
import SweepAnalysis
import SweepCore
import SweepLedger

/// Keeps the findings of a running sweep up to date with its results.
///
/// It computes again what new results change, in the background, so seldom that it takes at most one
/// part in `restFactor` of the time, and once more when the sweep ends.
actor Reducer {
  private let ledger: Ledger
  private let spec: SweepSpec
  private let logger: Logger
  private var findings: [Finding]
  private var reducedTrials = -1

  private static let restFactor = 50
  private static let restMin = Duration.seconds(5)
  private let queue = DispatchQueue(label: "biassweep.reducer", qos: .utility)

  init(ledger: Ledger, spec: SweepSpec, logger: Logger) throws {
    self.ledger = ledger
    self.spec = spec
    self.logger = logger
    findings = try ledger.findings()
  }

  /// Until the task is cancelled. What goes wrong is logged and tried again: findings can always be
  /// computed from the results.
  func follow(completedTrials: @Sendable () async -> Int) async {
    while !Task.isCancelled {
      var spent = Duration.zero
      if await completedTrials() != reducedTrials {
        spent = await ContinuousClock().measure {
          do {
            try await reduce()
          } catch {
            logger.warning("findings could not be computed", metadata: ["error": "\(error)"])
          }
        }
      }
      do {
        try await Task.sleep(for: max(Self.restMin, spent * Self.restFactor))
      } catch {
        return
      }
    }
  }

  /// Computes what the results changed and stores it.
  ///
  /// - Throws: `LedgerError`.
  func reduce() async throws {
    let (ledger, spec, previous) = (self.ledger, self.spec, findings)
    let (reduced, trials) = try await withCheckedThrowingContinuation {
      (continuation: CheckedContinuation<([Finding], Int), any Error>) in
      queue.async {
        continuation.resume(
          with: Result {
            let results = try ledger.results()
            let reduced = Analysis.findings(
              of: AnalysisInput(spec: spec, results: results), previous: previous
            ).findings
            try ledger.store(findings: reduced)
            return (reduced, results.trials.count)
          })
      }
    }
    findings = reduced
    reducedTrials = trials
  }
}

extension Finding {
  /// Names of the findings that are not the same in both.
  static func differing(_ recorded: [Finding], _ computed: [Finding]) -> [String] {
    let before = Dictionary(recorded.map { ($0.id, $0) }) { first, _ in first }
    let after = Dictionary(computed.map { ($0.id, $0) }) { first, _ in first }
    return Set(before.keys).union(after.keys).filter { before[$0] != after[$0] }.sorted()
  }
}

extension AnalysisInput {
  /// What a ledger holds, as the analysis takes it.
  init(spec: SweepSpec, results: RecordedResults) {
    self.init(
      tasks: spec.definedTasks.map(AnalysedTask.init),
      trials: results.trials.map {
        AnalysedTrial(
          task: $0.task, bias: $0.bias, ratio: $0.ratio, mitigation: $0.mitigation, seed: $0.seed,
          round: $0.round, metrics: $0.metrics, items: $0.items)
      },
      facts: results.facts.compactMap { fact in
        Domain(rawValue: fact.domain).map {
          AnalysedFact(
            domain: $0, bias: fact.bias, round: fact.round, ratio: fact.ratio,
            mitigation: fact.mitigation, name: fact.name, value: fact.value)
        }
      }.filter(\.isProperty))
  }
}

extension AnalysedFact {
  /// Whether the fact measures something of the data, rather than how long they took or where a
  /// point of a plot lies.
  fileprivate var isProperty: Bool {
    ["dose_", "values_", "groups_", "published_share_"].contains { name.hasPrefix($0) }
      || [
        "rejection_rate", "representation_mmd2", "representation_mean_distance",
        "representation_p_value",
      ].contains(name)
  }
}

extension AnalysedTask {
  init(_ definition: TaskDefinition) {
    let relation: Relation =
      switch definition.relation {
      case .direct: .direct
      case .indirect: .indirect
      case .placebo: .placebo
      }
    self.init(
      id: definition.id, domain: definition.domain, relation: relation,
      headlines: definition.headlines.map {
        Headline(
          metric: $0.metric, measure: $0.items, role: $0.role == .skill ? .skill : .bias,
          chance: $0.chance)
      })
  }
}
