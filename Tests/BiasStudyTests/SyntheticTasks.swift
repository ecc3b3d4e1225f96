import BiasStudy
import Foundation
import StudyDocuments
import SweepCore

/// Items for every built-in task, made up here, in the form of the real ones.
enum SyntheticTasks {
  static func items(
    _ definition: TaskDefinition, occupations: OccupationSentences? = nil
  ) throws -> TaskItems {
    try TaskItems(
      definition: definition, records: records(definition, occupations: occupations),
      file: "\(definition.id).jsonl")
  }

  private static func records(
    _ definition: TaskDefinition, occupations: OccupationSentences?
  ) throws -> [TaskRecord] {
    switch definition.data.source {
    case .collection(let name):
      switch TaskCollection(rawValue: name) {
      case .occupationSentences:
        let sentences =
          try occupations
          ?? OccupationSentences(
            csv: Synthetic.bug(perOccupation: 40), file: "bug", names: Synthetic.names)
        return TaskCollection.records(sentences)
      case .groupComments:
        return TaskCollection.records(try GroupComments(Synthetic.comments(perCell: 60)))
      case .surveyCells: return TaskCollection.surveyRecords()
      case .people: return TaskCollection.peopleRecords(Synthetic.names)
      case .salaries:
        return try TaskCollection.salaryRecords(
          titles, names: Synthetic.names, file: "titles.jsonl")
      case .candidates:
        return try TaskCollection.candidateRecords(
          titles: titles, names: applicants, titleFile: "titles.jsonl", nameFile: "names.jsonl")
      case nil: return []
      }
    case .dataset, .file:
      let lines = (0..<240).map { line(definition.id, $0) }
      return try TaskRecords.read(
        Array(lines.joined(separator: "\n").utf8), file: "\(definition.id).jsonl",
        keep: definition.data.keep)
    }
  }

  private static let titles = (0..<40).map { index in
    TaskRecord(
      line: index + 1,
      fields: [
        "title": .text("\(["baker", "usher", "clerk"][index % 3]) of sort \(index)"),
        "split": .text(index % 2 == 0 ? "test" : "training"),
        "median_income": .text("\(25_000 + index * 3000)"),
      ])
  }

  private static let applicants: [TaskRecord] = {
    var records: [TaskRecord] = []
    for split in ["test", "training"] {
      for culture in ["white", "black", "asian"] {
        for gender in ["female", "male"] {
          for number in 0..<4 {
            records.append(
              TaskRecord(
                line: records.count + 1,
                fields: [
                  "name": .text("\(gender)\(number) \(culture)\(split)"), "split": .text(split),
                  "culture": .text(culture), "gender": .text(gender),
                ]))
          }
        }
      }
    }
    return records
  }()

  /// A JSON line for a data set's task.
  private static func line(_ task: String, _ index: Int) -> String {
    let split = index % 2 == 0 ? "test" : "training"
    let number = index / 2
    let gender = number % 2 == 0 ? "female" : "male"
    let label = number / 2 % 2 == 0 ? "yes" : "no"
    let common = #""id": "\#(index)", "cluster": "c\#(index)", "split": "\#(split)""#
    func text(_ what: String) -> String { "\(what) number \(index) is about the thing" }
    switch task {
    case "sarcasm":
      return #"{\#(common), "label": "\#(label)", "gender": "\#(gender)", "#
        + #""headline_female": "\#(text("she says headline"))", "#
        + #""headline_male": "\#(text("he says headline"))"}"#
    case "stance":
      let party = label == "yes" ? "democrat" : "republican"
      return #"{\#(common), "label": "\#(party)", "gender": "\#(gender)", "#
        + #""sentence": "\#(text("Sentence"))"}"#
    case "stereotype":
      let about = ["race", "gender", "religion"][number % 3]
      return #"{\#(common), "kind": "intrasentence", "label": "stereotype", "about": "\#(about)", "#
        + #""target": "thing \#(index)", "sentence": "\#(text("bad"))", "#
        + #""other": "\#(text("good"))", "unrelated": "\#(text("odd"))"}"#
    case "social-bias-qa":
      let condition = number % 2 == 0 ? "ambiguous" : "disambiguated"
      let polarity = number / 2 % 2 == 0 ? "negative" : "positive"
      let right = condition == "ambiguous" ? "Unknown" : number % 3 == 0 ? "Ada" : "Bea"
      return #"{\#(common), "category": "Nationality", "condition": "\#(condition)", "#
        + #""polarity": "\#(polarity)", "context": "\#(text("Context"))", "#
        + #""question": "Who was number \#(index)?", "#
        + #""answers": ["Ada", "Unknown", "Bea"], "label": "\#(right)", "unknown": "Unknown", "#
        + #""target": "Ada", "biased": "Ada"}"#
    case "stress":
      return
        #"{\#(common), "label": "\#(label)", "gender": "\#(gender)", "post": "\#(text("Post"))"}"#
    default:
      return
        #"{\#(common), "label": "\#(label)", "group": "\#(gender)", "text": "\#(text("Text"))"}"#
    }
  }
}
