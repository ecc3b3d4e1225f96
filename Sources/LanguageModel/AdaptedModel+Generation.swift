import RandomStreams
import TransformerKernels

extension AdaptedModel {
  /// How the next token is chosen.
  package struct SamplingOptions: Sendable, Hashable {
    /// 0 takes the most probable token.
    package var temperature: Float
    /// Only the most probable tokens, so many of them, can be drawn; 0 for all.
    package var topK: Int
    /// Most tokens generated for a prompt.
    package var maximumTokens: Int
    /// Tokens that end a text. They are not part of the result.
    package var stopTokens: Set<Int32>
    /// Sets of tokens whose sides get equal probability at each token.
    package var balances: [TokenBalance]

    package init(
      temperature: Float, topK: Int = 0, maximumTokens: Int, stopTokens: Set<Int32> = [],
      balances: [TokenBalance] = []
    ) {
      self.temperature = temperature
      self.topK = topK
      self.maximumTokens = maximumTokens
      self.stopTokens = stopTokens
      self.balances = balances
    }

    /// - Throws: `EvaluationError.invalidSampling`.
    func validate() throws {
      func check(_ fits: Bool, _ name: String, _ value: some Any, _ allowed: String) throws {
        if !fits {
          throw EvaluationError.invalidSampling(name: name, value: "\(value)", allowed: allowed)
        }
      }
      try check(temperature >= 0 && temperature.isFinite, "temperature", temperature, "0 or more")
      try check(topK >= 0, "top-k", topK, "0 or more")
      try check(maximumTokens >= 0, "maximum tokens", maximumTokens, "0 or more")
    }

    /// - Throws: `EvaluationError.invalidSampling`.
    func validateBalances(vocabularySize: Int) throws {
      for token in balances.flatMap(\.sides).joined()
      where !(0..<vocabularySize).contains(Int(token)) {
        throw EvaluationError.invalidSampling(
          name: "balanced token", value: "\(token)", allowed: "0 up to \(vocabularySize - 1)")
      }
    }
  }

  /// Continues each prompt. Texts are generated side by side; when one ends, the next prompt takes
  /// its place.
  ///
  /// A text ends before a stop token, after `maximumTokens` tokens, or where the model's positions
  /// end.
  ///
  /// - Parameters:
  ///   - prompts: each at least one token.
  ///   - seeds: one for each prompt: a text is a function of its prompt, its seed, the options and
  ///     the weights.
  ///   - progress: called with the number of tokens computed since the last call, prompts included.
  ///   - shouldStop: asked before each token.
  ///   - finished: called with each text when it ends, by the index of its prompt.
  /// - Throws: `EvaluationError`.
  package func generate(
    _ prompts: [[Int32]], seeds: [UInt64], options: SamplingOptions,
    progress: (_ tokens: Int) -> Void = { _ in }, shouldStop: () -> Bool = { false },
    finished: (_ index: Int, _ text: [Int32]) -> Void = { _, _ in }
  ) throws -> [[Int32]] {
    try options.validate()
    try options.validateBalances(vocabularySize: base.configuration.vocabularySize)
    if prompts.count != seeds.count {
      throw EvaluationError.countMismatch(prompts: prompts.count, seeds: seeds.count)
    }
    for (index, prompt) in prompts.enumerated() { try check(prompt, index: index) }
    var texts: [[Int32]] = prompts.map { _ in [] }
    guard options.maximumTokens > 0, !prompts.isEmpty else { return texts }

    var slots = Slots(longest: prompts.lazy.map { self.positions(of: $0, options) }.max() ?? 0)
    let slotCount = slotCount(for: prompts, capacity: slots.capacity)
    let beginning = SharedBeginning(
      of: sharesPrefixes ? prompts : [], configuration: base.configuration, heads: decoder.heads)
    let promptCache = PromptTrunk.cache(
      for: prompts, trunk: trunk, configuration: base.configuration)
    var running: [RunningText] = []
    var waiting = Array(prompts.indices)[...]
    while !running.isEmpty || !waiting.isEmpty {
      if shouldStop() { throw EvaluationError.cancelled }
      // A few free slots wait for each other, so that their prompts are computed together.
      let free = slotCount - running.count
      if !waiting.isEmpty && free > 0 && (running.isEmpty || free * 4 >= slotCount) {
        let admitted = waiting.prefix(batch(of: waiting.prefix(free).map { prompts[$0].count }))
        waiting = waiting.dropFirst(admitted.count)
        running += admit(
          admitted, prompts, seeds, options, &slots, beginning, promptCache)
        progress(admitted.reduce(0) { $0 + prompts[$1].count })
      } else {
        advance(&running)
        progress(running.count)
      }
      choose(for: &running, options)
      for text in running where text.isFinished {
        texts[text.index] = text.tokens
        finished(text.index, text.tokens)
        slots.spare.append(text.memory)
      }
      running.removeAll(where: \.isFinished)
    }
    return texts
  }

