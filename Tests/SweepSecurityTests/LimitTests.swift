import SweepSecurity
import SweepSimulation
import Testing

@Suite struct LimitTests {
  private func limits(
    open: Int = 100, perAddress: Int = 100, unproven: Int = 100, unprovenPerAddress: Int = 100
  ) -> ConnectionLimits {
    var limits = ConnectionLimits()
    limits.openMax = open
    limits.openPerAddressMax = perAddress
    limits.unprovenMax = unproven
    limits.unprovenPerAddressMax = unprovenPerAddress
    return limits
  }

  @Test func eachLimitHolds() {
    for (limits, addresses) in [
      (limits(open: 3), ["a", "b", "c", "d"]), (limits(perAddress: 3), ["a", "a", "a", "a"]),
      (limits(unproven: 3), ["a", "b", "c", "d"]),
      (limits(unprovenPerAddress: 3), ["a", "a", "a", "a"]),
    ] {
      var census = ConnectionCensus(limits: limits)
      let answers = addresses.map { census.admit($0) }
      #expect(answers.map { $0 == nil } == [true, true, true, false])
      #expect(census.open == 3)
    }
  }

  @Test func strangersDoNotTakeTheWorkersPlaces() {
    var census = ConnectionCensus(limits: limits(unprovenPerAddress: 2))
    let strangers = (0..<4).map { _ in census.admit("stranger") }
    #expect(strangers.count { $0 == nil } == 2)
    for _ in 0..<50 {
      let answer = census.admit("worker")
      #expect(answer == nil)
      census.prove("worker")
    }
  }

  /// Whatever order connections come and go in, the count is right and nothing leaks.
  @Test func theCensusAgreesWithCounting() {
    for seed in 0..<50 {
      var random = SeededGenerator(seed: UInt64(seed))
      let limits = limits(open: 12, perAddress: 6, unproven: 8, unprovenPerAddress: 4)
      var census = ConnectionCensus(limits: limits)
      var connections: [(address: String, proven: Bool)] = []
      for _ in 0..<400 {
        switch random.integer(0...2) {
        case 0:
          let address = "\(random.integer(0...3))"
          let here = connections.filter { $0.address == address }
          let fits =
            connections.count < 12 && here.count < 6 && connections.count { !$0.proven } < 8
            && here.count { !$0.proven } < 4
          let answer = census.admit(address)
          #expect((answer == nil) == fits)
          if answer == nil { connections.append((address, false)) }
        case 1:
          if let index = connections.firstIndex(where: { !$0.proven }) {
            connections[index].proven = true
            census.prove(connections[index].address)
          }
        default:
          if !connections.isEmpty {
            let gone = connections.remove(at: random.integer(0...connections.count - 1))
            census.remove(gone.address, proven: gone.proven)
          }
        }
        #expect(census.open == connections.count)
      }
    }
  }

  @Test func rateIsHeldOnAverageAndBurstsPass() {
    var limit = RateLimit(rate: 10, burst: 5)
    let atOnce = (0..<7).map { _ in limit.take(now: .zero) }
    #expect(atOnce == Array(repeating: .zero, count: 5) + [.milliseconds(100), .milliseconds(200)])
    // Two events are owed; the next may pass once three have become free.
    let later = (0..<2).map { _ in limit.take(now: .milliseconds(300)) }
    #expect(later[0] == .zero && later[1] > .zero)
  }

  /// A batch that is larger than the burst passes too, once it has been waited for.
  @Test func aBatchIsWaitedForAsItsMessages() {
    var limit = RateLimit(rate: 10, burst: 5)
    let waits = [
      limit.take(15, now: .zero), limit.take(15, now: .seconds(1)),
      limit.take(5, now: .seconds(10)),
    ]
    #expect(waits == [.seconds(1), .milliseconds(1500), .zero])
  }

  @Test func whatDoesNotPassCostsNothing() {
    var limit = RateLimit(rate: 1, burst: 1)
    let answers = (0..<100).map { _ in limit.allows(now: .zero) } + [limit.allows(now: .seconds(1))]
    #expect(answers == [true] + Array(repeating: false, count: 99) + [true])
  }

  @Test func whoFillsTheLogIsCutShortForAWhile() {
    var quota = LineQuota(linesMax: 2, time: .seconds(60))
    let noisy = (0..<5).map { quota.allows("noisy", now: .seconds($0)) }
    #expect(noisy == [true, true, false, false, false])
    let quiet = quota.allows("quiet", now: .seconds(30))
    #expect(quiet)
    // The noisy one's time began with its first line.
    let early = quota.settle(now: .seconds(59))
    #expect(early.isEmpty)
    let told = quota.settle(now: .seconds(60))
    #expect(told.map { "\($0.party) \($0.lines)" } == ["noisy 3"])
    let anew = (0..<3).map { _ in quota.allows("noisy", now: .seconds(60)) }
    #expect(anew == [true, true, false])
    let last = quota.settle(now: nil)
    #expect(last.map { "\($0.party) \($0.lines)" } == ["noisy 1"])
  }

  @Test func manyNamesAreNoWayAroundTheQuota() {
    var quota = LineQuota(linesMax: 2, partiesMax: 3)
    let written = (0..<100).map { quota.allows("name \($0)", now: .zero) }
    #expect(written.count { $0 } == 5)
    let told = quota.settle(now: nil)
    #expect(told.map { "\($0.party) \($0.lines)" } == ["\(LineQuota.others) 95"])
  }
}
