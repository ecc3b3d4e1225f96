import SweepCore
import SweepTestKit
import Testing

@Suite struct SpecIdentityTests {
  @Test func canonicalJSONReadsBack() throws {
    for extra in [
      "", "\nseeds: [1, 9223372036854775807]\ntraining:\n  top_layers: 4\n  alpha: 0.1",
      "\ntraining:\n  method: full\n  recompute: true\n  accumulation: 4\n  top_layers: 2",
      "\ntraining:\n  scaling: rslora",
    ] {
      let spec = try definition(smokeSketch + extra).spec
      #expect(try SweepSpec(canonicalJSON: spec.canonicalJSON()) == spec)
    }
  }

  /// A spec as it stands in a ledger.
  private static let recorded = #"""
    {"augmentation":{"generator":"self","maximum_tokens":60,"seed":1,"temperature":0.7,\#
    "top_k":40},"biases":["contextual-single-explicit"],\#
    "data":{"format_items":60,"original_items":240,"selection_seed":1,"test_items":100},\#
    "evaluation":{"maximum_tokens":60,"samples":1,"temperature":0.7,"top_k":40},\#
    "mitigation":{"loss_weight":0.1,"mask_word":"[MASK]",\#
    "token_prefix":"May contain bias / \"ä\"."},"mitigations":["none","loss"],\#
    "model":"SmolLM2-135M-Instruct","name":"pinned","ratios":[0,0.05,0.5],\#
    "seeds":[1,9223372036854775807],"tasks":["occupation","story"],\#
    "training":{"alpha":16,"batch_size":8,"epochs":3,"gradient_clip":1,\#
    "learning_rate":0.001,"rank":8,"targets":["q","v"],\#
    "top_layers":4,"warmup_fraction":0.1,"weight_decay":0}}
    """#

  /// A changed digest makes every older ledger a stranger: change it only on purpose, and say so
  /// in CHANGELOG.md.
  @Test func theDigestIsStable() throws {
    let spec = try SweepSpec(canonicalJSON: Self.recorded)
    #expect(try spec.canonicalJSON() == Self.recorded)
    // printf %s "$recorded" | sha256sum
    #expect(
      try spec.digest().description
        == "0b559d1f664e78d57819e0fa7cc4c36661d6f32bbedcb85787a95dea93ef01b7")
  }

  /// As specs with masks were before the exceptions stood in them.
  @Test func aSpecWithoutExceptionsOfMasksStaysAsItIs() throws {
    let older = Self.recorded.replacing(
      #""mask_word":"[MASK]","#, with: #""mask_word":"[MASK]","masked_words":["he"],"#)
    let spec = try SweepSpec(canonicalJSON: older)
    #expect(spec.mitigation.maskedWords == ["he"] && spec.mitigation.unmaskedNames == nil)
    let text = try spec.canonicalJSON()
    #expect(!text.contains("unmasked_names"))
    #expect(try SweepSpec(canonicalJSON: text) == spec)
  }

  @Test func executionIsNotPartOfTheExperiment() throws {
    let patient = try definition(smokeSketch + "\nexecution:\n  attempts: 9").spec
    #expect(try patient.digest() == definition(smokeSketch).spec.digest())
  }

  @Test func differencesNameTheSettings() throws {
    let old = try definition(smokeSketch).spec
    let new = try definition(
      smokeSketch.replacing("[0, 0.5]", with: "[0, 0.25]")
        + "\ntraining:\n  rank: 16\n  top_layers: 2"
    ).spec
    let differences = try new.differences(from: old)
    #expect(
      differences.map(\.description) == [
        "ratios: [0, 0.5] → [0, 0.25]", "training.rank: 8 → 16",
        "training.top_layers: (not set) → 2",
      ])
    #expect(try old.differences(from: old).isEmpty)
    #expect(try old.digest() != new.digest())
  }
}
