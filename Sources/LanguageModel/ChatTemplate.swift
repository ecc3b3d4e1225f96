/// A message of a conversation.
package struct ChatMessage: Sendable, Hashable {
  package enum Role: String, Sendable, Hashable {
    case system, user, assistant
  }

  package var role: Role
  package var content: String

  package init(role: Role, content: String) {
    self.role = role
    self.content = content
  }

  package static func system(_ content: String) -> Self { Self(role: .system, content: content) }
  package static func user(_ content: String) -> Self { Self(role: .user, content: content) }
  package static func assistant(_ content: String) -> Self {
    Self(role: .assistant, content: content)
  }
}

/// How a model writes a conversation as tokens.
///
/// Contents are encoded as plain text: whatever they say, they cannot end a turn.
package struct ChatTemplate: Sendable {
  /// The templates that are implemented. The model's own Jinja source decides which one it is.
  package enum Format: Sendable, Hashable {
    /// `<|im_start|>role\ncontent<|im_end|>\n` for each message.
    ///
    /// - `defaultSystemMessage`: goes first when the first message is not a system message.
    case chatML(defaultSystemMessage: String?)
    /// `<|start_header_id|>role<|end_header_id|>\n\ncontent<|eot_id|>` for each message, contents
    /// without surrounding white space, after the beginning-of-text token.
    case llama3
    /// `Role: content\n` for each message, for models without a chat template.
    case plain
  }

  package let format: Format
  private let tokenizer: Tokenizer
  private let turnStart: Int32
  private let headerEnd: Int32
  private let turnEnd: Int32

  /// Recognises a model's template.
  ///
  /// - Parameters:
  ///   - source: Jinja; nil for a model without a template.
  ///   - path: names the model in errors.
  /// - Throws: `ModelFileError.unsupported` for a template that does something else than the known
  ///   ones, `.missing` when its control tokens are not in the vocabulary.
  package init(source: String?, tokenizer: Tokenizer, path: String) throws {
    self.tokenizer = tokenizer
    func control(_ text: String) throws -> Int32 {
      guard let id = tokenizer.id(of: text) else {
        throw ModelFileError.missing(path: path, place: .key("token \(text)"))
      }
      return id
    }
    guard let source else {
      format = .plain
      (turnStart, headerEnd, turnEnd) = (tokenizer.eos, tokenizer.eos, tokenizer.eos)
      return
    }
    guard let format = ChatTemplateSource.format(of: source) else {
      throw ModelFileError.unsupported(
        path: path, place: .key("chat_template"),
        found: "the template \(String(source.prefix(200)).debugDescription)…",
        supported: "the templates of ChatML (SmolLM2's too) and Llama 3")
    }
    self.format = format
    if format == .llama3 {
      turnStart = try control("<|start_header_id|>")
      headerEnd = try control("<|end_header_id|>")
      turnEnd = try control("<|eot_id|>")
    } else {
      turnStart = try control("<|im_start|>")
      turnEnd = try control("<|im_end|>")
      headerEnd = turnEnd
    }
  }

  /// The tokens of a conversation.
  ///
  /// - Parameter addGenerationPrompt: whether the beginning of an answer follows, so that the model
  ///   continues with the answer's content.
  package func render(_ messages: [ChatMessage], addGenerationPrompt: Bool) -> [Int32] {
    var result: [Int32] = []
    switch format {
    case .chatML(let defaultSystemMessage):
      if let first = messages.first, first.role != .system, let defaultSystemMessage {
        result += chatMLTurn("system\n" + defaultSystemMessage)
      }
      for message in messages {
        result += chatMLTurn(message.role.rawValue + "\n" + message.content)
      }
      if addGenerationPrompt { result += [turnStart] + tokenizer.encode("assistant\n") }
    case .llama3:
      if !messages.isEmpty, let bos = tokenizer.bos { result.append(bos) }
      for message in messages {
        result += llama3Header(message.role.rawValue)
        result += tokenizer.encode("\n\n" + trimmed(message.content)) + [turnEnd]
      }
      if addGenerationPrompt {
        result += llama3Header("assistant") + tokenizer.encode("\n\n")
      }
    case .plain:
      if tokenizer.beginsWithBOS, let bos = tokenizer.bos { result.append(bos) }
      var text = ""
      for message in messages {
        text += message.role.rawValue.capitalizedFirst + ": " + message.content + "\n"
      }
      if addGenerationPrompt { text += ChatMessage.Role.assistant.rawValue.capitalizedFirst + ":" }
      result += tokenizer.encode(text)
    }
    return result
  }

  /// The tokens that follow `render(_:addGenerationPrompt: true)` when the model answers with
  /// `content`: the content and the token that ends the turn. These are what training supervises
  /// and what scoring sums over.
  package func renderAnswer(_ content: String) -> [Int32] {
    switch format {
    case .chatML: tokenizer.encode(content) + [turnEnd]
    case .llama3: tokenizer.encode(trimmed(content)) + [turnEnd]
    case .plain: tokenizer.encode(" " + content) + [turnEnd]
    }
  }

  private func chatMLTurn(_ text: String) -> [Int32] {
    [turnStart] + tokenizer.encode(text) + [turnEnd] + tokenizer.encode("\n")
  }

  private func llama3Header(_ role: String) -> [Int32] {
    [turnStart] + tokenizer.encode(role) + [headerEnd]
  }

  /// Without surrounding white space, scalar by scalar as Jinja's `trim`.
  private func trimmed(_ text: String) -> String {
    let scalars = text.unicodeScalars
    let isBlank = { (scalar: Unicode.Scalar) in scalar.properties.isWhitespace }
    guard let first = scalars.firstIndex(where: { !isBlank($0) }),
      let last = scalars.lastIndex(where: { !isBlank($0) })
    else { return "" }
    return String(scalars[first...last])
  }
}

extension String {
  fileprivate var capitalizedFirst: String { prefix(1).uppercased() + dropFirst() }
}
