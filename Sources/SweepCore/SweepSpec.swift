/// Everything that determines the results of a sweep.
///
/// Two specs with equal digests describe the same experiment. How it is carried out (workers,
/// leases, retries) is `ExecutionPolicy` and not part of it.
package struct SweepSpec: Codable, Hashable, Sendable {
  package var name: String
  /// A model in the cache directory, or the path of a GGUF file or Hugging Face directory.
  package var model: String
  package var tasks: [String]
  package var biases: [BiasType]
  /// Bias ratios γ = |D_a| / |D| in [0, 1).
  package var ratios: [Double]
  package var mitigations: [Mitigation]
  package var seeds: [UInt64]
  /// Rounds of inheritance: the fine-tune of a round writes the D_a of the next one.
  package var rounds = 1
  package var data: Data
  package var augmentation: Augmentation
  package var training: Training
  package var mitigation: MitigationSettings
  package var evaluation: Evaluation
  /// What the task files say of `tasks`.
  package var taskDefinitions: TaskDefinitions

  enum CodingKeys: String, CodingKey {
    case name, model, tasks, biases, ratios, mitigations, seeds, rounds, data, augmentation
    case training, mitigation, evaluation
    case taskDefinitions = "task_definitions"
  }

  /// The tasks that are defined, in the spec's order.
  package var definedTasks: [TaskDefinition] { tasks.compactMap { taskDefinitions[$0] } }

  /// Items of D_o of a domain: bias-carrying ones, and the format examples of its tasks.
  package func originalItems(_ domain: Domain, of tasks: [DownstreamTask]) -> Int {
    tasks.filter { $0.domain == domain }.reduce(data.originalItems) { sum, task in
      sum + (taskDefinitions[task.id]?.formatItems(data.formatItems) ?? data.formatItems)
    }
  }

  /// Sizes and selection of the original data.
  package struct Data: Codable, Hashable, Sendable {
    /// Bias-carrying original items of a domain (part of D_o).
    package var originalItems: Int
    /// Format examples of each task of the domain (part of D_o), never biased.
    package var formatItems: Int
    /// Test items of each task.
    package var testItems: Int
    /// Selects the items; one selection serves all seeds of the sweep.
    package var selectionSeed: UInt64

    enum CodingKeys: String, CodingKey {
      case originalItems = "original_items"
      case formatItems = "format_items"
      case testItems = "test_items"
      case selectionSeed = "selection_seed"
    }
  }

  /// How D_a is generated.
  package struct Augmentation: Codable, Hashable, Sendable {
    package enum Generator: String, Codable, CaseIterable, Sendable {
      /// The sweep's own model writes D_a.
      case model = "self"
      /// No model: texts from templates, with a planted association between groups and what is said
      /// of them. The positive control.
      case template
      /// A server that speaks OpenAI's chat completions protocol.
      case endpoint
    }
    package var generator: Generator
    /// Of `endpoint`; nil for other generators.
    package var endpoint: Endpoint?
    /// Of `template`: 0 plants nothing, 1 the full stereotype; nil for other generators.
    package var strength: Double?
    package var temperature: Double
    package var topK: Int
    package var maximumTokens: Int
    package var seed: UInt64

    enum CodingKeys: String, CodingKey {
      case generator, endpoint, strength, temperature
      case topK = "top_k"
      case maximumTokens = "maximum_tokens"
      case seed
    }

    /// A chat model on a server.
    package struct Endpoint: Codable, Hashable, Sendable {
      /// Up to and with "/v1".
      package var url: String
      package var model: String
      /// Environment variable of each worker that holds the key; nil for servers that ask for none.
      package var apiKeyVariable: String?
      /// Requests at once, of each worker.
      package var concurrency: Int
      /// Of each worker; nil for any number.
      package var requestsPerMinute: Int?
      /// Time for one whole answer.
      package var timeoutSeconds: Double
      /// Tries of one request.
      package var attempts: Int

      package init(
        url: String, model: String, apiKeyVariable: String? = nil, concurrency: Int = 4,
        requestsPerMinute: Int? = nil, timeoutSeconds: Double = 60, attempts: Int = 6
      ) {
        self.url = url
        self.model = model
        self.apiKeyVariable = apiKeyVariable
        self.concurrency = concurrency
        self.requestsPerMinute = requestsPerMinute
        self.timeoutSeconds = timeoutSeconds
        self.attempts = attempts
      }

      enum CodingKeys: String, CodingKey {
        case url, model
        case apiKeyVariable = "api_key_variable"
        case concurrency
        case requestsPerMinute = "requests_per_minute"
        case timeoutSeconds = "timeout_seconds"
        case attempts
      }
    }

    /// Whether a language model writes the D_a of a key.
    package func asksModel(_ key: AugmentationKey) -> Bool {
      key.bias != .sameSize && generator != .template
    }

    /// Most tokens of an item that the machine of the worker computes one by one.
    func generatedTokens(_ key: AugmentationKey) -> Int { asksModel(key) ? maximumTokens : 1 }
  }

  /// Fine-tuning hyperparameters.
  package struct Training: Codable, Hashable, Sendable {
    package enum Target: String, Codable, CaseIterable, Sendable {
      case q, k, v, o, gate, up, down
    }
    /// What is trained.
    package enum Method: String, Codable, CaseIterable, Sendable {
      /// Low-rank matrices beside the weights of the layers.
      case lora
      /// The weights themselves: all of the model's, or with `top_layers` those of the layers and the
      /// final normalisation.
      case full
    }
    /// The factor of the low-rank product.
    package enum Scaling: String, Codable, CaseIterable, Sendable {
      /// alpha / rank
      case lora
      /// alpha / √rank (Kalajdzievski, 2023)
      case rslora
    }
    package var method = Method.lora
    package var rank: Int
    package var alpha: Double
    package var scaling = Scaling.lora
    package var targets: [Target]
    /// This many uppermost layers are trained; nil means all.
    package var topLayers: Int?
    package var epochs: Int
    package var batchSize: Int
    /// Parts that a step is computed in, one after the other, to save memory.
    package var accumulation = 1
    /// Whether activations are computed again for the backward pass rather than kept; the same
    /// result.
    package var recompute = false
    package var learningRate: Double
    package var warmupFraction: Double
    package var weightDecay: Double
    package var gradientClip: Double

    enum CodingKeys: String, CodingKey {
      case method, rank, alpha, scaling, targets
      case topLayers = "top_layers"
      case epochs
      case batchSize = "batch_size"
      case accumulation, recompute
      case learningRate = "learning_rate"
      case warmupFraction = "warmup_fraction"
      case weightDecay = "weight_decay"
      case gradientClip = "gradient_clip"
    }
  }

  package struct MitigationSettings: Codable, Hashable, Sendable {
    /// Prefix of augmented items under `token`.
    package var tokenPrefix: String
    /// Word that replaces identity words under `mask`.
    package var maskWord: String
    /// λ of the alignment term under `loss`.
    package var lossWeight: Double
    /// Words that `mask` replaces, besides names; "_" joins the words of a phrase. Nil without
    /// `mask`.
    package var maskedWords: [String]?
    /// What `mask-neutral` replaces, as "word=neutral word", "_" joining the words of phrases; two
    /// neutral words joined by "/" are the possessive and the object form. Nil without
    /// `mask-neutral`.
    package var neutralWords: [String]?
    /// First names that `mask` and `mask-neutral` leave as they are unless they are an item's own,
    /// because they are ordinary words too. Nil without both, and in older specs, for which the
    /// study's list counts.
    package var unmaskedNames: [String]?
    /// What `token-decoding` makes equally probable: lists of the words of groups, "|" between
    /// groups and spaces between words. Nil without `token-decoding`.
    package var equalisedWords: [String]?
    /// τ of `loss-reweight`, whose weights are (1 − e^−ℓ)^τ; nil without it.
    package var reweightExponent: Double?

    enum CodingKeys: String, CodingKey {
      case tokenPrefix = "token_prefix"
      case maskWord = "mask_word"
      case lossWeight = "loss_weight"
      case maskedWords = "masked_words"
      case neutralWords = "neutral_words"
      case unmaskedNames = "unmasked_names"
      case equalisedWords = "equalised_words"
      case reweightExponent = "reweight_exponent"
    }
  }

  /// How generation tasks are sampled.
  package struct Evaluation: Codable, Hashable, Sendable {
    package var temperature: Double
    package var topK: Int
    package var maximumTokens: Int
    package var samples: Int

    enum CodingKeys: String, CodingKey {
      case temperature
      case topK = "top_k"
      case maximumTokens = "maximum_tokens"
      case samples
    }
  }
}

