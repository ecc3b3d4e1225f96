import Foundation
import SweepCore
import Testing

@Suite struct TrialItemsTests {
  @Test func valuesSurviveTheirBytes() throws {
    let values = [0, -0.0, 1.5, .nan, -.pi, .leastNonzeroMagnitude]
    let decoded = try #require(TrialItems.decoded(TrialItems.encoded(values)))
    #expect(zip(values, decoded).allSatisfy { $0.bitPattern == $1.bitPattern })
    #expect(TrialItems.decoded([1, 2, 3]) == nil)
  }

  @Test func limitsAreKept() {
    #expect(TrialItems([:]) == nil)
    #expect(TrialItems(["a": [1], "b": [1, 2]]) == nil)
    #expect(TrialItems(["a": [.infinity]]) == nil)
    #expect(TrialItems(["a": [.nan]]) != nil)
    #expect(TrialItems(["a": Array(repeating: 0, count: TrialItems.itemsMax + 1)]) == nil)
    let many = Dictionary(
      uniqueKeysWithValues: (0...TrialItems.measuresMax).map { ("\($0)", [0.0]) })
    #expect(TrialItems(many) == nil)
  }

  @Test func theDigestTellsMeasuresAndValuesApart() throws {
    let digest = try #require(TrialItems(["a": [1, 2]])).digest
    #expect(TrialItems(["a": [2, 1]])?.digest != digest)
    #expect(TrialItems(["b": [1, 2]])?.digest != digest)
    #expect(TrialItems(["a": [1, 2], "b": [1, 2]])?.digest != digest)
    // Any NaN is the same NaN.
    let odd = Double(nan: 5, signaling: false)
    #expect(TrialItems(["a": [odd]])?.digest == TrialItems(["a": [.nan]])?.digest)
  }

  @Test func eventsCarryTheDigestOnly() throws {
    let items = try #require(TrialItems(["a": [1, .nan]]) as TrialItems?)
    let event = SweepEvent.trialCompleted(
      trial: TrialID("t"), token: LeaseToken(1), metrics: [:], notes: [:], items: items)
    let read = try JSONDecoder().decode(SweepEvent.self, from: JSONEncoder().encode(event))
    #expect(read == event)
    guard case .trialCompleted(_, _, _, _, let found?) = read else {
      Issue.record("no items")
      return
    }
    #expect(found.values.isEmpty && found.digest == items.digest)
    // As ledgers from before there were items have it.
    let old = #"{"trialCompleted":{"trial":"t","token":1,"metrics":{},"notes":{}}}"#
    let without = SweepEvent.trialCompleted(
      trial: TrialID("t"), token: LeaseToken(1), metrics: [:], notes: [:])
    #expect(try JSONDecoder().decode(SweepEvent.self, from: Data(old.utf8)) == without)
  }
}
