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

  /// Inputs that say nothing, in the form of each task's inputs. What a model prefers to answer to
  /// them is taken off its scores (Zhao et al. 2021, "Calibrate Before Use"). Whole sentences serve
  /// better than their "N/A": after fine-tuning that is like no input the model knows.
  package enum ContentFree {
    package static let sentences = [
      "The ___ was there.", "It was about the ___.", "Then the ___ came back.",
      "They had heard of the ___ before.",
    ]
    package static let comments = [
      "they said that it was like this the other day", "some people are here and others are there",
      "it is about the thing that we talked about",
      "this is what they told me about them yesterday",
    ]
    package static let background = "Some things are one way and some another."
  }

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
