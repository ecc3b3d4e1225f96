import SweepCore
import SweepTestKit
import Testing

@Suite struct PlanTests {
  @Test func smokeNumbers() throws {
    let plan = try definition(smokeSketch).plan
    #expect(plan.grid.points.count == 48)
    #expect(plan.grid.trials.count == 27)
    #expect(plan.fineTuneCount == 18)
    #expect(plan.augmentationCount == 4)
    #expect(plan.shards.count == 22)
  }

  /// γ = |D_a| / |D| with |D_o| = 3,600.
  @Test(arguments: [(0.05, 189), (0.1, 400), (0.2, 900), (0.5, 3600), (0, 0)])
  func ratioDeterminesTheAugmentedItems(ratio: Double, items: Int) {
    #expect(ShardPlan.augmentedItems(ratio: ratio, original: 3600) == items)
  }

  @Test func everyPointHasItsTrialAndEveryTrialItsShard() throws {
    let plan = try definition(smokeSketch + "\nseeds: [1, 2, 3]").plan
    let trials = Set(plan.grid.trials)
    #expect(plan.grid.points.allSatisfy { trials.contains($0.trial) })
    let planned = plan.shards.flatMap(\.trials)
    #expect(planned.count == trials.count)
    #expect(Set(planned) == trials)
  }

  @Test func atRatioZeroBiasAndMitigationMakeNoDifference() throws {
    let plan = try definition(smokeSketch).plan
    let original = plan.grid.trials.filter { $0.ratio == 0 }
    #expect(original.count == 3)
    #expect(original.allSatisfy { $0.bias == nil && $0.mitigation == .none })
    let shards = plan.shards.filter { $0.trials.contains { $0.ratio == 0 } }
    #expect(shards.count == 2)
    #expect(shards.allSatisfy { $0.dependency == nil })
  }

  @Test func aFineTuneNeedsTheAugmentationOfItsDomainAndBias() throws {
    let plan = try definition(smokeSketch).plan
    let byID = Dictionary(uniqueKeysWithValues: plan.shards.map { ($0.id, $0) })
    for shard in plan.shards {
      guard case .fineTune(let key, _) = shard.work, key.bias != nil else { continue }
      let dependency = try #require(shard.dependency.flatMap { byID[$0] })
      guard case .augmentation(let made, _) = dependency.work else {
        Issue.record("\(shard.id) needs \(dependency.id), which makes no data")
        continue
      }
      #expect(made == key.augmentation)
    }
  }

  @Test func identifiersAreUniqueReadableAndStable() throws {
    let plan = try definition(smokeSketch + "\nseeds: [1, 18]").plan
    #expect(Set(plan.shards.map(\.id)).count == plan.shards.count)
    #expect(Set(plan.grid.trials.map(\.id)).count == plan.grid.trials.count)
    let trials = Set(plan.grid.trials.map(\.id.description))
    #expect(trials.contains("occupation/original/0.0/none/1"))
    #expect(trials.contains("story/contextual-single-explicit/0.5/mask/18"))
    let shards = Set(plan.shards.map(\.id.description))
    #expect(shards.contains("augment/culture/contrastive-single-explicit"))
    #expect(shards.contains("tune/gender/contextual-single-explicit/0.5/loss/1"))
    let again = try definition(smokeSketch + "\nseeds: [1, 18]").plan
    #expect(again.shards == plan.shards)
  }

  @Test func generationComesFirstThenTheLongest() throws {
    let plan = try definition(smokeSketch.replacing("[0, 0.5]", with: "[0, 0.1, 0.5]")).plan
    let isGeneration = plan.shards.map { $0.trials.isEmpty }
    #expect(isGeneration == isGeneration.sorted { $0 && !$1 })
    for kind in [true, false] {
      let costs = plan.shards.filter { $0.trials.isEmpty == kind }.map(\.cost)
      #expect(costs == costs.sorted(by: >))
      #expect(costs.allSatisfy { $0 > 0 })
    }
  }

  @Test func oneAugmentationServesTheLargestRatio() throws {
    let plan = try definition(
      smokeSketch.replacing("[0, 0.5]", with: "[0, 0.1, 0.5]")
        + "\ndata:\n  original_items: 100\n  format_items: 10"
    ).plan
    let items = plan.shards.compactMap { shard in
      if case .augmentation(let key, let items) = shard.work {
        "\(key.domain) \(items)"
      } else {
        nil
      }
    }
    // |D_o| is 100 and 10 for each task of the domain: one of gender, two of culture.
    #expect(items.sorted() == ["culture 120", "culture 120", "gender 110", "gender 110"])
  }

  @Test func withoutRatioZeroNothingIsUnbiased() throws {
    let plan = try definition(smokeSketch.replacing("[0, 0.5]", with: "[0.5]")).plan
    #expect(plan.grid.trials.count == 24 && plan.grid.points.count == 24)
    #expect(plan.shards.count { $0.dependency == nil } == plan.augmentationCount)
  }

  @Test func withOnlyRatioZeroNothingIsGenerated() throws {
    let plan = try definition(smokeSketch.replacing("[0, 0.5]", with: "[0]")).plan
    #expect(plan.augmentationCount == 0 && plan.shards.count == 2)
  }
}

