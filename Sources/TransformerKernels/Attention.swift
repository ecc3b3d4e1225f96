import CTransformerKernels

/// The heads of one attention layer and where they lie in a row: query heads, then key heads, then
/// value heads, each `width` elements.
package struct AttentionHeads: Sendable, Hashable {
  package let queryCount: Int
  package let keyValueCount: Int
  package let width: Int

  package init(queryCount: Int, keyValueCount: Int, width: Int) {
    precondition(
      keyValueCount > 0 && queryCount % keyValueCount == 0,
      "\(queryCount) query heads cannot share \(keyValueCount) key heads evenly")
    self.queryCount = queryCount
    self.keyValueCount = keyValueCount
    self.width = width
  }

  /// Elements of a row of queries, keys and values.
  package var rowWidth: Int { (queryCount + 2 * keyValueCount) * width }
  /// Elements of a row of outputs.
  package var outputWidth: Int { queryCount * width }
  var group: Int { queryCount / keyValueCount }
  func keyOffset(_ head: Int) -> Int { (queryCount + head) * width }
  func valueOffset(_ head: Int) -> Int { (queryCount + keyValueCount + head) * width }
  var factor: Float { 1 / Float(width).squareRoot() }
}

/// Consecutive rows of a batch that attend to each other causally and, before that, to all rows of
/// their context.
package struct AttentionSegment: Sendable, Hashable {
  package var rows: Range<Int>
  /// Indices into the batch's list of context ranges; the ranges are rows in the order of their
  /// positions.
  package var context: Range<Int>
  /// Rows of all context ranges together.
  package var contextCount: Int

  package init(rows: Range<Int>, context: Range<Int> = 0..<0, contextCount: Int = 0) {
    self.rows = rows
    self.context = context
    self.contextCount = contextCount
  }

  /// Keys that the last row sees.
  package var keyCount: Int { contextCount + rows.count }
}

extension ThreadPool {
  /// Causal attention within each segment and its context.
  ///
  /// - Parameters:
  ///   - queryKeyValue: (rows, heads.rowWidth), positions already rotated.
  ///   - contexts: ranges of rows that segments refer to.
  ///   - out: (rows, heads.outputWidth)
  package func attention(
    _ queryKeyValue: UnsafePointer<Float>, heads: AttentionHeads, segments: [AttentionSegment],
    contexts: [Range<Int>], into out: UnsafeMutablePointer<Float>
  ) {
    let longest = segments.lazy.map(\.keyCount).max() ?? 0
    reserveScratch(tk_attention_scratch(longest) + 2 * longest * heads.width)
    segments.withUnsafeBufferPointer { segments in
      contexts.withUnsafeBufferPointer { contexts in
        run(
          AttentionWork(
            heads: heads, segments: segments, contexts: contexts, input: queryKeyValue, out: out),
          count: segments.count * heads.keyValueCount)
      }
    }
  }

  /// Gradient of `attention`: writes `gradient` (rows, heads.rowWidth), given `dout`
  /// (rows, heads.outputWidth). Keys and values of a context row collect what all segments that
  /// refer to it send, in the order of the segments.
  package func attentionBackward(
    _ queryKeyValue: UnsafePointer<Float>, heads: AttentionHeads, segments: [AttentionSegment],
    contexts: [Range<Int>] = [], dout: UnsafePointer<Float>,
    into gradient: UnsafeMutablePointer<Float>
  ) {
    let longest = segments.lazy.map(\.keyCount).max() ?? 0
    let sharesRows = !contexts.isEmpty
    reserveScratch(
      tk_attention_scratch(longest) + (sharesRows ? 4 * longest * heads.width : 0))
    segments.withUnsafeBufferPointer { segments in
      contexts.withUnsafeBufferPointer { contexts in
        let work = AttentionBackwardWork(
          heads: heads, segments: segments, contexts: contexts, input: queryKeyValue, dout: dout,
          gradient: gradient)
        if sharesRows {
          // Segments of one head add to the same rows, one after the other.
          run(SharedAttentionBackwardWork(work: work), count: heads.keyValueCount)
        } else {
          run(work, count: segments.count * heads.keyValueCount)
        }
      }
    }
  }

