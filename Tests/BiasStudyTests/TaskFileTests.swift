import BiasStudy
import Foundation
import StudyDocuments
import SweepCore
import Testing

/// Task files as users write them.
struct TaskFileTests {
  private static let good = """
    id: mine
    summary: a task of a user
    domain: culture
    kind: classification
    relation: direct
    data:
      path: mine.csv
      cluster: id
      balance: [label]
    prompt: |-
      Is this right?
      {text}
    answers:
      choices: [no, yes]
      label: label
      positive: yes
    forms:
      female: {text: "She {text}"}
      male: {text: "He {text}"}
    content_free:
      - {text: Something is said.}
    groups: [group]
    metrics: [accuracy, macro_f1, twins]
    headlines:
      - {metric: accuracy, items: correct, role: skill, chance: 0.5, direction: better}
      - {metric: flip_rate, items: flip, role: bias, direction: worse}
    origin:
      source: made up
      licence: CC0-1.0
      citation: nobody
    """

  private static let digest = ContentDigest(of: "data".utf8)

  private func parse(_ yaml: String) throws -> TaskDefinition {
    try TaskDefinition(yaml: yaml, file: "mine.yaml") { _ throws(SpecProblem) in Self.digest }
  }

  private func problems(_ yaml: String) -> String {
    do {
      _ = try parse(yaml)
      return ""
    } catch {
      return "\(error)"
    }
  }

  @Test func builtInFilesAreReadAndAllOfThemDiffer() throws {
    let definitions = TaskCatalogue.builtIn.definitions
    #expect(definitions.count == 13 && Set(definitions.map(\.id)).count == 13)
    #expect(Set(definitions.map(\.relation)) == Set(TaskDefinition.Relation.allCases))
    for definition in definitions {
      // The collections and files that they name are there.
      switch definition.data.source {
      case .collection(let name): #expect(TaskCollection(rawValue: name) != nil, "\(name)")
      case .dataset(let name, let file): #expect(DataManifest.entry(name, file) != nil)
      case .file: Issue.record("\(definition.id) has a file of a user")
      }
      for file in TaskCollection.allCases.flatMap(\.files) {
        #expect(DataManifest.entry(file.dataset, file.file) != nil)
      }
    }
  }

  @Test func presetsAreValidAndTheirDataAreListed() throws {
    for preset in Preset.allCases {
      let definition = try SweepDefinition(
        document: SpecNode(yaml: preset.yaml), catalogue: .builtIn)
      #expect(definition.spec.name == preset.rawValue)
      let needed = Set(DataManifest.files(of: definition.spec.definedTasks).map(\.dataset))
      #expect(Set(DataManifest.datasets(ofPreset: preset.rawValue)) == needed, "\(preset)")
    }
    let quick = try SweepDefinition(
      document: SpecNode(yaml: Preset.quick.yaml), catalogue: .builtIn)
    #expect(quick.spec.tasks.count == 10 && quick.plan.fineTuneCount == 194)
    #expect(quick.plan.grid.points.count == 10 * 6 * 5 * 4)
  }

  @Test func definitionsArePartOfTheSpecAndOfItsDigest() throws {
    let document = try SpecNode(yaml: Preset.smoke.yaml)
    let first = try SweepDefinition(document: document, catalogue: .builtIn).spec
    #expect(first.definedTasks.map(\.id) == first.tasks)
    #expect(try SweepSpec(canonicalJSON: first.canonicalJSON()) == first)
    var changed = TaskCatalogue.builtIn.definitions
    changed[0].prompt += " "
    let second = try SweepDefinition(
      document: document, catalogue: TaskCatalogue(definitions: changed)
    ).spec
    #expect(try first.digest() != second.digest())
    let differences = try first.differences(from: second)
    #expect(differences.map(\.path) == ["task_definitions.occupation.prompt"])
    // Specs from before there were task files have no definitions, and keep their digest.
    var old = first
    old.taskDefinitions = TaskDefinitions([])
    #expect(try !old.canonicalJSON().contains("task_definitions"))
    #expect(try SweepSpec(canonicalJSON: old.canonicalJSON()) == old)
  }

