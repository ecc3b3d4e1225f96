import BiasStudy
import Foundation
import StudyDocuments
import SweepCore
import Testing

struct DataTests {
  // MARK: Names

  @Test func namesAreTypicalOfOneCultureAndOneGender() {
    let names = Synthetic.names
    #expect(names.names(.arabic, .male) == ["Hassan", "Karim", "Omar"])
    #expect(names.names(nil, .female) == ["Mary", "Susan"])
    #expect(names.gender(ofName: "Pilar") == .female)
    #expect(names.gender(ofName: "Robin") == nil)
    #expect(!names.names(.chinese, .male).contains("Juan"))
    for culture in Culture.allCases {
      for gender in Gender.allCases { #expect(!names.names(culture, gender).isEmpty) }
    }
  }

  @Test func malformedNameEntryIsNamedByLine() {
    let tooShort = studyError {
      _ = try NameTable(dictionary: Array("# x\nM  Omar\n".utf8), file: "n")
    }
    #expect(tooShort == .malformed(file: "n", line: 2, problem: "an entry has 85 columns or more"))
    let code = studyError {
      _ = try NameTable(dictionary: dictionary([("X", "Omar", [:])]), file: "n")
    }
    #expect(code == .malformed(file: "n", line: 2, problem: "unknown gender code \"X\""))
  }

  // MARK: Occupation sentences

  private func sentences(_ rows: [(String, String, String, String)]) throws -> [OccupationSentence]
  {
    var text = Synthetic.bugHeader
    for (index, row) in rows.enumerated() {
      text += "\(index),\"\(row.0)\",[],\(row.1),\(row.2),\(row.3)\n"
    }
    let found = try OccupationSentences(
      csv: Array(text.utf8), file: "bug", names: Synthetic.names)
    return found.training + found.test
  }

  @Test func sentenceIsDetokenisedMaskedAndTwinned() throws {
    let found = try sentences([
      (
        "In May an author ( of note ) gave her book , \"\"Sea\"\" , to us .", "Author", "1",
        "wikipedia"
      )
    ])
    let sentence = try #require(found.first)
    #expect(sentence.text(.female) == "In May an author (of note) gave her book, \"Sea\", to us.")
    #expect(sentence.text(.male) == "In May an author (of note) gave his book, \"Sea\", to us.")
    #expect(sentence.masked(.male) == "In May a ___ (of note) gave his book, \"Sea\", to us.")
    #expect(sentence.sourceGender == .female)
  }

  @Test(arguments: [
    ("The judge gave his wife a coat in the spring .", "judge", "1", "wikipedia"),
    ("The judge Pilar gave his coat away in the spring .", "judge", "1", "wikipedia"),
    ("The judge said he sold his coat in the spring .", "judge", "1", "wikipedia"),
    ("The judge met a judge and his dog in the spring .", "judge", "1", "wikipedia"),
    ("The judge of judges sold his coat in the spring .", "judge", "1", "wikipedia"),
    ("The judge sold his .", "judge", "1", "wikipedia"),
    ("The judge sold his old coat in the spring .", "judge", "1", "pubmed"),
    ("The person sold his old coat in the spring .", "person", "1", "wikipedia"),
  ]) func unsuitedSentenceIsLeftOut(
    text: String, occupation: String, pronouns: String, corpus: String
  ) throws {
    #expect(try sentences([(text, occupation, pronouns, corpus)]).isEmpty)
    let suited = "The judge sold his old coat in the spring ."
    #expect(try sentences([(suited, "judge", "1", "wikipedia")]).count == 1)
  }

  @Test func occupationSplitsShareNoSentenceAndTwinsStayTogether() throws {
    var text = Synthetic.bugHeader
    // Every sentence also in the other gender and in another punctuation, as rows of their own.
    for index in 0..<200 {
      for (row, form) in ["his lamp ,", "her lamp ,", "his lamp"].enumerated() {
        text += "\(index)\(row),\"The judge sold \(form) for \(index) coins\",[],judge,1,"
        text += "wikipedia\n"
      }
    }
    let found = try OccupationSentences(
      csv: Array(text.utf8), file: "bug", names: Synthetic.names)
    func keys(_ sentences: [OccupationSentence]) -> Set<String> {
      Set(sentences.flatMap { s in Gender.allCases.map { s.text($0).normalised } })
    }
    #expect(found.training.count + found.test.count == 200)
    #expect(found.test.count > 60 && found.training.count > 60)
    #expect(keys(found.training).isDisjoint(with: keys(found.test)))
  }

  // MARK: Comments

  @Test func commentsWithContradictingLabelsAreDroppedAndDuplicatesKeptOnce() throws {
    func source(_ group: TargetGroup, _ rows: [(String, String)]) -> GroupComments.Source {
      let lines = rows.map { "\"\($0.0)\",\($0.1)\n" }.joined()
      return GroupComments.Source(
        group: group, bytes: Array("phrase,bias_phrase\n\(lines)".utf8), file: group.file)
    }
    let comments = try GroupComments([
      source(
        .jews, [("they are all the same", "1"), ("no they are not", "0"), ("what is it now", "2")]),
      source(
        .muslims, [("They are all the same!", "1"), ("no, they are not", "1"), ("too short", "1")]),
    ])
    let all = comments.training + comments.test
    #expect(all == [GroupComment(text: "they are all the same", group: .jews, isBiased: true)])
  }

  @Test func commentSplitsShareNoPhrase() throws {
    let comments = try GroupComments(Synthetic.comments(perCell: 100))
    let training = Set(comments.training.map(\.text.normalised))
    #expect(training.isDisjoint(with: comments.test.map(\.text.normalised)))
    #expect(comments.test.count > 350 && training.count > 350)
  }

  // MARK: Selection

  @Test func originalDataHaveTheSizesAskedForAndAreBalanced() throws {
    let data = try Synthetic.data()
    var sizes = try Synthetic.spec().data
    sizes.originalItems = 30
    sizes.formatItems = 40
    let tasks = Synthetic.tasks
    let gender = try OriginalData(domain: .gender, tasks: tasks, sizes: sizes, data: data)
    #expect(gender.biasCarrying.count == 30 && gender.format.count == 40)
    for occupation in Occupation.all {
      let own = gender.format.filter { $0.answer == " \(occupation.name)" }
      #expect(own.count == 5)
      #expect(Set(own.flatMap { Pronouns.all(in: $0.user.words).map(\.gender) }).count == 2)
      #expect(own.allSatisfy { !$0.user.contains(occupation.name) })
    }
    let culture = try OriginalData(domain: .culture, tasks: tasks, sizes: sizes, data: data)
    #expect(culture.biasCarrying.count == 30 && culture.format.count == 80)
    let comments = culture.format.filter { $0.user.hasPrefix("Is this comment biased") }
    #expect(comments.count { $0.answer == " yes" } == 20 && comments.count == 40)
  }

  @Test func selectionIsDecidedByItsSeedOnly() throws {
    let data = try Synthetic.data()
    var sizes = try Synthetic.spec().data
    let tasks = Synthetic.tasks
    func items() throws -> [StudyItem] {
      try OriginalData(domain: .gender, tasks: tasks, sizes: sizes, data: data).items
    }
    let first = try items()
    #expect(try items() == first)
    sizes.selectionSeed = 2
    #expect(try items() != first)
  }

  @Test func moreItemsThanTheDataHaveIsAnErrorThatNamesTheKey() throws {
    let data = try Synthetic.data()
    var sizes = try Synthetic.spec().data
    sizes.formatItems = 100_000
    let error = studyError {
      _ = try OriginalData(
        domain: .gender, tasks: Synthetic.tasks, sizes: sizes, data: data)
    }
    guard case .tooFewItems(_, let available, 100_000, let key)? = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(available > 100 && key.contains("data.format_items"))
  }

  // MARK: Survey

  @Test func surveyItemsFollowTheSurveysDistribution() throws {
    let data = try Synthetic.data()
    var sizes = try Synthetic.spec().data
    sizes.originalItems = 8 * 400
    let items = try OriginalData(domain: .culture, tasks: [], sizes: sizes, data: data).biasCarrying
    for culture in Culture.allCases {
      let cells = SurveyTable.cells.filter { cell in
        cell.culture == culture && cell.question == .bribe
          && !SurveyTable.isTest(
            SurveyTable.Place(question: .bribe, culture: culture, country: cell.country))
      }
      let expected =
        cells.map { Double($0.counts[0]) / Double($0.counts.reduce(0, +)) }
        .reduce(0, +) / Double(cells.count)
      let countries = Set(cells.map(\.country))
      let asked = items.filter { item in
        item.user.contains("bribe") && countries.contains { item.user.contains("from \($0) ") }
      }
      let share = Double(asked.count { $0.answer == " never." }) / Double(asked.count)
      // Seven pairs of culture and question are left in turn: one is for testing only.
      #expect(abs(asked.count - 3200 / 7) <= 1 && abs(share - expected) < 0.06)
    }
  }

  @Test func quantilesRunThroughTheAnswersInOrder() {
    let cell = SurveyCell(
      question: .bribe, culture: .arabic, country: "X", wave: 1, counts: [2, 0, 1, 1])
    let answers = [0, 0.49, 0.5, 0.74, 0.75, 0.999].map { cell.answer(atQuantile: $0) }
    #expect(answers == [0, 0, 2, 2, 3, 3])
  }

  // MARK: Files

  @Test func missingAndDamagedFilesSayWhatToRun() throws {
    let scratch = try Scratch()
    let store = DatasetStore(directory: scratch.url.path)
    let missing = studyError { _ = try store.read("vader", "vader_lexicon.txt") }
    #expect(missing?.description.contains("scripts/fetch-data vader") == true)
    let file = URL(filePath: store.path("vader", "vader_lexicon.txt"))
    try FileManager.default.createDirectory(
      at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
    try Data("good\t1\n".utf8).write(to: file)
    let damaged = studyError { _ = try store.read("vader", "vader_lexicon.txt") }
    guard case .wrongDigest(_, "vader", _, _)? = damaged else {
      Issue.record("\(String(describing: damaged))")
      return
    }
    #expect(damaged?.description.contains("fetch-data --verify vader") == true)
  }

  @Test func digestDependsOnTheTasksUsed() {
    let digests = [[], ["occupation"], ["sarcasm"], ["occupation", "sarcasm"]].map { ids in
      DataManifest.digest(of: ids.compactMap { TaskCatalogue.builtIn[$0] })
    }
    #expect(Set(digests).count == digests.count)
  }
}
