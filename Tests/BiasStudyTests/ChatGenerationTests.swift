import BiasStudy
import Foundation
import SweepCore
import Synchronization
import Testing

/// Generation by a chat model somewhere else, here a scripted one.
struct ChatGenerationTests {
  /// Answers by a script; stops on request; counts.
  private final class ScriptedChat: ChatCompletions {
    let asked = Mutex<[ChatPrompt]>([])
    private let script: @Sendable (ChatPrompt) -> ChatAnswer

    init(_ script: @escaping @Sendable (ChatPrompt) -> ChatAnswer) { self.script = script }

    func complete(
      _ prompts: [ChatPrompt], shouldStop: () -> Bool, answered: (Int, ChatAnswer) -> Void
    ) throws {
      // Out of order, as from a server.
      for index in prompts.indices.reversed() {
        if shouldStop() { throw StudyError.cancelled }
        asked.withLock { $0.append(prompts[index]) }
        answered(index, script(prompts[index]))
      }
    }

    func answer(recorded body: String) throws -> ChatAnswer {
      let parts = body.split(separator: "|", maxSplits: 1, omittingEmptySubsequences: false)
        .map(String.init)
      let letters = parts[0].split(separator: ";").reduce(into: [String: Double]()) {
        let pair = $1.split(separator: "=")
        $0[String(pair[0])] = Double(pair[1])
      }
      return ChatAnswer(
        text: parts.count > 1 ? parts[1] : "", body: body,
        firstToken: letters.isEmpty ? nil : letters, tokens: 3)
    }

    static func answer(_ text: String, letters: String = "") -> ChatAnswer {
      ChatAnswer(text: text, body: "\(letters)|\(text)", tokens: 3)
    }
  }

  private func spec() throws -> SweepSpec {
    var spec = try Synthetic.spec()
    spec.augmentation.generator = .endpoint
    spec.augmentation.endpoint = SweepSpec.Augmentation.Endpoint(url: "http://x/v1", model: "m")
    return spec
  }

  private func make(
    _ chat: ScriptedChat, _ key: AugmentationKey, count: Int,
    checkpoint: ShardCheckpoint? = nil, stopAfter: Int = .max
  ) throws -> (items: [AugmentedItem], tokens: Int) {
    var asked = 0
    return try Augmenter(spec: spec(), names: Synthetic.names, writer: .chat(chat)).items(
      key, count: count, checkpoint: checkpoint,
      monitor: Monitor(
        advance: { _ in },
        shouldStop: {
          asked += 1
          return asked > stopAfter
        }))
  }

  private let gender = AugmentationKey(domain: .gender, bias: .contrastiveSingleExplicit)
  private let culture = AugmentationKey(domain: .culture, bias: .contrastiveSingleExplicit)

  /// A comparison of the occupation that a request names.
  @Sendable private static func comparison(_ prompt: ChatPrompt) -> ChatAnswer {
    let occupation = Occupation.all.first { prompt.user.contains("male \($0.name)") }
    return ScriptedChat.answer("The \(occupation?.name ?? "?") is a man. That one is a woman.")
  }

  @Test func rejectedTextsAreAskedForAgainAndEveryAnswerIsKept() throws {
    let rejected = Mutex<Set<String>>([])
    let chat = ScriptedChat { prompt in
      // The first answer to every request breaks a rule.
      rejected.withLock { $0.insert(prompt.user).inserted }
        ? ScriptedChat.answer("Nothing to the point comes here.") : Self.comparison(prompt)
    }
    let (items, tokens) = try make(chat, gender, count: 8)
    #expect(items.allSatisfy { $0.attempts == 2 && $0.accepted && $0.answers?.count == 2 })
    #expect(items.allSatisfy { $0.answers?.first == "|Nothing to the point comes here." })
    #expect(tokens == 2 * 8 * 3)
    let prompts = chat.asked.withLock { $0 }
    #expect(Set(prompts.map(\.seed)).count == 16)
    #expect(Set(prompts.map(\.user)) == Set(items.map(\.request)))
    let set = AugmentationSet(items: items)
    #expect(try AugmentationSet(decoding: set.encoded()) == set)
  }

