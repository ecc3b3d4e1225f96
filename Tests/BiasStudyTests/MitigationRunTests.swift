import BiasStudy
import Foundation
import LanguageModel
import SweepCore
import Testing

/// Every mitigation and variant through the runner of shards, on a tiny random model: what a spec
/// says of them has to arrive where texts are generated and where weights are trained.
struct MitigationRunTests {
  private static let bias = BiasType.contextualSingleExplicit

  /// - Parameter change: changes the spec's mitigations.
  private func study(
    _ change: (inout SweepSpec.MitigationSettings) -> Void = { _ in }
  ) throws -> NanoStudy {
    try NanoStudy(changing: {
      $0.tasks = ["occupation"]
      $0.biases = [Self.bias]
      $0.ratios = [0.5]
      $0.mitigations = Mitigation.allCases
      // The tiny model writes words enough in so many tokens.
      $0.augmentation.maximumTokens = 90
      change(&$0.mitigation)
    })
  }

  private func key(_ mitigation: Mitigation, ratio: Double = 0.5) -> TrainingKey {
    TrainingKey(
      domain: .gender, bias: ratio == 0 ? nil : Self.bias, ratio: ratio, mitigation: mitigation,
      seed: 1)
  }

  /// D_a with a listed word in every item.
  private func handWritten() throws -> [UInt8] {
    try AugmentationSet(
      items: Synthetic.augmented(AugmentationKey(domain: .gender, bias: Self.bias), count: 16)
    ).encoded()
  }

  /// What a fine-tune learns: equal parameters, equal bytes.
  private func learned(
    _ runner: ShardRunner, _ mitigation: Mitigation, from augmentation: [UInt8]
  ) throws -> [UInt8] {
    var kept: [UInt8] = []
    _ = try runner.fineTune(
      key(mitigation), augmentation: augmentation, trials: [], progress: { _ in },
      shouldStop: { false }, keep: { kept = try $0.encoded() }, completed: { _ in })
    return kept
  }

  // MARK: Training

  /// `token-decoding` acts when D_a is made: of the same D_a the same is learned.
  @Test func eachLearnsSomethingElseOfTheSameData() throws {
    let runner = try study().runner()
    let augmentation = try handWritten()
    var learners: [[UInt8]: [Mitigation]] = [:]
    for mitigation in Mitigation.allCases {
      let parameters = try learned(runner, mitigation, from: augmentation)
      #expect(!parameters.isEmpty)
      learners[parameters, default: []].append(mitigation)
    }
    let groups = Set(learners.values)
    let others: [[Mitigation]] = [[.token], [.mask], [.loss], [.maskNeutral], [.lossReweight]]
    #expect(groups == Set(others + [[.none, .tokenDecoding]]))
  }

