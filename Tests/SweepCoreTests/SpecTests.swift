import SweepCore
import SweepSimulation
import Testing

/// The sketch that most tests start from: 3 tasks × 2 biases × 2 ratios × 4 mitigations.
let smokeSketch = """
  name: smoke
  tasks: [occupation, group-bias, story]
  biases: [contextual-single-explicit, contrastive-single-explicit]
  ratios: [0, 0.5]
  mitigations: [none, token, mask, loss]
  """

func definition(_ sketch: String) throws -> SweepDefinition {
  try SweepDefinition(document: SpecNode(sketch: sketch), catalogue: .sample)
}

/// The problems of a sketch as lines of text.
private func problems(_ sketch: String) -> [String] {
  do {
    _ = try definition(sketch)
    return []
  } catch let invalid as InvalidSpec {
    return invalid.problems.map(\.description)
  } catch {
    return ["\(error)"]
  }
}

@Suite struct SpecTests {
  @Test func theSketchReadsWithItsDefaults() throws {
    let definition = try definition(smokeSketch)
    #expect(definition.spec.name == "smoke")
    #expect(definition.spec.tasks == ["occupation", "group-bias", "story"])
    #expect(definition.spec.seeds == [1])
    #expect(definition.spec.training.topLayers == nil)
    #expect(definition.policy == ExecutionPolicy())
  }

  @Test func everySettingIsRead() throws {
    let definition = try definition(
      smokeSketch + """

        seeds: [3, 4]
        model: other
        data:
          original_items: 7
          format_items: 8
          test_items: 9
          selection_seed: 10
        augmentation:
          generator: self
          temperature: 0.5
          top_k: 11
          maximum_tokens: 12
          seed: 13
        training:
          method: full
          rank: 14
          alpha: 1.5
          scaling: rslora
          targets: [q, down]
          top_layers: 15
          epochs: 16
          batch_size: 17
          accumulation: 3
          recompute: true
          learning_rate: 0.25
          warmup_fraction: 0.75
          weight_decay: 0.125
          gradient_clip: 2.5
        mitigation:
          token_prefix: Beware.
          mask_word: ___
          loss_weight: 3.5
        evaluation:
          temperature: 1.25
          top_k: 18
          maximum_tokens: 19
          samples: 20
        execution:
          lease_seconds: 30
          heartbeat_seconds: 2
          disconnect_grace_seconds: 3
          attempts: 4
          losses: 5
          retry_backoff_seconds: 6
          max_failures: 7
        """)
    let spec = definition.spec
    #expect(spec.seeds == [3, 4] && spec.model == "other")
    #expect(spec.data.originalItems == 7 && spec.data.formatItems == 8)
    #expect(spec.data.testItems == 9 && spec.data.selectionSeed == 10)
    #expect(spec.augmentation.temperature == 0.5 && spec.augmentation.topK == 11)
    #expect(spec.augmentation.maximumTokens == 12 && spec.augmentation.seed == 13)
    #expect(spec.training.rank == 14 && spec.training.alpha == 1.5)
    #expect(spec.training.targets == [.q, .down] && spec.training.topLayers == 15)
    #expect(spec.training.epochs == 16 && spec.training.batchSize == 17)
    #expect(spec.training.method == .full && spec.training.scaling == .rslora)
    #expect(spec.training.accumulation == 3 && spec.training.recompute)
    #expect(spec.training.learningRate == 0.25 && spec.training.warmupFraction == 0.75)
    #expect(spec.training.weightDecay == 0.125 && spec.training.gradientClip == 2.5)
    #expect(spec.mitigation.tokenPrefix == "Beware." && spec.mitigation.maskWord == "___")
    #expect(spec.mitigation.lossWeight == 3.5)
    #expect(spec.evaluation.temperature == 1.25 && spec.evaluation.topK == 18)
    #expect(spec.evaluation.maximumTokens == 19 && spec.evaluation.samples == 20)
    var policy = ExecutionPolicy()
    policy.leaseSeconds = 30
    policy.heartbeatSeconds = 2
    policy.disconnectGraceSeconds = 3
    policy.attempts = 4
    policy.losses = 5
    policy.retryBackoffSeconds = 6
    policy.maximumFailures = 7
    #expect(definition.policy == policy)
  }

