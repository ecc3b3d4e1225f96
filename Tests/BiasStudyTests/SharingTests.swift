import BiasStudy
import Foundation
import LanguageModel
import SweepCore
import Testing
import TransformerKernels

/// What a grid shares changes the time and nothing else.
@Suite(.enabled(if: MultiplicationBackend.selected == .own, "a BLAS promises no bits"))
struct SharingTests {
  private let tasks = Synthetic.tasks
  private let grid = try? GridFixture()

  @Test(arguments: [
    Sharing.trainingPrefixes, [.trainingPrefixes, .trunk],
    [.trainingPrefixes, .evaluationPrefixes], [.trainingPrefixes, .fineTunes],
  ])
  func allTrialsGiveTheSameBitsWithAndWithout(sharing: Sharing) throws {
    let grid = try #require(grid)
    let scratch = try Scratch()
    let store = TrunkStore(
      directory: scratch.url.appending(path: "trunk").path, byteLimit: 1 << 24)
    let everything = try grid.results(.all, store: store)
    let trials = Grid(spec: grid.spec, tasks: tasks).trials.map(\.id)
    #expect(Set(everything.keys) == Set(trials))
    #expect(everything.values.allSatisfy { $0.count == 1 })
    #expect(store.statistics.stored > 0)

    let apart = try grid.results(sharing, store: nil)
    #expect(Set(apart.keys) == Set(trials))
    if !sharing.contains(.fineTunes) {
      // Ratio 0 ran for every bias and mitigation.
      let points = grid.spec.biases.count * grid.spec.mitigations.count
      #expect(apart.values.contains { $0.count == points })
    }
    for trial in trials {
      for result in apart[trial, default: []] { #expect(result == everything[trial]?.first) }
    }
    // Another process finds the frozen layers' outputs on the disk.
    let again = TrunkStore(
      directory: scratch.url.appending(path: "trunk").path, byteLimit: 1 << 24)
    #expect(try grid.results(.all, store: again) == everything)
    #expect(again.statistics.stored == 0 && again.statistics.hits > 0)
  }

  /// Gradients of shared rows are summed in another order.
  @Test func prefixesSharedInTrainingMoveLossesByRoundingOnly() throws {
    let grid = try #require(grid)
    let shared = try grid.losses(.all)
    let apart = try grid.losses([.fineTunes, .trunk, .evaluationPrefixes])
    #expect(shared.count == apart.count && !shared.isEmpty)
    for (key, loss) in shared { #expect(abs(loss - (apart[key] ?? .nan)) < 1e-4) }
  }
}

/// The grid of the synthetic spec on a tiny random model.
private struct GridFixture {
  let spec: SweepSpec
  private let plan: ShardPlan
  private let data: StudyData
  private let model: LanguageModel

  init() throws {
    spec = try Synthetic.spec()
    plan = ShardPlan(spec: spec, tasks: Synthetic.tasks)
    data = try Synthetic.data()
    model = try Synthetic.model()
  }

  /// Results by trial; a trial that runs several times has several.
  func results(_ sharing: Sharing, store: TrunkStore?) throws -> [TrialID: [TrialResult]] {
    var results: [TrialID: [TrialResult]] = [:]
    _ = try run(sharing, store: store) { results[$0.trial, default: []].append($0) }
    return results
  }

  func losses(_ sharing: Sharing) throws -> [TrainingKey: Double] {
    try run(sharing, store: nil) { _ in }
  }

  private func run(
    _ sharing: Sharing, store: TrunkStore?, completed: (TrialResult) -> Void
  ) throws -> [TrainingKey: Double] {
    let runner = try ShardRunner(
      spec: spec, tasks: Synthetic.tasks, model: model, data: data, threads: 2,
      trunkCache: TrunkCache(byteLimit: 1 << 24, store: store), sharing: sharing)
    var losses: [TrainingKey: Double] = [:]
    for (key, trials) in sharing.fineTunes(of: plan) {
      let augmentation = try key.augmentation.map {
        try AugmentationSet(items: Synthetic.augmented($0, count: 40)).encoded()
      }
      let facts = try runner.fineTune(
        key, augmentation: augmentation, trials: trials, progress: { _ in },
        shouldStop: { false }, completed: completed)
      losses[key] = facts["final_loss"]
    }
    return losses
  }
}
