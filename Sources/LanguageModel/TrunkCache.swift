import Crypto
import Synchronization
import TransformerKernels

/// Names the outputs of the frozen layers for some tokens: a SHA-256 over all that they depend on.
struct TrunkKey: Hashable, Sendable {
  /// The digest's bytes, eight to a word, little-endian.
  let words: SIMD4<UInt64>

  init(words: SIMD4<UInt64>) { self.words = words }

  init(_ digest: SHA256.Digest) {
    words = digest.withUnsafeBytes { $0.loadUnaligned(as: SIMD4<UInt64>.self) }
  }

  // Written out: those of SIMD4 allocate.
  static func == (left: TrunkKey, right: TrunkKey) -> Bool {
    left.words[0] == right.words[0] && left.words[1] == right.words[1]
      && left.words[2] == right.words[2] && left.words[3] == right.words[3]
  }

  func hash(into hasher: inout Hasher) {
    // Any part of a digest is as good as all of it.
    hasher.combine(words[0])
  }
}

/// The layers below the first trained one: always the same, so that what they compute can be kept.
struct FrozenTrunk {
  /// Number of frozen layers.
  let depth: Int
  /// Nil computes everything each time.
  let cache: TrunkCache?
  /// Of weights, depth and arithmetic.
  private let prefix: SHA256

  init(depth: Int, weightsDigest: String, cache: TrunkCache?) {
    self.depth = depth
    self.cache = depth > 0 ? cache : nil
    var prefix = SHA256()
    for part in ["biassweep-trunk-1", weightsDigest, "\(depth)", MultiplicationBackend.arithmetic] {
      prefix.update(data: Array(part.utf8) + [0])
    }
    self.prefix = prefix
  }

  /// The key of a prompt's keys, values and rows (see `PromptTrunk`).
  func promptKey(of prompt: [Int32]) -> TrunkKey {
    var hash = prefix
    hash.update(data: Array("prompt".utf8) + [0])
    prompt.withUnsafeBytes { hash.update(bufferPointer: $0) }
    return TrunkKey(hash.finalize())
  }

  /// The key of an item's rows: those of its sequences, one after the other, and each shared row
  /// once if `sharing`.
  func key(of sequences: some Collection<[Int32]>, sharing: Bool) -> TrunkKey {
    var hash = prefix
    if sequences.count > 1 && !sharing { hash.update(data: [0]) }
    for sequence in sequences {
      withUnsafeBytes(of: UInt32(sequence.count).littleEndian) { hash.update(bufferPointer: $0) }
      sequence.withUnsafeBytes { hash.update(bufferPointer: $0) }
    }
    return TrunkKey(hash.finalize())
  }
}

