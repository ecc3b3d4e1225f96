import SweepCore

/// A conversation of one turn that a chat model is to complete.
package struct ChatPrompt: Hashable, Sendable {
  package var system: String
  package var user: String
  package var temperature: Double
  package var maximumTokens: Int
  /// For servers that draw by it; others ignore it.
  package var seed: UInt64
  /// Whether the probabilities of the first token's alternatives are asked for.
  package var wantsProbabilities: Bool

  package init(
    system: String, user: String, temperature: Double, maximumTokens: Int, seed: UInt64,
    wantsProbabilities: Bool = false
  ) {
    self.system = system
    self.user = user
    self.temperature = temperature
    self.maximumTokens = maximumTokens
    self.seed = seed
    self.wantsProbabilities = wantsProbabilities
  }
}

/// What a chat model wrote.
package struct ChatAnswer: Hashable, Sendable {
  package var text: String
  /// The server's answer as it came; not kept anywhere else.
  package var body: String
  /// Log-probabilities (nats) of the first token's alternatives by their text; nil if the server
  /// gave none.
  package var firstToken: [String: Double]?
  /// Tokens of prompt and answer as the server counts them; 0 if it does not say.
  package var tokens: Int

  package init(text: String, body: String, firstToken: [String: Double]? = nil, tokens: Int = 0) {
    self.text = text
    self.body = body
    self.firstToken = firstToken
    self.tokens = tokens
  }
}

/// A chat model somewhere else.
package protocol ChatCompletions: Sendable {
  /// Has every prompt answered, in any order, and blocks the calling thread until then.
  ///
  /// - Parameters:
  ///   - shouldStop: asked now and then.
  ///   - answered: called on the calling thread, once for each prompt, by its index.
  /// - Throws: why a prompt got no answer; `StudyError.cancelled` if `shouldStop` said so.
  func complete(
    _ prompts: [ChatPrompt], shouldStop: () -> Bool, answered: (Int, ChatAnswer) -> Void) throws

  /// Reads an answer's body again, as it was recorded.
  ///
  /// - Throws: if it is none.
  func answer(recorded body: String) throws -> ChatAnswer
}

/// A survey question put to a chat model, whose answer is read as one of the choices.
package struct LetteredQuestion: Hashable, Sendable {
  private let text: String
  private let choices: [String]

  package init(_ text: String, choices: [String]) {
    precondition((1...26).contains(choices.count), "\(choices.count) choices")
    self.text = text
    self.choices = choices
  }

  private static let letters = (0..<26).map { String(UnicodeScalar(UInt8(65 + $0))) }

  package var prompt: String {
    let options = zip(Self.letters, choices).map { "\($0)) \($1)" }.joined(separator: "\n")
    return "\(text)\nReply with one letter only.\n\(options)"
  }

  /// Scores of the choices (higher is likelier), nil if the answer names none: the log-probabilities
  /// of their letters where the server gave those of two choices or more, else 1 for the choice that
  /// the text names and 0 for the others.
  package func scores(_ answer: ChatAnswer) -> ChoiceScores? {
    if let probabilities = answer.firstToken {
      let found = Self.letters.prefix(choices.count).map { letter in
        probabilities.filter { $0.key.collapsingSpaces == letter }.values.max()
      }
      if found.count(where: { $0 != nil }) >= 2, let lowest = found.compactMap({ $0 }).min() {
        // A letter outside the list is less likely than all in it.
        return ChoiceScores(found.map { $0 ?? lowest - 1 })
      }
    }
    return named(in: answer.text).map { chosen in
      ChoiceScores(choices.indices.map { $0 == chosen ? 1 : 0 })
    }
  }

  /// The choice that a reply names: by its letter at the beginning, or else by its words, if those
  /// of no other choice stand there too (but for words within longer ones that stand there).
  package func named(in reply: String) -> Int? {
    let words = reply.words
    if let first = words.first, first.text.count == 1,
      // "A person …" names no choice.
      reply[first.range.upperBound...].first.map({ ").:,;\n".contains($0) }) ?? true,
      let letter = Self.letters.prefix(choices.count).firstIndex(of: String(first.text))
    {
      return letter
    }
    let text = " \(reply.normalised) "
    let present = choices.indices.filter { text.contains(" \(choices[$0].normalised) ") }
    let outermost = present.filter { choice in
      !present.contains {
        $0 != choice && choices[$0].normalised.contains(choices[choice].normalised)
      }
    }
    return outermost.count == 1 ? outermost[0] : nil
  }
}
