import SweepSecurity
import SweepSimulation
import Testing

@Suite struct MessageFramingTests {
  /// However the bytes of some messages are cut into pieces, their lengths are found, in order.
  @Test func lengthsAreFoundInAnyPieces() {
    for seed in 0..<200 {
      var random = SeededGenerator(seed: UInt64(seed))
      let lengths = (0..<random.integer(0...8)).map { _ in
        random.chance(0.2) ? 0 : random.integer(0...700)
      }
      let bytes = lengths.flatMap { length -> [UInt8] in
        let size = (0..<4).map { UInt8(length >> (8 * (3 - $0)) & 0xFF) }
        return [random.chance(0.5) ? 1 : 0] + size
          + (0..<length).map { _ in UInt8(random.integer(0...255)) }
      }
      var framing = MessageFraming()
      var found: [Int] = []
      var rest = bytes[...]
      while !rest.isEmpty {
        let count = random.chance(0.3) ? 1 : random.integer(1...400)
        found += framing.lengths(in: rest.prefix(count))
        rest = rest.dropFirst(count)
      }
      #expect(found == lengths)
    }
  }

  @Test func aLengthIsKnownBeforeItsMessage() {
    var framing = MessageFraming()
    #expect(framing.lengths(in: [0, 0xFF, 0xFF, 0xFF]).isEmpty)
    #expect(framing.lengths(in: [0xFE]) == [0xFFFF_FFFE])
  }
}
