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

  private struct Entry {
    let rows: FloatBuffer
    var lastUse: Int
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
    var found = state.withLock { state in
      zip(keys, counts).map { key, count -> FloatBuffer? in
        state.clock += 1
        guard let rows = state.entries[key]?.rows, rows.count == count else { return nil }
        state.entries[key]?.lastUse = state.clock
        state.statistics.hits += 1
        return rows
      }
    }
    let absent = found.indices.filter { found[$0] == nil }
    guard !absent.isEmpty else { return found }
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
    return found
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

extension LlamaDecoder {
  /// Computes the frozen layers for the rows of `tree` and leaves the result in the stream that
  /// enters the first trained layer, taking from the trunk's cache what it has and storing the rest
  /// there.
  ///
  /// - Parameters:
  ///   - sequences: those that `tree` was packed from, with this `sharing`.
  ///   - items: ranges of sequences whose rows are kept together.
  func forwardTrunk<Sequences: RandomAccessCollection>(
    _ tree: PrefixTree, of sequences: Sequences, items: [Range<Int>], sharing: Bool, keeping: Bool,
    trunk: FrozenTrunk
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
    let rows = items.map { tree.rows(ofItem: $0) }
    let keys = items.map { trunk.key(of: tokens($0), sharing: sharing) }
    var found = cache.find(keys, counts: rows.map { $0.count * width })

    let missing = items.indices.filter { found[$0] == nil }
    if !missing.isEmpty {
      // A batch of its own, whose stream may lie in the memory of the destination.
      var part: [[Int32]] = []
      let partItems = missing.map { index in
        part.append(contentsOf: tokens(items[index]))
        return part.count - items[index].count..<part.count
      }
      let partTree = PrefixTree(part, sharing: sharing)
      embed(partTree.batch.tokens)
      forward(partTree.batch, layers: 0..<trunk.depth)
      let computed = stream(at: trunk.depth, keeping: false)
      var entries: [(key: TrunkKey, rows: FloatBuffer)] = []
      for (index, item) in zip(missing, partItems) {
        let buffer = FloatBuffer(count: rows[index].count * width)
        for (position, row) in partTree.rows(ofItem: item).enumerated() {
          (buffer.base + position * width).update(from: computed + row * width, count: width)
        }
        found[index] = buffer
        entries.append((keys[index], buffer))
      }
      cache.insert(entries)
    }

    let destination = stream(at: trunk.depth, keeping: keeping)
    for (buffer, rows) in zip(found, rows) {
      guard let buffer else { preconditionFailure("an item was neither found nor computed") }
      for (position, row) in rows.enumerated() {
        (destination + row * width).update(from: buffer.base + position * width, count: width)
      }
    }
  }
}

extension PrefixTree {
  /// The rows of an item's sequences, one sequence after the other, each row once.
  fileprivate func rows(ofItem sequences: Range<Int>) -> [Int] {
    if sequences.count == 1 { return rows(of: sequences.lowerBound).flatMap { Array($0) } }
    var seen: Set<Int> = []
    return sequences.flatMap { rows(of: $0).joined().filter { seen.insert($0).inserted } }
  }
}
