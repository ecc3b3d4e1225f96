import TransformerKernels

extension AdaptedModel {
  /// A prompt and the continuations whose probabilities are asked for.
  package struct ScoringRequest: Sendable, Hashable {
    /// At least one token.
    package var prompt: [Int32]
    /// Each at least one token.
    package var continuations: [[Int32]]

    package init(prompt: [Int32], continuations: [[Int32]]) {
      self.prompt = prompt
      self.continuations = continuations
    }
  }

  /// How probable a continuation is after its prompt.
  package struct Score: Sendable, Hashable {
    /// Natural logarithm of the probability of all its tokens.
    package var logProbability: Double
    package var tokenCount: Int
  }

  /// Scores continuations. What prompts and continuations of a batch have in common from their first
  /// token on is computed once.
  ///
  /// - Parameters:
  ///   - progress: called after each batch with the number of tokens it covered.
  ///   - shouldStop: asked before each batch.
  /// - Returns: for each request, a score for each continuation.
  /// - Throws: `EvaluationError`.
  package func score(
    _ requests: [ScoringRequest], progress: (_ tokens: Int) -> Void = { _ in },
    shouldStop: () -> Bool = { false }
  ) throws -> [[Score]] {
    for (index, request) in requests.enumerated() {
      for (number, continuation) in request.continuations.enumerated() {
        if continuation.isEmpty {
          throw EvaluationError.emptyContinuation(index: index, continuation: number)
        }
        try check(request.prompt + continuation, index: index)
      }
      try check(request.prompt, index: index)
    }
    var scores: [[Score]] = []
    scores.reserveCapacity(requests.count)
    let rowCounts = requests.map { request in
      request.prompt.count + request.continuations.reduce(0) { $0 + $1.count - 1 }
    }
    for range in batches(of: rowCounts) {
      if shouldStop() { throw EvaluationError.cancelled }
      scores.append(contentsOf: score(batch: requests[range]))
      progress(rowCounts[range].reduce(0, +))
    }
    return scores
  }

  private func score(batch requests: ArraySlice<ScoringRequest>) -> [[Score]] {
    // The last token of a continuation predicts nothing that is asked for.
    var sequences: [[Int32]] = []
    let items = requests.map { request in
      sequences += request.continuations.map { request.prompt + $0.dropLast() }
      return sequences.count - request.continuations.count..<sequences.count
    }
    let tree = PrefixTree(sequences, sharing: sharesPrefixes)
    let paths = tree.paths

    // Which tokens are asked for at which row; rows in order, each once.
    struct Question {
      let row: Int
      let token: Int32
      let answer: Int
    }
    var questions: [Question] = []
    var firstAnswer: [Int] = []
    var sequence = 0
    var answerCount = 0
    for request in requests {
      for continuation in request.continuations {
        firstAnswer.append(answerCount)
        let path = paths[sequence]
        for (offset, token) in continuation.enumerated() {
          questions.append(
            Question(
              row: path[request.prompt.count - 1 + offset], token: token, answer: answerCount))
          answerCount += 1
        }
        sequence += 1
      }
    }
    questions.sort { ($0.row, $0.answer) < ($1.row, $1.answer) }
    var rows: [Int] = []
    var questionsOfRow: [Range<Int>] = []
    for (index, question) in questions.enumerated() {
      if rows.last == question.row {
        questionsOfRow[rows.count - 1] = questionsOfRow[rows.count - 1].lowerBound..<index + 1
      } else {
        rows.append(question.row)
        questionsOfRow.append(index..<index + 1)
      }
    }

    var answers = [Double](repeating: 0, count: answerCount)
    var logSums = [Double](repeating: 0, count: rows.count)
    computeHiddenStates(tree, of: sequences, items: items, outputs: rows)
    decoder.logits(of: Array(rows.indices)) { range, logits in
      logSums.withUnsafeMutableBufferPointer { logSums in
        guard let base = logSums.baseAddress else { return }
        pool.logSumExp(
          Matrix(
            logits.base, rows: logits.rows, columns: logits.columns, stride: logits.stride),
          into: base + range.lowerBound)
      }
      for position in range {
        let row = logits.base + (position - range.lowerBound) * logits.stride
        for question in questions[questionsOfRow[position]] {
          answers[question.answer] = Double(row[Int(question.token)]) - logSums[position]
        }
      }
    }

    sequence = 0
    return requests.map { request in
      request.continuations.map { continuation in
        let first = firstAnswer[sequence]
        sequence += 1
        return Score(
          logProbability: answers[first..<first + continuation.count].reduce(0, +),
          tokenCount: continuation.count)
      }
    }
  }
}