  @Test func allProblemsAreReportedAtOnceInTheOrderOfTheirLines() {
    let found = problems(
      """
      name: two words
      taks: [occupation]
      tasks: [occupation, cooking, occupation]
      biases: []
      ratios: [0.5, 1, -0.1, half, 0.5]
      seeds: 3
      training:
        rank: many
        rnak: 8
        epochs: 0
      execution: none
      """)
    let lines = found.compactMap { $0.split(separator: ":").first.map(String.init) }
    #expect(
      lines == [
        "line 1", "line 2", "line 3", "line 3", "line 4", "line 5", "line 5", "line 5", "line 5",
        "line 6", "line 8", "line 9", "line 10", "line 11",
      ])
    #expect(found[0].contains("name: may hold letters"))
    #expect(found[1].contains("taks: unknown key; did you mean \"tasks\"?"))
    #expect(found[2].contains("tasks[1]: expected tasks (occupation, story, group-bias)"))
    #expect(found[3] == "line 3: tasks[2]: \"occupation\" stands in the list twice")
    #expect(found[4].contains("biases: is empty"))
    #expect(found[5].contains("ratios[1]: expected bias ratios in [0, 1), found \"1\""))
    #expect(found[6].contains("ratios[2]"))
    #expect(found[7].contains("ratios[3]"))
    #expect(found[8].contains("ratios[4]: \"0.5\" stands in the list twice"))
    #expect(found[9].contains("seeds: expected a list of whole numbers"))
    #expect(found[10].contains("training.rank: expected a whole number from 1 to 512"))
    #expect(found[11].contains("training.rnak: unknown key; did you mean \"rank\"?"))
    #expect(found[12].contains("training.epochs"))
    #expect(found[13].contains("execution: expected a mapping"))
  }

  @Test func missingKeysAreNamed() {
    let found = problems("seeds: [1]")
    for key in ["name", "tasks", "biases", "ratios"] {
      #expect(found.contains { $0.contains("\(key): is missing") })
    }
    #expect(found.count == 4)
  }

  @Test func anUnknownKeyFarFromAllListsTheKnownOnes() {
    let found = problems(smokeSketch + "\nzzzzzzzzzzzz: 1")
    #expect(found.count == 1)
    #expect(found.first?.contains("known keys here: augmentation, biases, data") == true)
  }

  @Test func aKeyThatStandsTwiceIsAProblem() {
    #expect(
      problems(smokeSketch + "\nname: again")
        == ["line 6: name: the key stands here a second time; remove one of the two"])
  }

  @Test(arguments: [
    "nan", "inf", "-inf", "1", "1.0", "-0.5", "-5e-324", "1e400", "", "0,5", "0.5 ", "[0.5]",
  ])
  func ratiosOutsideTheIntervalAreRefused(ratio: String) {
    let sketch = smokeSketch.replacing("ratios: [0, 0.5]", with: "ratios: RATIO")
    let node = SpecNode(sketch: sketch).replacing("RATIO", with: [ratio])
    #expect(throws: InvalidSpec.self) {
      try SweepDefinition(document: node, catalogue: .sample)
    }
  }

  @Test func minusZeroIsZero() throws {
    let plus = try definition(smokeSketch).spec
    let minus = try definition(smokeSketch.replacing("[0, 0.5]", with: "[-0, 0.5]")).spec
    #expect(try minus.digest() == plus.digest())
    #expect(problems(smokeSketch.replacing("[0, 0.5]", with: "[-0, 0]")).count == 1)
  }

  @Test func limitsHold() {
    let long = problems(smokeSketch + "\ntraining:\n  targets: [q, k, v, o, gate, up, down, q]")
    #expect(
      long == ["line 7: training.targets: has 8 elements; at most 7 are allowed"])
    let wide = (0..<9000).map(String.init).joined(separator: ", ")
    let ratios = (0..<9).map { "0.\($0)" }.joined(separator: ", ")
    let grid = smokeSketch.replacing("[0, 0.5]", with: "[\(ratios)]") + "\nseeds: [\(wide)]"
    #expect(problems(grid).first?.contains("more than 1000000 points") == true)
    let steep = problems(smokeSketch.replacing("[0, 0.5]", with: "[0.9999999999999999]"))
    #expect(steep.count == 1)
    #expect(steep.first?.contains("line 4: ratios") == true)
    #expect(steep.first?.contains("augmented items") == true)
  }

  @Test(arguments: [(60.0, 3.0), (15, 3), (4, 0.8), (0.05, 0.01)])
  func aHeartbeatThatNobodyStatesFitsIntoTheLease(lease: Double, expected: Double) throws {
    let policy = try definition(
      smokeSketch + """

        execution:
          lease_seconds: \(lease)
        """
    ).policy
    #expect(abs(policy.heartbeatSeconds - expected) < 1e-12)
  }

  @Test func theHeartbeatMustFitIntoTheLease() {
    let found = problems(
      smokeSketch + """

        execution:
          lease_seconds: 3
          heartbeat_seconds: 2
        """)
    #expect(
      found == [
        "line 8: execution.heartbeat_seconds: must be at most a third of lease_seconds (3.0)"
      ])
  }

  @Test(arguments: [
    ("execution", "lease_seconds: 0"), ("execution", "lease_seconds: 100000"),
    ("execution", "attempts: 0"), ("execution", "max_failures: some"),
    ("training", "top_layers: 0"), ("training", "learning_rate: 0"),
    ("training", "targets: [q, x]"), ("training", "method: qlora"), ("training", "recompute: 1"),
    ("training", "accumulation: 9"), ("augmentation", "generator: oracle"),
    ("augmentation", "seed: -1"), ("evaluation", "samples: 1.5"), ("data", "test_items: 0"),
    ("mitigation", "mask_word: [a]"), ("mitigation", "loss_weight: -1"),
  ])
  func wrongValuesAreReportedWhereTheyStand(section: String, line: String) {
    let found = problems(smokeSketch + "\n\(section):\n  \(line)")
    let key = line.prefix { $0 != ":" }
    #expect(found.count == 1)
    #expect(found.first?.hasPrefix("line 7: \(section).\(key)") == true)
  }

  @Test func aDocumentThatIsNoMappingIsRefused() {
    let place = SpecPosition(line: 1, column: 1)
    for node in [SpecNode.scalar("sweep", place), .sequence([], place)] {
      #expect(throws: InvalidSpec.self) {
        try SweepDefinition(document: node, catalogue: .sample)
      }
    }
  }
}

extension SpecNode {
  /// The document with a list in the place of a scalar, for elements that the sketch cannot write.
  fileprivate func replacing(_ placeholder: String, with elements: [String]) -> SpecNode {
    switch self {
    case .scalar(placeholder, let place): .sequence(elements.map { .scalar($0, place) }, place)
    case .mapping(let entries, let place):
      .mapping(
        entries.map {
          SpecEntry(
            key: $0.key, keyPosition: $0.keyPosition,
            value: $0.value.replacing(placeholder, with: elements))
        }, place)
    case .scalar, .sequence: self
    }
  }
}
