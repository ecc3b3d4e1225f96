/// Virtual time: actions in the order of their times, equal times in the order of scheduling.
struct Timeline<Action> {
  private(set) var now: Duration = .zero
  /// Latest first, so that the next action is the last element.
  private var entries: [(time: Duration, number: Int, action: Action)] = []
  private var scheduled = 0

  mutating func schedule(_ action: Action, at time: Duration) {
    let time = max(time, now)
    var low = 0
    var high = entries.count
    while low < high {
      let middle = (low + high) / 2
      if entries[middle].time > time { low = middle + 1 } else { high = middle }
    }
    entries.insert((time, scheduled, action), at: low)
    scheduled += 1
  }

  mutating func schedule(_ action: Action, after delay: Duration) {
    schedule(action, at: now + delay)
  }

  /// Moves the time to the next action.
  mutating func next() -> Action? {
    guard let entry = entries.popLast() else { return nil }
    now = entry.time
    return entry.action
  }
}