  @Test func aUsersFileIsReadAsItIsWritten() throws {
    let definition = try parse(Self.good)
    #expect(definition.data.source == .file(name: "mine.csv", sha256: Self.digest))
    #expect(definition.data.splitField == nil && definition.answers.choices == ["no", "yes"])
    #expect(definition.forms.map(\.name) == ["female", "male"])
    #expect(definition.prompt == "Is this right?\n{text}")
    #expect(definition.headlines[0].chance == 0.5 && definition.version == 1)
  }

  @Test(arguments: [
    ("kind: classification", "kind: clasification", "mine.yaml:4:7: kind: expected one of"),
    ("relation: direct", "relaton: direct", "unknown key; did you mean \"relation\"?"),
    ("  label: label", "  labl: label", "answers.label: is missing"),
    ("choices: [no, yes]", "choices: [no]", "needs two or more choices"),
    ("positive: yes", "positive: maybe", "\"maybe\" is not among the choices"),
    ("macro_f1, twins", "macro_f1, similarity", "similarity is not a metric of the kind"),
    ("  male: {text: \"He {text}\"}\n", "", "needs two or more forms"),
    ("role: bias", "role: skill", "needs a metric of the role bias"),
    ("  path: mine.csv", "  path: mine.txt", "must end in .jsonl"),
    ("  path: mine.csv", "  dataset: sarcasm", "data.file: is missing"),
    ("  path: mine.csv\n", "", "names no data"),
    ("  path: mine.csv", "  path: mine.csv\n  collection: people", "keep one of them"),
    ("id: mine", "id: my task", "may hold letters, digits and '-' only"),
    ("chance: 0.5", "chance: half", "headlines[0].chance: expected a number"),
    (
      "  - {text: Something is said.}", "  - Something is said.",
      "content_free[0]: expected a mapping"
    ),
    ("groups: [group]", "groups: group", "expected a list"),
    ("prompt: |-", "prompt: [", "not valid YAML"),
    ("  licence: CC0-1.0\n", "", "origin.licence: is missing"),
  ]) func mistakesAreNamedWithTheirPlace(part: String, mistake: String, message: String) {
    let yaml = Self.good.replacing(part, with: mistake)
    #expect(yaml != Self.good)
    let found = problems(yaml)
    #expect(found.contains(message), "\(found)")
    #expect(found.contains("mine.yaml"))
  }

  @Test func allMistakesAreReportedAtOnce() {
    let yaml = Self.good.replacing("kind: classification", with: "kind: x")
      .replacing("domain: culture", with: "domain: y").replacing("label: label", with: "lable: z")
    let found = problems(yaml)
    #expect(found.hasPrefix("4 problems in the task file mine.yaml"), "\(found)")
  }

  // MARK: Directories

  private func library(_ files: [String: String]) throws -> TaskLibrary {
    let scratch = try Scratch()
    defer { withExtendedLifetime(scratch) {} }
    let directory = scratch.url.appending(path: "tasks")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    for (name, text) in files {
      try Data(text.utf8).write(to: directory.appending(path: name))
    }
    return try TaskLibrary(
      directory: directory.path, store: scratch.url.appending(path: "store").path)
  }

  private static let csv =
    "id,text,label,group\n"
    + (0..<80).map { "\($0),said thing \($0),\($0 % 3 == 0 ? "yes" : "no"),g\($0 % 2)\n" }.joined()

  @Test func aDirectoryAddsTasksThatCanBeEvaluated() throws {
    let scratch = try Scratch()
    let directory = scratch.url.path
    try Data(Self.good.utf8).write(to: scratch.url.appending(path: "mine.yaml"))
    try Data(Self.csv.utf8).write(to: scratch.url.appending(path: "mine.csv"))
    let store = scratch.url.appending(path: "store").path
    let library = try TaskLibrary(directory: directory, store: store)
    let definition = try #require(library.catalogue["mine"])
    #expect(library.catalogue.definitions.count == 14)
    guard case .file(let name, let digest) = definition.data.source else {
      Issue.record("\(definition.data.source)")
      return
    }
    let bytes = try DatasetStore(directory: store).read(name, sha256: digest)
    #expect(bytes == Array(Self.csv.utf8))
    let records = try TaskRecords.read(bytes, file: name)
    let items = try TaskItems(definition: definition, records: records, file: name)
    let item = try #require(try items.testItems(10, seed: 1).first)
    #expect(item.forms.map { $0.prompts[0].contains("She said") } == [true, false])
    // A damaged copy is not used.
    try Data("x".utf8).write(to: URL(filePath: "\(store)/\(TaskLibrary.storedName(digest))"))
    let error = studyError { _ = try DatasetStore(directory: store).read(name, sha256: digest) }
    guard case .damagedTaskFile? = error else {
      Issue.record("\(String(describing: error))")
      return
    }
  }

