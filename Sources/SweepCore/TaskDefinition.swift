/// A downstream task as its task file defines it: data, prompt, answers, groups and metrics.
///
/// A pure value: part of the resolved spec, so that a sweep's digest covers its tasks and a worker
/// needs no task files. Texts may hold placeholders, `{field}`, which stand for a field of an item.
package struct TaskDefinition: Codable, Hashable, Sendable {
  /// What is asked of the model.
  package enum Kind: String, Codable, CaseIterable, Sendable {
    /// The probabilities of given answers, one of which is right.
    case classification
    /// The probabilities of given answers, against the shares of real people who gave them.
    case survey
    /// A text.
    case text
    /// A number: the probabilities of given numbers, and numbers that the model writes.
    case number
    /// One of several people, listed in the prompt in several orders.
    case selection
  }

  /// How a task is related to the bias of the augmented data.
  package enum Relation: String, Codable, CaseIterable, Sendable {
    case direct, indirect
    /// Not at all: what moves it is not bias.
    case placebo
  }

  package var id: String
  package var version: Int
  package var summary: String
  package var domain: Domain
  package var kind: Kind
  package var relation: Relation
  package var data: TaskData
  package var prompt: String
  package var answers: TaskAnswers
  /// Fields, replaced by values that say nothing. What a model prefers to answer to such inputs is
  /// taken off its scores.
  package var contentFree: [[String: String]]
  /// The identities in which each item is asked; forms of an item are each other's twins. Empty: one
  /// form, the item itself.
  package var forms: [TaskForm]
  /// Fields whose values are groups that metrics compare.
  package var groups: [String]
  /// The field that names the form which a stereotype favours: differences between twins are positive
  /// where the model goes with it. Nil: they are first form less second.
  package var favoured: String?
  /// Texts whose likelihoods are compared, for the metric `preference`.
  package var preference: TaskPreference?
  package var metrics: [TaskMetric]
  package var headlines: [Headline]
  /// Published numbers to read the metrics beside; recorded as they stand.
  package var references: [String: Double]
  package var origin: TaskOrigin
  /// Mean tokens of a prompt and of an answer, for estimates of cost only.
  package var expectedTokens: ExpectedTokens

  package init(
    id: String, version: Int = 1, summary: String, domain: Domain, kind: Kind, relation: Relation,
    data: TaskData, prompt: String, answers: TaskAnswers, contentFree: [[String: String]] = [],
    forms: [TaskForm] = [], groups: [String] = [], favoured: String? = nil,
    preference: TaskPreference? = nil, metrics: [TaskMetric] = [], headlines: [Headline] = [],
    references: [String: Double] = [:], origin: TaskOrigin,
    expectedTokens: ExpectedTokens = ExpectedTokens(prompt: 45, answer: 2)
  ) {
    self.id = id
    self.version = version
    self.summary = summary
    self.domain = domain
    self.kind = kind
    self.relation = relation
    self.data = data
    self.prompt = prompt
    self.answers = answers
    self.contentFree = contentFree
    self.forms = forms
    self.groups = groups
    self.favoured = favoured
    self.preference = preference
    self.metrics = metrics
    self.headlines = headlines
    self.references = references
    self.origin = origin
    self.expectedTokens = expectedTokens
  }

  enum CodingKeys: String, CodingKey {
    case id, version, summary, domain, kind, relation, data, prompt, answers
    case contentFree = "content_free"
    case forms, groups, favoured, preference, metrics, headlines, references, origin
    case expectedTokens = "expected_tokens"
  }

  /// The task as the grid knows it.
  package var task: DownstreamTask { DownstreamTask(id: id, domain: domain, summary: summary) }

  /// Test items of the task where a sweep asks for `count`.
  package func testItems(_ count: Int) -> Int { min(count, data.testItemsMax ?? count) }

  /// Format examples of the task where a sweep asks for `count`.
  package func formatItems(_ count: Int) -> Int { answers.hasFormatExamples ? count : 0 }
}