/// Outputs of frozen layers, so that an item of data passes through them once: in this process, and
/// with a `TrunkStore` once on this machine.
///
/// With an adapter on layers k..<L only, the output of layers 0..<k for given tokens is always the
/// same, to the last bit (see `LlamaDecoder`). It serves every epoch, every fine-tune and every
/// evaluation. Entries are found by content (`TrunkKey`). The least recently used ones leave the
/// memory when its limit is reached; the store has a limit of its own.
package final class TrunkCache: Sendable {
  /// Numbers since the start of the process.
  package struct Statistics: Sendable, Hashable {
    /// Entries found in memory.
    package var hits = 0
    /// Entries read from the store.
    package var storeHits = 0
    /// Entries that had to be computed.
    package var misses = 0
    /// Entries that left the memory.
    package var evictions = 0
    /// Bytes in memory now.
    package var bytes = 0
  }

  /// Guarded by the cache's lock. An object, because changing a value inside a dictionary allocates.
  private final class Entry: @unchecked Sendable {
    let rows: FloatBuffer
    var lastUse: Int

    init(rows: FloatBuffer, lastUse: Int) {
      self.rows = rows
      self.lastUse = lastUse
    }
  }

  private struct State {
    var entries: [TrunkKey: Entry] = [:]
    var clock = 0
    var statistics = Statistics()
  }

  /// Most bytes in memory.
  package let byteLimit: Int
  /// What lies below the memory, shared by the processes of a machine.
  package let store: TrunkStore?
  private let state = Mutex(State())

  /// - Parameter byteLimit: most bytes to hold in memory; 0 for none.
  package init(byteLimit: Int, store: TrunkStore? = nil) {
    self.byteLimit = byteLimit
    self.store = store
  }

  package var statistics: Statistics { state.withLock { $0.statistics } }

  /// The entries of `keys`, nil where there is none of the given number of floats.
  ///
  /// - Parameter inMemory: whether only the memory is searched.
  func find(_ keys: [TrunkKey], counts: [Int], inMemory: Bool = false) -> [FloatBuffer?] {
    var found: [FloatBuffer?] = []
    find(keys, counts: counts, inMemory: inMemory, into: &found)
    return found
  }

  /// As above, into memory that is used again: allocates nothing for what is in memory already. An
  /// entry that is read from the store needs memory of its own, which is what the cache then keeps.
  func find(
    _ keys: [TrunkKey], counts: [Int], inMemory: Bool = false, into found: inout [FloatBuffer?]
  ) {
    found.removeAll(keepingCapacity: true)
    var hits = 0
    state.withLock { state in
      for (key, count) in zip(keys, counts) {
        state.clock += 1
        guard let entry = state.entries[key], entry.rows.count == count else {
          found.append(nil)
          continue
        }
        entry.lastUse = state.clock
        state.statistics.hits += 1
        hits += 1
        found.append(entry.rows)
      }
    }
    guard hits < keys.count else { return }
    let absent = found.indices.filter { found[$0] == nil }
    if let store, !inMemory {
      let read = store.read(absent.map { (keys[$0], counts[$0]) })
      for (index, rows) in zip(absent, read) { found[index] = rows }
    }
    state.withLock { state in
      for index in absent {
        if let rows = found[index] {
          state.statistics.storeHits += 1
          insert(keys[index], rows, into: &state)
        } else {
          state.statistics.misses += 1
        }
      }
    }
  }

  /// Keeps new entries, in memory and, unless `inMemory`, in the store.
  func insert(_ entries: [(key: TrunkKey, rows: FloatBuffer)], inMemory: Bool = false) {
    state.withLock { state in
      for entry in entries { insert(entry.key, entry.rows, into: &state) }
    }
    if !inMemory { store?.append(entries) }
  }

  private func insert(_ key: TrunkKey, _ rows: FloatBuffer, into state: inout State) {
    let bytes = rows.count * MemoryLayout<Float>.stride
    guard bytes <= byteLimit else { return }
    state.clock += 1
    if let old = state.entries.updateValue(Entry(rows: rows, lastUse: state.clock), forKey: key) {
      state.statistics.bytes -= old.rows.count * MemoryLayout<Float>.stride
    }
    state.statistics.bytes += bytes
    if state.statistics.bytes > byteLimit { evict(from: &state) }
  }

  /// Removes the entries not used for longest, down to seven eighths of the limit: a pass over all
  /// entries is then rare.
  private func evict(from state: inout State) {
    for (key, entry) in state.entries.sorted(by: { $0.value.lastUse < $1.value.lastUse }) {
      if state.statistics.bytes <= byteLimit / 8 * 7 { break }
      state.entries[key] = nil
      state.statistics.bytes -= entry.rows.count * MemoryLayout<Float>.stride
      state.statistics.evictions += 1
    }
  }
}

/// What `forwardTrunk` looks up, in memory that is used again by each call.
struct TrunkLookup {
  /// The rows of all items, one item after the other, and where those of each stand.
  fileprivate var rows: [Int] = []
  fileprivate var bounds: [Range<Int>] = []
  fileprivate var keys: [TrunkKey] = []
  fileprivate var counts: [Int] = []
  fileprivate var found: [FloatBuffer?] = []
  /// Keys of items that are one sequence, by its tokens: a fine-tune asks for them in every epoch, and
  /// a digest takes longer than finding it, and memory.
  private var known: [[Int32]: TrunkKey] = [:]

  /// The key of an item that is one sequence, in the trunk that this is used for; worked out once.
  @discardableResult
  mutating func key(of sequence: [Int32], in trunk: FrozenTrunk) -> TrunkKey {
    if let key = known[sequence] { return key }
    let key = trunk.key(of: CollectionOfOne(sequence), sharing: true)
    known[sequence] = key
    return key
  }

  fileprivate mutating func removeAll() {
    rows.removeAll(keepingCapacity: true)
    bounds.removeAll(keepingCapacity: true)
    keys.removeAll(keepingCapacity: true)
    counts.removeAll(keepingCapacity: true)
    // The entries are the cache's to keep or to drop.
    found.removeAll(keepingCapacity: true)
  }

