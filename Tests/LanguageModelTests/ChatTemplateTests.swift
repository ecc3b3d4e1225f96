import Foundation
import LanguageModel
import Testing

@Suite struct ChatTemplateTests {
  private let tiny: Tokenizer

  init() throws { tiny = try Tokenizer.load(from: fixture("tiny_tokenizer").path) }

  private func template(_ source: String?) throws -> ChatTemplate {
    try ChatTemplate(source: source, tokenizer: tiny, path: "m")
  }

  private var smolLM2: String {
    get throws {
      String(
        decoding: try bytes(of: fixture("tiny_tokenizer/chat_template.jinja").path), as: UTF8.self)
    }
  }

  private static let chatML = """
    {% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] \
    + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}\
    {{ '<|im_start|>assistant\\n' }}{% endif %}
    """

  @Test func theDefaultSystemMessageIsReadFromTheTemplate() throws {
    let message = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    #expect(try template(smolLM2).format == .chatML(defaultSystemMessage: message))
    let other = try smolLM2.replacingOccurrences(of: message, with: "Be brief.")
    #expect(try template(other).format == .chatML(defaultSystemMessage: "Be brief."))
  }

  @Test func aTemplateIsRecognisedHoweverItIsWritten() throws {
    #expect(try template(Self.chatML).format == .chatML(defaultSystemMessage: nil))
    let spaced = """
      {%- for message in messages -%}
        {{- "<|im_start|>" + message.role + "\\n" + message["content"] + "<|im_end|>\\n" -}}
      {%- endfor -%}
      {%- if add_generation_prompt -%}
        {{- "<|im_start|>assistant\\n" -}}
      {%- endif -%}
      """
    #expect(try template(spaced).format == .chatML(defaultSystemMessage: nil))
  }

  @Test func aTemplateThatDoesAnythingElseIsRefused() throws {
    for change in [
      ("<|im_end|>", "<|im_end|> "), ("message['content']", "message['content'] | trim"),
      ("{% endfor %}", "{% endfor %}\nx"), ("'system'", "'user'"), ("%}{{'", "%} {{'"),
      ("{% endif %}", "{% endif"), ("'<|im_start|>assistant", "'<|im_start|>model"),
    ] {
      let changed = try smolLM2.replacingOccurrences(of: change.0, with: change.1)
      #expect(try changed != smolLM2)
      let error = modelFileError { _ = try template(changed) }
      guard case .unsupported = error else {
        Issue.record("\(change): \(error as Any)")
        continue
      }
    }
  }

  @Test func aTemplateWhoseTokensAreMissingIsRefused() {
    let llama3 = """
      {% set loop_messages = messages %}{% for message in loop_messages %}{% set content = \
      '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim \
      + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}\
      {{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant\
      <|end_header_id|>\n\n' }}{% endif %}
      """
    let error = modelFileError { _ = try template(llama3) }
    #expect(error == .missing(path: "m", place: .key("token <|start_header_id|>")))
  }

  @Test func turnsAreControlTokensAndContentsArePlainText() throws {
    let chat = try template(Self.chatML)
    let ids = chat.render([.user("the<|im_end|>")], addGenerationPrompt: true)
    #expect(ids.filter { $0 == 1 }.count == 2)
    #expect(ids.filter { $0 == 2 }.count == 1)
    #expect(
      tiny.decode(ids) == "<|im_start|>user\nthe<|im_end|><|im_end|>\n<|im_start|>assistant\n")
    #expect(chat.renderAnswer("the end") == tiny.encode("the end") + [2])
  }

  @Test func promptAndAnswerTogetherAreTheConversation() throws {
    let chat = try template(smolLM2)
    let prompt: [ChatMessage] = [.system("the doctor"), .user("the nurse?")]
    let whole = chat.render(prompt + [.assistant("it's late")], addGenerationPrompt: false)
    let parts =
      chat.render(prompt, addGenerationPrompt: true) + chat.renderAnswer("it's late")
    #expect(whole == parts + tiny.encode("\n"))
  }

  @Test func aModelWithoutTemplateGetsPlainText() throws {
    let chat = try template(nil)
    #expect(chat.format == .plain)
    let ids = chat.render([.user("the nurse")], addGenerationPrompt: true)
    #expect(tiny.decode(ids) == "User: the nurse\nAssistant:")
    #expect(tiny.decode(chat.renderAnswer("the end")) == " the end<|im_end|>")
  }

  @Test(.enabled(if: DefaultModel.isPresent))
  func theDefaultModelWritesConversationsAsTheReference() throws {
    struct Fixture: Decodable {
      struct Case: Decodable {
        struct Message: Decodable {
          var role: String
          var content: String
        }

        var messages: [Message]
        var add_generation_prompt: Bool
        var ids: [Int32]
      }

      var chat: [Case]
    }
    let model = try LanguageModel.load(
      from: DefaultModel.path, cacheDirectory: DefaultModel.cacheDirectory)
    for example in try decodeFixture(Fixture.self, "tokenizer_cases.json").chat {
      let messages = try example.messages.map {
        ChatMessage(role: try #require(ChatMessage.Role(rawValue: $0.role)), content: $0.content)
      }
      #expect(
        model.chatTemplate.render(
          messages, addGenerationPrompt: example.add_generation_prompt) == example.ids,
        "\(example.messages)")
    }
  }
}
