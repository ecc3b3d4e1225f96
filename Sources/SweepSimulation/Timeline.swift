import HeapModule

/// Virtual time: actions in the order of their times, equal times in the order of scheduling.
struct Timeline<Action> {
  private struct Entry: Comparable {
    let time: Duration
    let number: Int
    let action: Action

    static func == (left: Entry, right: Entry) -> Bool { left.number == right.number }
    static func < (left: Entry, right: Entry) -> Bool {
      (left.time, left.number) < (right.time, right.number)
    }
  }

  private(set) var now: Duration = .zero
  private var entries = Heap<Entry>()
  private var scheduled = 0

  mutating func schedule(_ action: Action, at time: Duration) {
    entries.insert(Entry(time: max(time, now), number: scheduled, action: action))
    scheduled += 1
  }

  mutating func schedule(_ action: Action, after delay: Duration) {
    schedule(action, at: now + delay)
  }

  /// Moves the time to the next action.
  mutating func next() -> Action? {
    guard let entry = entries.popMin() else { return nil }
    now = entry.time
    return entry.action
  }
}
