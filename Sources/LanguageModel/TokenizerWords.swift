/// Cuts text into the words that byte-pair encoding works on.
///
/// The patterns are regular expressions in the models' own files; here they are matched by hand,
/// which is many times faster and has no dependency.
package struct WordSplitter: Sendable, Equatable {
  /// A regular expression whose matches are the words.
  package enum Pattern: Sendable, Equatable {
    /// GPT-2's: `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    case gpt2
    /// Llama 3's: `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|`
    /// ` ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
    case llama3
    /// Qwen2's: Llama 3's with `\p{N}` for `\p{N}{1,3}`.
    case qwen2

    /// Every pattern, in the order in which they are named to users.
    static let known: [Pattern] = [.gpt2, .llama3, .qwen2]

    var regularExpression: String {
      switch self {
      case .gpt2:
        #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#
      case .llama3, .qwen2:
        #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"#
          + (self == .llama3 ? #"\p{N}{1,3}|"# : #"\p{N}|"#)
          + #" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
      }
    }
  }

  /// Whether every digit is cut off first, so that the pattern sees only what lies between digits.
  package var isolatesDigits: Bool
  /// nil leaves the text whole.
  package var pattern: Pattern?

  package init(isolatesDigits: Bool, pattern: Pattern?) {
    self.isolatesDigits = isolatesDigits
    self.pattern = pattern
  }

  /// What the patterns distinguish; raw values in the order in which they test.
  private enum Class: UInt8 {
    case letter, number, newline, space, other

    var isWhitespace: Bool { self == .newline || self == .space }
  }

  /// The classes of a text's scalars and where each begins.
  private struct Scalars {
    var classes: [Class] = []
    /// One more than `classes`: the last is the end of the text.
    var starts: [Int] = []
  }

  /// Calls `word` with the byte range of each word of `text[range]`, in order and without gaps.
  ///
  /// - Parameter text: UTF-8; `range` begins and ends between scalars.
  package func split(_ text: [UInt8], _ range: Range<Int>, word: (Range<Int>) -> Void) {
    guard !range.isEmpty else { return }
    guard isolatesDigits || pattern != nil else {
      word(range)
      return
    }
    let scalars = Self.scalars(text, range)
    let count = scalars.classes.count
    func emit(_ words: Range<Int>) {
      word(scalars.starts[words.lowerBound]..<scalars.starts[words.upperBound])
    }
    func splitRun(_ run: Range<Int>) {
      var start = run.lowerBound
      while start < run.upperBound {
        let end =
          switch pattern {
          case .gpt2: Self.endOfGPT2Word(text, scalars, start, run.upperBound)
          case .llama3: Self.endOfLlama3Word(text, scalars, start, run.upperBound, digits: 3)
          case .qwen2: Self.endOfLlama3Word(text, scalars, start, run.upperBound, digits: 1)
          case nil: run.upperBound
          }
        emit(start..<end)
        start = end
      }
    }
    guard isolatesDigits else {
      splitRun(0..<count)
      return
    }
    var runStart = 0
    for index in 0..<count where scalars.classes[index] == .number {
      splitRun(runStart..<index)
      splitRun(index..<index + 1)
      runStart = index + 1
    }
    splitRun(runStart..<count)
  }

  private static func endOfGPT2Word(
    _ text: [UInt8], _ scalars: Scalars, _ start: Int, _ limit: Int
  ) -> Int {
    let classes = scalars.classes
    let first = text[scalars.starts[start]]
    if first == UInt8(ascii: "'"),
      let length = contractionLength(text, scalars, start, limit, ignoringCase: false)
    {
      return start + length
    }
    let afterSpace = first == UInt8(ascii: " ") ? start + 1 : start
    if afterSpace < limit, !classes[afterSpace].isWhitespace {
      let kind = classes[afterSpace]
      return endOfRun(classes, afterSpace, limit) { $0 == kind }
    }
    return endOfWhitespace(classes, start, limit)
  }

  private static func endOfLlama3Word(
    _ text: [UInt8], _ scalars: Scalars, _ start: Int, _ limit: Int, digits: Int
  ) -> Int {
    let classes = scalars.classes
    let first = text[scalars.starts[start]]
    if first == UInt8(ascii: "'"),
      let length = contractionLength(text, scalars, start, limit, ignoringCase: true)
    {
      return start + length
    }
    let kind = classes[start]
    if kind == .letter { return endOfRun(classes, start, limit) { $0 == .letter } }
    if kind == .number {
      return endOfRun(classes, start, min(limit, start + digits)) { $0 == .number }
    }
    if kind != .newline, start + 1 < limit, classes[start + 1] == .letter {
      return endOfRun(classes, start + 1, limit) { $0 == .letter }
    }
    let afterSpace = first == UInt8(ascii: " ") ? start + 1 : start
    if afterSpace < limit, classes[afterSpace] == .other {
      let end = endOfRun(classes, afterSpace, limit) { $0 == .other }
      return endOfRun(classes, end, limit) { $0 == .newline }
    }
    let end = endOfRun(classes, start, limit) { $0.isWhitespace }
    if let newline = classes[start..<end].lastIndex(of: .newline) { return newline + 1 }
    return endOfWhitespace(classes, start, limit)
  }

  /// `\s+(?!\S)|\s+`: whitespace without its last scalar where something follows, so that a space
  /// goes to the next word; a single one is a word.
  private static func endOfWhitespace(_ classes: [Class], _ start: Int, _ limit: Int) -> Int {
    let end = endOfRun(classes, start, limit) { $0.isWhitespace }
    return end == limit || end - start == 1 ? end : end - 1
  }

  private static func endOfRun(
    _ classes: [Class], _ start: Int, _ limit: Int, _ belongs: (Class) -> Bool
  ) -> Int {
    var end = start
    while end < limit, belongs(classes[end]) { end += 1 }
    return end
  }

  /// Scalars of an English contraction (`'s`, `'re`) at `start`, apostrophe included.
  private static func contractionLength(
    _ text: [UInt8], _ scalars: Scalars, _ start: Int, _ limit: Int, ignoringCase: Bool
  ) -> Int? {
    func letter(_ index: Int) -> UInt8? {
      guard index < limit, scalars.classes[index] == .letter else { return nil }
      let byte = text[scalars.starts[index]]
      return ignoringCase && (65...90).contains(byte) ? byte + 32 : byte
    }
    switch (letter(start + 1), letter(start + 2)) {
    case (UInt8(ascii: "s"), _), (UInt8(ascii: "t"), _), (UInt8(ascii: "m"), _),
      (UInt8(ascii: "d"), _):
      return 2
    case (UInt8(ascii: "r"), UInt8(ascii: "e")), (UInt8(ascii: "v"), UInt8(ascii: "e")),
      (UInt8(ascii: "l"), UInt8(ascii: "l")):
      return 3
    default: return nil
    }
  }

  private static func scalars(_ text: [UInt8], _ range: Range<Int>) -> Scalars {
    var scalars = Scalars()
    scalars.classes.reserveCapacity(range.count)
    scalars.starts.reserveCapacity(range.count + 1)
    var position = range.lowerBound
    while position < range.upperBound {
      scalars.starts.append(position)
      let first = text[position]
      if first < 0x80 {
        scalars.classes.append(asciiClasses[Int(first)])
        position += 1
        continue
      }
      let length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4
      var value = UInt32(first) & (0x7F >> UInt32(length))
      for byte in text[position + 1..<position + length] {
        value = value << 6 | UInt32(byte & 0x3F)
      }
      // Text of a String is valid UTF-8, and only its scalar boundaries are cut.
      scalars.classes.append(Unicode.Scalar(value).map(classify) ?? .other)
      position += length
    }
    scalars.starts.append(range.upperBound)
    return scalars
  }

  private static let asciiClasses: [Class] = (0..<128).map { classify(Unicode.Scalar(UInt8($0))) }

  private static func classify(_ scalar: Unicode.Scalar) -> Class {
    if scalar == "\r" || scalar == "\n" { return .newline }
    if scalar.properties.isWhitespace { return .space }
    switch scalar.properties.generalCategory {
    case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter:
      return .letter
    case .decimalNumber, .letterNumber, .otherNumber: return .number
    default: return .other
    }
  }
}
