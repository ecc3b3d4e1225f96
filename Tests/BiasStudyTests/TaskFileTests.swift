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
