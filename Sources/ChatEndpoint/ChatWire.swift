import BiasStudy
import Foundation

/// The part of OpenAI's chat completions protocol that generation needs, as bytes.
///
/// Reference: OpenAI API, "Create chat completion"; also spoken by llama.cpp's server, vLLM and
/// Ollama.
package enum ChatWire {
  /// An answer of more bytes is refused.
  package static let answerBytesMax = 1 << 16

  private struct Message: Codable {
    var role: String
    var content: String?
  }

  private struct Request: Encodable {
    let model: String
    let messages: [Message]
    let temperature: Double
    let maximumTokens: Int
    let seed: Int64
    let logprobs: Bool?
    let topLogprobs: Int?

    enum CodingKeys: String, CodingKey {
      case model, messages, temperature
      case maximumTokens = "max_tokens"
      case seed, logprobs
      case topLogprobs = "top_logprobs"
    }
  }

  /// Alternatives asked for at a token, as many as OpenAI allows.
  private static let alternatives = 20

  /// The body of a request, keys sorted.
  package static func encode(_ prompt: ChatPrompt, model: String) throws -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return Array(
      try encoder.encode(
        Request(
          model: model,
          messages: [
            Message(role: "system", content: prompt.system),
            Message(role: "user", content: prompt.user),
          ],
          temperature: prompt.temperature, maximumTokens: prompt.maximumTokens,
          // Every server takes 31 bits.
          seed: Int64(prompt.seed >> 33), logprobs: prompt.wantsProbabilities ? true : nil,
          topLogprobs: prompt.wantsProbabilities ? alternatives : nil)))
  }

  private struct Response: Decodable {
    struct Alternative: Decodable {
      var token: String
      var logprob: Double
    }
    struct Token: Decodable {
      var token: String
      var logprob: Double
      var topLogprobs: [Alternative]?
      enum CodingKeys: String, CodingKey {
        case token, logprob
        case topLogprobs = "top_logprobs"
      }
    }
    struct Logprobs: Decodable { var content: [Token]? }
    struct Choice: Decodable {
      var message: Message
      var logprobs: Logprobs?
    }
    struct Usage: Decodable {
      var total: Int?
      enum CodingKeys: String, CodingKey { case total = "total_tokens" }
    }
    var choices: [Choice]
    var usage: Usage?
  }

  /// What a server's answer says.
  ///
  /// - Parameter secret: does not appear in what is thrown.
  /// - Throws: `ChatFailure.unreadable` if it is no completion.
  package static func decode(
    _ body: [UInt8], hiding secret: String? = nil
  ) throws(ChatFailure) -> ChatAnswer {
    guard body.count <= answerBytesMax else {
      throw .unreadable("\(body.count) bytes; at most \(answerBytesMax) are read")
    }
    guard let raw = String(validating: body, as: UTF8.self) else {
      throw .unreadable("the body is not UTF-8 text")
    }
    let response: Response
    do {
      response = try JSONDecoder().decode(Response.self, from: Data(body))
    } catch {
      throw .unreadable("no chat completion: \(excerpt(raw, hiding: secret))")
    }
    guard let choice = response.choices.first else {
      throw .unreadable("a completion without choices: \(excerpt(raw, hiding: secret))")
    }
    guard let text = choice.message.content else {
      throw .unreadable("a completion without content: \(excerpt(raw, hiding: secret))")
    }
    var probabilities: [String: Double] = [:]
    // Some servers list the chosen token apart from its alternatives.
    if let first = choice.logprobs?.content?.first {
      for token in [Response.Alternative(token: first.token, logprob: first.logprob)]
        + (first.topLogprobs ?? []) where token.logprob.isFinite
      {
        probabilities[token.token] = max(probabilities[token.token] ?? -.infinity, token.logprob)
      }
    }
    return ChatAnswer(
      text: text, body: raw, firstToken: probabilities.isEmpty ? nil : probabilities,
      tokens: max(0, min(response.usage?.total ?? 0, answerBytesMax)))
  }

  /// The beginning of what a server said, on one line, 200 Unicode scalars at most.
  ///
  /// - Parameter secret: replaced before the text is cut, so that no part of it is left.
  package static func excerpt(_ text: String, hiding secret: String? = nil) -> String {
    var bytes = Array(text.utf8)
    // By bytes, since a mark that combines with the last letter would make another character of it.
    if let secret { bytes = bytes.replacing(Array(secret.utf8), with: Array("(key)".utf8)) }
    let scalars = String(decoding: bytes, as: UTF8.self).unicodeScalars.prefix(200)
    let line = String(scalars).map { $0.isNewline ? " " : String($0) }.joined()
    return line.isEmpty ? "(empty)" : line
  }
}

/// Why one exchange with a server brought no answer.
package enum ChatFailure: Error, Hashable {
  /// The server answered with an error.
  case status(Int, retryAfter: Double?, message: String)
  /// It answered what is no completion.
  case unreadable(String)
  /// No answer came: refused, broken off, or not in time.
  case transport(String)

  /// Whether another try may succeed. Requests that the server calls wrong stay wrong.
  package var isPassing: Bool {
    switch self {
    case .status(let code, _, _): code == 408 || code == 409 || code == 429 || code >= 500
    case .unreadable, .transport: true
    }
  }

  package var retryAfter: Double? {
    if case .status(_, let seconds, _) = self { seconds } else { nil }
  }
}

extension ChatFailure: CustomStringConvertible {
  package var description: String {
    switch self {
    case .status(let code, _, let message): "HTTP status \(code): \(message)"
    case .unreadable(let problem): "an answer that cannot be read (\(problem))"
    case .transport(let problem): problem
    }
  }
}
