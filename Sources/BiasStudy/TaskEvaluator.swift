import LanguageModel
import SweepCore

/// Asks a model the test items of a task and works out the metrics.
package struct TaskEvaluator: Sendable {
  package let definition: TaskDefinition
  package let items: [TaskItem]
  private let encoder: PromptEncoder
  private let tokenizer: Tokenizer
  private let options: AdaptedModel.SamplingOptions
  private let samples: Int
  private let sentiment: SentimentLexicon?
  private let mentions: [String?]

  /// Tokens of a written answer: numbers are short, and so are names.
  private static func tokensMax(_ kind: TaskDefinition.Kind, _ spec: SweepSpec) -> Int {
    switch kind {
    case .number: min(8, spec.evaluation.maximumTokens)
    case .selection: min(12, spec.evaluation.maximumTokens)
    case .classification, .survey, .text: spec.evaluation.maximumTokens
    }
  }

  /// - Throws: `StudyError.malformed` if a template names a field that an item lacks.
  package init(
    _ tasks: TaskItems, items: [TaskItem], spec: SweepSpec, data: StudyData, model: LanguageModel,
    encoder: PromptEncoder
  ) throws(StudyError) {
    definition = spec.taskDefinitions[tasks.definition.id] ?? tasks.definition
    self.items = items
    self.encoder = encoder
    tokenizer = model.tokenizer
    options = AdaptedModel.SamplingOptions(
      temperature: Float(spec.evaluation.temperature), topK: spec.evaluation.topK,
      maximumTokens: Self.tokensMax(definition.kind, spec),
      stopTokens: [encoder.endOfAnswer])
    samples = spec.evaluation.samples
    sentiment = data.sentiment
    let mention = definition.answers.mention.map(TaskTemplate.init)
    var mentions: [String?] = []
    for item in items {
      guard let mention else {
        mentions.append(nil)
        continue
      }
      mentions.append(try tasks.fill(mention, item.forms[0].fields, item.record, "`mention`"))
    }
    self.mentions = mentions
  }

  /// - Parameter seed: the trial's seed. Texts of equal seeds share their random numbers over biases,
  ///   ratios and mitigations, so that differences between these are not noise.
  package func evaluate(
    _ model: AdaptedModel, seed: UInt64, monitor: Monitor
  ) throws -> TrialMetrics {
    var metrics: TrialMetrics
    switch definition.kind {
    case .classification:
      metrics = ChoiceTaskMetrics.classification(
        definition, try scored(model, monitor, scale: .perToken))
      if definition.metrics.contains(.preference), let preference = definition.preference {
        PreferenceMetrics.record(
          try likelihoods(preference, model, monitor), &metrics)
      }
    case .survey:
      metrics = ChoiceTaskMetrics.survey(
        definition, try scored(model, monitor, scale: .whole))
    case .selection:
      let answered = try scored(model, monitor, scale: .perToken)
      metrics = SelectionMetrics.metrics(
        definition, answered, written: try selections(model, seed: seed, monitor))
    case .number:
      let answered = try scored(model, monitor, scale: .whole)
      metrics = AmountMetrics.metrics(
        definition, answered, samples: try amounts(model, seed: seed, monitor))
    case .text:
      metrics = TextTaskMetrics.metrics(
        definition, items, mentions: mentions, texts: try texts(model, seed: seed, monitor),
        sentiment)
    }
    for (name, value) in definition.references.sorted(by: { $0.key < $1.key }) {
      metrics.record(name, value)
    }
    return metrics
  }

  // MARK: Choices

  /// What a choice's score is made of.
  private enum Scale {
    /// Mean log-likelihood per token, so that long choices are not at a disadvantage.
    case perToken
    /// The log-likelihood: softmax gives the probabilities of the choices.
    case whole
  }

  /// Scores of all forms: means over the orders of the choices, less the mean score under
  /// content-free inputs.
  private func scored(
    _ model: AdaptedModel, _ monitor: Monitor, scale: Scale
  ) throws -> [ScoredItem] {
    var book = RequestBook()
    let answers = answers
    struct Asked {
      var prompts: [Int]
      var contentFree: [Int]
    }
    // Content-free prompts first: many items share them.
    var asked: [[Asked]] = []
    for (item, own) in zip(items, answers) {
      asked.append(
        zip(item.forms, own).map { form, choices in
          Asked(
            prompts: [],
            contentFree: form.contentFree.map { book.add(encoder.prompt($0), choices) })
        })
    }
    for (index, item) in items.enumerated() {
      for (number, form) in item.forms.enumerated() {
        asked[index][number].prompts = form.prompts.map {
          book.add(encoder.prompt($0), answers[index][number])
        }
      }
    }
    let scores = try model.score(
      book.requests, progress: monitor.advance, shouldStop: monitor.shouldStop)
    func mean(_ requests: [Int], _ choice: Int) -> Double {
      requests.reduce(0) { sum, request in
        let score = scores[request][choice]
        let value =
          switch scale {
          case .perToken: score.logProbability / Double(score.tokenCount)
          case .whole: score.logProbability
          }
        return sum + value
      } / Double(max(1, requests.count))
    }
    return zip(items, asked).map { item, asked in
      ScoredItem(
        item: item,
        forms: zip(item.forms, asked).map { form, asked in
          ScoredForm(
            form: form,
            scores: ChoiceScores(
              form.choices.indices.map { mean(asked.prompts, $0) - mean(asked.contentFree, $0) }))
        })
    }
  }

  /// The tokens of each form's choices.
  private var answers: [[[[Int32]]]] {
    items.map { item in
      item.forms.map { form in form.choices.map { encoder.answer(Prompts.label($0)) } }
    }
  }

  /// Distinct requests: what several items ask is scored once.
  private struct RequestBook {
    var requests: [AdaptedModel.ScoringRequest] = []
    private var places: [AdaptedModel.ScoringRequest: Int] = [:]

    mutating func add(_ prompt: [Int32], _ choices: [[Int32]]) -> Int {
      let request = AdaptedModel.ScoringRequest(prompt: prompt, continuations: choices)
      if let place = places[request] { return place }
      places[request] = requests.count
      requests.append(request)
      return requests.count - 1
    }
  }

  /// Likelihoods of the texts of a stereotype, its opposite and something unrelated.
  private func likelihoods(
    _ preference: TaskPreference, _ model: AdaptedModel, _ monitor: Monitor
  ) throws -> [PreferenceMetrics.Likelihoods] {
    let templates = [
      preference.prompt, preference.stereotype, preference.antiStereotype, preference.unrelated,
    ].map(TaskTemplate.init)
    let requests = try items.map { item in
      let texts = try templates.map { template throws(StudyError) in
        try TaskItems.fill(
          template, item.record.fields, item.record, "`preference`", file: definition.id)
      }
      return AdaptedModel.ScoringRequest(
        prompt: encoder.prompt(texts[0]), continuations: texts.dropFirst().map(encoder.answer))
    }
    return try model.score(
      requests, progress: monitor.advance, shouldStop: monitor.shouldStop
    ).map { scores in
      let means = scores.map { $0.logProbability / Double($0.tokenCount) }
      return PreferenceMetrics.Likelihoods(
        stereotype: means[0], antiStereotype: means[1], unrelated: means[2])
    }
  }

  // MARK: Texts

  private func texts(
    _ model: AdaptedModel, seed: UInt64, _ monitor: Monitor
  ) throws -> [WrittenText] {
    let asked = (0..<samples).flatMap { sample in items.indices.map { ($0, sample) } }
    let texts = try model.generate(
      asked.map { encoder.prompt(items[$0.0].forms[0].prompts[0]) },
      seeds: asked.map { item, sample in
        StudyGenerator.seed([definition.id, "\(seed)", "\(item)", "\(sample)"])
      },
      options: options, progress: monitor.advance, shouldStop: monitor.shouldStop)
    return zip(asked, texts).map { asked, text in
      WrittenText(
        item: asked.0, text: tokenizer.decode(text, skipControl: true).collapsingSpaces)
    }
  }

  /// Numbers that the model writes for both forms of the first items, forms of an item with the same
  /// random numbers.
  private func amounts(
    _ model: AdaptedModel, seed: UInt64, _ monitor: Monitor
  ) throws -> [(item: Int, form: Int, amount: Double?)] {
    let asked = items.indices.prefix(definition.answers.sampledItems).flatMap { item in
      items[item].forms.indices.map { (item, $0) }
    }
    guard !asked.isEmpty else { return [] }
    let texts = try model.generate(
      asked.map { encoder.prompt(items[$0.0].forms[$0.1].prompts[0]) },
      seeds: asked.map { StudyGenerator.seed([definition.id, "\(seed)", "\($0.0)"]) },
      options: options, progress: monitor.advance, shouldStop: monitor.shouldStop)
    let choices = NumberChoices(definition.answers.choices)
    return zip(asked, texts).map { asked, text in
      (
        asked.0, asked.1,
        AmountParser.amount(in: tokenizer.decode(text, skipControl: true), choices: choices)
      )
    }
  }

  /// Choices that the model writes for the first items, asked in all orders of the choices, each with
  /// random numbers of its own, so that a liking for a place in the list favours nobody.
  private func selections(
    _ model: AdaptedModel, seed: UInt64, _ monitor: Monitor
  ) throws -> [(item: Int, choice: Int?)] {
    let asked = items.indices.prefix(definition.answers.sampledItems).flatMap { item in
      items[item].forms[0].prompts.indices.map { (item, $0) }
    }
    guard !asked.isEmpty else { return [] }
    let texts = try model.generate(
      asked.map { encoder.prompt(items[$0.0].forms[0].prompts[$0.1]) },
      seeds: asked.map { StudyGenerator.seed([definition.id, "\(seed)", "\($0.0)", "\($0.1)"]) },
      options: options, progress: monitor.advance, shouldStop: monitor.shouldStop)
    return zip(asked, texts).map { asked, text in
      (
        asked.0,
        SelectionParser.candidate(
          in: tokenizer.decode(text, skipControl: true), names: items[asked.0].forms[0].choices)
      )
    }
  }

  // MARK: For programs that do the same elsewhere

  /// What the model is asked, if all items have the same choices in one order, or texts are asked for.
  package var questions: TaskQuestions? {
    if definition.kind == .text {
      return .texts(
        prompts: items.map { encoder.prompt($0.forms[0].prompts[0]) }, samples: samples,
        options: options)
    }
    let forms = items.flatMap(\.forms)
    let golds = forms.compactMap(\.gold)
    guard definition.kind == .classification, !definition.answers.choices.isEmpty,
      definition.answers.orders == 1, let first = forms.first, golds.count == forms.count
    else { return nil }
    let contentFree = first.contentFree
    guard forms.allSatisfy({ $0.contentFree == contentFree }) else { return nil }
    return .choices(
      prompts: (contentFree + forms.map { $0.prompts[0] }).map(encoder.prompt),
      answers: first.choices.map { encoder.answer(Prompts.label($0)) },
      gold: contentFree.map { _ in nil } + golds)
  }
}
