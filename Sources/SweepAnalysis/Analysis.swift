import RandomStreams
import SweepCore
import SweepStatistics

/// Turns the results of a sweep into findings: a pure function of its input, so that findings that
/// were computed as results arrived equal those computed from all results at once.
package struct Analysis {
  /// Part of every finding's inputs; raised when a definition changes.
  private static let method = "1"

  let input: AnalysisInput
  private let known: [String: Finding]
  private var findings: [Finding] = []
  /// Findings that were computed anew.
  package private(set) var computed = 0

  /// - Parameter previous: findings of an earlier state of the same sweep; those with equal inputs
  ///   are taken over.
  package static func findings(
    of input: AnalysisInput, previous: [Finding] = []
  ) -> (findings: [Finding], computed: Int) {
    var analysis = Analysis(input: input, previous: previous)
    analysis.run()
    return (analysis.findings.sorted { $0.id < $1.id }, analysis.computed)
  }

  private init(input: AnalysisInput, previous: [Finding]) {
    self.input = input
    known = Dictionary(previous.map { ($0.id, $0) }) { first, _ in first }
  }

  private mutating func run() {
    var inherited: [Inherited] = []
    for task in input.tasks {
      let trials = input.trials.filter { $0.task == task.id }
      guard !trials.isEmpty else { continue }
      for headline in task.headlines {
        inherited += analyse(task, headline, trials)
      }
    }
    compareRelations(inherited)
    compareMitigations(inherited)
    associate(inherited)
    associateOverUnits()
    adjust()
  }

  /// Adds a finding, taken over from before if its inputs are the same.
  mutating func add(
    _ finding: Finding, _ compute: (inout Finding) -> Void
  ) {
    if var same = known[finding.id], same.inputs == finding.inputs {
      same.adjustedPValue = nil
      findings.append(same)
      return
    }
    var finding = finding
    compute(&finding)
    if finding.estimate == nil && finding.note == nil { finding.note = "there are no values" }
    computed += 1
    findings.append(finding)
  }

  static func inputs(_ parts: String...) -> ContentDigest {
    ContentDigest(of: ([method] + parts).joined(separator: "\n").utf8)
  }

  // MARK: One metric of one task

  /// What a metric inherits under one condition, in standard deviations of the items at ratio 0.
  private struct Inherited {
    let task: AnalysedTask
    let headline: AnalysedTask.Headline
    let condition: Condition
    let standardised: Double
    let digest: ContentDigest
  }

  struct Condition: Hashable, Comparable, CustomStringConvertible {
    /// Empty at ratio 0.
    var bias: String
    var ratio: Double
    var mitigation: String
    var round = 1

    /// The same under another mitigation.
    func under(_ other: String) -> Condition {
      var condition = self
      condition.mitigation = other
      return condition
    }

    static func < (left: Condition, right: Condition) -> Bool {
      (left.bias, left.mitigation, left.ratio, left.round)
        < (right.bias, right.mitigation, right.ratio, right.round)
    }

    /// Part of the inputs of findings: what it says of the first round stays as it is.
    var description: String {
      "Condition(bias: \(bias.debugDescription), ratio: \(ratio), mitigation: "
        + "\(mitigation.debugDescription))" + Analysis.suffix(round: round)
    }
  }

  /// What a later round adds to the name of a family: comparisons are adjusted within a round.
  static func suffix(round: Int) -> String { round == 1 ? "" : " round \(round)" }

  /// Name of the control that adds original items.
  static let sameSize = "same-size"
  static let none = "none"

  private mutating func analyse(
    _ task: AnalysedTask, _ headline: AnalysedTask.Headline, _ trials: [AnalysedTrial]
  ) -> [Inherited] {
    let grouped = Dictionary(grouping: trials) {
      Condition(
        bias: $0.bias ?? "", ratio: $0.ratio, mitigation: $0.mitigation, round: $0.round)
    }
    let samples = grouped.compactMapValues { Sample($0, headline) }
    let itemCount = samples.values.compactMap { $0.items?.first?.count }.max() ?? 0
    let clusters = trials.lazy.compactMap { $0.items["cluster"] }.first { $0.count == itemCount }
    var resamples = Resamples(task: task.id, items: itemCount, clusters: clusters)
    // The clusters are part of what every finding of the task rests on.
    let basis = ContentDigest(of: resamples.clusters.map(String.init).joined(separator: ",").utf8)

    func finding(
      _ kind: Finding.Kind, _ condition: Condition?, _ sample: Sample, _ more: String = ""
    ) -> Finding {
      var finding = Finding(
        kind,
        inputs: Self.inputs(
          task.id, headline.metric, "\(headline.chance ?? -1)", basis.description,
          sample.digest.description, more))
      finding.task = task.id
      finding.metric = headline.metric
      finding.role = headline.role
      finding.bias = condition.flatMap { $0.bias.isEmpty ? nil : $0.bias }
      finding.ratio = condition?.ratio
      finding.mitigation = condition?.mitigation
      finding.round = condition?.round ?? 1
      return finding
    }

    let conditions = samples.keys.sorted()
    for condition in conditions {
      guard let sample = samples[condition] else { continue }
      add(finding(.level, condition, sample)) {
        Self.describe(&$0, sample, &resamples)
      }
    }
    guard let originalCondition = conditions.first(where: { $0.ratio == 0 }),
      let original = samples[originalCondition]
    else { return [] }
    if headline.role == .skill, let chance = headline.chance {
      add(finding(.skill, originalCondition, original)) { finding in
        Self.describe(&finding, original, &resamples)
        finding.note = Self.skillNote(finding, chance: chance)
      }
    }

    let spread = original.itemMeans.flatMap { standardDeviation($0.filter { !$0.isNaN }) }
    var inherited: [Inherited] = []
    var differences: [Condition: Sample] = [:]
    for condition in conditions where condition.ratio > 0 {
      guard let sample = samples[condition], let difference = Sample.difference(sample, original)
      else { continue }
      differences[condition] = difference
      add(finding(.inheritance, condition, difference, "\(spread ?? -1)")) { finding in
        finding.family =
          "inheritance \(headline.role.rawValue) \(condition.mitigation)"
          + Self.suffix(round: condition.round)
        Self.test(&finding, difference, &resamples)
        if let spread, spread > 0, let estimate = finding.estimate {
          finding.effectSize = estimate / spread
        }
      }
      if let spread, spread > 0, let estimate = findings.last?.estimate {
        inherited.append(
          Inherited(
            task: task, headline: headline, condition: condition, standardised: estimate / spread,
            digest: difference.digest))
      }
      if condition.round > 1 {
        var first = condition
        first.round = 1
        if let base = samples[first], let drift = Sample.difference(sample, base) {
          add(finding(.drift, condition, drift, "\(spread ?? -1)")) { finding in
            finding.family =
              "drift \(headline.role.rawValue) \(condition.mitigation)"
              + Self.suffix(round: condition.round)
            Self.test(&finding, drift, &resamples)
            if let spread, spread > 0, let estimate = finding.estimate {
              finding.effectSize = estimate / spread
            }
          }
        }
      }
      // Nobody writes the items of the control, so it is the same in every round.
      let control = Condition(
        bias: Self.sameSize, ratio: condition.ratio, mitigation: Self.none)
      if condition.bias != Self.sameSize, condition.mitigation == Self.none,
        let base = samples[control], let difference = Sample.difference(sample, base)
      {
        add(finding(.againstSameSize, condition, difference)) { finding in
          finding.family =
            "against same size \(headline.role.rawValue)" + Self.suffix(round: condition.round)
          Self.test(&finding, difference, &resamples)
        }
      }
      let unmitigated = condition.under(Self.none)
      if condition.mitigation != Self.none, let base = samples[unmitigated],
        let difference = Sample.difference(sample, base)
      {
        add(finding(.mitigation, condition, difference)) { finding in
          finding.family =
            "mitigation \(headline.role.rawValue) \(condition.mitigation)"
            + Self.suffix(round: condition.round)
          Self.test(&finding, difference, &resamples)
        }
        if let with = differences[condition],
          let without = differences[unmitigated] ?? Sample.difference(base, original)
        {
          add(finding(.recovery, condition, with, without.digest.description)) {
            Self.recover(&$0, with: with, without: without, &resamples)
          }
        }
      }
    }
    addSlopes(samples, original, finding: finding, role: headline.role, &resamples)
    compareGenders(headline, grouped, spread: spread, finding: finding, &resamples)
    return inherited
  }

  private mutating func addSlopes(
    _ samples: [Condition: Sample], _ original: Sample,
    finding: (Finding.Kind, Condition?, Sample, String) -> Finding, role: HeadlineRole,
    _ resamples: inout Resamples
  ) {
    let series = Dictionary(grouping: samples.keys.filter { $0.ratio > 0 }) {
      Condition(bias: $0.bias, ratio: -1, mitigation: $0.mitigation, round: $0.round)
    }
    for (key, conditions) in series.sorted(by: { $0.key < $1.key }) {
      let sorted = conditions.sorted()
      let ratios = [0] + sorted.map(\.ratio)
      guard ratios.count > 2, let center = mean(ratios) else { continue }
      // The least-squares slope is a linear combination of the values.
      let spread = compensatedSum(ratios.lazy.map { ($0 - center) * ($0 - center) })
      let weights = ratios.map { ($0 - center) / spread }
      guard
        let slope = Sample.combination(
          [original] + sorted.compactMap { samples[$0] }, weights: weights)
      else { continue }
      var result = finding(.slope, key, slope, "")
      result.ratio = nil
      add(result) { finding in
        finding.family =
          "slope \(role.rawValue) \(key.mitigation)" + Self.suffix(round: key.round)
        Self.test(&finding, slope, &resamples)
      }
    }
  }

  // MARK: Estimates

  private static let level = 0.95

  /// Estimate, standard error over seeds, and interval over seeds and items.
  private static func describe(
    _ finding: inout Finding, _ sample: Sample, _ resamples: inout Resamples
  ) {
    finding.seeds = sample.seeds.count
    finding.items = sample.definedItems
    finding.standardError = standardError(sample.values)
    guard let means = sample.itemMeans else {
      finding.estimate = sample.mean
      if sample.seeds.count == 1 {
        finding.note = "one seed, and no values of single items: no interval"
      }
      return
    }
    let defined = means.filter { !$0.isNaN }
    guard defined.count >= itemsMin, let estimate = mean(defined) else {
      finding.note = "fewer than \(itemsMin) items have a value"
      return
    }
    finding.estimate = estimate
    let interval = resamples.bootstrap(seeds: sample.seeds.count).interval(level: level) {
      sample.mean(of: $0)
    }
    finding.lower = interval?.lower
    finding.upper = interval?.upper
    if interval == nil { finding.note = "too many resamples have no value: no interval" }
  }

  /// Statements about fewer items are not made.
  private static let itemsMin = 5

  /// As `describe`, with a test against 0: signs of whole clusters of items are flipped, or of seeds
  /// where there are no values of items.
  static func test(
    _ finding: inout Finding, _ difference: Sample, _ resamples: inout Resamples
  ) {
    describe(&finding, difference, &resamples)
    guard finding.estimate != nil else { return }
    var stream = RandomStream(seed: 0, purpose: "permutation \(finding.id)")
    if let means = difference.itemMeans {
      let defined = means.indices.filter { !means[$0].isNaN }
      finding.pValue =
        signFlipTest(
          defined.map { means[$0] }, clusters: defined.map { resamples.clusters[$0] },
          using: &stream)?.pValue
    } else if difference.seeds.count > 1 {
      finding.pValue = signFlipTest(difference.values, using: &stream)?.pValue
    }
  }

  /// The rule, fixed before any result: a task has skill if the whole interval lies above chance.
  private static func skillNote(_ finding: Finding, chance: Double) -> String? {
    guard let lower = finding.lower else { return "no interval: skill is not known" }
    return lower > chance
      ? nil : "no skill: not interpretable (the interval reaches chance, \(chance))"
  }

  /// 1 − with / without. The ratio means nothing where its denominator may be 0.
  private static func recover(
    _ finding: inout Finding, with: Sample, without: Sample, _ resamples: inout Resamples
  ) {
    var denominator = finding
    describe(&denominator, without, &resamples)
    describe(&finding, with, &resamples)
    let numerator = finding.estimate
    finding.estimate = nil
    finding.standardError = nil
    finding.lower = nil
    finding.upper = nil
    guard with.seeds == without.seeds, let above = numerator, let below = denominator.estimate,
      denominator.excludesZero
    else {
      finding.note = "without the mitigation no inheritance is certain that could be recovered from"
      return
    }
    finding.estimate = 1 - above / below
    let interval = resamples.bootstrap(seeds: with.seeds.count).interval(level: level) { resample in
      guard let above = with.mean(of: resample), let below = without.mean(of: resample), below != 0
      else { return nil }
      return 1 - above / below
    }
    finding.lower = interval?.lower
    finding.upper = interval?.upper
  }

  // MARK: Over tasks

  /// What direct tasks gain in skill, in standard deviations, less what indirect ones do, by bias,
  /// ratio and mitigation. Of several skill metrics of a task the mean counts, so that every task
  /// counts once.
  private mutating func compareRelations(_ inherited: [Inherited]) {
    let grouped = Dictionary(grouping: inherited.filter { $0.headline.role == .skill }) {
      $0.condition
    }
    for (condition, cells) in grouped.sorted(by: { $0.key < $1.key }) {
      func values(of relation: AnalysedTask.Relation) -> [Double] {
        let own = Dictionary(grouping: cells.filter { $0.task.relation == relation }, by: \.task.id)
        return own.sorted { $0.key < $1.key }.compactMap { mean($0.value.map(\.standardised)) }
      }
      let direct = values(of: .direct)
      let indirect = values(of: .indirect)
      guard let first = mean(direct), let second = mean(indirect) else { continue }
      var finding = Finding(
        .directAgainstIndirect, inputs: Self.inputs(digest(of: cells), "relation by task"))
      finding.role = .skill
      finding.bias = condition.bias
      finding.ratio = condition.ratio
      finding.mitigation = condition.mitigation
      finding.round = condition.round
      add(finding) { finding in
        finding.estimate = first - second
        finding.effectSize = first - second
        finding.items = direct.count + indirect.count
        finding.pValue = labelPermutationTest(direct, indirect)
        let interval = Self.intervalOfDifference(direct, indirect, id: finding.id)
        finding.lower = interval?.lower
        finding.upper = interval?.upper
        finding.family =
          "direct against indirect \(condition.mitigation)" + Self.suffix(round: condition.round)
        finding.note = "\(direct.count) direct, \(indirect.count) indirect tasks"
      }
    }
  }

  /// Of resamples of the tasks of either kind, drawn independently; nil where one task stands for all
  /// of its kind. Rough, since there are few tasks.
  private static func intervalOfDifference(
    _ first: [Double], _ second: [Double], id: String
  ) -> Interval? {
    guard first.count > 1, second.count > 1 else { return nil }
    var stream = RandomStream(seed: 0, purpose: "bootstrap \(id)")
    let bootstrap = CrossedBootstrap(
      seeds: first.count, clusters: Array(second.indices), count: Resamples.count, using: &stream)
    return bootstrap.interval(level: level) { resample in
      guard let left = mean(resample.seeds.map { first[$0] }),
        let right = mean(resample.items.map { second[$0] })
      else { return nil }
      return left - right
    }
  }

  /// For each mitigation in each round: how much less of the magnitude of inheritance remains, tested
  /// by flipping signs of whole tasks.
  private mutating func compareMitigations(_ inherited: [Inherited]) {
    struct Cell: Hashable {
      let task: String
      let metric: String
      let bias: String
      let ratio: Double
    }
    let rounds = Set(inherited.map(\.condition.round)).sorted()
    for (role, round) in HeadlineRole.allCases.flatMap({ role in rounds.map { (role, $0) } }) {
      let cells = inherited.filter {
        $0.headline.role == role && $0.task.relation != .placebo
          && $0.condition.bias != Self.sameSize && $0.condition.round == round
      }
      func cell(_ inherited: Inherited) -> Cell {
        Cell(
          task: inherited.task.id, metric: inherited.headline.metric,
          bias: inherited.condition.bias, ratio: inherited.condition.ratio)
      }
      let without = Dictionary(
        cells.filter { $0.condition.mitigation == Self.none }.map { (cell($0), $0) }
      ) { first, _ in first }
      let mitigations = Set(cells.map(\.condition.mitigation)).subtracting([Self.none]).sorted()
      for mitigation in mitigations {
        let pairs = cells.filter { $0.condition.mitigation == mitigation }.compactMap { with in
          without[cell(with)].map { (with: with, without: $0) }
        }
        guard !pairs.isEmpty else { continue }
        let tasks = pairs.map(\.with.task.id)
        let order = Array(Set(tasks)).sorted()
        let clusters = tasks.map { order.firstIndex(of: $0) ?? 0 }
        let gains = pairs.map { abs($0.without.standardised) - abs($0.with.standardised) }
        var finding = Finding(
          .mitigationOverall,
          inputs: Self.inputs(digest(of: pairs.flatMap { [$0.with, $0.without] }), role.rawValue))
        finding.role = role
        finding.mitigation = mitigation
        finding.round = round
        add(finding) { finding in
          finding.items = gains.count
          finding.estimate = mean(gains)
          finding.effectSize = finding.estimate
          finding.family = "mitigation overall \(role.rawValue)" + Self.suffix(round: round)
          var stream = RandomStream(seed: 0, purpose: "permutation \(finding.id)")
          finding.pValue = signFlipTest(gains, clusters: clusters, using: &stream)?.pValue
          var resampling = RandomStream(seed: 0, purpose: "bootstrap \(finding.id)")
          let bootstrap = CrossedBootstrap(
            seeds: 1, clusters: clusters, count: Resamples.count, using: &resampling)
          let interval = bootstrap.intervalOfMean([gains], level: Self.level)
          finding.lower = interval?.lower
          finding.upper = interval?.upper
          finding.note = "\(order.count) tasks, \(gains.count) conditions"
        }
      }
    }
  }

  private func digest(of cells: [Inherited]) -> String {
    ContentDigest(
      of: cells.map {
        "\($0.task.id) \($0.task.relation) \($0.headline.metric) \($0.condition) \($0.standardised)"
      }.sorted().joined(separator: "\n").utf8
    ).description
  }

  /// Which property of D_a goes with what is inherited: over the bias types of a domain, at the
  /// largest ratio and without mitigation, in each round. What cannot differ between bias types is
  /// left out.
  private mutating func associate(_ inherited: [Inherited]) {
    let names = Set(input.facts.map(\.name)).sorted()
    let known = Dictionary(grouping: input.facts, by: Property.init)
    let rounds = Set(inherited.map(\.condition.round)).sorted()
    for task in input.tasks where task.relation != .placebo {
      for (headline, round) in task.headlines.flatMap({ line in rounds.map { (line, $0) } }) {
        let own = inherited.filter {
          $0.task.id == task.id && $0.headline == headline && $0.condition.mitigation == Self.none
            && $0.condition.bias != Self.sameSize && $0.condition.round == round
        }
        guard let largest = own.map(\.condition.ratio).max() else { continue }
        let cells = own.filter { $0.condition.ratio == largest }.sorted {
          $0.condition < $1.condition
        }
        for name in names where Self.mayDiffer(name, round: round) {
          let property = Property(name: name, domain: task.domain, round: round)
          let facts = Self.values(known[property, default: []], ratio: largest)
          let pairs = cells.compactMap { cell in
            facts[cell.condition.bias].map { (x: $0, y: abs(cell.standardised)) }
          }
          guard pairs.count >= Self.associationMin else { continue }
          var finding = Finding(
            .association,
            inputs: Self.inputs(
              pairs.map { "\($0.x) \($0.y)" }.joined(separator: ","), "with interval"))
          finding.task = task.id
          finding.metric = headline.metric
          finding.role = headline.role
          finding.ratio = largest
          finding.mitigation = Self.none
          finding.predictor = name
          finding.round = round
          add(finding) { finding in
            Self.correlate(&finding, pairs.map(\.x), pairs.map(\.y))
            finding.family =
              "association \(headline.role.rawValue)" + Self.suffix(round: round)
          }
        }
      }
    }
  }

  /// Whether a property can tell the bias types of a domain apart. Published figures cannot; values
  /// and the view of groups are the writer's, which is the base model in the first round, whatever
  /// it is asked to write.
  private static func mayDiffer(_ name: String, round: Int) -> Bool {
    let isOfWriter = ["values_", "groups_"].contains { name.hasPrefix($0) }
    return !name.hasPrefix("published_") && (round > 1 || !isOfWriter)
  }

  /// The rank correlation of `x` and `y` (of one length) with its interval and p.
  static func correlate(_ finding: inout Finding, _ x: [Double], _ y: [Double]) {
    finding.items = x.count
    finding.estimate = rankCorrelation(x, y)
    if finding.estimate == nil { finding.note = "one side does not vary" }
    var stream = RandomStream(seed: 0, purpose: "permutation \(finding.id)")
    finding.pValue = rankCorrelationTest(x, y, using: &stream)?.pValue
    let interval = correlationInterval(x, y, id: finding.id)
    finding.lower = interval?.lower
    finding.upper = interval?.upper
  }

  /// Of resamples of what is ranked, so rough: there is little of it. Nil where the correlation is.
  private static func correlationInterval(
    _ x: [Double], _ y: [Double], id: String
  ) -> Interval? {
    guard rankCorrelation(x, y) != nil else { return nil }
    var stream = RandomStream(seed: 0, purpose: "bootstrap \(id)")
    let bootstrap = CrossedBootstrap(
      seeds: 1, clusters: Array(x.indices), count: Resamples.count, using: &stream)
    return bootstrap.interval(level: level) { resample in
      rankCorrelation(resample.items.map { x[$0] }, resample.items.map { y[$0] })
    }
  }

  /// A property of D_a in the sets of a domain and round.
  private struct Property: Hashable {
    let name: String
    let domain: Domain
    let round: Int

    init(name: String, domain: Domain, round: Int) {
      self.name = name
      self.domain = domain
      self.round = round
    }

    init(_ fact: AnalysedFact) {
      self.init(name: fact.name, domain: fact.domain, round: fact.round)
    }
  }

  /// A property by bias type. In the first round one set serves all; in later ones each seed has its
  /// own, and the mean over those without mitigation counts.
  private static func values(_ facts: [AnalysedFact], ratio: Double) -> [String: Double] {
    if facts.first?.round == 1 {
      return Dictionary(facts.map { ($0.bias, $0.value) }) { first, _ in first }
    }
    let own = facts.filter { $0.ratio == ratio && $0.mitigation == none }
    return Dictionary(grouping: own, by: \.bias).compactMapValues { mean($0.map(\.value)) }
  }

  /// Ranks of fewer bias types, occupations or cultures say nothing.
  static let associationMin = 4

  /// Holm's adjustment within each family.
  private mutating func adjust() {
    let families = Dictionary(
      grouping: findings.indices.filter {
        findings[$0].family != nil && findings[$0].pValue != nil
      }
    ) { findings[$0].family ?? "" }
    for indices in families.values {
      let adjusted = holmAdjusted(indices.map { findings[$0].pValue ?? 1 })
      for (index, value) in zip(indices, adjusted) { findings[index].adjustedPValue = value }
    }
  }
}
