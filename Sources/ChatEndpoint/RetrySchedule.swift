import Foundation

/// When to ask again after a failure: exponential back-off, or what the server asks for.
package struct RetrySchedule: Sendable, Hashable {
  /// Tries of one request, the first included.
  package let attempts: Int
  /// Seconds before the second try; twice as many before each further one.
  package let firstDelay: Double
  package let longestDelay: Double
  /// A server that asks for a longer pause is not waited for.
  package let longestRetryAfter: Double

  package init(
    attempts: Int, firstDelay: Double = 1, longestDelay: Double = 60,
    longestRetryAfter: Double = 600
  ) {
    self.attempts = attempts
    self.firstDelay = firstDelay
    self.longestDelay = longestDelay
    self.longestRetryAfter = longestRetryAfter
  }

  /// Seconds to wait after the `attempt`-th try (from 1) failed; nil to give up.
  ///
  /// - Parameter jitter: from 0 to 1: half of the delay is drawn, so that workers that failed
  ///   together do not come back together.
  package func delay(after attempt: Int, _ failure: ChatFailure, jitter: Double) -> Double? {
    guard attempt < attempts, failure.isPassing else { return nil }
    if failure.retryAfter != nil { return pause(after: failure) }
    let exponent = Double(min(attempt - 1, 30))
    let full = min(longestDelay, firstDelay * exp2(exponent))
    return full * (0.5 + 0.5 * jitter)
  }

  /// Seconds for which the server asks to be left alone by everybody; nil if it does not, or for
  /// longer than it is waited for.
  package func pause(after failure: ChatFailure) -> Double? {
    guard failure.isPassing, let asked = failure.retryAfter else { return nil }
    return asked <= longestRetryAfter ? asked : nil
  }

  /// Seconds that a `Retry-After` header asks for: a number of seconds or a date of HTTP.
  ///
  /// - Parameter now: seconds since 1970.
  package static func retryAfter(_ header: String, now: Double) -> Double? {
    let text = header.trimmingCharacters(in: .whitespaces)
    if let seconds = Double(text) { return seconds >= 0 && seconds.isFinite ? seconds : nil }
    let formatter = DateFormatter()
    formatter.locale = Locale(identifier: "en_US_POSIX")
    formatter.timeZone = TimeZone(identifier: "GMT")
    formatter.dateFormat = "EEE, dd MMM yyyy HH:mm:ss zzz"
    return formatter.date(from: text).map { max(0, $0.timeIntervalSince1970 - now) }
  }
}

/// Lets requests go one after the other at no more than a rate, and none before a pause is over.
actor Pace {
  /// Time between two requests; zero for no limit.
  private let interval: Duration
  private var next = ContinuousClock.now

  init(requestsPerMinute: Int?) {
    interval = requestsPerMinute.map { .seconds(60) / $0 } ?? .zero
  }

  /// Waits for the caller's turn.
  func turn() async throws {
    while true {
      let now = ContinuousClock.now
      if next <= now {
        next = now + interval
        return
      }
      // Others may wait as well; whoever wakes first after `next` goes.
      try await Task.sleep(until: next, clock: .continuous)
    }
  }

  /// Nobody goes before this many seconds have passed.
  func pause(seconds: Double) {
    next = max(next, .now + .seconds(seconds))
  }
}
