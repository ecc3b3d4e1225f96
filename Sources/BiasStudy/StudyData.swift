import SweepCore

/// The data of a sweep's tasks and domains, read once and shared by all shards of a process.
package struct StudyData: Sendable {
  package let names: NameTable
  /// Nil unless the gender domain is used.
  package let occupations: OccupationSentences?
  /// Nil unless a task has the metric `sentiment`.
  package let sentiment: SentimentLexicon?
  /// The items of the tasks by identifier.
  package let tasks: [String: TaskItems]

  typealias Place = (dataset: String, file: String)
  private static let dictionary: Place = ("names", "nam_dict.txt")
  private static let sentences: Place = ("bug", "full_BUG.csv")
  static let lexicon: Place = ("vader", "vader_lexicon.txt")

  /// Files that every sweep reads: requests for augmented data and masks need names.
  static let commonFiles = [dictionary]

  /// Files that D_o of a domain is made from, besides the tasks' own.
  static func domainFiles(_ domain: Domain) -> [Place] {
    switch domain {
    case .gender: [sentences]
    case .culture: []
    }
  }

  /// - Throws: `StudyError` if a data file is missing, damaged or malformed.
  package init(
    store: DatasetStore, tasks definitions: some Sequence<TaskDefinition>
  ) throws(StudyError) {
    func read<Value>(
      _ place: Place, _ parse: ([UInt8], String) throws(StudyError) -> Value
    ) throws(StudyError) -> Value {
      try parse(
        store.read(place.dataset, place.file), store.path(place.dataset, place.file))
    }
    let names = try read(Self.dictionary) { bytes, file throws(StudyError) in
      try NameTable(dictionary: bytes, file: file)
    }
    self.names = names
    let definitions = Array(definitions)
    occupations =
      definitions.contains { $0.domain == .gender }
      ? try read(Self.sentences) { bytes, file throws(StudyError) in
        try OccupationSentences(csv: bytes, file: file, names: names)
      } : nil
    sentiment =
      definitions.contains { $0.metrics.contains(.sentiment) }
      ? try read(Self.lexicon) { bytes, file throws(StudyError) in
        try SentimentLexicon(lexicon: bytes, file: file)
      } : nil
    var tasks: [String: TaskItems] = [:]
    for definition in definitions {
      let (records, file) = try Self.records(
        definition, store: store, names: names, occupations: occupations)
      tasks[definition.id] = try TaskItems(definition: definition, records: records, file: file)
    }
    self.tasks = tasks
  }

  private static func records(
    _ definition: TaskDefinition, store: DatasetStore, names: NameTable,
    occupations: OccupationSentences?
  ) throws(StudyError) -> (records: [TaskRecord], file: String) {
    let keep = definition.data.keep
    switch definition.data.source {
    case .dataset(let dataset, let file):
      let path = store.path(dataset, file)
      return (
        try TaskRecords.read(store.read(dataset, file), file: path, keep: keep), path
      )
    case .file(let name, let digest):
      return (
        try TaskRecords.read(store.read(name, sha256: digest), file: name, keep: keep), name
      )
    case .collection(let name):
      guard let collection = TaskCollection(rawValue: name) else {
        throw .unknownCollection(name: name, task: definition.id)
      }
      func table(_ place: Place) throws(StudyError) -> [TaskRecord] {
        try TaskRecords.read(
          store.read(place.dataset, place.file), file: store.path(place.dataset, place.file))
      }
      let files = collection.files
      let paths = files.map { store.path($0.dataset, $0.file) }
      let records: [TaskRecord]
      switch collection {
      case .occupationSentences:
        if let occupations {
          records = TaskCollection.records(occupations)
        } else {
          records = TaskCollection.records(
            try OccupationSentences(
              csv: store.read(files[0].dataset, files[0].file), file: paths[0], names: names))
        }
      case .groupComments: records = TaskCollection.records(try comments(store))
      case .surveyCells: records = TaskCollection.surveyRecords()
      case .people: records = TaskCollection.peopleRecords(names)
      case .salaries:
        records = try TaskCollection.salaryRecords(
          table(files[0]), names: names, file: paths[0])
      case .candidates:
        records = try TaskCollection.candidateRecords(
          titles: table(files[0]), names: table(files[1]), titleFile: paths[0], nameFile: paths[1])
      }
      let kept = records.filter { record in
        keep.allSatisfy { field, values in record.text(field).map(values.contains) ?? false }
      }
      return (kept, "collection \(name)")
    }
  }

  private static func comments(_ store: DatasetStore) throws(StudyError) -> GroupComments {
    var sources: [GroupComments.Source] = []
    for group in TargetGroup.allCases {
      var bytes = try store.read("redditbias", group.file)
      if group == .jews {
        // The one file that is not UTF-8: Mac OS Roman, whose 0xD5 is an apostrophe. It is the only
        // byte beyond ASCII.
        bytes = bytes.map { $0 == 0xD5 ? UInt8(ascii: "'") : $0 }
      }
      sources.append(
        GroupComments.Source(
          group: group, bytes: bytes, file: store.path("redditbias", group.file)))
    }
    return try GroupComments(sources)
  }

  /// For tests: data that were made rather than read.
  package init(
    names: NameTable, occupations: OccupationSentences?, sentiment: SentimentLexicon?,
    tasks: [String: TaskItems] = [:]
  ) {
    self.names = names
    self.occupations = occupations
    self.sentiment = sentiment
    self.tasks = tasks
  }
}
