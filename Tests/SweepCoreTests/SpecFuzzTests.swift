import SweepCore
import SweepSimulation
import Testing

/// Random documents, half wild and half nearly right.
@Suite struct SpecFuzzTests {
  private static let words = [
    "", "0", "1", "-1", "0.5", "1e999", "nan", "9223372036854775808", "none", "all", "self", "q",
    "occupation", "story", "group-bias", "contextual-single-explicit", "token", "mask", "loss",
    "0.9999999999999999", "\u{0}", "ä 🦊", String(repeating: "x", count: 300),
  ]
  private static let keys = [
    "name", "model", "tasks", "biases", "ratios", "mitigations", "seeds", "data", "augmentation",
    "training", "mitigation", "evaluation", "execution", "original_items", "format_items",
    "test_items", "selection_seed", "temperature", "top_k", "maximum_tokens", "seed", "rank",
    "alpha", "method", "scaling", "accumulation", "recompute", "targets", "top_layers", "epochs",
    "batch_size", "learning_rate", "lease_seconds",
    "heartbeat_seconds", "attempts", "losses", "max_failures", "generator", "", "nmae", "x.y",
  ]

  private static func node(depth: Int, using random: inout SeededGenerator) -> SpecNode {
    let place = SpecPosition(line: random.integer(0...50), column: random.integer(0...50))
    switch random.integer(0...(depth == 0 ? 0 : 3)) {
    case 0: return .scalar(random.pick(words) ?? "", place)
    case 1:
      return .sequence(
        (0..<random.integer(0...5)).map { _ in node(depth: depth - 1, using: &random) }, place)
    default:
      return .mapping(
        (0..<random.integer(0...12)).map { _ in
          SpecEntry(
            key: random.pick(keys) ?? "", keyPosition: place,
            value: node(depth: depth - 1, using: &random))
        }, place)
    }
  }

  /// The node with some parts replaced by random ones.
  private static func damaged(
    _ node: SpecNode, probability: Double, using random: inout SeededGenerator
  ) -> SpecNode {
    if random.chance(probability) { return Self.node(depth: 2, using: &random) }
    switch node {
    case .scalar: return node
    case .sequence(let elements, let place):
      return .sequence(
        elements.map { damaged($0, probability: probability, using: &random) }, place)
    case .mapping(let entries, let place):
      return .mapping(
        entries.map {
          let key = random.chance(probability) ? random.pick(keys) ?? "" : $0.key
          return SpecEntry(
            key: key, keyPosition: $0.keyPosition,
            value: damaged($0.value, probability: probability, using: &random))
        }, place)
    }
  }

  @Test func anyDocumentIsEitherValidOrExplained() {
    var random = SeededGenerator(seed: 2025)
    let good = SpecNode(
      sketch: smokeSketch + "\nseeds: [1, 2]\ntraining:\n  rank: 4\nexecution:\n  attempts: 2")
    var valid = 0
    var invalid = 0
    for round in 0..<20_000 {
      let document =
        round % 2 == 0
        ? Self.node(depth: 4, using: &random)
        : Self.damaged(good, probability: random.pick([0, 0.02, 0.2]) ?? 0, using: &random)
      do {
        let definition = try SweepDefinition(document: document, catalogue: .sample)
        valid += 1
        #expect(!definition.spec.tasks.isEmpty && !definition.spec.ratios.isEmpty)
        #expect(definition.spec.ratios.allSatisfy { (0..<1).contains($0) })
        if valid % 50 == 0 {
          #expect(!definition.plan.shards.isEmpty)
          #expect(
            try SweepSpec(canonicalJSON: definition.spec.canonicalJSON()) == definition.spec)
        }
      } catch let error as InvalidSpec {
        invalid += 1
        #expect(!error.problems.isEmpty)
        #expect(error.problems.allSatisfy { !$0.message.isEmpty })
      } catch {
        Issue.record("\(error)")
      }
    }
    #expect(valid > 1000, "too few valid documents: \(valid)")
    #expect(invalid > 10_000, "too few invalid documents: \(invalid)")
  }
}
