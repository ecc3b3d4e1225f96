/// VADER's compound sentiment of a text (Hutto and Gilbert, ICWSM 2014).
///
/// Follows version 3.3.2 of the Python package `vaderSentiment`, quirks included, with one
/// exception: emoji are not translated into words, since the study's texts have none. Its rules and
/// constants are under the MIT licence, Copyright (c) 2016 C.J. Hutto (NOTICE).
package struct SentimentLexicon: Sendable {
  private let valences: [String: Double]

  /// - Parameter lexicon: `vader_lexicon.txt`: token, mean valence and two further columns,
  ///   separated by tabs.
  /// - Throws: `StudyError.malformed` with the line.
  package init(lexicon bytes: [UInt8], file: String) throws(StudyError) {
    var valences: [String: Double] = [:]
    for (index, raw) in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
      .enumerated() where !raw.isEmpty
    {
      guard let line = String(validating: raw, as: UTF8.self) else {
        throw .malformed(file: file, line: index + 1, problem: "the text is not UTF-8")
      }
      let fields = line.trimmingSpaces.split(separator: "\t")
      guard fields.count >= 2, let valence = Double(fields[1]) else {
        throw .malformed(
          file: file, line: index + 1, problem: "expected a token, a tab and its valence")
      }
      valences[String(fields[0])] = valence
    }
    self.valences = valences
  }

  /// From −1 (most negative) to 1 (most positive); 0 for text without sentiment words.
  package func compound(_ text: String) -> Double {
    let tokens = text.split(whereSeparator: \.isWhitespace).map { Token(String($0)) }
    let upper = tokens.count { $0.isUpper }
    let capsDiffer = upper > 0 && upper < tokens.count
    var valences = tokens.indices.map { index in
      valence(of: index, in: tokens, capsDiffer: capsDiffer)
    }
    Self.weighAroundBut(tokens, &valences)
    guard !valences.isEmpty else { return 0 }
    var sum = valences.reduce(0, +)
    let emphasis = Self.punctuationEmphasis(text)
    if sum > 0 {
      sum += emphasis
    } else if sum < 0 {
      sum -= emphasis
    }
    return max(-1, min(1, sum / (sum * sum + 15).squareRoot()))
  }

  private struct Token {
    let lower: String
    let isUpper: Bool

    /// Punctuation at both ends is dropped unless little more than it would remain (an emoticon).
    init(_ raw: String) {
      let isPunctuation: (Character) -> Bool = { $0.isASCII && ($0.isPunctuation || $0.isSymbol) }
      var body = Substring(raw)
      while let first = body.first, isPunctuation(first) { body.removeFirst() }
      while let last = body.last, isPunctuation(last) { body.removeLast() }
      let text = body.count <= 2 ? raw : String(body)
      lower = text.lowercased()
      let cased = text.filter { $0.isUppercase || $0.isLowercase }
      isUpper = !cased.isEmpty && cased.allSatisfy(\.isUppercase)
    }
  }

  private static let boost = 0.293
  private static let capitals = 0.733
  private static let negation = -0.74

  private func valence(of index: Int, in tokens: [Token], capsDiffer: Bool) -> Double {
    func lower(_ back: Int) -> String { tokens[index - back].lower }
    let word = tokens[index].lower
    if Self.boosters[word] != nil { return 0 }
    if word == "kind", index + 1 < tokens.count, tokens[index + 1].lower == "of" { return 0 }
    guard let base = valences[word] else { return 0 }
    var valence = base
    if word == "no", index + 1 < tokens.count, valences[tokens[index + 1].lower] != nil {
      valence = 0
    }
    if (index > 0 && lower(1) == "no") || (index > 1 && lower(2) == "no")
      || (index > 2 && lower(3) == "no" && ["or", "nor"].contains(lower(1)))
    {
      valence = base * Self.negation
    }
    if tokens[index].isUpper && capsDiffer {
      valence += valence > 0 ? Self.capitals : -Self.capitals
    }
    for distance in 1...3 where index >= distance && valences[lower(distance)] == nil {
      var scalar = boosterScalar(tokens[index - distance], valence, capsDiffer)
      if distance == 2 { scalar *= 0.95 }
      if distance == 3 { scalar *= 0.9 }
      valence += scalar
      valence = Self.negated(valence, distance, lower)
      if distance == 3 { valence = Self.idioms(valence, tokens, index) }
    }
    if index > 0, lower(1) == "least", valences["least"] == nil,
      !(index > 1 && ["at", "very"].contains(lower(2)))
    {
      valence *= Self.negation
    }
    return valence
  }

  private func boosterScalar(_ token: Token, _ valence: Double, _ capsDiffer: Bool) -> Double {
    guard var scalar = Self.boosters[token.lower] else { return 0 }
    if valence < 0 { scalar = -scalar }
    if token.isUpper && capsDiffer {
      scalar += valence > 0 ? Self.capitals : -Self.capitals
    }
    return scalar
  }

  /// Applies a negation that stands `distance` words before.
  private static func negated(
    _ valence: Double, _ distance: Int, _ lower: (Int) -> String
  ) -> Double {
    let isNegation = negations.contains(lower(distance)) || lower(distance).contains("n't")
    func intensifies(_ back: Int) -> Bool { ["so", "this"].contains(lower(back)) }
    switch distance {
    case 1:
      return isNegation ? valence * negation : valence
    case 2:
      if lower(2) == "never" && intensifies(1) { return valence * 1.25 }
      if lower(2) == "without" && lower(1) == "doubt" { return valence }
      return isNegation ? valence * negation : valence
    default:
      // "so" or "this" directly before the word intensifies without "never", as in the package.
      if (lower(3) == "never" && intensifies(2)) || intensifies(1) { return valence * 1.25 }
      if lower(3) == "without" && (lower(2) == "doubt" || lower(1) == "doubt") { return valence }
      return isNegation ? valence * negation : valence
    }
  }

  /// Idioms that hold a lexicon word, and boosters of two words. Needs three words before.
  private static func idioms(_ value: Double, _ tokens: [Token], _ index: Int) -> Double {
    var valence = value
    func phrase(_ range: ClosedRange<Int>) -> String {
      range.map { tokens[index + $0].lower }.joined(separator: " ")
    }
    for range in [(-1)...0, (-2)...0, (-2)...(-1), (-3)...(-1), (-3)...(-2)] {
      if let special = specialCases[phrase(range)] {
        valence = special
        break
      }
    }
    for range in [0...1, 0...2] where index + range.upperBound < tokens.count {
      if let special = specialCases[phrase(range)] { valence = special }
    }
    for range in [(-3)...(-1), (-3)...(-2), (-2)...(-1)] {
      valence += boosters[phrase(range)] ?? 0
    }
    return valence
  }

  /// Halves sentiment before the first "but" and raises it by half after. As in the package, each
  /// value is looked up by equality, so an earlier equal value is changed in its place.
  private static func weighAroundBut(_ tokens: [Token], _ valences: inout [Double]) {
    guard let but = tokens.firstIndex(where: { $0.lower == "but" }) else { return }
    for position in valences.indices {
      let value = valences[position]
      guard let first = valences.firstIndex(of: value) else { continue }
      if first < but {
        valences[first] = value * 0.5
      } else if first > but {
        valences[first] = value * 1.5
      }
    }
  }

  private static func punctuationEmphasis(_ text: String) -> Double {
    let exclamations = min(4, text.count { $0 == "!" })
    let questions = text.count { $0 == "?" }
    let questioning = questions > 3 ? 0.96 : questions > 1 ? Double(questions) * 0.18 : 0
    return Double(exclamations) * 0.292 + questioning
  }

  private static let negations: Set<String> = Set(
    """
    aint arent cannot cant couldnt darent didnt doesnt ain't aren't can't couldn't daren't didn't \
    doesn't dont hadnt hasnt havent isnt mightnt mustnt neither don't hadn't hasn't haven't isn't \
    mightn't mustn't neednt needn't never none nope nor not nothing nowhere oughtnt shant shouldnt \
    uhuh wasnt werent oughtn't shan't shouldn't uh-uh wasn't weren't without wont wouldnt won't \
    wouldn't rarely seldom despite
    """.split(separator: " ").map(String.init))

  private static let boosters: [String: Double] = {
    let up = """
      absolutely amazingly awfully completely considerable considerably decidedly deeply effing \
      enormous enormously entirely especially exceptional exceptionally extreme extremely \
      fabulously flipping flippin frackin fracking fricking frickin frigging friggin fully fuckin \
      fucking fuggin fugging greatly hella highly hugely incredible incredibly intensely major \
      majorly more most particularly purely quite really remarkably so substantially thoroughly \
      total totally tremendous tremendously uber unbelievably unusually utter utterly very
      """
    let down = """
      almost barely hardly just_enough kind_of kinda kindof kind-of less little marginal \
      marginally occasional occasionally partly scarce scarcely slight slightly somewhat sort_of \
      sorta sortof sort-of
      """
    var boosters: [String: Double] = [:]
    for word in up.split(separator: " ") { boosters[String(word)] = boost }
    for word in down.split(separator: " ") {
      boosters[String(word).replacing("_", with: " ")] = -boost
    }
    return boosters
  }()

  private static let specialCases: [String: Double] = [
    "the shit": 3, "the bomb": 3, "bad ass": 1.5, "badass": 1.5, "bus stop": 0, "yeah right": -2,
    "kiss of death": -1.5, "to die for": 3, "beating heart": 3.5,
  ]
}

extension String {
  fileprivate var trimmingSpaces: Substring {
    var body = Substring(self)
    while body.first?.isWhitespace == true { body.removeFirst() }
    while body.last?.isWhitespace == true { body.removeLast() }
    return body
  }
}
