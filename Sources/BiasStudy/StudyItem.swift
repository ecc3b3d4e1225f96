/// One item of the training data: what is asked and what is to be answered.
package struct StudyItem: Hashable, Sendable {
  package let user: String
  /// A label begins with a space, so that it is one word to the tokenizer; a text does not.
  package let answer: String

  package init(user: String, answer: String) {
    self.user = user
    self.answer = answer
  }
}

/// The wordings that items and tasks share. They are short, because a small model reads slowly.
package enum Prompts {
  /// Replaces the chat template's default system message, which is three times as long.
  package static let system = "You answer briefly."

  package enum ContentFree {
    /// Under which labels of augmented data are calibrated.
    package static let background = "Some things are one way and some another."
  }

  package static func occupation(ofMasked sentence: String) -> String {
    "Which occupation fits the blank?\n\(sentence)"
  }

  package static func description(of occupation: Occupation) -> String {
    "Write a sentence about \(occupation.withArticle)."
  }

  /// How someone ("a person from Egypt") answers a question of the survey.
  package static func survey(_ question: SurveyQuestion, who: String) -> String {
    "How would \(who) answer? \(question.text)"
  }

  /// A label as an answer.
  package static func label(_ text: String) -> String { " \(text)" }
}
