import SweepCore

/// The data of the study's domains, read once and shared by all shards of a process.
package struct StudyData: Sendable {
  package let names: NameTable
  /// Nil unless the gender domain is used.
  package let occupations: OccupationSentences?
  /// Nil unless the task `group-bias` is used.
  package let comments: GroupComments?
  /// Nil unless the task `story` is used.
  package let sentiment: SentimentLexicon?

  /// The data sets that a domain reads.
  package static func datasets(_ domain: Domain) -> [String] {
    switch domain {
    case .gender: ["bug", "names"]
    case .culture: ["redditbias", "names", "vader"]
    }
  }

  /// - Throws: `StudyError` if a data file is missing, damaged or malformed.
  package init(store: DatasetStore, tasks: [DownstreamTask]) throws(StudyError) {
    let names = try NameTable(
      dictionary: store.read("names", "nam_dict.txt"), file: store.path("names", "nam_dict.txt"))
    self.names = names
    if tasks.contains(where: { $0.domain == .gender }) {
      occupations = try OccupationSentences(
        csv: store.read("bug", "full_BUG.csv"), file: store.path("bug", "full_BUG.csv"),
        names: names)
    } else {
      occupations = nil
    }
    if tasks.contains(where: { $0.id == "group-bias" }) {
      var sources: [GroupComments.Source] = []
      for group in TargetGroup.allCases {
        var bytes = try store.read("redditbias", group.file)
        if group == .jews {
          // The one file that is not UTF-8: Mac OS Roman, whose 0xD5 is an apostrophe. It is the
          // only byte beyond ASCII.
          bytes = bytes.map { $0 == 0xD5 ? UInt8(ascii: "'") : $0 }
        }
        sources.append(
          GroupComments.Source(
            group: group, bytes: bytes, file: store.path("redditbias", group.file)))
      }
      comments = try GroupComments(sources)
    } else {
      comments = nil
    }
    if tasks.contains(where: { $0.id == "story" }) {
      sentiment = try SentimentLexicon(
        lexicon: store.read("vader", "vader_lexicon.txt"),
        file: store.path("vader", "vader_lexicon.txt"))
    } else {
      sentiment = nil
    }
  }

  /// For tests: data that were made rather than read.
  package init(
    names: NameTable, occupations: OccupationSentences?, comments: GroupComments?,
    sentiment: SentimentLexicon?
  ) {
    self.names = names
    self.occupations = occupations
    self.comments = comments
    self.sentiment = sentiment
  }
}
