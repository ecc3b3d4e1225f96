import Synchronization
import TransformerKernels

/// Outputs of frozen layers, so that a sequence of tokens passes through them once per process.
///
/// With an adapter on layers k..<L only, the output of layers 0..<k for given tokens is always the
/// same, to the last bit (see `LlamaDecoder`). It serves every epoch, every fine-tune and every
/// evaluation. Entries are found by content: the digest of the weights, the layer, and the tokens.
/// The least recently used ones go when the memory limit is reached.
package final class TrunkCache: Sendable {
  /// What an entry holds: the stream that enters `layer`, for the tokens from `firstToken` on, which
  /// follow the tokens before it.
  struct Key: Hashable, Sendable {
    let weightsDigest: String
    let layer: Int
    let tokens: [Int32]
    let firstToken: Int
  }

  /// Numbers since the start of the process.
  package struct Statistics: Sendable, Hashable {
    package var hits = 0
    package var misses = 0
    package var evictions = 0
    /// Bytes held now.
    package var bytes = 0
  }

  private struct Entry {
    let rows: FloatBuffer
    var lastUse: Int
  }

  private struct State {
    var entries: [Key: Entry] = [:]
    var clock = 0
    var statistics = Statistics()
  }

  /// Most bytes held.
  package let byteLimit: Int
  private let state = Mutex(State())

  /// - Parameter byteLimit: most bytes to hold; 0 turns the cache off.
  package init(byteLimit: Int) { self.byteLimit = byteLimit }

  package var statistics: Statistics { state.withLock { $0.statistics } }

  /// Copies the entry of `key`, (rows, width) floats, to `destination`; false if there is none.
  func read(_ key: Key, into destination: UnsafeMutablePointer<Float>) -> Bool {
    let rows = state.withLock { state -> FloatBuffer? in
      state.clock += 1
      state.entries[key]?.lastUse = state.clock
      let found = state.entries[key]?.rows
      if found == nil { state.statistics.misses += 1 } else { state.statistics.hits += 1 }
      return found
    }
    guard let rows else { return false }
    destination.update(from: rows.base, count: rows.count)
    return true
  }

  /// Stores a copy of `count` floats, unless that alone exceeds the limit.
  func store(_ key: Key, _ source: UnsafePointer<Float>, count: Int) {
    let bytes = count * MemoryLayout<Float>.stride
    guard bytes <= byteLimit else { return }
    let rows = FloatBuffer(copying: source, count: count)
    state.withLock { state in
      state.clock += 1
      if let old = state.entries.updateValue(Entry(rows: rows, lastUse: state.clock), forKey: key) {
        state.statistics.bytes -= old.rows.count * MemoryLayout<Float>.stride
      }
      state.statistics.bytes += bytes
      if state.statistics.bytes > byteLimit { evict(from: &state) }
    }
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
  /// Computes layers 0..<`layer` for `batch` and leaves the result in the stream that enters
  /// `layer`, taking from `cache` what it has and storing the rest there.
  func forwardTrunk(
    _ batch: TokenBatch, to layer: Int, keeping: Bool, cache: TrunkCache?, weightsDigest: String
  ) {
    let width = configuration.hiddenSize
    let destination = stream(at: layer, keeping: keeping)
    guard let cache, cache.byteLimit > 0, layer > 0 else {
      embed(batch.tokens, keeping: keeping)
      forward(batch, layers: 0..<layer, keeping: keeping)
      return
    }
    let keys = batch.segments.map { segment in
      TrunkCache.Key(
        weightsDigest: weightsDigest, layer: layer, tokens: batch.path(of: segment),
        firstToken: segment.contextCount)
    }
    var missing = keys.map { _ in false }
    for (index, segment) in batch.segments.enumerated() {
      missing[index] = !cache.read(keys[index], into: destination + segment.rows.lowerBound * width)
    }
    guard missing.contains(true) else { return }

    // The trunk of what is missing, and of what comes before it in its sequences, in a batch of its
    // own. Its stream may lie in the same memory, so what was read is set aside by reading it again.
    let part = batch.part(containing: missing)
    embed(part.batch.tokens)
    forward(part.batch, layers: 0..<layer)
    let computed = FloatBuffer(
      copying: stream(at: layer, keeping: false), count: part.batch.rowCount * width)
    for (index, rows) in part.rows.enumerated() {
      let segment = batch.segments[index]
      let to = destination + segment.rows.lowerBound * width
      if let rows {
        let from = computed.base + rows.lowerBound * width
        to.update(from: from, count: rows.count * width)
        if missing[index] { cache.store(keys[index], from, count: rows.count * width) }
      } else if !cache.read(keys[index], into: to) {
        // Evicted in between: nothing is lost but time.
        embed(batch.tokens, keeping: keeping)
        forward(batch, layers: 0..<layer, keeping: keeping)
        return
      }
    }
  }
}

extension TokenBatch {
  /// Tokens of the context of `segment`, then its own.
  fileprivate func path(of segment: AttentionSegment) -> [Int32] {
    var path: [Int32] = []
    path.reserveCapacity(segment.keyCount)
    for range in contexts[segment.context] { path.append(contentsOf: tokens[range]) }
    path.append(contentsOf: tokens[segment.rows])
    return path
  }

  /// The `wanted` segments and all their contexts as a batch, and for each segment of this batch its
  /// rows there, nil if it is not part.
  fileprivate func part(containing wanted: [Bool]) -> (batch: TokenBatch, rows: [Range<Int>?]) {
    var needed = wanted
    var segmentAtRow: [Int: Int] = [:]
    for (index, segment) in segments.enumerated() { segmentAtRow[segment.rows.lowerBound] = index }
    func contextSegments(of segment: AttentionSegment) -> [Int] {
      // A context is always made of whole segments.
      contexts[segment.context].compactMap { segmentAtRow[$0.lowerBound] }
    }
    for index in segments.indices where wanted[index] {
      for context in contextSegments(of: segments[index]) { needed[context] = true }
    }
    var part = TokenBatch()
    var rows: [Range<Int>?] = segments.map { _ in nil }
    for (index, segment) in segments.enumerated() where needed[index] {
      let context = contextSegments(of: segment).compactMap { rows[$0] }
      rows[index] = part.append(tokens[segment.rows], after: context)
    }
    return (part, rows)
  }
}
