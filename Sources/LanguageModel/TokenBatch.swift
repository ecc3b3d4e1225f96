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
  mutating func append(_ added: ArraySlice<Int32>, after context: [Range<Int>] = []) -> Range<Int> {
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
  /// For each sequence, the row of each of its tokens.
  private(set) var paths: [[Int]]

  init(_ sequences: [[Int32]]) {
    paths = sequences.map { _ in [] }
    let order = sequences.indices.sorted {
      sequences[$0].lexicographicallyPrecedes(sequences[$1])
        || (sequences[$0] == sequences[$1] && $0 < $1)
    }
    add(order[...], of: sequences, depth: 0, context: [])
  }

  /// Adds what follows token `depth` of sequences that agree up to there. `order` is sorted.
  private mutating func add(
    _ order: ArraySlice<Int>, of sequences: [[Int32]], depth: Int, context: [Range<Int>]
  ) {
    // Sequences that end here come first.
    var rest = order.drop { sequences[$0].count == depth }
    while let first = rest.first {
      let token = sequences[first][depth]
      let branch = rest.prefix { sequences[$0][depth] == token }
      rest = rest.dropFirst(branch.count)
      // In sorted order, the first and last of a branch share what all of it shares.
      let last = sequences[branch[branch.endIndex - 1]]
      var end = depth + 1
      while end < min(sequences[first].count, last.count), sequences[first][end] == last[end] {
        end += 1
      }
      let rows = batch.append(sequences[first][depth..<end], after: context)
      for index in branch { paths[index].append(contentsOf: rows) }
      add(branch, of: sequences, depth: end, context: context + [rows])
    }
  }
}
