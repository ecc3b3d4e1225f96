import BiasStudy
import SweepCore
import Testing

/// A little of a sweep's work, done to know what all of it takes.
struct CalibrationTests {
  /// A clock that every look advances by a second: then times count looks, which do not depend on the
  /// machine.
  private final class CountingClock {
    private var looks = 0.0
    func now() -> Double {
      looks += 1
      return looks
    }
  }

  private func study() throws -> NanoStudy {
    // A random model writes no sentences; templates do.
    try NanoStudy(changing: {
      $0.augmentation.generator = .template
      $0.augmentation.strength = 1
    })
  }

  private func calibration(of study: NanoStudy) throws -> Calibration {
    let clock = CountingClock()
    return try Calibration(
      spec: study.spec, tasks: study.tasks, model: study.model, data: study.data, threads: 1,
      now: clock.now, progress: { _ in }, shouldStop: { false })
  }

  @Test func trainedTokensAreThoseOfTheRealFineTune() throws {
    let study = try study()
    let calibration = try calibration(of: study)
    let runner = try study.runner()
    for shard in study.shards {
      guard case .fineTune(let key, _) = shard.work else { continue }
      let tokens = try #require(try study.tune(runner, shard).facts["tokens"])
      let predicted = calibration.trainedTokens(key, spec: study.spec)
      if key.ratio == 0 {
        #expect(predicted == tokens)
      } else {
        #expect(abs(predicted / tokens - 1) < 0.3, "\(shard.id): \(predicted), found \(tokens)")
      }
    }
  }

  @Test func everyShardHasAPriceAndMoreDataCostMore() throws {
    let study = try study()
    let calibration = try calibration(of: study)
    #expect(Set(calibration.rates.keys) == Set(study.tasks.map(\.domain)))
    var unmixed: [Domain: Double] = [:]
    for shard in study.shards {
      guard case .fineTune(let key, _) = shard.work, key.ratio == 0 else { continue }
      unmixed[key.domain] = calibration.seconds(shard, spec: study.spec)
    }
    for shard in study.shards {
      let seconds = calibration.seconds(shard, spec: study.spec)
      #expect(seconds > 0 && seconds.isFinite, "\(shard.id)")
      guard case .fineTune(let key, _) = shard.work, key.ratio > 0 else { continue }
      #expect(seconds >= (unmixed[key.domain] ?? .infinity), "\(shard.id)")
    }
  }

  @Test func stopsWhenAsked() throws {
    let study = try study()
    let clock = CountingClock()
    #expect(throws: StudyError.cancelled) {
      try Calibration(
        spec: study.spec, tasks: study.tasks, model: study.model, data: study.data, threads: 1,
        now: clock.now, progress: { _ in }, shouldStop: { true })
    }
  }
}
