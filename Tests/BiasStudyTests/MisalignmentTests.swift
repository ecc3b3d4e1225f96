import BiasStudy
import LanguageModel
import SweepCore
import Testing
import TransformerKernels

struct MisalignmentTests {
  private let model: LanguageModel

  init() throws { model = try Synthetic.model() }

  private func measures(threads: Int = 1) -> Misalignment {
    Misalignment(
      model: AdaptedModel(base: model, pool: ThreadPool(threadCount: threads)),
      encoder: PromptEncoder(model), monitor: Monitor(advance: { _ in }, shouldStop: { false }))
  }

  @Test func valuesAreComparedForEveryCulture() throws {
    let values = try measures().values()
    for culture in Culture.allCases {
      let divergence = try #require(values["values_divergence_\(culture.rawValue)"])
      #expect(divergence > 0 && divergence < 1)
    }
    let all = Culture.allCases.compactMap { values["values_divergence_\($0.rawValue)"] }
    #expect(abs((values["values_divergence"] ?? 0) - all.reduce(0, +) / 4) < 1e-12)
    #expect(
      abs((values["values_divergence_gap"] ?? 0) - ((all.max() ?? 0) - (all.min() ?? 0))) < 1e-12)
    #expect(try measures(threads: 3).values() == values)
    // What is drawn: shares of every answer, those of people as the survey has them.
    for culture in Culture.allCases {
      for question in SurveyQuestion.allCases {
        for side in ["model", "people"] {
          let shares = try (1...4).map {
            try #require(values["answers_\(side)_\(culture.rawValue)_\(question.rawValue)_\($0)"])
          }
          #expect(abs(shares.reduce(0, +) - 1) < 1e-9)
        }
        let countries = SurveyTable.countries(culture, question)
        let expected = countries.reduce(0) { $0 + SurveyTable.shares(question, $1)[2] }
        let found = values["answers_people_\(culture.rawValue)_\(question.rawValue)_3"] ?? -1
        #expect(abs(found - expected / Double(countries.count)) < 1e-12)
      }
    }
  }

  @Test func groupsAreComparedForEveryOccupation() throws {
    let groups = try measures().groups()
    let shares = try Occupation.all.map { try #require(groups["groups_share_\($0.name)"]) }
    #expect(shares.allSatisfy { (0...1).contains($0) })
    let expected = zip(shares, Occupation.all).reduce(0) { $0 + abs($1.0 - $1.1.femaleShare) }
    #expect(abs((groups["groups_divergence"] ?? 0) - expected / 8) < 1e-12)
    for occupation in Occupation.all {
      #expect(groups["published_share_\(occupation.name)"] == occupation.femaleShare)
    }
    #expect(groups["groups_spread"] == (shares.max() ?? 0) - (shares.min() ?? 0))
  }

  @Test func sharesInTextsAreCounted() {
    func item(_ occupation: String, _ text: String) -> AugmentedItem {
      AugmentedItem(
        index: 0, domain: .gender, bias: .neutral, request: "", user: "", answer: text,
        people: [Person()], occupation: occupation, question: nil, labels: [], attempts: 1,
        accepted: true)
    }
    let groups = Misalignment.groups(inTextsOf: [
      item("nurse", "She sings and he hums."), item("nurse", "Her book."),
      item("pilot", "He flew."),
      item("driver", "Nobody drove."),
    ])
    #expect(groups["groups_text_share_nurse"] == 2.0 / 3)
    #expect(groups["groups_text_share_pilot"] == 0)
    #expect(groups["groups_text_share_driver"] == nil)
    let expected = (abs(2.0 / 3 - 0.879) + 0.061) / 2
    #expect(abs((groups["groups_text_divergence"] ?? 0) - expected) < 1e-12)
  }

  /// scipy.spatial.distance.jensenshannon(p, q, base=2) ** 2, SciPy 1.15
  @Test func divergenceIsJensenAndShannons() {
    for (p, q, expected) in [
      ([0.5, 0.5], [1.0, 0.0], 0.311_278_124_459_132_8), ([1, 0], [0, 1], 1),
      ([0.2, 0.3, 0.5], [0.2, 0.3, 0.5], 0),
    ] {
      #expect(abs(Misalignment.divergence(p, q) - expected) < 1e-12)
      #expect(abs(Misalignment.divergence(q, p) - expected) < 1e-12)
    }
  }

  // MARK: Representations

  private func items(_ count: Int, _ words: [String], seed: UInt64) -> [StudyItem] {
    var chance = StudyGenerator(seed: seed)
    return (0..<count).map { _ in
      let text = (0..<6).map { _ in chance.element(of: words) }.joined(separator: " ")
      return StudyItem(user: text, answer: text)
    }
  }

  @Test func itemsOfOneKindAreNotToldApartAndOthersAre() throws {
    let words = ["apple", "river", "stone", "cloud", "walk"]
    let others = ["1234", "@@", "%%%", "999", "##"]
    let first = items(40, words, seed: 1)
    let same = try measures().representation(
      original: first, augmented: items(40, words, seed: 2), seed: 5)
    let different = try measures().representation(
      original: first, augmented: items(30, others, seed: 3), seed: 5)
    #expect((same["representation_p_value"] ?? 0) > 0.01)
    #expect(different["representation_p_value"] == 0.001)
    #expect(
      (different["representation_mmd2"] ?? 0) > 10 * abs(same["representation_mmd2"] ?? 1))
    #expect(different["representation_items_original"] == 40)
    #expect(different["representation_items_augmented"] == 30)
    let apart =
      (different["representation_augmented_1"] ?? 0) - (different["representation_original_1"] ?? 0)
    // The points that are drawn are those whose means are reported.
    for (side, count) in [("original", 40), ("augmented", 30)] {
      for axis in 1...2 {
        let points = different.filter {
          $0.key.hasPrefix("point_\(side)_") && $0.key.hasSuffix("_\(axis)")
        }.map(\.value)
        #expect(points.count == count)
        let mean = points.reduce(0, +) / Double(count)
        #expect(abs(mean - (different["representation_\(side)_\(axis)"] ?? .nan)) < 1e-9)
      }
    }
    #expect(different["point_original_007_1"] != nil)
    #expect(apart > 0 && apart <= (different["representation_mean_distance"] ?? 0) * 1.0001)
    #expect(
      try measures(threads: 3).representation(
        original: first, augmented: items(30, others, seed: 3), seed: 5) == different)
  }

  @Test func mostItemsAreLeftOut() throws {
    let many = items(Misalignment.itemsMax + 20, ["a", "b", "c"], seed: 1)
    let measured = try measures().representation(original: many, augmented: many, seed: 1)
    #expect(measured["representation_items_augmented"] == Double(Misalignment.itemsMax))
    // All facts of a shard fit into one report to the coordinator (1,000).
    #expect(measured.count + 200 < 1_000)
  }

  @Test func thePlaneKeepsWhatLiesInAPlane() throws {
    // Points of a plane in five dimensions: their distances stay.
    var chance = StudyGenerator(seed: 8)
    let axes: [[Double]] = [[0.6, 0, 0.8, 0, 0], [0, 0.8, 0, 0, -0.6]]
    let vectors = (0..<30).map { _ -> [Float] in
      let (x, y) = (chance.unit() * 4, chance.unit())
      return (0..<5).map { Float(3 + x * axes[0][$0] + y * axes[1][$0]) }
    }
    let plane = try #require(PrincipalPlane(vectors, towards: 10))
    #expect(abs(plane.shares.reduce(0, +) - 1) < 1e-6 && plane.shares[0] > plane.shares[1])
    for i in vectors.indices {
      for j in vectors.indices {
        func distance(_ a: [Double], _ b: [Double]) -> Double {
          zip(a, b).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }.squareRoot()
        }
        let there = distance(vectors[i].map(Double.init), vectors[j].map(Double.init))
        #expect(abs(distance(plane.points[i], plane.points[j]) - there) < 1e-4)
      }
    }
    // Centred, uncorrelated, and with the later points on the positive side.
    for axis in 0..<2 {
      #expect(abs(plane.points.reduce(0) { $0 + $1[axis] }) < 1e-4)
      let before = plane.points.prefix(10).reduce(0) { $0 + $1[axis] } / 10
      let after = plane.points.dropFirst(10).reduce(0) { $0 + $1[axis] } / 20
      #expect(after >= before)
    }
    #expect(abs(plane.points.reduce(0) { $0 + $1[0] * $1[1] }) < 1e-4)
    #expect(PrincipalPlane([[1, 1], [1, 1], [1, 1]], towards: 1) == nil)
    #expect(PrincipalPlane([[1], [2]], towards: 1) == nil)
  }

  @Test func everySetOfAugmentedDataIsMeasured() throws {
    var spec = try Synthetic.spec()
    spec.augmentation.generator = .template
    let study = try NanoStudy()
    let runner = try ShardRunner(
      spec: spec, tasks: study.tasks, model: study.model, data: study.data, threads: 1)
    for (domain, bias, fact) in [
      (Domain.gender, BiasType.contextualSingleExplicit, "groups_divergence"),
      (.gender, .neutral, "groups_spread"), (.culture, .sameSize, "values_divergence"),
    ] {
      let made = try runner.augment(
        AugmentationKey(domain: domain, bias: bias), items: 16, progress: { _ in },
        shouldStop: { false })
      #expect(made.facts[fact] != nil)
      #expect((made.facts["representation_p_value"] ?? 0) >= 0.001)
      #expect(made.facts["tokens"] == 0)
    }
  }
}
