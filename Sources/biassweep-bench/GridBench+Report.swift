import BiasStudy
import Foundation
import SweepCore

extension GridBench {
  struct Report: Encodable {
    var benchmark = "grid"
    var domain: String
    var top_layers: Int
    /// Grid points: tasks × biases × ratios × mitigations × seeds.
    var trials: Int
    var own_fine_tunes: Int
    var own_fine_tunes_timed: Int
    var own_seconds: Double?
    var own_trials_per_hour: Double?
    var own_disk_megabytes: Int
    var reference_fine_tunes: Int
    var reference_fine_tunes_timed: Int
    var reference_seconds: Double?
    var reference_trials_per_hour: Double?
    /// Trials per hour, ours over the reference's.
    var factor: Double?
    /// The same with the reference's repetitions at ratio 0 left out.
    var factor_distinct: Double?
    /// As `factor`, by processor time, which other programs on the machine disturb less.
    var factor_processor: Double?
    /// Mean seconds of a fine-tune and its evaluation, by ratio.
    var by_ratio: [String: Times] = [:]
    /// Largest and mean difference of the final loss between the sides, over equal fine-tunes.
    var loss_difference_largest: Double?
    var loss_mean_own: Double?
    var loss_mean_reference: Double?
    var accuracy_mean_own: Double?
    var accuracy_mean_reference: Double?
    /// Trials run both with everything shared and with less, and how many agree in every bit.
    var exactness: [String: String]

    struct Times: Encodable {
      var own: Double?
      var own_training: Double?
      var reference: Double?
      var reference_training: Double?
      var own_processor: Double?
      var reference_processor: Double?
    }
  }

  /// Totals over all lines; the fine-tunes timed at a ratio stand for all at this ratio, whose times
  /// differ little but for what is new to the caches. A ratio of which none was timed leaves the
  /// totals out.
  func report() throws -> Report {
    let fineTunes = sharing.fineTunes(of: plan)
    let own = try lines(ownFile(sharing), OwnLine.self)
    let reference = try lines("reference.jsonl", ReferenceLine.self)
    let trials = plan.grid.points.count
    let jobs = trials / definition.tasks.count
    var report = Report(
      domain: domain.rawValue, top_layers: definition.spec.training.topLayers ?? 0, trials: trials,
      own_fine_tunes: fineTunes.count, own_fine_tunes_timed: own.count,
      own_disk_megabytes: (store?.statistics.bytes ?? 0) >> 20, reference_fine_tunes: jobs,
      reference_fine_tunes_timed: reference.count, exactness: try exactness())

    var ownSeconds: Double? = 0
    var seconds: Double? = 0
    var distinctSeconds: Double? = 0
    var ownProcessor: Double? = 0
    var processor: Double? = 0
    func add(_ mean: Double?, times count: Int, to sum: inout Double?) {
      sum = mean.flatMap { mean in sum.map { $0 + mean * Double(count) } }
    }
    for ratio in definition.spec.ratios {
      let ours = own.filter { Self.ratio($0.conditions) == "\(ratio)" }
      let theirs = reference.filter { Self.ratio($0.conditions) == "\(ratio)" }
      let times = Report.Times(
        own: Self.mean(ours.map(\.seconds)),
        own_training: Self.mean(ours.map(\.training_seconds)),
        reference: Self.mean(theirs.map(\.seconds)),
        reference_training: Self.mean(theirs.map(\.training_seconds)),
        own_processor: Self.mean(ours.map(\.processor_seconds)),
        reference_processor: Self.mean(theirs.map(\.processor_seconds)))
      report.by_ratio["\(ratio)"] = times
      let ownCount = fineTunes.count { $0.key.ratio == ratio }
      add(times.own, times: ownCount, to: &ownSeconds)
      add(times.own_processor, times: ownCount, to: &ownProcessor)
      let count = jobs / definition.spec.ratios.count
      add(times.reference, times: count, to: &seconds)
      add(times.reference_processor, times: count, to: &processor)
      add(
        times.reference, times: ratio == 0 ? definition.spec.seeds.count : count,
        to: &distinctSeconds)
    }
    func perHour(_ seconds: Double?) -> Double? {
      seconds.map { (Double(trials) / $0 * 3600).rounded(to: 1) }
    }
    report.own_seconds = ownSeconds?.rounded(to: 1)
    report.own_trials_per_hour = perHour(ownSeconds)
    report.reference_seconds = seconds?.rounded(to: 1)
    report.reference_trials_per_hour = perHour(seconds)
    if let ownSeconds, let seconds, let distinctSeconds {
      report.factor = (seconds / ownSeconds).rounded(to: 2)
      report.factor_distinct = (distinctSeconds / ownSeconds).rounded(to: 2)
    }
    if let ownProcessor, let processor {
      report.factor_processor = (processor / ownProcessor).rounded(to: 2)
    }
    let ownByConditions = Dictionary(
      own.map { ($0.conditions, $0) }, uniquingKeysWith: { first, _ in first })
    let pairs = reference.compactMap { line in
      (ownByConditions[line.conditions] ?? ownByConditions[Self.baseline(line.conditions)])
        .map { ($0, line) }
    }
    guard !pairs.isEmpty else { return report }
    report.loss_difference_largest = pairs.map { abs($0.final_loss - $1.final_loss) }.max()
    report.loss_mean_own = Self.mean(pairs.map { $0.0.final_loss })
    report.loss_mean_reference = Self.mean(pairs.map { $0.1.final_loss })
    report.accuracy_mean_own = Self.mean(
      pairs.flatMap { $0.0.metrics.values.compactMap { $0["accuracy"] } })
    report.accuracy_mean_reference = Self.mean(
      pairs.flatMap { $0.1.tasks.values.compactMap(\.accuracy) })
    return report
  }

  private static func mean(_ values: [Double]) -> Double? {
    values.isEmpty ? nil : (values.reduce(0, +) / Double(values.count)).rounded(to: 4)
  }

  private static func ratio(_ conditions: String) -> String {
    let parts = conditions.split(separator: "/")
    return parts.count > 1 ? String(parts[1]) : ""
  }

  /// What a fine-tune at ratio 0 is called where it stands for all biases and mitigations.
  private static func baseline(_ conditions: String) -> String {
    let parts = conditions.split(separator: "/")
    return parts.count == 4 && parts[1] == "0.0"
      ? "original/0.0/none/\(parts[3])" : conditions
  }

  private func exactness() throws -> [String: String] {
    func trials(_ name: String) throws -> [String: [[String: Double]]] {
      try lines(name, OwnLine.self).reduce(into: [:]) { trials, line in
        for (trial, metrics) in line.metrics { trials[trial, default: []].append(metrics) }
      }
    }
    let all = try trials(ownFile(.all))
    var result: [String: String] = [:]
    for name in try FileManager.default.contentsOfDirectory(atPath: directory.path).sorted()
    where name.hasPrefix("own-") && name != ownFile(.all) {
      var (compared, equal) = (0, 0)
      for (trial, runs) in try trials(name) {
        for metrics in runs {
          guard let expected = all[trial]?.first else { continue }
          compared += 1
          if metrics == expected { equal += 1 }
        }
      }
      result[name] = "\(equal) of \(compared) trials equal those of \(ownFile(.all)) bit for bit"
    }
    return result
  }
}