  /// Bytes of keys and values held at a time, at most, beyond those of a single text.
  private static let cacheBytes = 384 << 20
  private static let mostSlots = 32

  private func slotCount(for prompts: [[Int32]], capacity: Int) -> Int {
    let bytes =
      KeyValueCache.size(capacity: capacity, heads: decoder.heads) * base.configuration.layerCount
      * MemoryLayout<Float>.stride
    return max(1, min(prompts.count, Self.mostSlots, Self.cacheBytes / max(1, bytes)))
  }

  /// Positions that a prompt and its text can take.
  private func positions(of prompt: [Int32], _ options: SamplingOptions) -> Int {
    min(prompt.count + options.maximumTokens, base.configuration.maximumPositions)
  }

  /// How many of the prompts with these lengths, from the first, are computed at once.
  private func batch(of lengths: [Int]) -> Int { batches(of: lengths).first?.count ?? 0 }

  /// Memory for keys and values, used again by the next text.
  private struct Slots {
    /// Positions that fit into each.
    let capacity: Int
    var spare: [FloatBuffer] = []

    init(longest: Int) { capacity = longest }
  }

  /// A text being generated.
  private struct RunningText {
    let index: Int
    /// Keys and values, layer by layer.
    let memory: FloatBuffer
    /// Positions that fit into the memory.
    let capacity: Int
    /// Positions that the text may take.
    let limit: Int
    var random: RandomStream
    /// Tokens whose keys and values are stored.
    var position: Int
    var tokens: [Int32] = []
    /// Row of `workspace.normed` that predicts the next token; nil if there is none yet.
    var row: Int?
    var isFinished = false

    func cache(layer: Int, heads: AttentionHeads) -> KeyValueCache {
      let size = KeyValueCache.size(capacity: capacity, heads: heads)
      return KeyValueCache(base: memory.base + layer * size, count: position, capacity: capacity)
    }
  }

