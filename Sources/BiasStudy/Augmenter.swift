import LanguageModel
import SweepCore

/// Lets the model write augmented data under the biased requests.
package struct Augmenter {
  private let spec: SweepSpec
  private let names: NameTable
  private let model: AdaptedModel
  private let tokenizer: Tokenizer
  private let encoder: PromptEncoder

  /// Candidates that are written for an item at most.
  package static let attemptsMax = 4

  package init(
    spec: SweepSpec, names: NameTable, model: AdaptedModel, base: LanguageModel,
    encoder: PromptEncoder
  ) {
    self.spec = spec
    self.names = names
    self.model = model
    tokenizer = base.tokenizer
    self.encoder = encoder
  }

  /// A text and how it was obtained.
  private struct Candidate {
    var text: String
    var attempts: Int
    var accepted: Bool
  }

  /// The first `count` items of D_a for a key.
  ///
  /// Every candidate has a random stream of its own, (seed, domain, bias, index, attempt), so an
  /// item does not depend on how many others are made. Items whose text breaks a rule are asked
  /// for again, at most `attemptsMax` times in all; then the last usable text is kept and marked as
  /// not accepted.
  ///
  /// - Parameter checkpoint: where finished texts are kept, and taken from if they are there.
  /// - Returns: the items, and the tokens of all candidates, prompts included.
  /// - Throws: `StudyError.nothingGenerated` if an item has no usable text; what the model throws.
  package func items(
    _ key: AugmentationKey, count: Int, checkpoint: ShardCheckpoint? = nil, monitor: Monitor
  ) throws -> (items: [AugmentedItem], tokens: Int) {
    let requests = (0..<count).map {
      AugmentationRequest(index: $0, key: key, seed: spec.augmentation.seed, names: names)
    }
    let (candidates, tokens) = try texts(
      requests, key: key, checkpoint: checkpoint, monitor: monitor)
    let labels = try labels(requests, candidates, monitor: monitor)
    let items = requests.indices.map { index in
      let request = requests[index]
      let candidate = candidates[index]
      var item = AugmentedItem(
        index: index, domain: key.domain, bias: key.bias, request: request.text,
        user: request.userText(generated: candidate.text),
        answer: request.answer(generated: candidate.text, labels: labels[index]),
        people: request.people, occupation: nil, question: nil, labels: labels[index],
        attempts: candidate.attempts, accepted: candidate.accepted)
      switch request.subject {
      case .occupation(let occupation): item.occupation = occupation.name
      case .question(let question): item.question = question.rawValue
      }
      return item
    }
    return (items, tokens)
  }

  private func texts(
    _ requests: [AugmentationRequest], key: AugmentationKey, checkpoint: ShardCheckpoint?,
    monitor: Monitor
  ) throws -> (candidates: [Candidate], tokens: Int) {
    let options = AdaptedModel.SamplingOptions(
      temperature: Float(spec.augmentation.temperature), topK: spec.augmentation.topK,
      maximumTokens: spec.augmentation.maximumTokens, stopTokens: [encoder.endOfAnswer])
    let prompts = requests.map { encoder.prompt($0.text) }
    var texts = RecordedTexts(checkpoint)
    var tokens = 0
    var found = [Candidate?](repeating: nil, count: requests.count)
    var open = Array(requests.indices)
    for attempt in 1...Self.attemptsMax where !open.isEmpty {
      let missing = open.filter { texts[$0, attempt] == nil }
      let seeds = missing.map { index in
        StudyGenerator.seed([
          "augmentation-text", "\(spec.augmentation.seed)", key.domain.rawValue, key.bias.rawValue,
          "\(index)", "\(attempt)",
        ])
      }
      do {
        _ = try model.generate(
          missing.map { prompts[$0] }, seeds: seeds, options: options, progress: monitor.advance,
          shouldStop: monitor.shouldStop
        ) { index, text in texts.add(text, item: missing[index], attempt: attempt) }
      } catch {
        texts.keep()
        throw error
      }
      let outputs = open.map { texts[$0, attempt] ?? [] }
      tokens += zip(open, outputs).reduce(0) { $0 + prompts[$1.0].count + $1.1.count }
      var rejected: [Int] = []
      for (index, output) in zip(open, outputs) {
        let raw = tokenizer.decode(output, skipControl: true)
        if let text = requests[index].usable(raw) {
          let accepted = requests[index].accepts(text)
          found[index] = Candidate(text: text, attempts: attempt, accepted: accepted)
          if accepted { continue }
        }
        found[index]?.attempts = attempt
        rejected.append(index)
      }
      open = rejected
    }
    let candidates = try found.enumerated().map { index, candidate in
      guard let candidate else {
        throw StudyError.nothingGenerated(
          item: index, request: requests[index].text, attempts: Self.attemptsMax)
      }
      return candidate
    }
    return (candidates, tokens)
  }

  /// Finished texts, written down now and then.
  private struct RecordedTexts {
    private let checkpoint: ShardCheckpoint?
    private var texts: GeneratedTexts
    private var written: Int
    private var last = ContinuousClock.now

    init(_ checkpoint: ShardCheckpoint?) {
      self.checkpoint = checkpoint
      texts = checkpoint?.resumedTexts() ?? GeneratedTexts()
      written = texts.count
    }

    subscript(item: Int, attempt: Int) -> [Int32]? { texts[item, attempt] }

    mutating func add(_ text: [Int32], item: Int, attempt: Int) {
      texts[item, attempt] = text
      if let checkpoint, last.duration(to: .now) >= checkpoint.interval { keep() }
    }

    /// Writes what is not written yet.
    mutating func keep() {
      guard let checkpoint, texts.count > written else { return }
      checkpoint.write(texts)
      written = texts.count
      last = .now
    }
  }

  /// For survey items, the answer that the model finds likeliest for each person under the text it
  /// wrote (mean log-likelihood per token, less that without the text and the person). People who
  /// are set against each other differ: they get the likeliest pair of different answers.
  private func labels(
    _ requests: [AugmentationRequest], _ candidates: [Candidate], monitor: Monitor
  ) throws -> [[String]] {
    var labels = [[String]](repeating: [], count: requests.count)
    for question in SurveyQuestion.allCases {
      let asked = requests.indices.flatMap { index in
        requests[index].subject == .question(question)
          ? requests[index].people.map { (index, $0) } : []
      }
      guard !asked.isEmpty else { continue }
      let scorer = ChoiceScorer(
        choices: question.answers,
        contentFree: [
          Prompts.ContentFree.background + " " + Prompts.survey(question, who: "a person")
        ],
        encoder: encoder)
      let prompts = asked.map { index, person in
        encoder.prompt(
          requests[index].labelPrompt(
            question, person: person, background: candidates[index].text))
      }
      let scores = try scorer.scores(prompts, model: model, monitor: monitor)
      var scoresOfItem: [Int: [ChoiceScores]] = [:]
      for ((index, _), score) in zip(asked, scores) {
        scoresOfItem[index, default: []].append(score)
      }
      for (index, scores) in scoresOfItem {
        labels[index] = Self.answers(scores).map { question.answers[$0] }
      }
    }
    return labels
  }

  /// The best choice for one person, or the best pair of different choices for two; of equal ones
  /// the first.
  package static func answers(_ scores: [ChoiceScores]) -> [Int] {
    guard scores.count == 2 else { return scores.map(\.best) }
    let choices = scores[0].values.indices
    var best: (first: Int, second: Int, score: Double)?
    for first in choices {
      for second in choices where second != first {
        let score = scores[0].values[first] + scores[1].values[second]
        if best.map({ score > $0.score }) ?? true { best = (first, second, score) }
      }
    }
    return best.map { [$0.first, $0.second] } ?? scores.map(\.best)
  }
}