  /// Adds the rows of an item's sequences, one sequence after the other, each row once.
  fileprivate mutating func addRows(of tree: PrefixTree, item sequences: Range<Int>) {
    let first = rows.count
    if sequences.count == 1 {
      for row in tree.rows(of: sequences.lowerBound).joined() { rows.append(row) }
    } else {
      var seen: Set<Int> = []
      for sequence in sequences {
        for row in tree.rows(of: sequence).joined() where seen.insert(row).inserted {
          rows.append(row)
        }
      }
    }
    bounds.append(first..<rows.count)
  }
}

extension LlamaDecoder {
  /// Computes the frozen layers for the rows of `tree` and leaves the result in the stream that
  /// enters the first trained layer, taking from the trunk's cache what it has and storing the rest
  /// there. Items that are one sequence each and in the cache's memory cost no allocation.
  ///
  /// - Parameters:
  ///   - sequences: those that `tree` was packed from, with this `sharing`. The cache has all tokens of
  ///     a sequence, also where the tree omits the last.
  ///   - items: ranges of sequences whose rows are kept together.
  func forwardTrunk<Sequences: RandomAccessCollection>(
    _ tree: PrefixTree, of sequences: Sequences, items: [Range<Int>], sharing: Bool, keeping: Bool,
    trunk: FrozenTrunk, lookup: inout TrunkLookup
  ) where Sequences.Element == [Int32], Sequences.Index == Int {
    guard let cache = trunk.cache else {
      embed(tree.batch.tokens, keeping: keeping)
      forward(tree.batch, layers: 0..<trunk.depth, keeping: keeping)
      return
    }
    let width = configuration.hiddenSize
    func tokens(_ item: Range<Int>) -> Sequences.SubSequence {
      sequences[sequences.startIndex + item.lowerBound..<sequences.startIndex + item.upperBound]
    }
    lookup.removeAll()
    for item in items {
      lookup.addRows(of: tree, item: item)
      if item.count == 1 {
        let sequence = sequences[sequences.startIndex + item.lowerBound]
        lookup.counts.append(sequence.count * width)
        lookup.keys.append(lookup.key(of: sequence, in: trunk))
      } else {
        lookup.counts.append(lookup.bounds[lookup.bounds.count - 1].count * width)
        lookup.keys.append(trunk.key(of: tokens(item), sharing: sharing))
      }
    }
    cache.find(lookup.keys, counts: lookup.counts, into: &lookup.found)
    if lookup.found.contains(where: { $0 == nil }) {
      computeMissing(
        of: items.map { Array(tokens($0)) }, sharing: sharing, trunk: trunk, cache: cache,
        lookup: &lookup)
    }

    let destination = stream(at: trunk.depth, keeping: keeping)
    for (buffer, bounds) in zip(lookup.found, lookup.bounds) {
      guard let buffer else { preconditionFailure("an item was neither found nor computed") }
      for position in bounds {
        (destination + lookup.rows[position] * width).update(
          from: buffer.base + (position - bounds.lowerBound) * width, count: width)
      }
    }
    lookup.removeAll()
  }

  /// Computes the items that were not found and keeps them in the cache.
  private func computeMissing(
    of items: [[[Int32]]], sharing: Bool, trunk: FrozenTrunk, cache: TrunkCache,
    lookup: inout TrunkLookup
  ) {
    let width = configuration.hiddenSize
    let missing = items.indices.filter { lookup.found[$0] == nil }
    // A batch of its own, whose stream may lie in the memory of the destination.
    let tree = PrefixTree(missing.flatMap { items[$0] }, sharing: sharing)
    embed(tree.batch.tokens)
    forward(tree.batch, layers: 0..<trunk.depth)
    let computed = stream(at: trunk.depth, keeping: false)
    var entries: [(key: TrunkKey, rows: FloatBuffer)] = []
    var rows = TrunkLookup()
    var first = 0
    for (place, index) in missing.enumerated() {
      rows.addRows(of: tree, item: first..<first + items[index].count)
      first += items[index].count
      let buffer = FloatBuffer(count: lookup.counts[index])
      for (position, row) in rows.rows[rows.bounds[place]].enumerated() {
        (buffer.base + position * width).update(from: computed + row * width, count: width)
      }
      lookup.found[index] = buffer
      entries.append((lookup.keys[index], buffer))
    }
    cache.insert(entries)
  }
}