  /// One more token for each of several sequences: appends its key and value to the sequence's
  /// cache, then attends to all of it.
  ///
  /// - Parameters:
  ///   - queryKeyValue: (sequences, heads.rowWidth), positions already rotated.
  ///   - caches: one for each row.
  ///   - out: (sequences, heads.outputWidth)
  package func attention(
    _ queryKeyValue: UnsafePointer<Float>, heads: AttentionHeads, caches: [KeyValueCache],
    into out: UnsafeMutablePointer<Float>
  ) {
    let longest = (caches.lazy.map(\.count).max() ?? 0) + 1
    reserveScratch(tk_cached_attention_scratch(heads.group, longest))
    caches.withUnsafeBufferPointer { caches in
      run(
        CachedAttentionWork(heads: heads, caches: caches, input: queryKeyValue, out: out),
        count: caches.count * heads.keyValueCount)
    }
  }
}

/// Keys and values of one layer and one sequence, as the packed matrices that decoding multiplies
/// with: for each key head its transposed keys (width, positions), in panels of some positions, then
/// its values (positions, width), in panels of some columns.
package struct KeyValueCache {
  package var base: UnsafeMutablePointer<Float>
  /// Positions stored so far.
  package var count: Int
  package var capacity: Int

  package init(base: UnsafeMutablePointer<Float>, count: Int, capacity: Int) {
    self.base = base
    self.count = count
    self.capacity = capacity
  }

  /// Floats needed for `capacity` positions.
  package static func size(capacity: Int, heads: AttentionHeads) -> Int {
    heads.keyValueCount * headSize(capacity: capacity, width: heads.width)
  }

  /// Stores keys and values of position `position` from a row of queries, keys and values.
  package func store(_ row: UnsafePointer<Float>, heads: AttentionHeads, position: Int) {
    for head in 0..<heads.keyValueCount { store(row, heads: heads, head: head, position: position) }
  }

  private static let panel = tk_pack_width()

  private static func headSize(capacity: Int, width: Int) -> Int {
    padded(capacity) * width + capacity * padded(width)
  }

  private static func padded(_ count: Int) -> Int { (count + panel - 1) / panel * panel }

  func keys(_ head: Int, _ heads: AttentionHeads) -> UnsafeMutablePointer<Float> {
    base + head * Self.headSize(capacity: capacity, width: heads.width)
  }

  func values(_ head: Int, _ heads: AttentionHeads) -> UnsafeMutablePointer<Float> {
    keys(head, heads) + Self.padded(capacity) * heads.width
  }

  func store(
    _ row: UnsafePointer<Float>, heads: AttentionHeads, head: Int, position: Int
  ) {
    let panel = Self.panel
    let key = row + heads.keyOffset(head)
    let keys =
      keys(head, heads) + position / panel * panel * heads.width + position % panel
    for element in 0..<heads.width { keys[element * panel] = key[element] }
    let value = row + heads.valueOffset(head)
    let values = values(head, heads) + position * panel
    for first in stride(from: 0, to: heads.width, by: panel) {
      (values + first * capacity).update(
        from: value + first, count: min(panel, heads.width - first))
    }
  }
}

private struct AttentionWork: ParallelWork {
  let heads: AttentionHeads
  let segments: UnsafeBufferPointer<AttentionSegment>
  let contexts: UnsafeBufferPointer<Range<Int>>
  let input: UnsafePointer<Float>
  let out: UnsafeMutablePointer<Float>

  func run(_ index: Int, scratch: UnsafeMutablePointer<Float>) {
    let segment = segments[index / heads.keyValueCount]
    let head = index % heads.keyValueCount
    let width = heads.width
    let stride = heads.rowWidth
    let first = input + segment.rows.lowerBound * stride
    var keys = first + heads.keyOffset(head)
    var values = first + heads.valueOffset(head)
    var distance = stride
    if segment.contextCount > 0 {
      // Keys and values of the whole path, gathered side by side.
      let gatheredKeys = scratch + tk_attention_scratch(segment.keyCount)
      let gatheredValues = gatheredKeys + segment.keyCount * width
      var position = 0
      func gather(_ rows: Range<Int>) {
        for row in rows {
          let from = input + row * stride
          (gatheredKeys + position * width).update(
            from: from + heads.keyOffset(head), count: width)
          (gatheredValues + position * width).update(
            from: from + heads.valueOffset(head), count: width)
          position += 1
        }
      }
      for range in segment.context { gather(contexts[range]) }
      gather(segment.rows)
      keys = UnsafePointer(gatheredKeys)
      values = UnsafePointer(gatheredValues)
      distance = width
    }
    for query in head * heads.group..<(head + 1) * heads.group {
      tk_attention(
        segment.rows.count, segment.contextCount, width, heads.factor, first + query * width,
        stride, keys, distance, values, distance,
        out + segment.rows.lowerBound * heads.outputWidth + query * width, heads.outputWidth,
        scratch)
    }
  }
}

