extension String {
  /// Longest word that is taken for a misspelt one.
  private static let misspeltBytesMax = 100

  /// The known word that may be meant by this one, to be added to a message; empty if none is near.
  package func spellingHint(among known: some Collection<String>) -> String {
    let length = utf8.count
    guard length <= Self.misspeltBytesMax else { return "" }
    let limit = Swift.min(3, (length + 1) / 2)
    var nearest: (distance: Int, word: String)?
    for word in known where abs(word.utf8.count - length) <= limit {
      let distance = editDistance(to: word)
      guard distance <= limit else { continue }
      if let best = nearest, (best.distance, best.word) <= (distance, word) { continue }
      nearest = (distance, word)
    }
    return nearest.map { " (did you mean \"\($0.word)\"?)" } ?? ""
  }

  /// Levenshtein distance of the bytes, for hints about misspelt words.
  package func editDistance(to other: String) -> Int {
    let other = Array(other.utf8)
    var row = Array(0...other.count)
    for (index, byte) in utf8.enumerated() {
      var diagonal = row[0]
      row[0] = index + 1
      for (place, otherByte) in other.enumerated() {
        let substituted = diagonal + (byte == otherByte ? 0 : 1)
        diagonal = row[place + 1]
        row[place + 1] = Swift.min(substituted, diagonal + 1, row[place] + 1)
      }
    }
    return row[other.count]
  }
}
