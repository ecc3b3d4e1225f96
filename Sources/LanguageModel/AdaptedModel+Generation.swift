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

    package init(
      temperature: Float, topK: Int = 0, maximumTokens: Int, stopTokens: Set<Int32> = []
    ) {
      self.temperature = temperature
      self.topK = topK
      self.maximumTokens = maximumTokens
      self.stopTokens = stopTokens
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
    if prompts.count != seeds.count {
      throw EvaluationError.countMismatch(prompts: prompts.count, seeds: seeds.count)
    }
    for (index, prompt) in prompts.enumerated() { try check(prompt, index: index) }
    var texts: [[Int32]] = prompts.map { _ in [] }
    guard options.maximumTokens > 0, !prompts.isEmpty else { return texts }

    decoder.packed = PackedWeights(
      base.configuration, weights: decoder.weights, pool: pool)
    defer { decoder.packed = nil }
    let slots = slotCount(for: prompts, options)
    var running: [RunningText] = []
    var waiting = Array(prompts.indices)[...]
    while !running.isEmpty || !waiting.isEmpty {
      if shouldStop() { throw EvaluationError.cancelled }
      // A few free slots wait for each other, so that their prompts are computed together.
      let free = slots - running.count
      if !waiting.isEmpty && (running.isEmpty || free * 4 >= slots) {
        let admitted = waiting.prefix(free)
        waiting = waiting.dropFirst(admitted.count)
        running += admit(admitted, prompts, seeds, options)
        progress(admitted.reduce(0) { $0 + prompts[$1].count })
      } else {
        advance(&running)
        progress(running.count)
      }
      choose(for: &running, options)
      for text in running where text.isFinished {
        texts[text.index] = text.tokens
        finished(text.index, text.tokens)
      }
      running.removeAll(where: \.isFinished)
    }
    return texts
  }

  /// Bytes of keys and values held at a time, at most, beyond those of a single text.
  private static let cacheBytes = 384 << 20
  private static let mostSlots = 32

  private func slotCount(for prompts: [[Int32]], _ options: SamplingOptions) -> Int {
    let longest = prompts.lazy.map { self.positions(of: $0, options) }.max() ?? 0
    let bytes =
      KeyValueCache.size(capacity: longest, heads: decoder.heads) * base.configuration.layerCount
      * MemoryLayout<Float>.stride
    return max(1, min(prompts.count, Self.mostSlots, Self.cacheBytes / max(1, bytes)))
  }

  /// Positions that a prompt and its text can take.
  private func positions(of prompt: [Int32], _ options: SamplingOptions) -> Int {
    min(prompt.count + options.maximumTokens, base.configuration.maximumPositions)
  }

  /// A text being generated.
  private struct RunningText {
    let index: Int
    /// Keys and values, layer by layer.
    let memory: FloatBuffer
    /// Positions that fit.
    let capacity: Int
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
    _ indices: ArraySlice<Int>, _ prompts: [[Int32]], _ seeds: [UInt64], _ options: SamplingOptions
  ) -> [RunningText] {
    let tree = PrefixTree(indices.map { prompts[$0] })
    let layers = base.configuration.layerCount
    let heads = decoder.heads
    let texts = zip(indices, tree.paths).map { index, path in
      let capacity = positions(of: prompts[index], options)
      return RunningText(
        index: index,
        memory: FloatBuffer(
          count: layers * KeyValueCache.size(capacity: capacity, heads: heads)),
        capacity: capacity,
        random: RandomStream(seed: seeds[index], purpose: "sampling"),
        position: prompts[index].count, row: path[path.count - 1])
    }
    decoder.reserve(
      rows: max(tree.batch.rowCount, Self.mostSlots),
      positions: texts.lazy.map(\.capacity).max() ?? 0)
    decoder.embed(tree.batch.tokens)
    decoder.forward(
      positions: tree.batch.positions, layers: 0..<layers, keeping: false
    ) { layer, queryKeyValue, out in
      for (text, path) in zip(texts, tree.paths) {
        let cache = text.cache(layer: layer, heads: heads)
        for (position, row) in path.enumerated() {
          cache.store(queryKeyValue + row * heads.rowWidth, heads: heads, position: position)
        }
      }
      pool.attention(
        queryKeyValue, heads: heads, segments: tree.batch.segments, contexts: tree.batch.contexts,
        into: out)
    }
    decoder.finish(rows: tree.batch.rowCount)
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
            || texts[index].position >= texts[index].capacity
        }
        texts[index].row = nil
      }
    }
  }
}
