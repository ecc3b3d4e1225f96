import SweepCore

/// Work of a grid that is done once and used many times.
///
/// A part that is left out is done again wherever it is needed, which takes longer. It changes no
/// bit of any result, but for `trainingPrefixes`, which changes the order of sums.
package struct Sharing: OptionSet, Hashable, Sendable {
  package let rawValue: Int
  package init(rawValue: Int) { self.rawValue = rawValue }

  /// One fine-tune serves all tasks of its domain and, at ratio 0, all biases and mitigations.
  package static let fineTunes = Sharing(rawValue: 1)
  /// The outputs of frozen layers are kept, in memory and on disk.
  package static let trunk = Sharing(rawValue: 2)
  /// The common beginnings of what is scored together are computed once.
  package static let evaluationPrefixes = Sharing(rawValue: 4)
  /// The common beginnings of a training step's items are computed once, forwards and backwards.
  package static let trainingPrefixes = Sharing(rawValue: 8)

  package static let all: Sharing = [.fineTunes, .trunk, .evaluationPrefixes, .trainingPrefixes]

  /// The parts by name, as in options.
  package static let named: [(name: String, part: Sharing)] = [
    ("fine-tunes", .fineTunes), ("trunk", .trunk), ("evaluation-prefixes", .evaluationPrefixes),
    ("training-prefixes", .trainingPrefixes),
  ]

  /// The fine-tunes of a plan and the trials that each is evaluated for: those of its shards or,
  /// without `fineTunes`, one for each point of the grid.
  package func fineTunes(of plan: ShardPlan) -> [(key: TrainingKey, trials: [Trial])] {
    guard contains(.fineTunes) else {
      return plan.grid.points.map { point in
        let key = TrainingKey(
          domain: point.task.domain, bias: point.bias, ratio: point.ratio,
          mitigation: point.mitigation, seed: point.seed, round: point.trial.round)
        return (key, [point.trial])
      }
    }
    return plan.shards.compactMap { shard in
      guard case .fineTune(let key, let trials) = shard.work else { return nil }
      return (key, trials)
    }
  }
}
