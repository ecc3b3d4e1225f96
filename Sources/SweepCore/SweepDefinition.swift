/// The study's word lists, as a spec has them; see `SweepSpec.MitigationSettings`.
package struct MitigationWords: Sendable, Hashable {
  package let masked: [String]?
  package let neutral: [String]?
  package let unmaskedNames: [String]?
  package let equalised: [String]?

  package static let none = MitigationWords(
    masked: nil, neutral: nil, unmaskedNames: nil, equalised: nil)

  package init(
    masked: [String]?, neutral: [String]?, unmaskedNames: [String]?, equalised: [String]?
  ) {
    self.masked = masked
    self.neutral = neutral
    self.unmaskedNames = unmaskedNames
    self.equalised = equalised
  }
}

/// A validated spec document: what the sweep is, how it is carried out, and its tasks.
package struct SweepDefinition: Sendable {
  package let spec: SweepSpec
  package var policy: ExecutionPolicy
  package let tasks: [DownstreamTask]

  /// Grid points beyond this are a mistake rather than a plan.
  package static let gridPointsMax = 1_000_000

  /// Items of one set of augmented data; they grow without bound as the ratio nears 1.
  package static let augmentedItemsMax = 10_000_000

  package var plan: ShardPlan { ShardPlan(spec: spec, tasks: tasks) }

  /// - Parameter words: the lists that a spec which needs them and names none gets.
  /// - Throws: `InvalidSpec` with every problem of the document.
  package init(
    document: SpecNode, catalogue: TaskCatalogue, words: MitigationWords = .none
  ) throws(InvalidSpec) {
    var root = SpecDecoder(document, path: "")
    let axisMax = Self.gridPointsMax

    let name = root.string("name")
    if !name.allSatisfy({ $0.isLetter || $0.isNumber || "-_.".contains($0) }) {
      root.report("name", "may hold letters, digits, '-', '_' and '.' only")
    }
    let model = root.string("model", default: "SmolLM2-135M-Instruct")
    let taskIDs = catalogue.definitions.map(\.id)
    let definitions = root.list(
      "tasks", of: "tasks (\(taskIDs.joined(separator: ", ")))", limit: axisMax,
      parse: { catalogue[$0] })
    let biases: [BiasType] = root.list(
      "biases", of: "bias types (\(Self.names(BiasType.self)))", limit: axisMax,
      parse: { BiasType(rawValue: $0) })
    let ratios = root.list(
      "ratios", of: "bias ratios in [0, 1)", limit: axisMax,
      parse: { Double($0).flatMap { $0 >= 0 && $0 < 1 ? $0 + 0 : nil } })
    let mitigations: [Mitigation] = root.list(
      "mitigations", of: "mitigations (\(Self.names(Mitigation.self)))",
      default: [Mitigation.none], limit: axisMax, parse: { Mitigation(rawValue: $0) })
    let seeds: [UInt64] = root.list(
      "seeds", of: "whole numbers from 0 to \(Int64.max)", default: [1], limit: axisMax,
      parse: { Int64($0).flatMap { UInt64(exactly: $0) } })
    let rounds = root.integer("rounds", in: SweepSpec.roundsAllowed, default: 1)

    var section = root.section("data")
    let data = SweepSpec.Data(
      originalItems: section.integer("original_items", in: 1...1_000_000, default: 240),
      formatItems: section.integer("format_items", in: 0...1_000_000, default: 60),
      testItems: section.integer("test_items", in: 1...1_000_000, default: 100),
      selectionSeed: section.seed("selection_seed", default: 1))
    root.absorb(section)

    section = root.section("augmentation")
    let generator: SweepSpec.Augmentation.Generator = section.choice("generator", default: .model)
    var strength: Double?
    if generator == .template {
      strength = section.number("strength", "a number from 0 to 1", default: 1) {
        (0...1).contains($0)
      }
    } else {
      section.forbid("strength", "is for `generator: template` only; remove it")
    }
    let endpoint: SweepSpec.Augmentation.Endpoint?
    if generator == .endpoint {
      var server = section.section("endpoint")
      endpoint = SweepSpec.Augmentation.Endpoint(reading: &server)
      section.absorb(server)
    } else {
      section.forbid("endpoint", "is for `generator: endpoint` only; remove it")
      endpoint = nil
    }
    let augmentation = SweepSpec.Augmentation(
      generator: generator, endpoint: endpoint, strength: strength,
      temperature: section.number("temperature", "a number from 0 to 5", default: 0.7) {
        (0...5).contains($0)
      },
      topK: section.integer("top_k", in: 0...1_000_000, default: 40),
      maximumTokens: section.integer("maximum_tokens", in: 8...2048, default: 60),
      seed: section.seed("seed", default: 1))
    if rounds > 1, generator != .model {
      root.report(
        "rounds",
        "a round's fine-tune writes the augmented data of the next, but augmentation.generator is "
          + "\(generator.rawValue); use self, or remove one of the two")
    }
    root.absorb(section)

    section = root.section("training")
    let training = SweepSpec.Training(
      method: section.choice("method", default: .lora),
      rank: section.integer("rank", in: 1...512, default: 8),
      alpha: section.number("alpha", "a number above 0", default: 16) { $0 > 0 },
      scaling: section.choice("scaling", default: .lora),
      targets: section.list(
        "targets", of: "modules (\(Self.names(SweepSpec.Training.Target.self)))",
        default: SweepSpec.Training.Target.allCases, limit: 7,
        parse: { SweepSpec.Training.Target(rawValue: $0) }),
      topLayers: section.integer("top_layers", in: 1...1000, orNilFor: "all", default: nil),
      epochs: section.integer("epochs", in: 1...1000, default: 3),
      batchSize: section.integer("batch_size", in: 1...4096, default: 8),
      accumulation: section.integer("accumulation", in: 1...4096, default: 1),
      recompute: section.flag("recompute", default: false),
      learningRate: section.number("learning_rate", "a number above 0", default: 1e-3) { $0 > 0 },
      warmupFraction: section.number("warmup_fraction", "a number from 0 to 1", default: 0.1) {
        (0...1).contains($0)
      },
      weightDecay: section.number("weight_decay", "a number from 0", default: 0.0) { $0 >= 0 },
      gradientClip: section.number("gradient_clip", "a number above 0", default: 1.0) { $0 > 0 })
    if training.accumulation > training.batchSize {
      section.report(
        "accumulation", "must be at most batch_size (\(training.batchSize)): parts of a step")
    }
    root.absorb(section)

    section = root.section("mitigation")
    func wordList(
      _ key: String, for users: [Mitigation], default words: [String]?, form: String,
      where accepts: @escaping (String) -> Bool
    ) -> [String]? {
      guard mitigations.contains(where: { users.contains($0) }) else {
        let names = users.map(\.rawValue).joined(separator: " or ")
        section.forbid(key, "is for the mitigation \(names), which the sweep does not have")
        return nil
      }
      let expected = "words (\(form))"
      // Without lists of the study the code that applies the mitigation has its own.
      guard words != nil || section.has(key) else { return nil }
      return section.list(key, of: expected, default: words, limit: 10_000) {
        accepts($0) ? $0 : nil
      }
    }
    func isPhrase(_ text: Substring) -> Bool {
      !text.isEmpty && text.allSatisfy { $0.isLetter || $0.isNumber || "_-".contains($0) }
    }
    let maskedWords = wordList(
      "masked_words", for: [.mask], default: words.masked, form: "\"_\" joins those of a phrase"
    ) { isPhrase($0[...]) }
    let neutralWords = wordList(
      "neutral_words", for: [.maskNeutral], default: words.neutral, form: "as \"word=neutral\""
    ) { text in
      let sides = text.split(separator: "=", omittingEmptySubsequences: false)
      return sides.count == 2 && isPhrase(sides[0])
        && (1...2).contains(sides[1].split(separator: "/", omittingEmptySubsequences: false).count)
        && sides[1].split(separator: "/", omittingEmptySubsequences: false).allSatisfy(isPhrase)
    }
    let unmaskedNames = wordList(
      "unmasked_names", for: [.mask, .maskNeutral], default: words.unmaskedNames,
      form: "first names, capitalised"
    ) { text in
      isPhrase(text[...]) && text.first?.isUppercase == true
    }
    let equalisedWords = wordList(
      "equalised_words", for: [.tokenDecoding], default: words.equalised,
      form: "of each group with spaces between them, \"|\" between groups"
    ) { text in
      let groups = text.split(separator: "|", omittingEmptySubsequences: false)
      let all = groups.flatMap { $0.split(separator: " ") }
      return groups.count >= 2 && groups.allSatisfy { $0.contains { $0 != " " } }
        && all.allSatisfy(isPhrase) && Set(all).count == all.count
    }
    var reweightExponent: Double?
    if mitigations.contains(.lossReweight) {
      reweightExponent = section.number("reweight_exponent", "a number above 0", default: 1) {
        $0 > 0
      }
    } else {
      section.forbid(
        "reweight_exponent",
        "is for the mitigation loss-reweight, which the sweep does not have")
    }
    let mitigation = SweepSpec.MitigationSettings(
      tokenPrefix: section.string(
        "token_prefix", default: "The following text may contain bias."),
      maskWord: section.string("mask_word", default: "[MASK]"),
      lossWeight: section.number("loss_weight", "a number from 0", default: 0.1) { $0 >= 0 },
      maskedWords: maskedWords, neutralWords: neutralWords, unmaskedNames: unmaskedNames,
      equalisedWords: equalisedWords, reweightExponent: reweightExponent)
    if generator != .model, mitigations.contains(.tokenDecoding) {
      root.report(
        "mitigations",
        "token-decoding acts on how the sweep's own model decodes, but augmentation.generator is "
          + "\(generator.rawValue); remove one of the two")
    }
    root.absorb(section)

    section = root.section("evaluation")
    let evaluation = SweepSpec.Evaluation(
      temperature: section.number("temperature", "a number from 0 to 5", default: 0.7) {
        (0...5).contains($0)
      },
      topK: section.integer("top_k", in: 0...1_000_000, default: 40),
      maximumTokens: section.integer("maximum_tokens", in: 8...2048, default: 60),
      samples: section.integer("samples", in: 1...1000, default: 1))
    root.absorb(section)

    section = root.section("execution")
    var policy = ExecutionPolicy()
    func seconds(_ key: String, _ value: inout Double) {
      value = section.number(key, "a number of seconds from 0.05 to 86400", default: value) {
        (0.05...86_400).contains($0)
      }
    }
    seconds("lease_seconds", &policy.leaseSeconds)
    policy.heartbeatSeconds = ExecutionPolicy.usualHeartbeat(ofLease: policy.leaseSeconds)
    seconds("heartbeat_seconds", &policy.heartbeatSeconds)
    seconds("disconnect_grace_seconds", &policy.disconnectGraceSeconds)
    seconds("retry_backoff_seconds", &policy.retryBackoffSeconds)
    seconds("checkpoint_seconds", &policy.checkpointSeconds)
    policy.attempts = section.integer("attempts", in: 1...1000, default: policy.attempts)
    policy.losses = section.integer("losses", in: 1...1000, default: policy.losses)
    policy.maximumFailures = section.integer(
      "max_failures", in: 1...1_000_000, orNilFor: "none", default: nil)
    let straggler = section.number(
      "straggler_factor", "a number from 1.1 to 1000, or 0 for no copies",
      default: policy.stragglerFactor ?? 0
    ) { $0 == 0 || (1.1...1000).contains($0) }
    policy.stragglerFactor = straggler == 0 ? nil : straggler
    policy.hostFailures = section.integer(
      "host_failures", in: 1...1000, default: policy.hostFailures)
    seconds("host_cool_down_seconds", &policy.hostCoolDownSeconds)
    let megabytes = section.integer(
      "shard_memory_mb", in: 1...100_000_000, orNilFor: "none", default: nil)
    policy.shardMemoryBytes = megabytes.map { $0 << 20 }
    if policy.heartbeatSeconds * 3 > policy.leaseSeconds {
      section.report(
        "heartbeat_seconds", "must be at most a third of lease_seconds (\(policy.leaseSeconds))")
    }
    root.absorb(section)

    let points = [
      definitions.count, biases.count, ratios.count, mitigations.count, seeds.count, rounds,
    ].reduce((value: 1, overflow: false)) { product, count in
      let next = product.value.multipliedReportingOverflow(by: count)
      return (next.partialValue, product.overflow || next.overflow)
    }
    if points.overflow || points.value > Self.gridPointsMax {
      root.report("", "the grid has more than \(Self.gridPointsMax) points; shorten an axis")
    }
    let original = data.originalItems + data.formatItems * definitions.count
    if let ratio = ratios.max(),
      ratio / (1 - ratio) * Double(original) > Double(Self.augmentedItemsMax)
    {
      root.report(
        "ratios",
        "\(ratio) asks for more than \(Self.augmentedItemsMax) augmented items beside "
          + "\(original) original ones; lower it")
    }
    root.finish()
    guard root.problems.isEmpty else { throw InvalidSpec(problems: root.problems) }

    self.tasks = definitions.map(\.task)
    self.policy = policy
    self.spec = SweepSpec(
      name: name, model: model, tasks: definitions.map(\.id), biases: biases, ratios: ratios,
      mitigations: mitigations, seeds: seeds, rounds: rounds, data: data,
      augmentation: augmentation, training: training, mitigation: mitigation,
      evaluation: evaluation,
      taskDefinitions: TaskDefinitions(definitions))
  }

  /// Names of values, for messages.
  private static func names<Value: RawRepresentable & CaseIterable>(
    _ type: Value.Type
  ) -> String where Value.RawValue == String {
    Value.allCases.map(\.rawValue).joined(separator: ", ")
  }
}

