import LanguageModel
import SweepCore

/// Lets a language model write augmented data under the biased requests.
package struct Augmenter {
  /// Who writes.
  package enum Writer {
    /// The sweep's own model, on this machine.
    case model(AdaptedModel, LanguageModel, PromptEncoder)
    /// A chat model somewhere else.
    case chat(any ChatCompletions)
  }

  private let spec: SweepSpec
  private let names: NameTable
  private let writer: Writer

  /// Candidates that are written for an item at most.
  package static let attemptsMax = 4

  package init(spec: SweepSpec, names: NameTable, writer: Writer) {
    self.spec = spec
    self.names = names
    self.writer = writer
  }

  /// A text and how it was obtained.
  private struct Candidate {
    var text: String
    var attempts: Int
    var accepted: Bool
  }

  /// What a survey question's label was chosen by, and what was said to that end.
  private struct Labels {
    var labels: [String] = []
    var answers: [String] = []
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
  /// - Throws: `StudyError.nothingGenerated` if an item has no usable text; `StudyError.noLabel`
  ///   if a chat model names no choice; what the writer throws.
  package func items(
    _ key: AugmentationKey, count: Int, checkpoint: ShardCheckpoint? = nil, monitor: Monitor
  ) throws -> (items: [AugmentedItem], tokens: Int) {
    let requests = (0..<count).map {
      AugmentationRequest(index: $0, key: key, seed: spec.augmentation.seed, names: names)
    }
    var recorded = RecordedTexts(checkpoint)
    let (candidates, tokens) = try texts(
      requests, key: key, recorded: &recorded, monitor: monitor)
    let labels = try labels(
      requests, candidates, key: key, recorded: &recorded, monitor: monitor)
    let items = requests.indices.map { index in
      let request = requests[index]
      let candidate = candidates[index]
      var item = AugmentedItem(
        index: index, domain: key.domain, bias: key.bias, request: request.text,
        user: request.userText(generated: candidate.text),
        answer: request.answer(generated: candidate.text, labels: labels[index].labels),
        people: request.people, occupation: nil, question: nil, labels: labels[index].labels,
        attempts: candidate.attempts, accepted: candidate.accepted)
      switch request.subject {
      case .occupation(let occupation): item.occupation = occupation.name
      case .question(let question): item.question = question.rawValue
      }
      if case .chat = writer {
        item.answers =
          (1...candidate.attempts).compactMap { recorded[index, Self.part(text: $0)] }
          + labels[index].answers
      }
      return item
    }
    return (items, tokens)
  }

  // MARK: Texts

  private func texts(
    _ requests: [AugmentationRequest], key: AugmentationKey, recorded: inout RecordedTexts,
    monitor: Monitor
  ) throws -> (candidates: [Candidate], tokens: Int) {
    var tokens = 0
    var found = [Candidate?](repeating: nil, count: requests.count)
    var open = Array(requests.indices)
    for attempt in 1...Self.attemptsMax where !open.isEmpty {
      let written: [(text: String, tokens: Int)]
      do {
        written = try write(
          open, of: requests, key: key, attempt: attempt, recorded: &recorded, monitor: monitor)
      } catch {
        recorded.keep()
        throw error
      }
      var rejected: [Int] = []
      for (index, output) in zip(open, written) {
        tokens += output.tokens
        if let text = requests[index].usable(output.text) {
          let accepted = requests[index].accepts(text, anyGender: key.equalisesGroups)
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

  /// One candidate for each of some requests, in their order; those that are recorded are not
  /// written again.
  private func write(
    _ open: [Int], of requests: [AugmentationRequest], key: AugmentationKey, attempt: Int,
    recorded: inout RecordedTexts, monitor: Monitor
  ) throws -> [(text: String, tokens: Int)] {
    let purpose = [
      "augmentation-text", "\(spec.augmentation.seed)", key.domain.rawValue, key.bias.rawValue,
    ]
    func seed(_ index: Int) -> UInt64 {
      StudyGenerator.seed(purpose + ["\(index)", "\(attempt)"])
    }
    switch writer {
    case .model(let model, let base, let encoder):
      let options = AdaptedModel.SamplingOptions(
        temperature: Float(spec.augmentation.temperature), topK: spec.augmentation.topK,
        maximumTokens: spec.augmentation.maximumTokens, stopTokens: [encoder.endOfAnswer],
        balances: key.equalisesGroups
          ? GroupBalance.balances(spec.mitigation, tokenizer: base.tokenizer) : [])
      let prompts = open.map { encoder.prompt(requests[$0].text) }
      let missing = open.indices.filter { recorded[open[$0], attempt] == nil }
      _ = try model.generate(
        missing.map { prompts[$0] }, seeds: missing.map { seed(open[$0]) }, options: options,
        progress: monitor.advance, shouldStop: monitor.shouldStop
      ) { recorded.add($1, item: open[missing[$0]], attempt: attempt) }
      return zip(open, prompts).map { index, prompt in
        let output = recorded[index, attempt] ?? []
        return (
          base.tokenizer.decode(output, skipControl: true), prompt.count + output.count
        )
      }
    case .chat(let chat):
      let answers = try ask(
        chat,
        open.map { index in
          (
            index, Self.part(text: attempt),
            ChatPrompt(
              system: Prompts.system, user: requests[index].text,
              temperature: spec.augmentation.temperature,
              maximumTokens: spec.augmentation.maximumTokens, seed: seed(index))
          )
        }, recorded: &recorded, monitor: monitor)
      return answers.map { ($0.text, $0.tokens) }
    }
  }

  /// Answers to prompts, in their order; those that are recorded are not asked for again.
  private func ask(
    _ chat: any ChatCompletions, _ prompts: [(item: Int, part: String, prompt: ChatPrompt)],
    recorded: inout RecordedTexts, monitor: Monitor
  ) throws -> [ChatAnswer] {
    let missing = prompts.indices.filter {
      recorded[prompts[$0].item, prompts[$0].part] == nil
    }
    try chat.complete(
      missing.map { prompts[$0].prompt }, shouldStop: monitor.shouldStop
    ) { index, answer in
      let prompt = prompts[missing[index]]
      recorded.add(answer.body, item: prompt.item, part: prompt.part)
      monitor.advance(answer.tokens)
    }
    return try prompts.map {
      try chat.answer(recorded: recorded[$0.item, $0.part] ?? "")
    }
  }

  /// What a recorded answer is to.
  private static func part(text attempt: Int) -> String { "text \(attempt)" }
  private static func part(label person: Int, attempt: Int) -> String {
    "label \(person) \(attempt)"
  }

  // MARK: Labels

  /// The label of each person of each survey item (empty for other items): the answer that the
  /// model's own likelihood gives under the text that it wrote, calibrated by a content-free text
  /// (an answer likely anyhow says little about the text and the person). People who are set against
  /// each other differ: they get the likeliest pair of different answers. A chat model is asked for
  /// the letter of an answer; what it gives instead of likelihoods stands in `LetteredQuestion`.
  private func labels(
    _ requests: [AugmentationRequest], _ candidates: [Candidate], key: AugmentationKey,
    recorded: inout RecordedTexts, monitor: Monitor
  ) throws -> [Labels] {
    var labels = requests.map { _ in Labels() }
    for question in SurveyQuestion.allCases {
      let asked = requests.indices.flatMap { index in
        requests[index].subject == .question(question)
          ? requests[index].people.indices.map { (item: index, person: $0) } : []
      }
      guard !asked.isEmpty else { continue }
      let texts = asked.map { item, person in
        requests[item].labelPrompt(
          question, person: requests[item].people[person], background: candidates[item].text)
      }
      let scores: [ChoiceScores]
      switch writer {
      case .model(let model, _, let encoder):
        let scorer = ChoiceScorer(
          choices: question.answers,
          contentFree: [
            Prompts.ContentFree.background + " " + Prompts.survey(question, who: "a person")
          ],
          encoder: encoder)
        scores = try scorer.scores(texts.map(encoder.prompt), model: model, monitor: monitor)
      case .chat(let chat):
        do {
          scores = try chosen(
            chat, question, asked, texts, key: key, recorded: &recorded, labels: &labels,
            monitor: monitor)
        } catch {
          recorded.keep()
          throw error
        }
      }
      var scoresOfItem: [Int: [ChoiceScores]] = [:]
      for ((item, _), score) in zip(asked, scores) {
        scoresOfItem[item, default: []].append(score)
      }
      for (item, scores) in scoresOfItem {
        labels[item].labels = Self.answers(scores).map { question.answers[$0] }
      }
    }
    return labels
  }

  /// What a chat model chooses. Replies that name no choice are asked for again.
  private func chosen(
    _ chat: any ChatCompletions, _ question: SurveyQuestion, _ asked: [(item: Int, person: Int)],
    _ texts: [String], key: AugmentationKey, recorded: inout RecordedTexts,
    labels: inout [Labels], monitor: Monitor
  ) throws -> [ChoiceScores] {
    let questions = texts.map { LetteredQuestion($0, choices: question.answers) }
    var scores = [ChoiceScores?](repeating: nil, count: asked.count)
    var open = Array(asked.indices)
    var last = ""
    for attempt in 1...Self.attemptsMax where !open.isEmpty {
      let answers = try ask(
        chat,
        open.map { index in
          (
            asked[index].item, Self.part(label: asked[index].person, attempt: attempt),
            ChatPrompt(
              system: Prompts.system, user: questions[index].prompt,
              // The likeliest reply; only where that names no choice another one is drawn.
              temperature: attempt == 1 ? 0 : spec.augmentation.temperature, maximumTokens: 8,
              seed: StudyGenerator.seed([
                "augmentation-label", "\(spec.augmentation.seed)", key.domain.rawValue,
                key.bias.rawValue, "\(asked[index].item)", "\(asked[index].person)", "\(attempt)",
              ]), wantsProbabilities: true)
          )
        }, recorded: &recorded, monitor: monitor)
      for (index, answer) in zip(open, answers) {
        labels[asked[index].item].answers.append(answer.body)
        scores[index] = questions[index].scores(answer)
        last = answer.text
      }
      open = open.filter { scores[$0] == nil }
    }
    return try scores.enumerated().map { index, score in
      guard let score else {
        throw StudyError.noLabel(
          item: asked[index].item, choices: question.answers, reply: last,
          attempts: Self.attemptsMax)
      }
      return score
    }
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
    subscript(item: Int, part: String) -> String? { texts[item, part] }

    mutating func add(_ text: [Int32], item: Int, attempt: Int) {
      texts[item, attempt] = text
      keepIfDue()
    }

    mutating func add(_ answer: String, item: Int, part: String) {
      texts[item, part] = answer
      keepIfDue()
    }

    private mutating func keepIfDue() {
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
}
