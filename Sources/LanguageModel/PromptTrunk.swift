import TransformerKernels

/// Keys and values of the tokens that all prompts of a call begin with: computed with the first
/// prompts, then used by those admitted later.
final class SharedBeginning {
  let count: Int
  private(set) var isComputed = false
  private let heads: AttentionHeads
  private let layers: Int
  private let width: Int
  /// (layers, count, keys and values of a row)
  private let memory: FloatBuffer
  /// (count, hidden): the stream that leaves the frozen layers.
  private let rows: FloatBuffer

  init(of prompts: [[Int32]], configuration: LlamaConfiguration, heads: AttentionHeads) {
    // Every prompt keeps a token of its own, which predicts the text.
    var shared: ArraySlice<Int32> = prompts.first?.dropLast() ?? []
    for prompt in prompts.dropFirst() {
      let agreeing = zip(shared, prompt.dropLast()).prefix { $0 == $1 }.count
      shared = shared.prefix(agreeing)
    }
    count = shared.count
    self.heads = heads
    layers = configuration.layerCount
    width = configuration.hiddenSize
    memory = FloatBuffer(count: layers * count * heads.keyValueWidth)
    rows = FloatBuffer(count: count * width)
  }

  private func stored(_ layer: Int, _ position: Int) -> UnsafeMutablePointer<Float> {
    memory.base + (layer * count + position) * heads.keyValueWidth
  }

  /// Keeps keys and values of the beginning of a prompt whose tokens are in rows `path`.
  func keep(layer: Int, _ queryKeyValue: UnsafePointer<Float>, path: [Int], isLast: Bool) {
    for position in 0..<count {
      stored(layer, position).update(
        from: queryKeyValue + path[position] * heads.rowWidth + heads.outputWidth,
        count: heads.keyValueWidth)
    }
    isComputed = isLast
  }

  /// Likewise the stream that leaves the frozen layers.
  func keepRows(_ stream: UnsafePointer<Float>, path: [Int]) {
    for position in 0..<count {
      (rows.base + position * width).update(from: stream + path[position] * width, count: width)
    }
  }

  /// Takes what the frozen layers made of the beginning from the first of some prompts.
  func keep(from prompts: PromptTrunk) {
    for position in 0..<count {
      for layer in 0..<prompts.depth {
        stored(layer, position).update(
          from: prompts.keysAndValues(0, layer: layer, position: position),
          count: heads.keyValueWidth)
      }
      (rows.base + position * width).update(from: prompts.row(0, position), count: width)
    }
  }

  func row(_ position: Int) -> UnsafePointer<Float> { UnsafePointer(rows.base + position * width) }

  /// Puts the keys and values to the rows from `row` on.
  func restore(layer: Int, to queryKeyValue: UnsafeMutablePointer<Float>, row: Int) {
    for position in 0..<count {
      (queryKeyValue + (row + position) * heads.rowWidth + heads.outputWidth).update(
        from: stored(layer, position), count: heads.keyValueWidth)
    }
  }
}

/// What the frozen layers make of some prompts: the same for every fine-tune, so that it is kept, in
/// the memory of the process only.
///
/// An entry of the cache holds for each token the stream that leaves the frozen layers, then keys
/// and values of each of these layers.
struct PromptTrunk {
  let depth: Int
  private let width: Int
  private let keyValueWidth: Int
  private let keys: [TrunkKey]
  private let cache: TrunkCache?
  private var entries: [FloatBuffer] = []
  /// Whether all prompts were found.
  let isFound: Bool
  /// Whether there is a cache at all.
  var isUsed: Bool { cache != nil }

  /// The cache to keep `prompts` in: none if they would take more than a quarter of its memory, and
  /// so drive out what training needs, or each other.
  static func cache(
    for prompts: [[Int32]], trunk: FrozenTrunk, configuration: LlamaConfiguration
  ) -> TrunkCache? {
    let perToken = configuration.hiddenSize + 2 * trunk.depth * configuration.keyValueWidth
    let tokens = Set(prompts).reduce(0) { $0 + $1.count }
    return trunk.cache.flatMap {
      tokens * perToken * MemoryLayout<Float>.stride <= $0.byteLimit / 4 ? $0 : nil
    }
  }

  /// - Parameter cache: see `cache(for:trunk:configuration:)`.
  init(
    _ prompts: [[Int32]], trunk: FrozenTrunk, cache: TrunkCache?,
    configuration: LlamaConfiguration
  ) {
    depth = trunk.depth
    width = configuration.hiddenSize
    keyValueWidth = 2 * configuration.keyValueWidth
    self.cache = cache
    guard let cache else {
      keys = []
      isFound = false
      return
    }
    let perToken = width + depth * keyValueWidth
    keys = prompts.map { trunk.promptKey(of: $0) }
    let found = cache.find(keys, counts: prompts.map { $0.count * perToken }, inMemory: true)
    isFound = found.allSatisfy { $0 != nil }
    // Entries of the cache are others' too, and not written.
    let isFound = isFound
    entries = zip(found, prompts).map { entry, prompt in
      if isFound, let entry { return entry }
      return FloatBuffer(count: prompt.count * perToken)
    }
  }

  private func entry(_ prompt: Int, _ position: Int) -> UnsafeMutablePointer<Float> {
    entries[prompt].base + position * (width + depth * keyValueWidth)
  }

  func row(_ prompt: Int, _ position: Int) -> UnsafePointer<Float> {
    UnsafePointer(entry(prompt, position))
  }

  func keysAndValues(_ prompt: Int, layer: Int, position: Int) -> UnsafePointer<Float> {
    UnsafePointer(entry(prompt, position) + width + layer * keyValueWidth)
  }

  /// Puts the stream of all prompts to their rows below `end`.
  func copyRows(to stream: UnsafeMutablePointer<Float>, paths: [[Int]], below end: Int) {
    for (prompt, path) in paths.enumerated() {
      for (position, row) in path.enumerated() where row < end {
        (stream + row * width).update(from: entry(prompt, position), count: width)
      }
    }
  }

  /// Keeps the keys and values of a prompt whose tokens are in rows `path`.
  func keep(
    _ prompt: Int, layer: Int, _ queryKeyValue: UnsafePointer<Float>, path: [Int],
    heads: AttentionHeads
  ) {
    guard isUsed, !isFound, layer < depth else { return }
    for (position, row) in path.enumerated() {
      (entry(prompt, position) + width + layer * keyValueWidth).update(
        from: queryKeyValue + row * heads.rowWidth + heads.outputWidth, count: keyValueWidth)
    }
  }

  /// Keeps the stream of all prompts, which completes their entries; that of rows from `end` on is
  /// the beginning's.
  mutating func keepRows(
    _ stream: UnsafePointer<Float>, paths: [[Int]], below end: Int, beginning: SharedBeginning
  ) {
    for (prompt, path) in paths.enumerated() {
      for (position, row) in path.enumerated() {
        entry(prompt, position).update(
          from: row < end ? stream + row * width : beginning.row(position), count: width)
      }
    }
    cache?.insert(zip(keys, entries).map { (key: $0, rows: $1) }, inMemory: true)
  }
}

extension AttentionHeads {
  /// Keys and values of a row.
  fileprivate var keyValueWidth: Int { rowWidth - outputWidth }
}