private struct AttentionBackwardWork: ParallelWork {
  let heads: AttentionHeads
  let segments: UnsafeBufferPointer<AttentionSegment>
  let contexts: UnsafeBufferPointer<Range<Int>>
  let input: UnsafePointer<Float>
  let dout: UnsafePointer<Float>
  let gradient: UnsafeMutablePointer<Float>

  func run(_ index: Int, scratch: UnsafeMutablePointer<Float>) {
    let segment = segments[index / heads.keyValueCount]
    let head = index % heads.keyValueCount
    clear(segment.rows, head: head)
    backward(segment, head: head, scratch: scratch)
  }

  /// Sets the gradients of keys and values of `rows` to zero.
  func clear(_ rows: Range<Int>, head: Int) {
    for row in rows {
      let to = gradient + row * heads.rowWidth
      (to + heads.keyOffset(head)).update(repeating: 0, count: heads.width)
      (to + heads.valueOffset(head)).update(repeating: 0, count: heads.width)
    }
  }

  /// Writes the gradients of the segment's queries and adds those of all keys and values it sees.
  func backward(_ segment: AttentionSegment, head: Int, scratch: UnsafeMutablePointer<Float>) {
    let width = heads.width
    let stride = heads.rowWidth
    let first = input + segment.rows.lowerBound * stride
    let firstGradient = gradient + segment.rows.lowerBound * stride
    var keys = first + heads.keyOffset(head)
    var values = first + heads.valueOffset(head)
    var keyGradients = firstGradient + heads.keyOffset(head)
    var valueGradients = firstGradient + heads.valueOffset(head)
    var distance = stride
    let hasContext = segment.contextCount > 0
    if hasContext {
      // Keys and values of the whole path side by side, then their gradients.
      let gathered = scratch + tk_attention_scratch(segment.keyCount)
      let size = segment.keyCount * width
      forEachKey(of: segment) { position, row in
        let from = input + row * stride
        (gathered + position * width).update(from: from + heads.keyOffset(head), count: width)
        (gathered + size + position * width).update(
          from: from + heads.valueOffset(head), count: width)
      }
      keys = UnsafePointer(gathered)
      values = UnsafePointer(gathered + size)
      keyGradients = gathered + 2 * size
      valueGradients = gathered + 3 * size
      keyGradients.update(repeating: 0, count: 2 * size)
      distance = width
    }
    for query in head * heads.group..<(head + 1) * heads.group {
      tk_attention_backward(
        segment.rows.count, segment.contextCount, width, heads.factor, first + query * width,
        stride, keys, values, distance,
        dout + segment.rows.lowerBound * heads.outputWidth + query * width, heads.outputWidth,
        firstGradient + query * width, stride, keyGradients, valueGradients, distance, scratch)
    }
    guard hasContext else { return }
    forEachKey(of: segment) { position, row in
      let to = gradient + row * stride
      for column in 0..<width {
        to[heads.keyOffset(head) + column] += keyGradients[position * width + column]
        to[heads.valueOffset(head) + column] += valueGradients[position * width + column]
      }
    }
  }

  @inline(__always)
  private func forEachKey(of segment: AttentionSegment, _ body: (Int, Int) -> Void) {
    var position = 0
    for range in segment.context {
      for row in contexts[range] {
        body(position, row)
        position += 1
      }
    }
    for row in segment.rows {
      body(position, row)
      position += 1
    }
  }
}

/// As `AttentionBackwardWork`, all segments of a head one after the other.
private struct SharedAttentionBackwardWork: ParallelWork {
  let work: AttentionBackwardWork

  func run(_ head: Int, scratch: UnsafeMutablePointer<Float>) {
    for segment in work.segments { work.clear(segment.rows, head: head) }
    for segment in work.segments { work.backward(segment, head: head, scratch: scratch) }
  }
}

private struct CachedAttentionWork: ParallelWork {
  let heads: AttentionHeads
  let caches: UnsafeBufferPointer<KeyValueCache>
  let input: UnsafePointer<Float>
  let out: UnsafeMutablePointer<Float>

  func run(_ index: Int, scratch: UnsafeMutablePointer<Float>) {
    let sequence = index / heads.keyValueCount
    let head = index % heads.keyValueCount
    let cache = caches[sequence]
    let row = input + sequence * heads.rowWidth
    cache.store(row, heads: heads, head: head, position: cache.count)
    let first = head * heads.group * heads.width
    tk_cached_attention(
      heads.group, cache.count + 1, heads.width, heads.factor, row + first,
      cache.keys(head, heads), cache.values(head, heads), cache.capacity,
      out + sequence * heads.outputWidth + first, scratch)
  }
}
