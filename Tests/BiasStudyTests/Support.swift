import BiasStudy
import Foundation
import LanguageModel
import StudyDocuments
import SweepCore
import Testing

/// A first-name dictionary in the layout of `nam_dict.txt`: gender, name, frequency by column.
func dictionary(_ entries: [(gender: String, name: String, frequencies: [Int: Character])])
  -> [UInt8]
{
  var text = "# made for tests\n"
  for entry in entries {
    var line = [Character](repeating: " ", count: 86) + ["$"]
    for (offset, character) in entry.gender.enumerated() { line[offset] = character }
    for (offset, character) in entry.name.enumerated() { line[3 + offset] = character }
    for (column, frequency) in entry.frequencies { line[column] = frequency }
    text += String(line) + "\n"
  }
  return Array(text.utf8)
}

/// Synthetic data in the shape of the study's; every text is made up here.
enum Synthetic {
  static let names: NameTable = {
    var entries: [(gender: String, name: String, frequencies: [Int: Character])] = []
    func add(_ gender: String, _ column: Int, _ names: String) {
      for name in names.split(separator: " ") {
        entries.append((gender, String(name), [column: "7"]))
      }
    }
    add("M", 77, "Omar Karim Hassan")
    add("F", 77, "Fatima Layla Huda")
    add("M", 35, "Joaquim Nuno Tiago")
    add("F", 35, "Filipa Lurdes Celeste")
    add("M", 36, "Pablo Javier Enrique")
    add("F", 36, "Pilar Juana Nieves")
    for name in ["David", "John"] { entries.append(("M", name, [30: "8", 31: "8", 32: "8"])) }
    for name in ["Mary", "Susan"] { entries.append(("F", name, [30: "8", 31: "8", 32: "8"])) }
    entries.append(("?", "Robin", [30: "8"]))
    do {
      return try NameTable(dictionary: dictionary(entries), file: "names")
    } catch {
      preconditionFailure("\(error)")
    }
  }()

  static let bugHeader = "id,sentence_text,tokens,profession,num_of_pronouns,corpus\n"

  /// Sentences for every occupation, tokenised as in BUG.
  static func bug(perOccupation count: Int) -> [UInt8] {
    var text = bugHeader
    let objects = ["lamp", "door", "boat", "drum", "kite", "coat", "fence"]
    for occupation in Occupation.all {
      for index in 0..<count {
        let pronoun = index % 3 == 0 ? "her" : "his"
        let sentence =
          "The \(occupation.name) sold \(pronoun) \(objects[index % 7]) for \(index) coins , then left ."
        text += "\(index),\"\(sentence)\",\"['a', \"\"b\"\"]\",\(occupation.name),1,wikipedia\n"
      }
    }
    return Array(text.utf8)
  }

  static func comments(perCell count: Int) -> [GroupComments.Source] {
    TargetGroup.allCases.map { group in
      var text = "id,phrase,bias_phrase\r\n"
      for index in 0..<count {
        text += "\(index),comment \(index) says something nice about \(group.rawValue),0\r\n"
        text += "\(index),comment \(index) says something awful about \(group.rawValue),1\r\n"
      }
      return GroupComments.Source(group: group, bytes: Array(text.utf8), file: group.file)
    }
  }

  static let lexicon = Array("good\t1.9\t0.9\t[1]\nbad\t-2.5\t0.6\t[1]\nkind\t2.4\t1\t[1]\n".utf8)

  /// Data of all built-in tasks.
  static func data() throws -> StudyData {
    let occupations = try OccupationSentences(
      csv: bug(perOccupation: 40), file: "bug", names: names)
    var tasks: [String: TaskItems] = [:]
    for definition in TaskCatalogue.builtIn.definitions {
      tasks[definition.id] = try SyntheticTasks.items(definition, occupations: occupations)
    }
    return StudyData(
      names: names, occupations: occupations,
      sentiment: try SentimentLexicon(lexicon: lexicon, file: "lexicon"), tasks: tasks)
  }

