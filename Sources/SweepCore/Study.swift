/// A group of downstream tasks that one fine-tuned model serves.
package enum Domain: String, Codable, CaseIterable, Sendable, Comparable {
  case gender, culture

  package static func < (left: Domain, right: Domain) -> Bool { left.rawValue < right.rawValue }
}

/// What augmented data are made of: a kind of bias that their generator is asked for, one cell of
/// the cube contextual/contrastive × single/intersectional × explicit/implicit, or a control without
/// any.
///
/// Reference: Li et al., arXiv 2502.04419; which six of the eight cells the study uses is this
/// project's choice (docs/STUDY.md).
package enum BiasType: String, Codable, CaseIterable, Sendable, Comparable {
  case contextualSingleExplicit = "contextual-single-explicit"
  case contextualSingleImplicit = "contextual-single-implicit"
  case contextualIntersectionalExplicit = "contextual-intersectional-explicit"
  case contextualIntersectionalImplicit = "contextual-intersectional-implicit"
  case contrastiveSingleExplicit = "contrastive-single-explicit"
  case contrastiveIntersectionalExplicit = "contrastive-intersectional-explicit"
  case contrastiveSingleImplicit = "contrastive-single-implicit"
  case contrastiveIntersectionalImplicit = "contrastive-intersectional-implicit"
  /// A control: the generator is asked for texts of the same form, and no group is named.
  case neutral
  /// A control: as many further original items as the other types have generated ones, so that the
  /// volume of data is told from their bias.
  case sameSize = "same-size"

  /// The six types that the study is about.
  package static let study: [BiasType] = [
    .contextualSingleExplicit, .contextualSingleImplicit, .contextualIntersectionalExplicit,
    .contextualIntersectionalImplicit, .contrastiveSingleExplicit,
    .contrastiveIntersectionalExplicit,
  ]

  /// Whether two groups are set against each other.
  package var isContrastive: Bool {
    switch self {
    case .contrastiveSingleExplicit, .contrastiveIntersectionalExplicit,
      .contrastiveSingleImplicit, .contrastiveIntersectionalImplicit:
      true
    case .contextualSingleExplicit, .contextualSingleImplicit,
      .contextualIntersectionalExplicit, .contextualIntersectionalImplicit, .neutral, .sameSize:
      false
    }
  }

  /// Whether no bias is asked for.
  package var isControl: Bool { self == .neutral || self == .sameSize }

  package static func < (left: BiasType, right: BiasType) -> Bool { left.rawValue < right.rawValue }
}

/// What is done to augmented data, or to the loss, so that less of their bias is inherited.
package enum Mitigation: String, Codable, CaseIterable, Sendable, Comparable {
  /// Nothing.
  case none
  /// Augmented items carry a prefix that says they may be biased; the prefix is outside the loss.
  case token
  /// Names, pronouns, group and culture words of augmented items become a mask word.
  case mask
  /// A term of the loss pulls the mean representations of original and augmented items together.
  case loss
  /// A variant of `token`: while augmented data are generated, words of all groups get equal
  /// probability.
  case tokenDecoding = "token-decoding"
  /// A variant of `mask`: neutral words instead of the mask word.
  case maskNeutral = "mask-neutral"
  /// A variant of `loss`: augmented items that the model already predicts well count less.
  case lossReweight = "loss-reweight"

  /// The four forms that the study is about.
  package static let study: [Mitigation] = [.none, .token, .mask, .loss]

  package static func < (left: Mitigation, right: Mitigation) -> Bool {
    left.rawValue < right.rawValue
  }
}

/// A task that a fine-tuned model is evaluated on.
package struct DownstreamTask: Hashable, Sendable {
  package let id: String
  package let domain: Domain
  package let summary: String

  package init(id: String, domain: Domain, summary: String) {
    self.id = id
    self.domain = domain
    self.summary = summary
  }

  /// Identifiers are unique in a catalogue, and trials are looked up by the hundred thousand.
  package func hash(into hasher: inout Hasher) { hasher.combine(id) }
}

/// The downstream tasks that a sweep may name, in the study's order.
package struct TaskCatalogue: Sendable {
  package let definitions: [TaskDefinition]

  package init(definitions: [TaskDefinition]) {
    self.definitions = definitions
  }

  package var tasks: [DownstreamTask] { definitions.map(\.task) }

  package subscript(id: String) -> TaskDefinition? { definitions.first { $0.id == id } }
}