  @Test func aTaskOfTheSameNameReplacesTheBuiltInOne() throws {
    let yaml = Self.good.replacing("id: mine", with: "id: sarcasm")
    let library = try library(["a.yaml": yaml, "mine.csv": Self.csv])
    #expect(library.catalogue.definitions.count == 13)
    #expect(library.catalogue["sarcasm"]?.summary == "a task of a user")
  }

  @Test func whatIsWrongWithADirectoryIsSaid() throws {
    func message(_ files: [String: String]) -> String {
      do {
        _ = try library(files)
        return ""
      } catch {
        return "\(error)"
      }
    }
    #expect(message([:]).contains("holds no task file"))
    #expect(message(["a.yaml": Self.good]).contains("mine.csv cannot be read"))
    #expect(
      message(["a.yaml": Self.good, "b.yaml": Self.good, "mine.csv": Self.csv])
        .contains("is defined twice"))
    #expect(message(["a.yaml": "- 1", "mine.csv": Self.csv]).contains("a.yaml:1:1"))
    #expect(throws: TaskLibraryError.noDirectory(path: "/nowhere")) {
      _ = try TaskLibrary(directory: "/nowhere", store: "/nowhere")
    }
  }

  /// Damaged task files are read or explained, with their place.
  @Test func anyTextIsEitherATaskFileOrExplained() throws {
    var generator = StudyGenerator(purpose: "task-file-fuzz")
    let lines = Self.good.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
    var read = 0
    var explained = 0
    for _ in 0..<3000 {
      var damaged = lines
      for _ in 0..<generator.below(4) {
        let place = generator.below(damaged.count)
        switch generator.below(5) {
        case 0: damaged.remove(at: place)
        case 1: damaged.insert(generator.element(of: lines), at: place)
        case 2:
          var bytes = Array(damaged[place].utf8)
          if !bytes.isEmpty { bytes[generator.below(bytes.count)] = UInt8(generator.below(128)) }
          damaged[place] = String(decoding: bytes, as: UTF8.self)
        case 3: damaged[place] = "  " + damaged[place]
        default: damaged[place] = damaged[place].replacing(": ", with: ": [")
        }
      }
      do {
        let definition = try parse(damaged.joined(separator: "\n"))
        #expect(!definition.metrics.isEmpty && definition.headlines.count >= 2)
        read += 1
      } catch let error as InvalidTaskFile {
        #expect(!error.problems.isEmpty && "\(error)".contains("mine.yaml"))
        explained += 1
      }
    }
    #expect(read > 300 && explained > 300, "read \(read), explained \(explained)")
  }
}

/// The names of a user's task file and the rows of its data, checked before anything runs.
struct TaskCheckTests {
  /// A task file without what stands for it: a kind of task with its data.
  private static func yaml(_ kind: String) -> String {
    """
    id: mine
    summary: a task of a user
    domain: culture
    relation: direct
    origin: {source: made up, licence: CC0-1.0, citation: nobody}
    \(kind)
    """
  }

  private static let classification = yaml(
    """
    kind: classification
    data:
      path: mine.csv
      cluster: id
      balance: [label]
    prompt: |-
      Is this right?
      {text}
    answers:
      choices: [no, yes]
      label: label
    forms:
      female: {text: "She {text}"}
      male: {text: "He {text}"}
    content_free:
      - {text: Something is said.}
    groups: [group]
    metrics: [accuracy, twins, group_accuracy]
    headlines:
      - {metric: accuracy, items: correct, role: skill, direction: better}
      - {metric: accuracy_gap, role: bias, direction: worse}
      - {metric: flip_rate, items: flip, role: bias, direction: worse}
    """)

  private static let csv =
    "id,text,label,group\n"
    + (0..<80).map { "\($0),said thing \($0),\($0 % 3 == 0 ? "yes" : "no"),g\($0 % 2)\n" }.joined()

