import SweepCore

/// A paragraph on methods for a paper, from the resolved spec.
enum MethodsParagraph {
  static func text(_ data: ReportData) -> String {
    let spec = data.sweep.spec
    let training = spec.training
    let schedule =
      "\(counted(training.epochs, "epoch")), batches of \(training.batchSize), learning rate "
      + "\(NumberText.plain(training.learningRate)) with a warm-up over the first "
      + "\(NumberText.plain(training.warmupFraction * 100)) % of the steps, weight decay "
      + "\(NumberText.plain(training.weightDecay)), gradients clipped to norm "
      + NumberText.plain(training.gradientClip)
    let seedCount = countedSeeds(data)
    return """
      We fine-tuned \(spec.model) on D = D_o ∪ D_a. D_o holds \(spec.data.originalItems) \
      bias-carrying original items of a domain and \(spec.data.formatItems) format examples of each of \
      its tasks. |D_a| = γ/(1 − γ)·|D_o| further items were made at γ ∈ {\(ratios(spec))} under \
      \(counted(spec.biases.count, "condition")) (\(list(spec.biases.map(\.rawValue)))) by \
      \(generator(spec)). Mitigations: \(list(spec.mitigations.map { mitigation($0, spec) })). Training \
      was of \(ReportPage.method(training)), in \
      \(training.topLayers.map { "the top \($0) layers" } ?? "all layers"), with AdamW: \(schedule). \
      Each of \(counted(spec.seeds.count, "seed")) fixes the start of the trained parameters and the \
      order of the data over all conditions; one fine-tune serves all tasks of its domain.\(rounds(spec)) Every model \
      was evaluated on at most \(spec.data.testItems) test items of each of \
      \(counted(spec.tasks.count, "task")): \(tasks(spec)). Differences from γ = 0 are paired by seed \
      and item; intervals are 95 % percentile intervals of 2,000 bootstrap resamples of \
      \(resampled(seedCount)); p-values are of two-sided sign-flip tests over clusters of items, \
      adjusted by Holm’s method within families fixed beforehand and named in the ledger; \
      associations are Spearman’s, tested by permutation over bias types, occupations or cultures. A \
      task is interpreted only if the whole interval of a skill metric at γ = 0 lies above \
      chance.\(claims(seedCount)) BiasSweep \(data.sweep.programVersion), \
      spec \(data.sweep.specDigest.prefix(12)), results \(data.resultDigest.description.prefix(12)).\
      \(missing(data))
      """
  }

  /// Fewer seeds support no claim about models.
  private static let seedsMin = 3

  /// How many seeds a number rests on at most: fewer than the spec's where results are missing.
  private static func countedSeeds(_ data: ReportData) -> Int {
    let found = data.findings.map(\.seeds).filter { $0 > 0 }.max()
    return min(data.sweep.spec.seeds.count, found ?? .max)
  }

  private static func resampled(_ seeds: Int) -> String {
    seeds == 1
      ? "clusters of items, which with one seed say nothing of how another would come out"
      : "seeds × clusters of items"
  }

  private static func claims(_ seeds: Int) -> String {
    seeds < seedsMin
      ? " A claim about models needs at least \(seedsMin) seeds; with "
        + "\(counted(seeds, "seed")) what is found here supports none."
      : ""
  }

  private static func counted(_ count: Int, _ noun: String) -> String {
    "\(count) \(noun)\(count == 1 ? "" : "s")"
  }

  /// What is there of a sweep that is not complete; empty for one that is.
  private static func missing(_ data: ReportData) -> String {
    let status = data.status
    guard status.completed < status.trials else { return "" }
    var text = " The sweep is not complete (\(status.completed) of \(status.trials) trials)."
    if let original = data.coverage.original, original != .whole {
      text += original == .none ? " There are no results at γ = 0." : " γ = 0 is there in part."
    }
    let found = data.coverage.mitigations.compactMap { mitigation, extents -> String? in
      let present = extents.filter { $0.extent != .none }.map {
        NumberText.plain($0.ratio) + ($0.extent == .part ? " (in part)" : "")
      }
      return present.isEmpty ? nil : "\(mitigation) at γ = \(list(present))"
    }
    text +=
      found.isEmpty
      ? " Beside γ = 0 there are no results."
      : " Beside γ = 0 there are results of: \(found.joined(separator: "; "))."
    return text
      + " Holm’s adjustment is over the tests made so far; with the remaining ones adjusted p-values "
      + "will rise."
  }

  private static func list(_ items: [String]) -> String { items.joined(separator: ", ") }

  private static func rounds(_ spec: SweepSpec) -> String {
    spec.rounds == 1
      ? ""
      : " In each of \(spec.rounds) rounds the base model was fine-tuned anew; from the second round on "
        + "the model fine-tuned in the round before, under the same conditions and seed, generated D_a."
  }

  private static func ratios(_ spec: SweepSpec) -> String {
    list(spec.ratios.map(NumberText.plain))
  }

  private static func generator(_ spec: SweepSpec) -> String {
    let settings = spec.augmentation
    let sampling =
      "temperature \(NumberText.plain(settings.temperature)), top-k \(settings.topK), at most "
      + "\(settings.maximumTokens) tokens"
    return switch settings.generator {
    case .model: "the model itself (\(sampling))"
    case .template:
      "templates with a planted association of strength \(NumberText.plain(settings.strength ?? 1))"
    case .endpoint:
      "\(settings.endpoint?.model ?? "a model") behind an endpoint (\(sampling))"
    }
  }

  private static func mitigation(_ mitigation: Mitigation, _ spec: SweepSpec) -> String {
    switch mitigation {
    case .loss: "loss (λ = \(NumberText.plain(spec.mitigation.lossWeight)))"
    case .lossReweight:
      "loss-reweight (τ = \(NumberText.plain(spec.mitigation.reweightExponent ?? 1)))"
    case .token: "token (“\(spec.mitigation.tokenPrefix)”)"
    case .mask: "mask (\(spec.mitigation.maskWord))"
    case .none, .tokenDecoding, .maskNeutral: mitigation.rawValue
    }
  }

  private static func tasks(_ spec: SweepSpec) -> String {
    list(
      spec.tasks.map { task in
        spec.taskDefinitions[task].map {
          "\(task) (\($0.domain.rawValue), \($0.relation.rawValue))"
        }
          ?? task
      })
  }
}