extension SweepSpec {
  /// Axes that came later stand in the JSON only where they are not the default, so that older specs
  /// keep their digests.
  package init(from decoder: any Decoder) throws {
    let values = try decoder.container(keyedBy: CodingKeys.self)
    func value<Value: Decodable>(_ key: CodingKeys) throws -> Value {
      try values.decode(Value.self, forKey: key)
    }
    let rounds = try values.decodeIfPresent(Int.self, forKey: .rounds) ?? 1
    guard Self.roundsAllowed.contains(rounds) else {
      throw DecodingError.dataCorruptedError(
        forKey: .rounds, in: values, debugDescription: "there are no \(rounds) rounds")
    }
    self.init(
      name: try value(.name), model: try value(.model), tasks: try value(.tasks),
      biases: try value(.biases), ratios: try value(.ratios),
      mitigations: try value(.mitigations), seeds: try value(.seeds), rounds: rounds,
      data: try value(.data), augmentation: try value(.augmentation),
      training: try value(.training), mitigation: try value(.mitigation),
      evaluation: try value(.evaluation),
      // Specs from before there were task files have none: see the extension that decodes them.
      taskDefinitions: try values.decode(TaskDefinitions.self, forKey: .taskDefinitions))
  }

  package func encode(to encoder: any Encoder) throws {
    var values = encoder.container(keyedBy: CodingKeys.self)
    try values.encode(name, forKey: .name)
    try values.encode(model, forKey: .model)
    try values.encode(tasks, forKey: .tasks)
    try values.encode(biases, forKey: .biases)
    try values.encode(ratios, forKey: .ratios)
    try values.encode(mitigations, forKey: .mitigations)
    try values.encode(seeds, forKey: .seeds)
    if rounds != 1 { try values.encode(rounds, forKey: .rounds) }
    try values.encode(data, forKey: .data)
    try values.encode(augmentation, forKey: .augmentation)
    try values.encode(training, forKey: .training)
    try values.encode(mitigation, forKey: .mitigation)
    try values.encode(evaluation, forKey: .evaluation)
    try values.encode(taskDefinitions, forKey: .taskDefinitions)
  }

