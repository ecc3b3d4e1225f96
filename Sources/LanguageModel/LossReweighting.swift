#if canImport(Glibc)
  import Glibc
#else
  import Foundation
#endif

/// Weights of augmented items that penalise over-fitting to them: what the model already predicts
/// with little loss is trained on less.
///
/// The form is that of the focal loss (Lin et al. 2017), with the geometric mean of an item's token
/// probabilities in place of one probability; the weight is a constant in the gradient.
package enum LossReweighting {
  /// (1 − e^−ℓ)^τ
  ///
  /// - Parameters:
  ///   - meanLoss: ℓ, the item's mean cross-entropy in nats.
  ///   - exponent: τ
  package static func weight(meanLoss: Double, exponent: Float) -> Float {
    Float(pow(-expm1(-meanLoss), Double(exponent)))
  }
}
