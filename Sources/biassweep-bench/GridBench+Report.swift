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
    var own_seconds: Double
    var own_trials_per_hour: Double
    var own_disk_megabytes: Int
    var reference_fine_tunes: Int
    var reference_sampled: Int
    var reference_seconds_estimated: Double?
    var reference_trials_per_hour: Double?
    /// Trials per hour, ours over the reference's.
    var factor: Double?
    /// The same with the reference's repetitions at ratio 0 left out.
    var factor_distinct: Double?
    /// Largest and mean difference of the final loss between the sides, over equal fine-tunes.
    var loss_difference_largest: Double?
    var loss_mean_own: Double?
    var loss_mean_reference: Double?
    var accuracy_mean_own: Double?
    var accuracy_mean_reference: Double?
    /// Trials run both with everything shared and with less, and how many agree in every bit.
    var exactness: [String: String]
  }

  /// Totals over all lines; a part of the fine-tunes stands for all, by its mean time.
  func report() throws -> Report {
    let fineTunes = sharing.fineTunes(of: plan)
    let own = try lines(ownFile(sharing), OwnLine.self)
    let reference = try lines("reference.jsonl", ReferenceLine.self)
    let trials = plan.grid.points.count
    let jobs = trials / definition.tasks.count
    let scale = own.isEmpty ? 0 : Double(fineTunes.count) / Double(own.count)
    let ownSeconds = own.map(\.seconds).reduce(0, +) * scale
    var report = Report(
      domain: domain.rawValue, top_layers: definition.spec.training.topLayers ?? 0, trials: trials,
      own_fine_tunes: fineTunes.count, own_fine_tunes_timed: own.count,
      own_seconds: ownSeconds.rounded(to: 1),
      own_trials_per_hour: ownSeconds > 0 ? (Double(trials) / ownSeconds * 3600).rounded(to: 1) : 0,
      own_disk_megabytes: (store?.statistics.bytes ?? 0) >> 20, reference_fine_tunes: jobs,
      reference_sampled: reference.count, exactness: try exactness())
    guard !reference.isEmpty else { return report }

    // A fine-tune's time depends on its number of items, so each ratio has a mean of its own.
    var seconds = 0.0
    var distinctSeconds = 0.0
    let ratios = Dictionary(grouping: reference) { Self.ratio($0.conditions) }
    for ratio in definition.spec.ratios {
      let sample = ratios["\(ratio)"] ?? reference
      let mean = sample.map(\.seconds).reduce(0, +) / Double(sample.count)
      let count = Double(jobs / definition.spec.ratios.count)
      seconds += mean * count
      distinctSeconds += mean * (ratio == 0 ? Double(definition.spec.seeds.count) : count)
    }
    report.reference_seconds_estimated = seconds.rounded(to: 1)
    report.reference_trials_per_hour = (Double(trials) / seconds * 3600).rounded(to: 1)
    if ownSeconds > 0 {
      report.factor = (seconds / ownSeconds).rounded(to: 2)
      report.factor_distinct = (distinctSeconds / ownSeconds).rounded(to: 2)
    }
    let ownByConditions = Dictionary(
      own.map { ($0.conditions, $0) }, uniquingKeysWith: { first, _ in first })
    let pairs = reference.compactMap { line in
      (ownByConditions[line.conditions] ?? ownByConditions[Self.baseline(line.conditions)])
        .map { ($0, line) }
    }
    guard !pairs.isEmpty else { return report }
    func mean(_ values: [Double]) -> Double? {
      values.isEmpty ? nil : (values.reduce(0, +) / Double(values.count)).rounded(to: 4)
    }
    report.loss_difference_largest = pairs.map { abs($0.final_loss - $1.final_loss) }.max()
    report.loss_mean_own = mean(pairs.map { $0.0.final_loss })
    report.loss_mean_reference = mean(pairs.map { $0.1.final_loss })
    report.accuracy_mean_own = mean(
      pairs.flatMap { $0.0.metrics.values.compactMap { $0["accuracy"] } })
    report.accuracy_mean_reference = mean(
      pairs.flatMap { $0.1.tasks.values.compactMap(\.accuracy) })
    return report
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