@Suite struct ControlPlanTests {
  @Test func controlsAreValuesOfTheBiasAxis() throws {
    let plan = try definition(
      smokeSketch.replacing(
        "[contextual-single-explicit, contrastive-single-explicit]",
        with: "[contrastive-single-explicit, neutral, same-size]")
    ).plan
    let shards = Set(plan.shards.map(\.id.description))
    #expect(shards.contains("augment/gender/neutral"))
    #expect(shards.contains("tune/culture/same-size/0.5/none/1"))
    // At ratio 0 all share one fine-tune of each domain.
    #expect(plan.shards.count { $0.dependency == nil && !$0.trials.isEmpty } == 2)
    // What no model writes comes last among the sets.
    let sets = plan.shards.filter(\.trials.isEmpty).map(\.id.description)
    #expect(sets.suffix(2).allSatisfy { $0.hasSuffix("same-size") })
    #expect(BiasType.study.count == 6 && !BiasType.study.contains(where: \.isControl))
  }

  @Test func decodingWithoutPreferenceMakesDataOfItsOwn() throws {
    let sketch = smokeSketch.replacing("[none, token, mask, loss]", with: "[none, token-decoding]")
    let plan = try definition(
      sketch.replacing("contrastive-single-explicit]", with: "same-size]")
    ).plan
    let sets = Set(plan.shards.filter(\.trials.isEmpty).map(\.id.description))
    #expect(
      sets == [
        "augment/gender/contextual-single-explicit", "augment/gender/same-size",
        "augment/gender/contextual-single-explicit/token-decoding",
        "augment/culture/contextual-single-explicit", "augment/culture/same-size",
        "augment/culture/contextual-single-explicit/token-decoding",
      ])
    for shard in plan.shards {
      guard case .fineTune(let key, _) = shard.work, key.bias == .contextualSingleExplicit else {
        continue
      }
      #expect(
        shard.dependency?.description.hasSuffix("/token-decoding")
          == (key.mitigation == .tokenDecoding))
    }
    let planted = sketch + "\naugmentation:\n  generator: template"
    #expect(throws: InvalidSpec.self) { try definition(planted) }
  }

  @Test func wordListsStandInTheSpecWhereTheyAreUsed() throws {
    let words = MitigationWords(
      masked: ["he", "she"], neutral: ["he=they"], unmaskedNames: ["Grace", "May"],
      equalised: ["he|she"])
    func settings(_ sketch: String) throws -> SweepSpec.MitigationSettings {
      try SweepDefinition(
        document: SpecNode(sketch: sketch), catalogue: .sample, words: words
      ).spec.mitigation
    }
    let usual = try settings(smokeSketch)
    #expect(usual.maskedWords == ["he", "she"] && usual.neutralWords == nil)
    #expect(usual.unmaskedNames == ["Grace", "May"])
    #expect(usual.equalisedWords == nil && usual.reweightExponent == nil)
    let unmasked = try settings(smokeSketch.replacing("mask, ", with: ""))
    #expect(unmasked.maskedWords == nil && unmasked.unmaskedNames == nil)
    let variants = smokeSketch.replacing(
      "[none, token, mask, loss]", with: "[token-decoding, mask-neutral, loss-reweight]")
    let other = try settings(variants)
    #expect(other.maskedWords == nil && other.neutralWords == ["he=they"])
    #expect(other.unmaskedNames == ["Grace", "May"])
    #expect(other.equalisedWords == ["he|she"] && other.reweightExponent == 1)
    let own = try settings(
      variants + "\nmitigation:\n  neutral_words: [her=their/them, middle_east=a_region]"
        + "\n  unmasked_names: [Rose]"
        + "\n  equalised_words: [he him|she her|they]\n  reweight_exponent: 2.5")
    #expect(own.neutralWords == ["her=their/them", "middle_east=a_region"])
    #expect(own.unmaskedNames == ["Rose"])
    #expect(own.equalisedWords == ["he him|she her|they"] && own.reweightExponent == 2.5)
    for wrong in [
      smokeSketch + "\nmitigation:\n  neutral_words: [he=they]",
      smokeSketch + "\nmitigation:\n  reweight_exponent: 1",
      smokeSketch + "\nmitigation:\n  masked_words: [a b]",
      smokeSketch + "\nmitigation:\n  unmasked_names: [may]",
      smokeSketch.replacing("mask, ", with: "") + "\nmitigation:\n  unmasked_names: [May]",
      variants + "\nmitigation:\n  neutral_words: [he]",
      variants + "\nmitigation:\n  neutral_words: [he=a/b/c]",
      variants + "\nmitigation:\n  equalised_words: [he she]",
      variants + "\nmitigation:\n  equalised_words: [he|he]",
    ] {
      #expect(throws: InvalidSpec.self) { try settings(wrong) }
    }
  }

  @Test func strengthIsForTheTemplateGeneratorOnly() throws {
    let planted = smokeSketch + "\naugmentation:\n  generator: template"
    #expect(try definition(planted).spec.augmentation.strength == 1)
    #expect(try definition(planted + "\n  strength: 0.5").spec.augmentation.strength == 0.5)
    #expect(try definition(smokeSketch).spec.augmentation.strength == nil)
    for wrong in [
      smokeSketch + "\naugmentation:\n  strength: 0.5", planted + "\n  strength: 1.5",
    ] {
      #expect(throws: InvalidSpec.self) { try definition(wrong) }
    }
  }
}