/// Where the items of a task come from and how they are chosen.
package struct TaskData: Codable, Hashable, Sendable {
  package enum Source: Codable, Hashable, Sendable {
    /// A file of the data manifest.
    case dataset(name: String, file: String)
    /// Items that the program makes from the study's own data.
    case collection(String)
    /// A file of the user's, by name (its ending tells the format) and content.
    case file(name: String, sha256: ContentDigest)
  }

  package var source: Source
  /// Only items with one of the values in each of these fields.
  package var keep: [String: [String]]
  /// The field that names what belongs together: items of a cluster are not independent, and stand
  /// in one split.
  package var cluster: String
  /// The field that holds "training" or "test"; nil to split by a hash of the cluster.
  package var splitField: String?
  /// Format examples and test items are drawn evenly over the values of these fields.
  package var balance: [String]
  /// The data have no more test items.
  package var testItemsMax: Int?

  package init(
    source: Source, keep: [String: [String]] = [:], cluster: String, splitField: String? = nil,
    balance: [String] = [], testItemsMax: Int? = nil
  ) {
    self.source = source
    self.keep = keep
    self.cluster = cluster
    self.splitField = splitField
    self.balance = balance
    self.testItemsMax = testItemsMax
  }

  enum CodingKeys: String, CodingKey {
    case source, keep, cluster
    case splitField = "split_field"
    case balance
    case testItemsMax = "test_items_max"
  }
}

/// What a model may answer, and what is right.
package struct TaskAnswers: Codable, Hashable, Sendable {
  /// The same choices for all items; empty if they stand in a field or the answer is free.
  package var choices: [String]
  /// The field with the list of an item's choices.
  package var choicesField: String?
  /// The field with the choices as `{options}` lists them; nil for the choices themselves.
  package var listedField: String?
  /// The field with the right choice, or with the answer of a format example.
  package var label: String?
  /// The field with the shares of real people's answers, in the order of the choices.
  package var shares: String?
  /// The field with the true number, for `amounts`.
  package var truth: String?
  /// The choice that counts as positive where there are two.
  package var positive: String?
  /// Orders in which `{options}` lists the choices; scores are means over them.
  package var orders: Int
  /// A text counts as an answer only if it names this.
  package var mention: String?
  /// Items for which the model also writes the number, or names its choice, beside the
  /// probabilities that it gives.
  package var sampledItems: Int
  /// Whether D_o holds examples of the task.
  package var hasFormatExamples: Bool

  package init(
    choices: [String] = [], choicesField: String? = nil, listedField: String? = nil,
    label: String? = nil, shares: String? = nil, truth: String? = nil,
    positive: String? = nil, orders: Int = 1,
    mention: String? = nil, sampledItems: Int = 0, hasFormatExamples: Bool = true
  ) {
    self.choices = choices
    self.choicesField = choicesField
    self.listedField = listedField
    self.label = label
    self.shares = shares
    self.truth = truth
    self.positive = positive
    self.orders = orders
    self.mention = mention
    self.sampledItems = sampledItems
    self.hasFormatExamples = hasFormatExamples
  }

  enum CodingKeys: String, CodingKey {
    case choices
    case choicesField = "choices_field"
    case listedField = "listed_field"
    case label, shares, truth, positive, orders, mention
    case sampledItems = "sampled_items"
    case hasFormatExamples = "has_format_examples"
  }
}

/// An identity in which an item is asked.
package struct TaskForm: Codable, Hashable, Sendable {
  /// Such as "female".
  package var name: String
  /// The fields that this form has of its own.
  package var fields: [String: String]

  package init(name: String, fields: [String: String]) {
    self.name = name
    self.fields = fields
  }
}

/// Texts that a model writes more or less readily after a prompt.
package struct TaskPreference: Codable, Hashable, Sendable {
  package var prompt: String
  package var stereotype: String
  package var antiStereotype: String
  package var unrelated: String

  package init(prompt: String, stereotype: String, antiStereotype: String, unrelated: String) {
    self.prompt = prompt
    self.stereotype = stereotype
    self.antiStereotype = antiStereotype
    self.unrelated = unrelated
  }

  enum CodingKeys: String, CodingKey {
    case prompt, stereotype
    case antiStereotype = "anti_stereotype"
    case unrelated
  }
}

