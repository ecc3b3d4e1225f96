/// Bounds how much of the log each party can fill: some lines in a span of time. What is left out
/// is counted, and told once that time is over.
package struct LineQuota: Sendable {
  private struct Span {
    let end: Duration
    var lines = 0
  }

  /// Stands for the parties that came when there were too many to tell apart.
  package static let others = "others"
  private let linesMax: Int
  private let time: Duration
  private let partiesMax: Int
  private var spans: [String: Span] = [:]

  /// - Parameters:
  ///   - linesMax: of one party in `time`, which begins with its first line.
  ///   - partiesMax: told apart at a time, so that taking many names is no way around.
  package init(linesMax: Int = 20, time: Duration = .seconds(60), partiesMax: Int = 256) {
    self.linesMax = linesMax
    self.time = time
    self.partiesMax = partiesMax
  }

  /// Counts a line that a party causes.
  ///
  /// - Parameter now: monotonic time.
  /// - Returns: whether it may be written.
  package mutating func allows(_ party: String, now: Duration) -> Bool {
    let isOneMore = spans[party] == nil && spans.count >= partiesMax
    let name = isOneMore ? Self.others : party
    var span = spans[name] ?? Span(end: now + time)
    span.lines += 1
    spans[name] = span
    return span.lines <= linesMax
  }

  /// Begins anew with the parties whose time is over.
  ///
  /// - Parameter now: monotonic time; nil ends the time of all.
  /// - Returns: how many lines were left out, by party, in the order of their names.
  package mutating func settle(now: Duration?) -> [(party: String, lines: Int)] {
    let over = spans.filter { span in now.map { span.value.end <= $0 } ?? true }
    for party in over.keys { spans[party] = nil }
    return over.filter { $0.value.lines > linesMax }
      .map { (party: $0.key, lines: $0.value.lines - linesMax) }
      .sorted { $0.party < $1.party }
  }
}
