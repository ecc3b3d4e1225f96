/// Lets a number of requests be under way at once; those that wait get a place in the order in
/// which they came, so that no caller of many keeps out one of few.
actor RequestPlaces {
  private var free: Int
  private var waiting: [(ticket: Int, place: CheckedContinuation<Void, any Error>)] = []
  private var tickets = 0

  init(_ count: Int) {
    precondition(count > 0, "\(count) places")
    free = count
  }

  /// Waits for a place, which the caller has to give back.
  ///
  /// - Throws: `CancellationError` if the task is cancelled meanwhile; it has no place then.
  func take() async throws {
    try Task.checkCancellation()
    if free > 0 {
      free -= 1
      return
    }
    tickets += 1
    let ticket = tickets
    try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { waiting.append((ticket, $0)) }
    } onCancel: {
      // The actor does nothing else between the check and the line above: it is there by then.
      Task { await self.leave(ticket) }
    }
  }

  /// Whoever waits longest gets it.
  func giveBack() {
    guard !waiting.isEmpty else {
      free += 1
      return
    }
    waiting.removeFirst().place.resume()
  }

  private func leave(_ ticket: Int) {
    // It may have got its place just before.
    guard let index = waiting.firstIndex(where: { $0.ticket == ticket }) else { return }
    waiting.remove(at: index).place.resume(throwing: CancellationError())
  }
}
