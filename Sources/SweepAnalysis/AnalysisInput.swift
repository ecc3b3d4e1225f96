import SweepCore

/// What the analysis knows of a task.
package struct AnalysedTask: Hashable, Sendable {
  package enum Relation: String, Hashable, Sendable {
    case direct, indirect, placebo
  }

  package struct Headline: Hashable, Sendable {
    package let metric: String
    /// The measure of the test items whose mean the metric is; nil if it is not such a mean.
    package let measure: String?
    package let role: HeadlineRole
    /// What guessing would reach.
    package let chance: Double?

    package init(metric: String, measure: String?, role: HeadlineRole, chance: Double? = nil) {
      self.metric = metric
      self.measure = measure
      self.role = role
      self.chance = chance
    }
  }

  package let id: String
  package let domain: Domain
  package let relation: Relation
  package let headlines: [Headline]

  package init(id: String, domain: Domain, relation: Relation, headlines: [Headline]) {
    self.id = id
    self.domain = domain
    self.relation = relation
    self.headlines = headlines
  }
}

/// The result of one distinct trial.
package struct AnalysedTrial: Sendable {
  package let task: String
  /// Nil at ratio 0.
  package let bias: String?
  package let ratio: Double
  package let mitigation: String
  package let seed: Int64
  /// Of inheritance, from 1.
  package let round: Int
  package let metrics: [String: Double]
  /// Values of the test items by measure; NaN where undefined. The measure `cluster`, if there is
  /// one, numbers the cluster of each item.
  package let items: [String: [Double]]

  package init(
    task: String, bias: String?, ratio: Double, mitigation: String, seed: Int64, round: Int = 1,
    metrics: [String: Double], items: [String: [Double]]
  ) {
    self.task = task
    self.bias = bias
    self.ratio = ratio
    self.mitigation = mitigation
    self.seed = seed
    self.round = round
    self.metrics = metrics
    self.items = items
  }
}

/// A property of a D_a, as the shard that made it measured it.
package struct AnalysedFact: Hashable, Sendable {
  package let domain: Domain
  package let bias: String
  /// The round whose fine-tunes use the D_a.
  package let round: Int
  /// Of the fine-tune that wrote the D_a; nil in the first round.
  package let ratio: Double?
  package let mitigation: String?
  package let name: String
  package let value: Double

  package init(
    domain: Domain, bias: String, round: Int = 1, ratio: Double? = nil, mitigation: String? = nil,
    name: String, value: Double
  ) {
    self.domain = domain
    self.bias = bias
    self.round = round
    self.ratio = ratio
    self.mitigation = mitigation
    self.name = name
    self.value = value
  }
}

/// All that findings are computed from.
package struct AnalysisInput: Sendable {
  package let tasks: [AnalysedTask]
  package let trials: [AnalysedTrial]
  package let facts: [AnalysedFact]

  package init(tasks: [AnalysedTask], trials: [AnalysedTrial], facts: [AnalysedFact]) {
    self.tasks = tasks
    self.trials = trials
    self.facts = facts
  }
}
