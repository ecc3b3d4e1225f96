/// Reads out of generated text which of the listed people it chooses.
package enum SelectionParser {
  /// Index of the one candidate whom a text names; nil if it names nobody, or several.
  ///
  /// A candidate is named by all words of the name in a row, or by the first of them where no other
  /// candidate's name has that word; case makes no difference. Where a name goes on as another one
  /// does ("Ann Lee", "Ann Lee Cole"), the longer one counts.
  package static func candidate(in text: String, names: [String]) -> Int? {
    let split = names.map { $0.words.map(\.lowercased) }
    var known: [(words: [String], candidate: Int)] = []
    for (index, own) in split.enumerated() {
      guard let first = own.first else { continue }
      known.append((own, index))
      let isTheirsAlone = split.indices.allSatisfy { $0 == index || !split[$0].contains(first) }
      if own.count > 1, isTheirsAlone { known.append(([first], index)) }
    }
    let words = text.words.map(\.lowercased)
    var named: Set<Int> = []
    var position = 0
    while position < words.count {
      let found = known.filter { words[position...].starts(with: $0.words) }
      let longest = found.map(\.words.count).max() ?? 0
      named.formUnion(found.filter { $0.words.count == longest }.map(\.candidate))
      position += max(1, longest)
    }
    return named.count == 1 ? named.first : nil
  }
}