  static let tokenizerPath = URL(filePath: #filePath).deletingLastPathComponent()
    .appending(path: "../LanguageModelTests/Fixtures/tiny_tokenizer").standardizedFileURL.path

  /// A tiny random model with a real tokenizer.
  static func model() throws -> LanguageModel {
    try LanguageModel(
      name: "nano",
      weights: .random(
        configuration: LlamaConfiguration(
          vocabularySize: 512, hiddenSize: 32, layerCount: 2, headCount: 2, keyValueHeadCount: 1,
          headDimension: 16, feedForwardSize: 48, ropeTheta: 10_000, normEpsilon: 1e-5,
          maximumPositions: 2048, tiesEmbeddings: true), seed: 3),
      tokenizerFrom: tokenizerPath)
  }

  /// D_a written by hand, because a random model writes no sentences.
  static func augmented(_ key: AugmentationKey, count: Int) -> [AugmentedItem] {
    (0..<count).map { index in
      let request = AugmentationRequest(index: index, key: key, seed: 1, names: names)
      let text = "She is the one who came number \(index)."
      return AugmentedItem(
        index: index, domain: key.domain, bias: key.bias, request: request.text,
        user: request.userText(generated: text),
        answer: request.answer(generated: text, labels: request.people.map { _ in "never" }),
        people: request.people, occupation: nil, question: nil, labels: [], attempts: 1,
        accepted: true)
    }
  }

  /// The tasks of the small spec.
  static let tasks = ["occupation", "story", "group-bias"].compactMap {
    TaskCatalogue.builtIn[$0]?.task
  }

  /// A small spec; the grid has two biases, two ratios and all mitigations.
  static func spec() throws -> SweepSpec {
    var spec = try JSONDecoder().decode(SweepSpec.self, from: Data(specJSON.utf8))
    spec.taskDefinitions = TaskDefinitions(TaskCatalogue.builtIn.definitions)
    return spec
  }

  private static let specJSON = """
    {"name": "test", "model": "nano", "tasks": ["occupation", "story", "group-bias"],
     "biases": ["contextual-single-explicit", "contrastive-single-explicit"],
     "ratios": [0, 0.5], "mitigations": ["none", "token", "mask", "loss"], "seeds": [1],
     "data": {"original_items": 8, "format_items": 8, "test_items": 8, "selection_seed": 1},
     "augmentation": {"generator": "self", "temperature": 1, "top_k": 0, "maximum_tokens": 24,
      "seed": 1},
     "training": {"rank": 2, "alpha": 4, "targets": ["q", "v", "down"], "top_layers": 1,
      "epochs": 1, "batch_size": 4, "learning_rate": 0.01, "warmup_fraction": 0.1,
      "weight_decay": 0, "gradient_clip": 1},
     "mitigation": {"token_prefix": "The following text may contain bias.",
      "mask_word": "[MASK]", "loss_weight": 0.1},
     "evaluation": {"temperature": 0.7, "top_k": 10, "maximum_tokens": 12, "samples": 1}}
    """
}

/// The real data, if `scripts/fetch-data` has put them into the cache.
enum RealData {
  static let store = DatasetStore(directory: directory)
  static let isPresent: Bool = {
    let isPresent = store.contains("bug", "redditbias", "names", "vader")
    if !isPresent {
      print("skipping tests on real data: \(directory) lacks them (run scripts/fetch-data)")
    }
    return isPresent
  }()

  /// The built-in tasks whose data are all there; says of the others which data sets they lack.
  static let tasks: [String] = TaskCatalogue.builtIn.definitions.filter { definition in
    let missing = DataManifest.files(of: [definition]).filter { file in
      !FileManager.default.fileExists(atPath: store.path(file.dataset, file.file))
    }
    let lacking = DataManifest.datasets.filter { missing.map(\.dataset).contains($0) }
      .joined(separator: " ")
    if !missing.isEmpty {
      print(
        "splits of \(definition.id) on real data: skipped: \(directory) lacks \(lacking) "
          + "(run scripts/fetch-data \(lacking))")
    }
    return missing.isEmpty
  }.map(\.id)

  private static var directory: String {
    let environment = ProcessInfo.processInfo.environment
    if let cache = environment["BIASSWEEP_CACHE"] { return cache + "/data" }
    let home = environment["XDG_CACHE_HOME"] ?? (environment["HOME"] ?? "") + "/.cache"
    return home + "/biassweep/data"
  }
}

/// A directory that goes with the test.
final class Scratch {
  let url = FileManager.default.temporaryDirectory
    .appending(path: "biassweep-study-\(UUID().uuidString)")

  init() throws {
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
  }

  deinit {
    // A directory that stays behind harms no test.
    try? FileManager.default.removeItem(at: url)
  }
}

/// What a call throws, as a `StudyError`.
func studyError(_ body: () throws -> Void) -> StudyError? {
  do {
    try body()
    return nil
  } catch let error as StudyError {
    return error
  } catch {
    Issue.record("unexpected error \(error)")
    return nil
  }
}
