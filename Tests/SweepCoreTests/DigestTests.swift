import SweepCore
import SweepSimulation
import Testing

@Suite struct DigestTests {
  /// Printed by glibc's `printf("%a")` (through Python's ctypes).
  static let hexadecimals: [(Double, String)] = [
    (0.0, "0x0p+0"), (-0.0, "-0x0p+0"), (1.0, "0x1p+0"), (0.5, "0x1p-1"),
    (0.1, "0x1.999999999999ap-4"), (-0.1, "-0x1.999999999999ap-4"),
    (0.3333333333333333, "0x1.5555555555555p-2"), (3.14159, "0x1.921f9f01b866ep+1"),
    (1e300, "0x1.7e43c8800759cp+996"), (.leastNonzeroMagnitude, "0x0.0000000000001p-1022"),
    (2.2250738585072014e-308, "0x1p-1022"),
    (Double.leastNormalMagnitude.nextDown, "0x0.fffffffffffffp-1022"),
    (1024.0, "0x1p+10"), (-2.5, "-0x1.4p+1"), (0.7, "0x1.6666666666666p-1"),
    (1.7976931348623157e308, "0x1.fffffffffffffp+1023"),
  ]

  @Test(arguments: hexadecimals)
  func hexadecimalFloatsAreThoseOfC(value: Double, text: String) {
    #expect(value.hexadecimal == text)
  }

  @Test func hexadecimalFloatsAreExact() {
    var random = SeededGenerator(seed: 1)
    for _ in 0..<10_000 {
      let value = Double(bitPattern: random.next())
      if value.isFinite { #expect(Double(value.hexadecimal)?.bitPattern == value.bitPattern) }
    }
  }

  @Test func digestIsSHA256() {
    // FIPS 180-2, appendix B.1.
    #expect(
      ContentDigest(of: "abc".utf8).description
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
  }

  @Test func onlyHexadecimalNamesAreDigests() {
    let good = String(repeating: "0a", count: 32)
    #expect(ContentDigest(hex: good)?.description == good)
    for bad in ["", "../../etc/passwd", good.uppercased(), good + "0", String(good.dropLast())] {
      #expect(ContentDigest(hex: bad) == nil)
    }
  }

  private func rows() -> [ResultRow] {
    (0..<40).map { number in
      ResultRow(
        trial: TrialID("task/\(number / 2)"), metric: number % 2 == 0 ? "accuracy" : "gap",
        value: Double(number) / 7)
    }
  }

  @Test func resultDigestDoesNotDependOnOrder() {
    var random = SeededGenerator(seed: 3)
    let expected = ContentDigest(results: rows())
    for _ in 0..<10 {
      #expect(ContentDigest(results: rows().shuffled(using: &random)) == expected)
    }
  }

  @Test func resultDigestIsOfTheDocumentedText() {
    let row = ResultRow(trial: TrialID("a/b"), metric: "gap", value: 0.5)
    #expect(ContentDigest(results: [row]) == ContentDigest(of: "a/b\tgap\t0x1p-1\n".utf8))
  }

  @Test func resultDigestNoticesTheLastBit() {
    let changed = rows().enumerated().map { index, row in
      ResultRow(
        trial: row.trial, metric: row.metric, value: index == 17 ? row.value.nextUp : row.value)
    }
    #expect(ContentDigest(results: changed) != ContentDigest(results: rows()))
  }
}