  /// Each round waits for the one before it, so more of them are a mistake rather than a plan.
  package static let roundsAllowed = 1...100
}

extension SweepSpec.Training {
  /// Settings that came later stand in the JSON only where they are not the default, so that older
  /// specs keep their digests.
  package init(from decoder: any Decoder) throws {
    let values = try decoder.container(keyedBy: CodingKeys.self)
    func value<Value: Decodable>(_ key: CodingKeys) throws -> Value {
      try values.decode(Value.self, forKey: key)
    }
    func later<Value: Decodable>(_ key: CodingKeys, _ standard: Value) throws -> Value {
      try values.decodeIfPresent(Value.self, forKey: key) ?? standard
    }
    self.init(
      method: try later(.method, .lora), rank: try value(.rank), alpha: try value(.alpha),
      scaling: try later(.scaling, .lora), targets: try value(.targets),
      topLayers: try values.decodeIfPresent(Int.self, forKey: .topLayers),
      epochs: try value(.epochs), batchSize: try value(.batchSize),
      accumulation: try later(.accumulation, 1), recompute: try later(.recompute, false),
      learningRate: try value(.learningRate), warmupFraction: try value(.warmupFraction),
      weightDecay: try value(.weightDecay), gradientClip: try value(.gradientClip))
  }

