/// The learned merges of a byte-pair encoding.
struct BytePairMerges: Sendable {
  private struct Merge {
    /// Position in the list of merges: lower is applied first.
    var rank: UInt32
    var result: Int32
  }

  /// By the ids of the two parts, left in the upper half.
  private var merges: [UInt64: Merge] = [:]
  /// The token of each byte; negative for bytes that the vocabulary lacks.
  private var byteTokens: [Int32]

  /// - Parameters:
  ///   - unknown: stands for bytes that the vocabulary lacks; nil drops them.
  ///   - path: names the file in errors.
  /// - Throws: `ModelFileError.malformed` when a part or a result of a merge is not a token.
  init(
    _ list: [TokenizerVocabulary.Merge], ids: [[UInt8]: Int32], unknown: Int32?, path: String
  ) throws {
    byteTokens = (0..<256).map { ids[[UInt8($0)]] ?? unknown ?? -1 }
    merges.reserveCapacity(list.count)
    for (rank, merge) in list.enumerated() {
      guard let left = ids[merge.left], let right = ids[merge.right],
        let result = ids[merge.left + merge.right]
      else {
        throw ModelFileError.malformed(
          path: path, place: .key("merges[\(rank)]"),
          problem: "a part or the result of this merge is not in the vocabulary")
      }
      merges[Self.key(left, right)] = Merge(rank: UInt32(rank), result: result)
    }
  }

  /// Merges the bytes of a word: again and again the pair of lowest rank, the leftmost of equals.
  /// Takes O(n log n) for n bytes.
  func encode(_ word: [UInt8]) -> [Int32] {
    // A linked list in arrays: a merged symbol stays at the place of its left part, and the right
    // part's place becomes dead (-1).
    var symbols = word.compactMap { byte in
      byteTokens[Int(byte)] < 0 ? nil : byteTokens[Int(byte)]
    }
    let count = symbols.count
    guard count > 1 else { return symbols }
    var next = Array(1...count)
    var previous = Array(-1..<count - 1)
    var queue = MinimumHeap()

    func merge(at left: Int) -> Merge? {
      guard left >= 0, symbols[left] >= 0, next[left] < count else { return nil }
      return merges[Self.key(symbols[left], symbols[next[left]])]
    }
    func enqueue(_ left: Int) {
      guard let merge = merge(at: left) else { return }
      queue.insert(UInt64(merge.rank) << 32 | UInt64(left))
    }
    for left in 0..<count - 1 { enqueue(left) }
    while let entry = queue.removeMinimum() {
      let left = Int(entry & 0xFFFF_FFFF)
      // An entry is stale when its pair has changed since.
      guard let merge = merge(at: left), UInt64(merge.rank) == entry >> 32 else { continue }
      let right = next[left]
      symbols[left] = merge.result
      symbols[right] = -1
      next[left] = next[right]
      if next[right] < count { previous[next[right]] = left }
      enqueue(left)
      enqueue(previous[left])
    }
    symbols.removeAll { $0 < 0 }
    return symbols
  }

  private static func key(_ left: Int32, _ right: Int32) -> UInt64 {
    UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
  }
}

/// A binary heap that gives its smallest element first.
private struct MinimumHeap {
  private var elements: [UInt64] = []

  mutating func insert(_ element: UInt64) {
    elements.append(element)
    var child = elements.count - 1
    while child > 0, elements[child] < elements[(child - 1) / 2] {
      elements.swapAt(child, (child - 1) / 2)
      child = (child - 1) / 2
    }
  }

  mutating func removeMinimum() -> UInt64? {
    guard let minimum = elements.first else { return nil }
    let last = elements.removeLast()
    guard !elements.isEmpty else { return minimum }
    elements[0] = last
    var parent = 0
    while true {
      var smallest = parent
      for child in [2 * parent + 1, 2 * parent + 2]
      where child < elements.count && elements[child] < elements[smallest] {
        smallest = child
      }
      guard smallest != parent else { return minimum }
      elements.swapAt(parent, smallest)
      parent = smallest
    }
  }
}
