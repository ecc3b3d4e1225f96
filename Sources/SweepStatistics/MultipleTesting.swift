/// Holm's step-down adjustment (Holm 1979): p-values that keep the family-wise error rate, in the
/// order of `pValues`. A family must be fixed before its results are seen.
package func holmAdjusted(_ pValues: [Double]) -> [Double] {
  let order = pValues.indices.sorted {
    pValues[$0] == pValues[$1] ? $0 < $1 : pValues[$0] < pValues[$1]
  }
  var adjusted = pValues
  var largest = 0.0
  for (step, index) in order.enumerated() {
    largest = max(largest, min(1, Double(pValues.count - step) * pValues[index]))
    adjusted[index] = largest
  }
  return adjusted
}