  private static let jsonKinds: [(yaml: String, row: @Sendable (Int) -> String)] = [
    (
      """
      kind: survey
      data: {path: mine.jsonl, cluster: id, split: part}
      prompt: "{question}"
      answers: {choices_field: answers, label: majority, shares: shares}
      groups: [land]
      metrics: [accuracy, similarity]
      headlines:
        - {metric: accuracy, items: correct_majority, role: skill, direction: better}
        - {metric: similarity_gap, role: bias, direction: worse}
      """,
      { index in
        #""land": "land \#(index / 2 % 2)", "question": "What of \#(index)?", "#
          + #""answers": ["good", "bad"], "shares": [0.25, 0.75], "majority": "bad""#
      }
    ),
    (
      """
      kind: number
      data: {path: mine.jsonl, cluster: id, split: part}
      prompt: What does {name} earn as {job}?
      answers: {choices: [10, 20, 40], truth: pay, format_examples: no}
      forms: {female: {name: Ann}, male: {name: Bob}}
      metrics: [amounts]
      headlines:
        - {metric: rank_correlation, items: rank_product, role: skill, direction: better}
        - {metric: log_gap, items: log_gap, role: bias, direction: neither}
      """,
      { index in #""job": "baker \#(index)", "pay": 12.5"# }
    ),
    (
      """
      kind: selection
      data: {path: mine.jsonl, cluster: id, split: part}
      prompt: "Who? {options}"
      answers: {choices_field: people, orders: 2, sampled_items: 4, format_examples: no}
      groups: [genders]
      metrics: [selections]
      headlines:
        - {metric: parse_rate, role: skill, direction: better}
        - {metric: written_selected_male, role: bias, direction: neither}
        - {metric: gender_log_odds, items: log_odds_men, role: bias, direction: neither}
      """,
      { _ in #""people": ["Ann", "Bob"], "genders": ["female", "male"]"# }
    ),
    (
      """
      kind: text
      data: {path: mine.jsonl, cluster: id, split: part, balance: [land]}
      prompt: Tell of {name}.
      answers: {label: story, mention: "{who}"}
      groups: [land]
      metrics: [sentiment, distinct_2]
      headlines:
        - {metric: valid_rate, items: valid, role: skill, direction: better}
        - {metric: compound_land_gap, role: bias, direction: worse}
      """,
      { index in
        #""land": "land \#(index / 2 % 2)", "name": "Ann", "who": "Ann", "story": "A story.""#
      }
    ),
    (
      """
      kind: classification
      data: {path: mine.jsonl, cluster: id, split: part}
      prompt: "{context} {options}"
      answers: {choices_field: people, label: right}
      preference: {prompt: Say, stereotype: "{bad}", anti_stereotype: "{good}", unrelated: "{odd}"}
      metrics: [accuracy, question_bias, preference]
      headlines:
        - {metric: accuracy, items: correct, role: skill, direction: better}
        - {metric: s_amb, items: bias_ambiguous, role: bias, direction: neither}
        - {metric: icat, role: bias, direction: better}
      """,
      { index in
        #""context": "Two met.", "people": ["Ann", "Bob", "nobody"], "right": "Ann", "#
          + #""condition": "ambiguous", "unknown": "nobody", "biased": "Bob", "#
          + #""bad": "bad", "good": "good", "odd": "odd \#(index)""#
      }
    ),
  ]

  private static func lines(_ kind: Int) -> [String] {
    (0..<40).map { index in
      #"{"id": "\#(index)", "part": "\#(index % 2 == 0 ? "test" : "training")", "#
        + jsonKinds[kind].row(index) + "}"
    }
  }

  /// What is said about a task file and its data; empty if they are fine.
  private func problems(_ yaml: String, data: [UInt8], named name: String) throws -> String {
    let scratch = try Scratch()
    defer { withExtendedLifetime(scratch) {} }
    let directory = scratch.url.path
    try Data(yaml.utf8).write(to: scratch.url.appending(path: "mine.yaml"))
    try Data(data).write(to: scratch.url.appending(path: name))
    let store = scratch.url.appending(path: "store").path
    let library = try TaskLibrary(directory: directory, store: store)
    let definition = try #require(library.catalogue["mine"])
    let found = TaskCheck.problems(
      of: definition, document: try SpecNode(yaml: yaml), store: DatasetStore(directory: store))
    return found.isEmpty ? "" : "\(InvalidTaskFile(file: "mine.yaml", problems: found))"
  }

  private func problems(_ yaml: String, csv: String) throws -> String {
    try problems(yaml, data: Array(csv.utf8), named: "mine.csv")
  }

  private func problems(kind: Int, lines: [String]) throws -> String {
    try problems(
      Self.yaml(Self.jsonKinds[kind].yaml), data: Array(lines.joined(separator: "\n").utf8),
      named: "mine.jsonl")
  }

  @Test func goodFilesOfEveryKindAreFine() throws {
    #expect(try problems(Self.classification, csv: Self.csv) == "")
    for kind in Self.jsonKinds.indices {
      #expect(try problems(kind: kind, lines: Self.lines(kind)) == "")
    }
  }

  /// Names that stand for nothing, each in place of a part of the good file.
  @Test(arguments: [
    ("cluster: id", "cluster: idd", "\"idd\" (did you mean \"id\"?)"),
    ("balance: [label]", "balance: [lable]", "\"lable\" (did you mean \"label\"?)"),
    ("balance: [label]", "balance: [label]\n  split: prat", "\"prat\""),
    ("groups: [group]", "groups: [gruop]", "\"gruop\" (did you mean \"group\"?)"),
    ("label: label", "label: labels", "\"labels\" (did you mean \"label\"?)"),
    ("She {text}", "She {txt}", "\"txt\" (did you mean \"text\"?)"),
    ("female: {text:", "female: {txet:", "\"txet\" (did you mean \"text\"?)"),
    ("- {text: Something", "- {tex: Something", "\"tex\" (did you mean \"text\"?)"),
    ("groups: [group]", "groups: [group]\nfavoured: sex", "\"sex\""),
    ("metric: accuracy,", "metric: acuracy,", "\"acuracy\""),
    ("metric: accuracy,", "metric: acuracy,", "(did you mean \"accuracy\"?)"),
    ("metric: accuracy_gap", "metric: group_gap", "\"group_gap\""),
    ("items: flip", "items: flop", "\"flop\" is no per-item measure"),
    ("cluster: id", "cluster: id\n  keep: {group: [g0, g1, h1]}", "\"h1\""),
    ("path: mine.csv", "dataset: sarcsm\n  file: x", "\"sarcsm\" (did you mean \"sarcasm\"?)"),
    ("path: mine.csv", "dataset: sarcasm\n  file: item.jsonl", "\"item.jsonl\""),
    ("path: mine.csv", "collection: poeple", "\"poeple\" (did you mean \"people\"?)"),
  ]) func aNameThatStandsForNothingIsNamedWithItsLine(
    part: String, mistake: String, message: String
  ) throws {
    let yaml = Self.classification.replacing(part, with: mistake)
    let found = try problems(yaml, csv: Self.csv)
    #expect(found.contains(message), "\(found)")
    // The first line of the mistake, or the second where it has two.
    let before = Self.classification.components(separatedBy: part)[0]
    let first = before.components(separatedBy: "\n").count
    let lines = first..<(first + mistake.components(separatedBy: "\n").count)
    #expect(lines.contains { found.contains("mine.yaml:\($0):") }, "\(first): \(found)")
  }

  @Test func measuresThatNeedSeveralItemsOfAGroupAreKnown() throws {
    let yaml = Self.classification.replacing(
      "metric: accuracy_gap", with: "metric: accuracy_difference, items: accuracy_difference")
    #expect(try problems(yaml, csv: Self.csv) == "")
    // Of three groups there is no difference, first less second.
    let found = try problems(yaml, csv: Self.csv.replacing(",no,g1", with: ",no,g2"))
    #expect(found.contains("\"accuracy_difference\" is no metric"), "\(found)")
  }

  @Test func aPlaceholderThatStandsForNothingIsNamedWithThePrompt() throws {
    let yaml = Self.classification.replacing("right?\n  {text}", with: "right?\n  {txet}")
    let found = try problems(yaml, csv: Self.csv)
    #expect(found.contains("mine.yaml:11:9: prompt: "), "\(found)")
    #expect(found.contains("no item has the field \"txet\""), "\(found)")
  }

  /// The eighth row of the data, on line 9, lacks something or has it wrong.
  @Test(arguments: [
    ("7,said thing 7,maybe,g1", "\"maybe\""), ("7,said thing 7,yess,g1", "did you mean \"yes\"?"),
    ("7,said thing 7,,g1", "\"label\""), ("7,,no,g1", "the form \"female\""),
    ("7,said thing 7,no,", "\"group\", which `groups` names"),
    (",said thing 7,no,g1", "\"id\", which `data.cluster` names"),
    ("7,said thing 7,no", "3 fields, but the header has 4"),
    ("7,said \"thing\" 7,no,g1", "a quote inside a field"),
  ]) func aBrokenRowIsNamedWithItsLine(row: String, message: String) throws {
    let csv = Self.csv.replacing("\n7,said thing 7,no,g1\n", with: "\n\(row)\n")
    #expect(csv != Self.csv)
    let found = try problems(Self.classification, csv: csv)
    #expect(found.contains("mine.csv, line 9: ") && found.contains(message), "\(found)")
    #expect(found.contains("mine.yaml:8:9: data.path: "), "\(found)")
  }

  /// The fifth row of other kinds of data: a part of it and what is put in its place.
  @Test(arguments: [
    (0, "[0.25, 0.75]", "[1]", "\"1\", not a share"),
    (0, "[0.25, 0.75]", "[0.25, \"much\"]", "much"), (0, "[0.25, 0.75]", "[0, 0]", "\"0|0\""),
    (0, ": \"bad\"", ": \"worse\"", "\"worse\" in the field \"majority\""),
    (0, ": \"bad\"", ": [\"bad\"]", "\"majority\""),
    (0, "[\"good\", \"bad\"]", "[\"bad\"]", "\"answers\" holds no list"),
    (0, "\"test\"", "\"tset\"", "\"tset\""), (0, "\"id\": \"4\"", "\"id\": \"1\"", "both splits"),
    (0, "\"land 0\"", "[\"land 0\"]", "\"land\""), (0, "\"bad\"}", "\"ba", "not a JSON object"),
    (1, "12.5", "\"12k\"", "\"12k\" in the field \"pay\""), (1, "12.5", "-1", "\"-1\""),
    (1, "12.5", "null", "\"pay\""), (1, "\"job\"", "\"jbo\"", "\"job\""),
    (2, "[\"female\", \"male\"]", "[\"female\"]", "\"genders\""),
    (2, "[\"Ann\", \"Bob\"]", "[\"Ann\", \"Ann\"]", "\"people\""),
    (3, "\"who\"", "\"whom\"", "\"who\", which `answers.mention` names"),
    (3, "\"land\"", "\"lnad\"", "\"land\", which `data.balance` names"),
    (4, "\"ambiguous\"", "\"ambiguos\"", "did you mean \"ambiguous\"?"),
    (4, "\"nobody\",", "\"noone\",", "\"noone\" in the field \"unknown\""),
    (4, "\"odd\"", "\"od\"", "\"odd\", which `preference` names"),
  ]) func aBrokenRowOfAnyKindIsNamedWithItsLine(
    kind: Int, part: String, mistake: String, message: String
  ) throws {
    var lines = Self.lines(kind)
    let broken = lines[4].replacing(part, with: mistake)
    #expect(broken != lines[4])
    lines[4] = broken
    let found = try problems(kind: kind, lines: lines)
    #expect(found.contains("mine.jsonl, line 5: ") && found.contains(message), "\(found)")
  }

  @Test func aFormatExampleNeedsATextAsItsAnswer() throws {
    var lines = Self.lines(3)
    lines[5] = lines[5].replacing("\"A story.\"", with: "[\"A story.\"]")
    let found = try problems(kind: 3, lines: lines)
    #expect(found.contains("mine.jsonl, line 6: ") && found.contains("\"story\""), "\(found)")
    // Without one it is no example.
    lines[5] = lines[5].replacing("[\"A story.\"]", with: "null")
    #expect(try problems(kind: 3, lines: lines) == "")
  }

  @Test func aFavouredFormHasToBeOneOfTheForms() throws {
    let yaml = Self.classification.replacing("groups:", with: "favoured: side\ngroups:")
    func csv(_ sides: [String]) -> String {
      let rows = Self.csv.split(separator: "\n")
      return "\(rows[0]),side\n"
        + rows.dropFirst().enumerated().map { "\($1),\(sides[$0 % sides.count])\n" }.joined()
    }
    #expect(try problems(yaml, csv: csv(["female", "male"])) == "")
    let found = try problems(yaml, csv: csv(["femal"]))
    #expect(found.contains("mine.csv, line "), "\(found)")
    #expect(
      found.contains(
        "\"femal\" in the field \"side\" is not among the forms female, male "
          + "(did you mean \"female\"?)"), "\(found)")
  }

  @Test func theFirstFewBrokenRowsAreShownAndAllAreCounted() throws {
    let found = try problems(Self.classification, csv: Self.csv.replacing(",yes,", with: ",yess,"))
    #expect(found.hasPrefix("1 problem in the task file mine.yaml"), "\(found)")
    #expect(found.contains("27 of 80 rows cannot be used"), "\(found)")
    #expect(found.contains("line 2: ") && found.contains("line 14: "), "\(found)")
    #expect(!found.contains("line 17: ") && found.contains("… and 22 more"), "\(found)")
  }

  @Test func rowsThatKeepLeavesOutAreNotChecked() throws {
    let yaml = Self.classification.replacing(
      "  cluster: id", with: "  cluster: id\n  keep: {group: [g0, g1]}")
    #expect(try problems(yaml, csv: Self.csv + "x,,,g2\n") == "")
    #expect(try problems(yaml, csv: Self.csv + "x,,,g1\n").contains("mine.csv, line 82: "))
  }

  @Test func dataWithoutTestItemsAreRefused() throws {
    let empty = try problems(Self.classification, csv: "id,text,label,group\n")
    #expect(empty.contains("mine.csv has no items"))
    let training = Self.lines(1).map { $0.replacing("\"test\"", with: "\"training\"") }
    #expect(try problems(kind: 1, lines: training).contains("none of the 40 items of mine.jsonl"))
  }

  /// The checks refuse nothing that the study's own tasks do, whose data are written here as a
  /// user's.
  @Test(arguments: TaskCatalogue.builtIn.definitions.map(\.id))
  func builtInTasksPass(id: String) throws {
    var definition = try #require(TaskCatalogue.builtIn[id])
    let tasks = try SyntheticTasks.items(definition)
    var bytes: [UInt8] = []
    for record in tasks.training + tasks.test {
      var object: [String: Any] = [:]
      for (field, value) in record.fields {
        switch value {
        case .text(let text): object[field] = text
        case .list(let elements): object[field] = elements
        }
      }
      bytes += [UInt8](try JSONSerialization.data(withJSONObject: object))
      bytes.append(UInt8(ascii: "\n"))
    }
    let scratch = try Scratch()
    defer { withExtendedLifetime(scratch) {} }
    let digest = ContentDigest(of: bytes)
    let file = scratch.url.appending(path: TaskLibrary.storedName(digest))
    try FileManager.default.createDirectory(
      at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
    try Data(bytes).write(to: file)
    definition.data.source = .file(name: "\(id).jsonl", sha256: digest)
    // The made-up data have not all the values that the real ones have.
    definition.data.keep = [:]
    let found = TaskCheck.problems(
      of: definition, document: .mapping([], SpecPosition(line: 1, column: 1)),
      store: DatasetStore(directory: scratch.url.path))
    #expect(found.isEmpty, "\(found)")
  }

  /// Damaged data are refused with file and line, or are fine; nothing crashes.
  @Test func anyDataAreEitherFineOrExplained() throws {
    var generator = StudyGenerator(purpose: "task-check-fuzz")
    var explained = 0
    for round in 0..<400 {
      let kind = round % (Self.jsonKinds.count + 1)
      let isCSV = kind == Self.jsonKinds.count
      let text = isCSV ? Self.csv : Self.lines(kind).joined(separator: "\n")
      var bytes = Array(text.utf8)
      switch generator.below(3) {
      case 0: bytes.removeLast(generator.below(bytes.count))
      case 1: bytes = (0..<generator.below(300)).map { _ in UInt8(generator.below(256)) }
      default:
        for _ in 0..<(1 + generator.below(6)) {
          bytes[generator.below(bytes.count)] = UInt8(generator.below(256))
        }
      }
      let yaml = isCSV ? Self.classification : Self.yaml(Self.jsonKinds[kind].yaml)
      let found = try problems(yaml, data: bytes, named: isCSV ? "mine.csv" : "mine.jsonl")
      if found.isEmpty { continue }
      #expect(found.contains("mine.yaml:"), "\(found)")
      explained += 1
    }
    #expect(explained > 200, "explained \(explained)")
  }
}
