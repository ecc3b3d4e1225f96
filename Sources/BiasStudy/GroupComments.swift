/// A social group that comments of RedditBias are about.
package enum TargetGroup: String, CaseIterable, Sendable {
  case women, lgbtq, black, jews, muslims

  /// The file of the data set that holds the comments about this group.
  package var file: String {
    switch self {
    case .women: "gender_female.csv"
    case .lgbtq: "orientation_lgbtq.csv"
    case .black: "race_black.csv"
    case .jews: "religion_jews.csv"
    case .muslims: "religion_muslims.csv"
    }
  }
}

/// A comment about a group, and whether annotators found it biased against the group.
package struct GroupComment: Hashable, Sendable {
  package let text: String
  package let group: TargetGroup
  package let isBiased: Bool

  package init(text: String, group: TargetGroup, isBiased: Bool) {
    self.text = text
    self.group = group
    self.isBiased = isBiased
  }
}

/// The annotated comments of RedditBias that the task `group-bias` uses.
package struct GroupComments: Sendable {
  package let training: [GroupComment]
  package let test: [GroupComment]

  /// A source file: the group, its CSV bytes, and how errors name it.
  package struct Source {
    package let group: TargetGroup
    package let bytes: [UInt8]
    package let file: String

    package init(group: TargetGroup, bytes: [UInt8], file: String) {
      self.group = group
      self.bytes = bytes
      self.file = file
    }
  }

  /// Reads the phrases (the part of a comment around the group's name) and their labels.
  ///
  /// A phrase that occurs with both labels, in one file or in several, is dropped; one that occurs
  /// in several files with one label is kept once, for the first file's group. Phrases without a
  /// label of 0 or 1 are skipped. The split is by a hash of the normalised phrase, whatever the
  /// sweep's seeds.
  package init(_ sources: [Source]) throws(StudyError) {
    var order: [String] = []
    var found: [String: GroupComment] = [:]
    var contradicted: Set<String> = []
    for source in sources {
      var reader = try CSVReader(bytes: source.bytes, file: source.file)
      try reader.forEachRecord(columns: ["phrase", "bias_phrase"]) { record, _ in
        guard let isBiased = Self.label(record[1]) else { return }
        let text = record[0].collapsingSpaces
        let key = text.normalised
        guard Self.wordLimits.contains(key.split(separator: " ").count) else { return }
        if let earlier = found[key] {
          if earlier.isBiased != isBiased { contradicted.insert(key) }
        } else {
          order.append(key)
          found[key] = GroupComment(text: text, group: source.group, isBiased: isBiased)
        }
      }
    }
    var training: [GroupComment] = []
    var test: [GroupComment] = []
    for key in order where !contradicted.contains(key) {
      guard let comment = found[key] else { continue }
      if Self.isTest(key) { test.append(comment) } else { training.append(comment) }
    }
    self.training = training
    self.test = test
  }

  private static func isTest(_ normalised: String) -> Bool {
    StudyGenerator.seed(["group-bias-split", normalised]) & 1 == 1
  }

  private static let wordLimits = 4...24

  private static func label(_ text: String) -> Bool? {
    switch text {
    case "0", "0.0": false
    case "1", "1.0": true
    default: nil
    }
  }
}