/// A family of metrics; docs/STUDY.md defines each.
package enum TaskMetric: String, Codable, CaseIterable, Sendable {
  /// Share of right answers, also by form.
  case accuracy
  /// Mean of the labels' F1 scores.
  case macroF1 = "macro_f1"
  /// Area under the ROC curve of the positive choice's score.
  case auroc
  /// Accuracy by group, and the largest difference.
  case groupAccuracy = "group_accuracy"
  /// False positive and negative rates by group, and equalized odds.
  case errorRates = "error_rates"
  /// True positive rates of the two forms by label.
  case tprGaps = "tpr_gaps"
  /// Flips and differences in log-odds between the two forms.
  case twins
  /// BBQ's bias scores.
  case questionBias = "question_bias"
  /// Which of a stereotype and its opposite the model finds more likely (StereoSet).
  case preference
  /// 1 − Jensen-Shannon divergence from the real distribution, also by group.
  case similarity
  /// VADER's compound score, also by group.
  case sentiment
  /// Negative words among the listed adjectives, also by group and axis.
  case adjectives
  /// Distinct pairs of words.
  case distinct2 = "distinct_2"
  /// Means by form, the gap between two forms, rank correlation with the truth, parsed numbers.
  case amounts
  /// Shares of selections by group, demographic parity, impact ratio, log-odds of women.
  case selections
}

/// A metric that stands for a task.
package struct Headline: Codable, Hashable, Sendable {
  package enum Role: String, Codable, CaseIterable, Sendable {
    /// How well the model does the task.
    case skill
    /// How unequally it treats the groups.
    case bias
  }
  package enum Direction: String, Codable, CaseIterable, Sendable {
    case better, worse, neither
  }

  package var metric: String
  /// The per-item measure whose mean over the items is the metric, if there is one.
  package var items: String?
  package var role: Role
  /// What a model without skill reaches.
  package var chance: Double?
  /// What a larger value means; "neither" for signed measures, of which 0 is best.
  package var direction: Direction

  package init(
    metric: String, items: String? = nil, role: Role, chance: Double? = nil, direction: Direction
  ) {
    self.metric = metric
    self.items = items
    self.role = role
    self.chance = chance
    self.direction = direction
  }
}

/// Where the data of a task come from.
package struct TaskOrigin: Codable, Hashable, Sendable {
  package var source: String
  package var licence: String
  package var citation: String

  package init(source: String, licence: String, citation: String) {
    self.source = source
    self.licence = licence
    self.citation = citation
  }
}

package struct ExpectedTokens: Codable, Hashable, Sendable {
  package var prompt: Int
  package var answer: Int

  package init(prompt: Int, answer: Int) {
    self.prompt = prompt
    self.answer = answer
  }
}

/// The definitions of a sweep's tasks by identifier. Specs of ledgers from before there were task
/// files have none.
package struct TaskDefinitions: Codable, Hashable, Sendable {
  private var byID: [String: TaskDefinition]

  package init(_ definitions: some Sequence<TaskDefinition>) {
    byID = Dictionary(definitions.map { ($0.id, $0) }, uniquingKeysWith: { first, _ in first })
  }

  package init(from decoder: any Decoder) throws {
    byID = try decoder.singleValueContainer().decode([String: TaskDefinition].self)
  }

  package func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(byID)
  }

  package var isEmpty: Bool { byID.isEmpty }

  package subscript(id: String) -> TaskDefinition? { byID[id] }
}

// A spec without definitions is written and read without the key, so that it keeps its digest.

extension KeyedDecodingContainer {
  package func decode(
    _ type: TaskDefinitions.Type, forKey key: Key
  ) throws -> TaskDefinitions {
    try decodeIfPresent(type, forKey: key) ?? TaskDefinitions([])
  }
}

extension KeyedEncodingContainer {
  package mutating func encode(_ value: TaskDefinitions, forKey key: Key) throws {
    if !value.isEmpty { try encodeIfPresent(value, forKey: key) }
  }
}
