import TransformerKernels

/// Why a sequence of tokens cannot be fed to a model.
package enum TokenProblem: Hashable, Sendable, CustomStringConvertible {
  case empty
  case tooLong(count: Int, maximum: Int)
  case unknownToken(id: Int32, position: Int, vocabulary: Int)

  package var description: String {
    switch self {
    case .empty:
      "it has no tokens; at least one is needed"
    case .tooLong(let count, let maximum):
      "it has \(count) tokens, the model takes \(maximum); shorten it"
    case .unknownToken(let id, let position, let vocabulary):
      """
      token \(position) has the id \(id), outside the vocabulary 0..<\(vocabulary); encode the \
      text with this model's tokenizer
      """
    }
  }

  /// The first problem of `tokens`, if there is one.
  static func first(in tokens: [Int32], _ configuration: LlamaConfiguration) -> TokenProblem? {
    if tokens.isEmpty { return .empty }
    if tokens.count > configuration.maximumPositions {
      return .tooLong(count: tokens.count, maximum: configuration.maximumPositions)
    }
    for (position, id) in tokens.enumerated()
    where id < 0 || Int(id) >= configuration.vocabularySize {
      return .unknownToken(id: id, position: position, vocabulary: configuration.vocabularySize)
    }
    return nil
  }
}

/// Tokens packed one after the other, one row of activations each, without padding.
struct TokenBatch {
  private(set) var tokens: [Int32] = []
  /// Position of each token in its sequence.
  private(set) var positions: [Int32] = []
  private(set) var segments: [AttentionSegment] = []
  /// Ranges of rows that the segments refer to as context.
  private(set) var contexts: [Range<Int>] = []

  var rowCount: Int { tokens.count }
  /// Rows and keys of the longest path.
  var longestPath: Int { segments.lazy.map(\.keyCount).max() ?? 0 }

  mutating func removeAll() {
    tokens.removeAll(keepingCapacity: true)
    positions.removeAll(keepingCapacity: true)
    segments.removeAll(keepingCapacity: true)
    contexts.removeAll(keepingCapacity: true)
  }

  /// Adds tokens that follow the rows of `context`, and returns their rows.
  @discardableResult
  mutating func append(
    _ added: ArraySlice<Int32>, after context: some Collection<Range<Int>> = EmptyCollection()
  ) -> Range<Int> {
    let rows = tokens.count..<tokens.count + added.count
    let contextCount = context.reduce(0) { $0 + $1.count }
    tokens.append(contentsOf: added)
    for offset in 0..<added.count { positions.append(Int32(contextCount + offset)) }
    segments.append(
      AttentionSegment(
        rows: rows, context: contexts.count..<contexts.count + context.count,
        contextCount: contextCount))
    contexts.append(contentsOf: context)
    return rows
  }
}

/// Several sequences packed so that each common beginning is computed once.
///
/// A row stands for one token after one particular beginning. Since an activation depends on
/// nothing else, it serves every sequence that begins so.
struct PrefixTree {
  private(set) var batch = TokenBatch()
  /// The rows of all sequences, sequence by sequence.
  private var ranges: [Range<Int>] = []
  /// For each sequence, where its rows stand in `ranges`.
  private var bounds: [Range<Int>] = []
  private var order: [Int] = []

  init() {}

  /// - Parameters: see `pack`.
  init(_ sequences: [[Int32]], sharing: Bool = true, after beginning: Range<Int> = 0..<0) {
    pack(sequences, sharing: sharing, after: beginning)
  }

  /// The rows of the tokens of a sequence, in their order.
  func rows(of sequence: Int) -> ArraySlice<Range<Int>> { ranges[bounds[sequence]] }

  /// For each sequence, the row of each of its tokens.
  var paths: [[Int]] { bounds.map { ranges[$0].flatMap { Array($0) } } }

  /// Replaces the contents by `sequences`, in memory that is used again.
  ///
  /// - Parameters:
  ///   - sharing: without it every sequence has rows of its own, in the given order.
  ///   - omittingLast: leaves out the last token of each sequence, of which there are two at least.
  ///   - beginning: rows beyond those of this batch, of tokens that all sequences begin with and
  ///     have more of; only with `sharing`.
  mutating func pack<Sequences: RandomAccessCollection>(
    _ sequences: Sequences, sharing: Bool, omittingLast: Bool = false,
    after beginning: Range<Int> = 0..<0
  ) where Sequences.Element == [Int32], Sequences.Index == Int {
    precondition(sharing || beginning.isEmpty, "a beginning is shared")
    batch.removeAll()
    ranges.removeAll(keepingCapacity: true)
    bounds.removeAll(keepingCapacity: true)
    order.removeAll(keepingCapacity: true)
    for index in 0..<sequences.count {
      order.append(index)
      bounds.append(0..<0)
    }
    func tokens(_ index: Int) -> [Int32] { sequences[sequences.startIndex + index] }
    let omitted = omittingLast ? 1 : 0
    guard sharing else {
      for index in order {
        bounds[index] = ranges.count..<ranges.count + 1
        ranges.append(batch.append(tokens(index).dropLast(omitted)))
      }
      return
    }
    order.sort {
      tokens($0).lexicographicallyPrecedes(tokens($1))
        || ($0 < $1 && tokens($0) == tokens($1))
    }
    // In this order a sequence shares most with the one before it.
    var previous: Int?
    for index in order {
      let own = tokens(index).dropLast(omitted)
      let start = ranges.count
      var shared = 0
      if let previous {
        let other = tokens(previous).dropLast(omitted)
        let most = min(own.count, other.count)
        while shared < most, own[shared] == other[shared] { shared += 1 }
        var left = shared
        for position in bounds[previous] where left > 0 {
          let range = ranges[position].prefix(left)
          ranges.append(range)
          left -= range.count
        }
      } else if !beginning.isEmpty {
        shared = beginning.count
        ranges.append(beginning)
      }
      if shared < own.count {
        let rows = batch.append(own[shared...], after: ranges[start...])
        if let last = ranges.last, ranges.count > start, last.upperBound == rows.lowerBound {
          ranges[ranges.count - 1] = last.lowerBound..<rows.upperBound
        } else {
          ranges.append(rows)
        }
      }
      bounds[index] = start..<ranges.count
      previous = index
    }
  }
}