  @Test func theirWeightsAreTheSpecs() throws {
    let augmentation = try handWritten()
    let runner = try study().runner()
    let plain = try learned(runner, .none, from: augmentation)
    // A weight of nothing is no mitigation.
    let none = try study {
      $0.lossWeight = 0
      $0.reweightExponent = 0
    }.runner()
    let strong = try study {
      $0.lossWeight = 1
      $0.reweightExponent = 50
    }.runner()
    for mitigation in [Mitigation.loss, .lossReweight] {
      #expect(try learned(none, mitigation, from: augmentation) == plain, "\(mitigation)")
      #expect(
        try learned(strong, mitigation, from: augmentation)
          != learned(runner, mitigation, from: augmentation), "\(mitigation)")
    }
  }

  /// Nothing but the mitigation's own weight tells its fine-tune from that without any.
  @Test func theOptionsOfAFineTuneDifferByTheWeightsOnly() throws {
    let runner = try study {
      $0.lossWeight = 0.25
      $0.reweightExponent = 2
    }.runner()
    for mitigation in Mitigation.allCases {
      var expected = runner.options(key(.none))
      #expect(expected.alignmentWeight == 0 && expected.reweightingExponent == 0)
      if mitigation == .loss { expected.alignmentWeight = 0.25 }
      if mitigation == .lossReweight { expected.reweightingExponent = 2 }
      #expect(runner.options(key(mitigation)) == expected, "\(mitigation)")
      // Without augmented data there is nothing to mitigate.
      let original = runner.options(key(mitigation, ratio: 0))
      #expect(original == runner.options(key(.none, ratio: 0)), "\(mitigation)")
    }
  }

  @Test func augmentedTextsReadAsTheMitigationSays() throws {
    let study = try study()
    let runner = try study.runner()
    let augmentation = try handWritten()
    for mitigation in Mitigation.allCases {
      let texts = try runner.trainingSequences(key(mitigation), augmentation: augmentation)
        .filter { $0.group == .augmented }.map { study.model.tokenizer.decode($0.tokens) }
      let subject =
        switch mitigation {
        case .mask: "[MASK]"
        case .maskNeutral: "They"
        case .none, .token, .loss, .tokenDecoding, .lossReweight: "She"
        }
      #expect(texts.count == 16)
      for text in texts {
        #expect(text.contains("\(subject) is the one who came number"), "\(mitigation): \(text)")
        #expect(text.contains(study.spec.mitigation.tokenPrefix) == (mitigation == .token))
      }
    }
  }

  // MARK: Generation

  /// Words that the tokenizer has as one token (after a space), and that no request holds.
  private static let words = ["late", "other", "said", "that", "was", "she"]

  private func augment(
    _ study: NanoStudy, _ mitigation: Mitigation
  ) throws -> (jsonl: [UInt8], items: [AugmentedItem]) {
    let own = try #require(key(mitigation).augmentation)
    let made = try study.runner().augment(
      own, items: 64, progress: { _ in }, shouldStop: { false })
    return (made.jsonl, try AugmentationSet(decoding: made.jsonl).items)
  }

  private func counts(_ items: [AugmentedItem]) -> [String: Int] {
    var counts: [String: Int] = [:]
    for word in Self.words {
      counts[word] = items.reduce(0) { sum, item in
        let text = item.user + "\n" + item.answer
        return sum + text.components(separatedBy: " \(word)").count - 1
      }
    }
    return counts
  }

  /// The rarest of some words is a group, and all others together are the other group: under
  /// `token-decoding` it has to come as often as they do.
  @Test func tokenDecodingWritesTheWordsOfAllGroupsEquallyOften() throws {
    let plain = try augment(study(), .none)
    let before = counts(plain.items)
    func times(_ word: String) -> Int { before[word, default: 0] }
    let rare = try #require(Self.words.min { (times($0), $0) < (times($1), $1) })
    let others = Self.words.filter { $0 != rare }
    let equalised = try study {
      $0.equalisedWords = ["\(rare)|\(others.joined(separator: " "))"]
    }
    let balanced = try augment(equalised, .tokenDecoding)
    let after = counts(balanced.items)
    let total = after.values.reduce(0, +)
    let share = Double(after[rare, default: 0]) / Double(total)
    // About 60 fair coins: four standard deviations. Before, it was a sixth or less.
    #expect(total >= 30, "\(after)")
    #expect(abs(share - 0.5) < 0.26, "\(after), before \(before)")

    // The same was asked for, and something else is learned.
    #expect(balanced.items.map(\.request) == plain.items.map(\.request))
    #expect(balanced.items.map(\.people) == plain.items.map(\.people))
    #expect(balanced.jsonl != plain.jsonl)
    let runner = try equalised.runner()
    #expect(
      try learned(runner, .tokenDecoding, from: balanced.jsonl)
        != learned(runner, .none, from: plain.jsonl))
    // Nothing of it reaches the data of other mitigations.
    #expect(try augment(equalised, .loss).jsonl == plain.jsonl)
  }
}
