import Foundation
import RandomStreams

/// Distance between two samples of vectors, with a permutation test of their exchangeability.
///
/// The squared maximum mean discrepancy (Gretton et al. 2012, unbiased estimate, equation 3) under a
/// Gaussian kernel whose bandwidth is the median distance of the pooled sample, and the distance of
/// the two means.
package struct TwoSampleDistance: Hashable, Sendable, Codable {
  /// MMD², unbiased: below 0 is possible for equal distributions.
  package let squaredDiscrepancy: Double
  /// Euclidean distance of the means.
  package let meanDistance: Double
  /// Kernel width σ in exp(−‖x − y‖² / 2σ²).
  package let bandwidth: Double
  /// One-sided: arrangements at least as far apart.
  package let test: PermutationResult

  /// - Parameters:
  ///   - a: vectors of one length; at least two.
  ///   - b: as `a`.
  /// - Returns: nil for fewer than two vectors on a side, or if all vectors are the same.
  package init?(
    _ a: [[Float]], _ b: [[Float]], draws: Int = 999, using stream: inout RandomStream
  ) {
    guard a.count > 1, b.count > 1 else { return nil }
    let pooled = a + b
    let count = pooled.count
    var distances = [Double](repeating: 0, count: count * count)
    var upper: [Double] = []
    for i in 0..<count {
      for j in (i + 1)..<max(i + 1, count) {
        let distance = squaredDistance(pooled[i], pooled[j])
        distances[i * count + j] = distance
        distances[j * count + i] = distance
        upper.append(distance)
      }
    }
    let median = quantile(0.5, ofSorted: upper.sorted())
    guard let width = median > 0 ? median : upper.max(), width > 0 else { return nil }
    let kernel = distances.map { exp(-$0 / (2 * width)) }

    /// With kernel matrix K over the pooled sample, MMD² needs only sums over pairs within and
    /// between the sides.
    func discrepancy(_ isFirst: [Bool]) -> Double {
      var within = (0.0, 0.0)
      var between = 0.0
      for i in 0..<count {
        for j in (i + 1)..<max(i + 1, count) {
          let value = kernel[i * count + j]
          if isFirst[i] != isFirst[j] {
            between += value
          } else if isFirst[i] {
            within.0 += value
          } else {
            within.1 += value
          }
        }
      }
      let m = Double(a.count)
      let n = Double(b.count)
      return 2 * within.0 / (m * (m - 1)) + 2 * within.1 / (n * (n - 1)) - 2 * between / (m * n)
    }

    var sides = [Bool](repeating: true, count: a.count) + [Bool](repeating: false, count: b.count)
    let observed = discrepancy(sides)
    squaredDiscrepancy = observed
    bandwidth = width.squareRoot()
    meanDistance = squaredDistance(meanVector(a), meanVector(b)).squareRoot()
    var extreme = 0
    for _ in 0..<draws {
      stream.shuffle(&sides)
      if discrepancy(sides) >= observed - 1e-12 { extreme += 1 }
    }
    test = PermutationResult(
      pValue: Double(extreme + 1) / Double(draws + 1), isExact: false, arrangements: draws)
  }
}

private func squaredDistance<Value: BinaryFloatingPoint>(_ a: [Value], _ b: [Value]) -> Double {
  precondition(a.count == b.count)
  var sum = 0.0
  for (x, y) in zip(a, b) {
    let difference = Double(x) - Double(y)
    sum += difference * difference
  }
  return sum
}

private func meanVector(_ vectors: [[Float]]) -> [Double] {
  var sums = [Double](repeating: 0, count: vectors[0].count)
  for vector in vectors {
    for (index, value) in vector.enumerated() { sums[index] += Double(value) }
  }
  return sums.map { $0 / Double(vectors.count) }
}
