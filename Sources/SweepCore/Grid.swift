/// One declared combination of the grid's axes.
package struct GridPoint: Hashable, Sendable {
  package let task: DownstreamTask
  package let bias: BiasType
  package let ratio: Double
  package let mitigation: Mitigation
  package let seed: UInt64
  /// Whose D_a it is: 1 for the base model's, r for that of the fine-tune of round r − 1.
  package let round: Int

  /// The trial that yields this point's result. At ratio 0 there are no augmented data, so bias,
  /// mitigation and round make no difference and all such points share one trial; nor does the round
  /// where D_a is written by nobody.
  package var trial: Trial {
    ratio == 0
      ? Trial(task: task, bias: nil, ratio: 0, mitigation: .none, seed: seed, round: 1)
      : Trial(
        task: task, bias: bias, ratio: ratio, mitigation: mitigation, seed: seed,
        round: bias == .sameSize ? 1 : round)
  }
}

/// A distinct experiment: one fine-tuned model evaluated on one downstream task.
package struct Trial: Hashable, Sendable {
  package let task: DownstreamTask
  /// Nil exactly at ratio 0.
  package let bias: BiasType?
  package let ratio: Double
  package let mitigation: Mitigation
  package let seed: UInt64
  package let round: Int

  /// Readable and unique within a sweep: `task/bias/ratio/mitigation/seed`, and `/round-2` from the
  /// second round on.
  package var id: TrialID { TrialID("\(task.id)/\(trainingKey.conditions)") }

  /// The fine-tune that this trial evaluates.
  package var trainingKey: TrainingKey {
    TrainingKey(
      domain: task.domain, bias: bias, ratio: ratio, mitigation: mitigation, seed: seed,
      round: round)
  }
}

package struct TrialID: Hashable, Sendable, Comparable, Codable, CustomStringConvertible {
  package let description: String
  package init(_ text: String) { description = text }
  package init(from decoder: any Decoder) throws {
    description = try decoder.singleValueContainer().decode(String.self)
  }
  package func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }
  package static func < (left: TrialID, right: TrialID) -> Bool {
    left.description < right.description
  }
}

/// The cartesian product tasks × biases × ratios × mitigations × seeds × rounds, in the spec's order.
package struct Grid: Sendable {
  package let points: [GridPoint]
  /// The distinct trials, in the order of their first point.
  package let trials: [Trial]

  /// - Parameter tasks: the spec's tasks, resolved in the catalogue.
  package init(spec: SweepSpec, tasks: [DownstreamTask]) {
    var points: [GridPoint] = []
    points.reserveCapacity(
      tasks.count * spec.biases.count * spec.ratios.count * spec.mitigations.count
        * spec.seeds.count * spec.rounds)
    for task in tasks {
      for bias in spec.biases {
        for ratio in spec.ratios {
          for mitigation in spec.mitigations {
            for seed in spec.seeds {
              for round in 1...spec.rounds {
                points.append(
                  GridPoint(
                    task: task, bias: bias, ratio: ratio, mitigation: mitigation, seed: seed,
                    round: round))
              }
            }
          }
        }
      }
    }
    self.points = points
    var seen = Set<Trial>(minimumCapacity: points.count)
    self.trials = points.map(\.trial).filter { seen.insert($0).inserted }
  }
}