extension SweepSpec.Augmentation.Endpoint {
  /// Reads the section `augmentation.endpoint`.
  fileprivate init(reading section: inout SpecDecoder) {
    let url = section.string("url")
    let isWeb = url.hasPrefix("http://") || url.hasPrefix("https://")
    if !url.isEmpty, !isWeb || url.contains(where: { $0.isWhitespace || "@?#".contains($0) }) {
      section.report(
        "url", "expected the URL of a server without user or query, such as http://host:8080/v1")
    }
    var variable: String?
    if section.has("api_key_variable") {
      let name = section.string("api_key_variable")
      let isName = name.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") }
      if !isName || name.first?.isNumber == true {
        section.report(
          "api_key_variable",
          "expected the name of an environment variable; the key itself never stands in a spec")
      }
      variable = name
    }
    self.init(
      url: url.hasSuffix("/") ? String(url.dropLast()) : url, model: section.string("model"),
      apiKeyVariable: variable,
      concurrency: section.integer("concurrency", in: 1...256, default: 4),
      requestsPerMinute: section.integer(
        "requests_per_minute", in: 1...1_000_000, orNilFor: "unlimited", default: nil),
      timeoutSeconds: section.number(
        "timeout_seconds", "a number of seconds from 0.05 to 3600", default: 60
      ) { (0.05...3600).contains($0) },
      attempts: section.integer("attempts", in: 1...100, default: 6))
  }
}