  /// Where the choice between pronouns is taken away, the rules ask for none of them.
  @Test func equalisedTextsMayHaveThePronounsOfAnyGender() throws {
    let chat = ScriptedChat { prompt in
      let occupation = Occupation.all.first { prompt.user.contains(" \($0.name)") }
      return ScriptedChat.answer("The \(occupation?.name ?? "?") hums a song. He or she sleeps.")
    }
    func items(_ equalisesGroups: Bool) throws -> [AugmentedItem] {
      let key = AugmentationKey(
        domain: .gender, bias: .contextualSingleExplicit, equalisesGroups: equalisesGroups)
      return try make(chat, key, count: 8).items
    }
    #expect(try items(true).allSatisfy { $0.accepted && $0.attempts == 1 })
    #expect(
      try items(false).allSatisfy { !$0.accepted && $0.attempts == Augmenter.attemptsMax })
  }

  @Test func labelsComeFromProbabilitiesOrElseFromTheReply() throws {
    func labels(_ reply: ChatAnswer) throws -> [[String]] {
      let chat = ScriptedChat { prompt in
        prompt.wantsProbabilities
          ? reply
          : ScriptedChat.answer("People in Egypt, Spain, Arab and Chinese lands differ here.")
      }
      return try make(chat, culture, count: 4).items.map(\.labels)
    }
    // "C" is the likeliest for both; the likeliest pair of different answers has "A" beside it.
    for labels in try labels(ScriptedChat.answer("C", letters: "A=-1;B=-3;C=-0.5;D=-9")) {
      #expect(labels.count == 2 && labels[0] != labels[1])
    }
    for (index, labels) in try labels(ScriptedChat.answer("B) whatever")).enumerated() {
      let question = SurveyQuestion.allCases[index % SurveyQuestion.allCases.count]
      #expect(labels.contains(question.answers[1]))
    }
  }

  @Test func aReplyThatNamesNothingEndsInAnErrorThatSaysSo() throws {
    let chat = ScriptedChat { prompt in
      prompt.wantsProbabilities
        ? ScriptedChat.answer("As a model I cannot say.")
        : ScriptedChat.answer("People in Egypt, Spain, Arab and Chinese lands differ here.")
    }
    let error = studyError { _ = try make(chat, culture, count: 2) }
    guard case .noLabel(_, _, let reply, let attempts)? = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(reply == "As a model I cannot say." && attempts == Augmenter.attemptsMax)
  }

  @Test func answersAreKeptAcrossAStop() throws {
    let scratch = try Scratch()
    let resumed = Mutex(0)
    let checkpoint = ShardCheckpoint(
      path: scratch.url.appending(path: "texts").path, interval: .zero, purpose: "test"
    ) { event in
      if case .resumed(let done, _) = event { resumed.withLock { $0 = done } }
    }
    let whole = try make(ScriptedChat(Self.comparison), gender, count: 6)
    #expect(
      studyError {
        _ = try make(
          ScriptedChat(Self.comparison), gender, count: 6, checkpoint: checkpoint, stopAfter: 4)
      } == .cancelled)
    let rest = ScriptedChat(Self.comparison)
    let items = try make(rest, gender, count: 6, checkpoint: checkpoint).items
    #expect(items == whole.items && resumed.withLock { $0 } == 4)
    #expect(rest.asked.withLock { $0.count } == 2)
  }

  @Test func withoutAServerTheShardSaysSo() throws {
    let study = try NanoStudy()
    let runner = try ShardRunner(
      spec: spec(), tasks: study.tasks, model: study.model, data: study.data, threads: 1)
    #expect(
      studyError {
        _ = try runner.augment(gender, items: 2, progress: { _ in }, shouldStop: { false })
      } == .noEndpoint)
  }

  // MARK: Replies

  @Test(
    arguments: [
      ("B", 1), ("b) rarely", 1), ("C. sometimes", 2), (" D", 3), ("never", 0),
      ("I would say: rarely!", 1), ("Rarely or always", nil), ("A person says always", 3),
      ("E", nil), ("", nil), ("nevertheless", nil),
    ] as [(String, Int?)])
  func repliesAreReadAsChoices(reply: String, choice: Int?) {
    let question = LetteredQuestion("?", choices: SurveyQuestion.bribe.answers)
    // A lower-case letter is a word like any other.
    #expect(question.named(in: reply) == choice)
  }

  @Test func lettersOutsideTheListAreLessLikelyThanAllInIt() throws {
    let question = LetteredQuestion("?", choices: ["w", "x", "y", "z"])
    #expect(question.prompt == "?\nReply with one letter only.\nA) w\nB) x\nC) y\nD) z")
    func scores(_ probabilities: [String: Double], _ text: String = "") -> [Double]? {
      question.scores(ChatAnswer(text: text, body: "", firstToken: probabilities))?.values
    }
    #expect(scores(["A": -1, " C": -2, "The": -0.1]) == [-1, -3, -2, -3])
    #expect(scores(["A": -1, " A": -0.5, "B": -4]) == [-0.5, -4, -5, -5])
    // One letter alone says nothing of the others; the text decides.
    #expect(scores(["A": -1], "D") == [0, 0, 0, 1])
    #expect(scores([:], "?") == nil)
  }
}