  /// Computes prompts together and stores their keys and values.
  private func admit(
    _ indices: ArraySlice<Int>, _ prompts: [[Int32]], _ seeds: [UInt64],
    _ options: SamplingOptions, _ slots: inout Slots, _ beginning: SharedBeginning,
    _ promptCache: TrunkCache?
  ) -> [RunningText] {
    let layers = base.configuration.layerCount
    let heads = decoder.heads
    // The rows of a beginning computed before lie behind those computed now.
    let known = beginning.isComputed ? beginning.count : 0
    let added = indices.reduce(0) { $0 + prompts[$1].count - known }
    let tree = PrefixTree(
      indices.map { prompts[$0] }, sharing: sharesPrefixes, after: added..<added + known)
    var texts: [RunningText] = []
    let paths = tree.paths
    // Of the last layer's output only what predicts the first tokens is computed.
    let outputs = Set(paths.map { $0[$0.count - 1] }).sorted()
    let places = Dictionary(uniqueKeysWithValues: zip(outputs, outputs.indices))
    for (index, path) in zip(indices, paths) {
      let size = layers * KeyValueCache.size(capacity: slots.capacity, heads: heads)
      texts.append(
        RunningText(
          index: index, memory: slots.spare.popLast() ?? FloatBuffer(count: size),
          capacity: slots.capacity, limit: positions(of: prompts[index], options),
          random: RandomStream(seed: seeds[index], purpose: "sampling"),
          position: prompts[index].count, row: places[path[path.count - 1]]))
    }
    decoder.reserve(rows: max(added + known, Self.mostSlots), positions: slots.capacity)
    var kept = PromptTrunk(
      indices.map { prompts[$0] }, trunk: trunk, cache: promptCache,
      configuration: base.configuration)
    var first = 0
    if kept.isFound {
      first = trunk.depth
      kept.copyRows(to: decoder.stream(at: first, keeping: false), paths: paths, below: added)
      for layer in 0..<first {
        for (index, text) in texts.enumerated() {
          let cache = text.cache(layer: layer, heads: heads)
          for position in paths[index].indices {
            // The queries before keys and values are not read.
            cache.store(
              kept.keysAndValues(index, layer: layer, position: position) - heads.outputWidth,
              heads: heads, position: position)
          }
        }
      }
      if known == 0 { beginning.keep(from: kept) }
    } else {
      decoder.embed(tree.batch.tokens)
    }
    func compute(_ computed: Range<Int>) {
      decoder.forward(
        positions: tree.batch.positions, layers: computed, keeping: false, outputs: outputs
      ) { layer, queryKeyValue, out in
        if known > 0 {
          beginning.restore(layer: layer, to: queryKeyValue, row: added)
        } else {
          beginning.keep(
            layer: layer, queryKeyValue, path: paths[0], isLast: layer == layers - 1)
        }
        for (index, path) in paths.enumerated() {
          let cache = texts[index].cache(layer: layer, heads: heads)
          for (position, row) in path.enumerated() {
            cache.store(queryKeyValue + row * heads.rowWidth, heads: heads, position: position)
          }
          kept.keep(index, layer: layer, queryKeyValue, path: path, heads: heads)
        }
        pool.attention(
          queryKeyValue, heads: heads, segments: tree.batch.segments,
          contexts: tree.batch.contexts, into: out)
      }
    }
    if first < trunk.depth && kept.isUsed {
      compute(0..<trunk.depth)
      let stream = decoder.stream(at: trunk.depth, keeping: false)
      if known == 0 { beginning.keepRows(stream, path: paths[0]) }
      kept.keepRows(stream, paths: paths, below: added, beginning: beginning)
      first = trunk.depth
    }
    compute(first..<layers)
    decoder.finish(rows: outputs.count)
    return texts
  }

  /// Computes the last token of each text.
  private func advance(_ texts: inout [RunningText]) {
    let heads = decoder.heads
    decoder.embed(texts.map { $0.tokens[$0.tokens.count - 1] })
    decoder.forward(
      positions: texts.map { Int32($0.position) }, layers: 0..<base.configuration.layerCount,
      keeping: false
    ) { layer, queryKeyValue, out in
      pool.attention(
        queryKeyValue, heads: heads, caches: texts.map { $0.cache(layer: layer, heads: heads) },
        into: out)
    }
    decoder.finish(rows: texts.count)
    for index in texts.indices {
      texts[index].position += 1
      texts[index].row = index
    }
  }

  /// Chooses the next token of each text for which a row has been computed.
  private func choose(for texts: inout [RunningText], _ options: SamplingOptions) {
    let ready = texts.indices.filter { texts[$0].row != nil }
    let draws = ready.map { texts[$0].random.uniform() }
    decoder.logits(of: ready.compactMap { texts[$0].row }) { range, logits in
      for balance in options.balances {
        for row in 0..<logits.rows { balance.apply(to: logits.base + row * logits.stride) }
      }
      let chosen = pool.sampleTokens(
        logits, temperature: options.temperature, topK: options.topK,
        draws: Array(draws[range]))
      for (index, token) in zip(ready[range], chosen) {
        if options.stopTokens.contains(token) {
          texts[index].isFinished = true
        } else {
          texts[index].tokens.append(token)
          texts[index].isFinished =
            texts[index].tokens.count >= options.maximumTokens
            || texts[index].position >= texts[index].limit
        }
        texts[index].row = nil
      }
    }
  }
}
