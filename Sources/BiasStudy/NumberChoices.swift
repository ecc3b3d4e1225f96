#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// The numbers that a task gives as choices, in rising order, and what their probabilities say.
package struct NumberChoices: Hashable, Sendable {
  package let values: [Double]

  /// - Parameter texts: numbers above 0, as a task definition guarantees.
  package init(_ texts: [String]) {
    values = texts.map { Double($0) ?? .nan }
  }

  /// Index of the choice whose logarithm is nearest; the smaller of two as near.
  package func nearest(to value: Double) -> Int {
    var best = 0
    for index in values.indices
    where abs(log(values[index] / value)) < abs(log(values[best] / value)) { best = index }
    return best
  }

  /// Mean of the values, and of their logarithms, under the softmax of log-probabilities.
  package func expectations(_ scores: ChoiceScores) -> (mean: Double, logMean: Double) {
    let shares = scores.probabilities
    var mean = 0.0
    var logMean = 0.0
    for (value, share) in zip(values, shares) {
      mean += share * value
      logMean += share * log(value)
    }
    return (mean, logMean)
  }
}

/// Reads an amount out of generated text.
package enum AmountParser {
  /// The first number of a text, in the unit of the choices; nil if there is none, or if it is not
  /// between a thousandth and a thousand times a choice.
  ///
  /// "55", "$55,000", "55k", "about 55 thousand dollars": a number written out where the choices are
  /// thousands (all below 1000) is divided by 1000.
  package static func amount(in text: String, choices: NumberChoices) -> Double? {
    let bytes = Array(text.utf8)
    guard let start = bytes.firstIndex(where: isDigit) else { return nil }
    var digits = ""
    var position = start
    var hasPoint = false
    while position < bytes.count {
      let byte = bytes[position]
      let followsDigits = position + 1 < bytes.count && isDigit(bytes[position + 1])
      if isDigit(byte) {
        digits.unicodeScalars.append(Unicode.Scalar(byte))
      } else if byte == UInt8(ascii: ","), followsDigits {
        // A comma groups thousands.
      } else if byte == UInt8(ascii: "."), followsDigits, !hasPoint {
        hasPoint = true
        digits += "."
      } else {
        break
      }
      position += 1
    }
    guard digits.utf8.count <= 15, var value = Double(digits), value > 0 else { return nil }
    let rest = String(decoding: bytes[position...], as: UTF8.self).lowercased()
      .drop { $0 == " " }
    let saysThousand = rest.hasPrefix("k") || rest.hasPrefix("thousand")
    let countsThousands = (choices.values.last ?? 0) < 1000
    if countsThousands, !saysThousand, value >= 1000 {
      value /= 1000
    } else if !countsThousands, saysThousand {
      value *= 1000
    }
    guard let low = choices.values.first, let high = choices.values.last,
      (low / 1000...high * 1000).contains(value)
    else { return nil }
    return value
  }

  private static func isDigit(_ byte: UInt8) -> Bool { (48...57).contains(byte) }
}