  package func encode(to encoder: any Encoder) throws {
    var values = encoder.container(keyedBy: CodingKeys.self)
    if method != .lora { try values.encode(method, forKey: .method) }
    try values.encode(rank, forKey: .rank)
    try values.encode(alpha, forKey: .alpha)
    if scaling != .lora { try values.encode(scaling, forKey: .scaling) }
    try values.encode(targets, forKey: .targets)
    try values.encodeIfPresent(topLayers, forKey: .topLayers)
    try values.encode(epochs, forKey: .epochs)
    try values.encode(batchSize, forKey: .batchSize)
    if accumulation != 1 { try values.encode(accumulation, forKey: .accumulation) }
    if recompute { try values.encode(recompute, forKey: .recompute) }
    try values.encode(learningRate, forKey: .learningRate)
    try values.encode(warmupFraction, forKey: .warmupFraction)
    try values.encode(weightDecay, forKey: .weightDecay)
    try values.encode(gradientClip, forKey: .gradientClip)
  }
}

/// How a sweep is carried out. Does not influence results.
package struct ExecutionPolicy: Codable, Hashable, Sendable {
  /// A worker that is silent for this long loses its leases.
  package var leaseSeconds: Double = 15
  /// How often a worker says that it is there.
  package var heartbeatSeconds: Double = usualHeartbeat(ofLease: 15)
  /// A worker whose connection broke has this long to come back before its leases end.
  package var disconnectGraceSeconds: Double = 0.25
  /// Attempts of a shard that end in an error before the shard is quarantined.
  package var attempts: Int = 3
  /// Attempts of a shard that end with the loss of the worker before it is quarantined.
  package var losses: Int = 10
  package var retryBackoffSeconds: Double = 1
  /// Least time of work between two checkpoints of a shard: what a killed worker may lose.
  package var checkpointSeconds: Double = 10
  /// The sweep stops once this many shards are quarantined; nil means never.
  package var maximumFailures: Int?
  /// A shard gets a second copy when nothing is queued and its lease is expected to last this many
  /// times as long as a fresh attempt by an idle worker would; nil means never.
  package var stragglerFactor: Double? = 2
  /// A host on which this many different shards failed, and none was completed in between, gets
  /// none for a while, if there are other hosts.
  package var hostFailures: Int = 3
  /// How long a host is left alone the first time; doubles with each further time, to 16 times.
  package var hostCoolDownSeconds: Double = 60
  /// Memory that one shard needs. A worker that says how much it has runs no more shards at once
  /// than fit; nil means that only slots count.
  package var shardMemoryBytes: Int?

  package init() {}

  /// Seconds between heartbeats where nobody says otherwise: a thousand workers should not send more
  /// of them than reports, and a lease should survive the loss of some.
  package static func usualHeartbeat(ofLease seconds: Double) -> Double { min(3, seconds / 5) }

  enum CodingKeys: String, CodingKey {
    case leaseSeconds = "lease_seconds"
    case heartbeatSeconds = "heartbeat_seconds"
    case disconnectGraceSeconds = "disconnect_grace_seconds"
    case attempts, losses
    case retryBackoffSeconds = "retry_backoff_seconds"
    case checkpointSeconds = "checkpoint_seconds"
    case maximumFailures = "max_failures"
    case stragglerFactor = "straggler_factor"
    case hostFailures = "host_failures"
    case hostCoolDownSeconds = "host_cool_down_seconds"
    case shardMemoryBytes = "shard_memory_bytes"
  }
}
