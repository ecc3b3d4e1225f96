import SweepCore

/// Items that the program makes from the study's own data, by the name of the collection.
package enum TaskCollection: String, CaseIterable, Sendable {
  /// BUG's sentences with the occupation hidden: sentence_female, sentence_male, occupation,
  /// majority (the gender that holds the majority in it), gender (of the source).
  case occupationSentences = "occupation-sentences"
  /// RedditBias' comments: text, group, label (yes, no).
  case groupComments = "group-comments"
  /// Questions of the survey by country: country, culture, topic, question, answers, shares,
  /// majority.
  case surveyCells = "survey-cells"
  /// First names: name, gender, culture; those of the training split are English and have a story.
  case people
  /// Job titles: title, job ("a nurse"), thousands (median income), name_female, name_male.
  case salaries
  /// Four applicants for a job: role ("a nurse"), condition (equal, unequal), candidates, described,
  /// genders, cultures; and, where one of them knows the work, label.
  case candidates

  /// The files of the data manifest that it is made from.
  package var files: [(dataset: String, file: String)] {
    switch self {
    case .occupationSentences: [("bug", "full_BUG.csv")]
    case .groupComments: TargetGroup.allCases.map { ("redditbias", $0.file) }
    case .surveyCells, .people: []
    case .salaries: [("salary", "titles.jsonl")]
    case .candidates: [("salary", "titles.jsonl"), ("hiring", "names.jsonl")]
    }
  }

  /// Numbers the records that `fields` describe.
  private static func numbered(_ fields: [[String: TaskRecord.Value]]) -> [TaskRecord] {
    fields.enumerated().map { TaskRecord(line: $0 + 1, fields: $1) }
  }

  private static func split(isTest: Bool) -> TaskRecord.Value {
    .text(isTest ? "test" : "training")
  }

  package static func records(_ sentences: OccupationSentences) -> [TaskRecord] {
    func fields(_ sentence: OccupationSentence, isTest: Bool) -> [String: TaskRecord.Value] {
      [
        "cluster": .text(sentence.masked(.male).normalised), "split": split(isTest: isTest),
        "sentence_female": .text(sentence.masked(.female)),
        "sentence_male": .text(sentence.masked(.male)),
        "occupation": .text(sentence.occupation.name),
        "majority": .text(sentence.occupation.majority.rawValue),
        "gender": .text(sentence.sourceGender.rawValue),
      ]
    }
    return numbered(
      sentences.training.map { fields($0, isTest: false) }
        + sentences.test.map { fields($0, isTest: true) })
  }

  package static func records(_ comments: GroupComments) -> [TaskRecord] {
    func fields(_ comment: GroupComment, isTest: Bool) -> [String: TaskRecord.Value] {
      [
        "cluster": .text(comment.text.normalised), "split": split(isTest: isTest),
        "text": .text(comment.text), "group": .text(comment.group.rawValue),
        "label": .text(comment.isBiased ? "yes" : "no"),
      ]
    }
    return numbered(
      comments.training.map { fields($0, isTest: false) }
        + comments.test.map { fields($0, isTest: true) })
  }

  /// All questions and countries of the survey, waves pooled.
  package static func surveyRecords() -> [TaskRecord] {
    var fields: [[String: TaskRecord.Value]] = []
    for place in SurveyTable.places {
      let shares = SurveyTable.shares(place.question, place.country)
      let majority = ChoiceScores(shares).best
      fields.append([
        "cluster": .text("\(place.question.rawValue)/\(place.country)"),
        "split": split(isTest: SurveyTable.isTest(place)),
        "country": .text(place.country), "culture": .text(place.culture.rawValue),
        "topic": .text(place.question.topic), "question": .text(place.question.text),
        "answers": .list(place.question.answers), "shares": .list(shares.map { "\($0)" }),
        "majority": .text(place.question.answers[majority]),
      ])
    }
    return numbered(fields)
  }

  /// Names typical of a culture for testing; English ones with the study's stories for training.
  package static func peopleRecords(_ names: NameTable) -> [TaskRecord] {
    var fields: [[String: TaskRecord.Value]] = []
    var seen: Set<String> = []
    for gender in Gender.allCases {
      for culture in Culture.allCases {
        for name in names.names(culture, gender) where seen.insert(name).inserted {
          fields.append([
            "name": .text(name), "split": split(isTest: true), "gender": .text(gender.rawValue),
            "culture": .text(culture.rawValue),
          ])
        }
      }
      for name in names.names(nil, gender) where seen.insert(name).inserted {
        for template in StoryTemplate.all {
          fields.append([
            "name": .text(name), "split": split(isTest: false), "gender": .text(gender.rawValue),
            "culture": .text("english"), "story": .text(template.story(about: name)),
          ])
        }
      }
    }
    return numbered(fields)
  }

  /// - Parameter titles: records with title, split, median_income.
  package static func salaryRecords(
    _ titles: [TaskRecord], names: NameTable, file: String
  ) throws(StudyError) -> [TaskRecord] {
    var fields: [[String: TaskRecord.Value]] = []
    for title in titles {
      let name = try text("title", of: title, file)
      let income = try text("median_income", of: title, file)
      guard let dollars = Double(income), dollars > 0, dollars.isFinite else {
        throw .malformed(
          file: file, line: title.line, problem: "the income \"\(income)\" is no number above 0")
      }
      var chance = StudyGenerator(purpose: "salary-names", name)
      fields.append([
        "title": .text(name), "split": .text(try text("split", of: title, file)),
        "job": .text(withArticle(name)), "thousands": .text("\(dollars / 1000)"),
        "name_female": .text(chance.element(of: names.names(nil, .female))),
        "name_male": .text(chance.element(of: names.names(nil, .male))),
      ])
    }
    return numbered(fields)
  }

  /// For every title two items: applicants who all know the work, and applicants of whom one does.
  /// Each has a woman and a man of two groups. Titles and names keep to the splits of their files.
  package static func candidateRecords(
    titles: [TaskRecord], names: [TaskRecord], titleFile: String, nameFile: String
  ) throws(StudyError) -> [TaskRecord] {
    struct Person: Hashable {
      let split: String
      let culture: String
      let gender: String
    }
    var people: [Person: [String]] = [:]
    for name in names {
      let person = Person(
        split: try text("split", of: name, nameFile),
        culture: try text("culture", of: name, nameFile),
        gender: try text("gender", of: name, nameFile))
      people[person, default: []].append(try text("name", of: name, nameFile))
    }
    let cultures = Set(people.keys.map(\.culture)).sorted()
    var jobs: [String: [String]] = [:]
    for title in titles {
      jobs[try text("split", of: title, titleFile), default: []].append(
        try text("title", of: title, titleFile))
    }
    var fields: [[String: TaskRecord.Value]] = []
    for split in jobs.keys.sorted() {
      let own = jobs[split, default: []]
      for (index, title) in own.enumerated() {
        var chance = StudyGenerator(purpose: "candidates", title)
        let pair = chance.shuffled(cultures).prefix(2)
        let other = chance.element(of: own.filter { $0 != title })
        for condition in ["equal", "unequal"] {
          var candidates: [(name: String, gender: String, culture: String)] = []
          for culture in pair {
            for gender in ["female", "male"] {
              let key = Person(split: split, culture: culture, gender: gender)
              let free = people[key, default: []].filter { name in
                !candidates.contains { $0.name == name }
              }
              guard !free.isEmpty else {
                throw .malformed(
                  file: nameFile, line: 1,
                  problem: "no name of the split \(split) for \(gender), \(culture)")
              }
              candidates.append((chance.element(of: free), gender, culture))
            }
          }
          candidates = chance.shuffled(candidates)
          // Who knows the work: places in the list, and so genders, in turn.
          let fitting = index % candidates.count
          var record: [String: TaskRecord.Value] = [
            "cluster": .text(title), "split": .text(split), "condition": .text(condition),
            "role": .text(withArticle(title)), "candidates": .list(candidates.map(\.name)),
            "genders": .list(candidates.map(\.gender)),
            "cultures": .list(candidates.map(\.culture)),
            "described": .list(
              candidates.enumerated().map { place, candidate in
                let work = condition == "equal" || place == fitting ? title : other
                return "\(candidate.name), \(work)"
              }),
          ]
          if condition == "unequal" { record["label"] = .text(candidates[fitting].name) }
          fields.append(record)
        }
      }
    }
    return numbered(fields)
  }

  private static func text(
    _ field: String, of record: TaskRecord, _ file: String
  ) throws(StudyError) -> String {
    guard let text = record.text(field) else {
      throw .malformed(file: file, line: record.line, problem: "no text in the field \"\(field)\"")
    }
    return text
  }

  private static func withArticle(_ title: String) -> String {
    ("aeiou".contains(title.prefix(1)) ? "an " : "a ") + title
  }
}
