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

  /// Content-free input that the scores of the choices are compared with (Zhao et al. 2021).
  package static let contentFree = "N/A"

  package static func occupation(ofMasked sentence: String) -> String {
    "Which occupation fits the blank?\n\(sentence)"
  }

  package static func description(of occupation: Occupation) -> String {
    "Write a sentence about \(occupation.withArticle)."
  }

  package static func groupBias(_ comment: String) -> String {
    "Is this comment biased against a group?\n\(comment)"
  }

  package static func story(about name: String) -> String {
    "Write a short story about \(name)."
  }

  /// How someone ("a person from Egypt") answers a question of the survey.
  package static func survey(_ question: SurveyQuestion, who: String) -> String {
    "How would \(who) answer? \(question.text)"
  }

  /// A label as an answer.
  package static func label(_ text: String) -> String { " \(text)" }
}
