import TransformerKernels

/// The shape of a Llama-family decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU;
/// with biases on queries, keys and values as in Qwen2, or normalised heads as in Qwen3.
///
/// Names follow Hugging Face's `config.json` where they differ only in spelling.
package struct LlamaConfiguration: Sendable, Hashable {
  package var vocabularySize: Int
  package var hiddenSize: Int
  package var layerCount: Int
  package var headCount: Int
  package var keyValueHeadCount: Int
  package var headDimension: Int
  package var feedForwardSize: Int
  package var ropeTheta: Double
  package var normEpsilon: Float
  package var maximumPositions: Int
  /// Whether the output head is the embedding matrix itself.
  package var tiesEmbeddings: Bool
  /// How rotary frequencies were stretched for longer contexts; nil for not at all.
  package var rotaryScaling: RotaryScaling?
  /// Whether queries, keys and values have biases (Qwen2).
  package var hasQueryKeyValueBias: Bool
  /// Whether each head of queries and keys passes an RMSNorm before its rotation (Qwen3).
  package var normalizesHeads: Bool

  package init(
    vocabularySize: Int, hiddenSize: Int, layerCount: Int, headCount: Int, keyValueHeadCount: Int,
    headDimension: Int, feedForwardSize: Int, ropeTheta: Double, normEpsilon: Float,
    maximumPositions: Int, tiesEmbeddings: Bool, rotaryScaling: RotaryScaling? = nil,
    hasQueryKeyValueBias: Bool = false, normalizesHeads: Bool = false
  ) {
    self.vocabularySize = vocabularySize
    self.hiddenSize = hiddenSize
    self.layerCount = layerCount
    self.headCount = headCount
    self.keyValueHeadCount = keyValueHeadCount
    self.headDimension = headDimension
    self.feedForwardSize = feedForwardSize
    self.ropeTheta = ropeTheta
    self.normEpsilon = normEpsilon
    self.maximumPositions = maximumPositions
    self.tiesEmbeddings = tiesEmbeddings
    self.rotaryScaling = rotaryScaling
    self.hasQueryKeyValueBias = hasQueryKeyValueBias
    self.normalizesHeads = normalizesHeads
  }

  /// Width of the concatenated query heads.
  package var queryWidth: Int { headCount * headDimension }
  /// Width of the concatenated key (or value) heads.
  package var keyValueWidth: Int { keyValueHeadCount * headDimension }
}
