import LanguageModel

/// Turns prompts and answers of the study into tokens, in the model's own chat format.
package struct PromptEncoder: Sendable {
  private let template: ChatTemplate

  package init(_ model: LanguageModel) {
    template = model.chatTemplate
  }

  /// A conversation up to where the model's answer begins.
  package func prompt(_ user: String) -> [Int32] {
    template.render([.system(Prompts.system), .user(user)], addGenerationPrompt: true)
  }

  /// An answer's tokens without the end of the turn, as scoring sums over them.
  package func answer(_ text: String) -> [Int32] {
    template.renderAnswer(text).dropLast()
  }

  /// The token that ends an answer.
  package var endOfAnswer: Int32 {
    guard let last = template.renderAnswer("").last else {
      preconditionFailure("the chat template ends an answer with no token")
    }
    return last
  }

  /// An item to train on, with the loss on the answer and the end of the turn only.
  package func training(_ item: StudyItem, group: Group) -> TrainingSequence {
    let prompt = prompt(item.user)
    let answer = template.renderAnswer(item.answer)
    return TrainingSequence(
      tokens: prompt + answer,
      supervised: prompt.map { _ in false } + answer.map { _ in true }, group: group)
  }
}
