import LanguageModel
import RandomStreams
import TransformerKernels

/// A random model of odd sizes: widths that no vector divides, three query heads to a key head.
let oddWeights = ModelWeights.random(
  configuration: LlamaConfiguration(
    vocabularySize: 101, hiddenSize: 54, layerCount: 4, headCount: 9, keyValueHeadCount: 3,
    headDimension: 6, feedForwardSize: 77, ropeTheta: 10_000, normEpsilon: 1e-5,
    maximumPositions: 160, tiesEmbeddings: true), seed: 3)

/// The odd model with normalised heads (Qwen3), and with biases (Qwen2).
let oddVariants = [true, false].map { normalizes in
  var configuration = oddWeights.configuration
  configuration.normalizesHeads = normalizes
  configuration.hasQueryKeyValueBias = !normalizes
  return ModelWeights.random(configuration: configuration, seed: 8)
}

/// Random tokens of the odd model.
func randomTokens(_ count: Int, seed: UInt64) -> [Int32] {
  var random = RandomStream(seed: seed, purpose: "test tokens")
  return (0..<count).map { _ in
    Int32(random.index(below: oddWeights.configuration.vocabularySize))
  }
}

/// Random items: some tokens supervised, both groups.
func randomSequences(_ lengths: [Int], seed: UInt64 = 1) -> [TrainingSequence] {
  lengths.enumerated().map { index, length in
    TrainingSequence(
      tokens: randomTokens(length, seed: seed &* 1000 &+ UInt64(index)),
      supervised: (0..<length).map { $0 % 3 != 0 || $0 == length - 1 },
      group: index % 3 == 2 ? .augmented : .original)
  }
}

/// An adapter on every target of the upper half of the odd model.
let upperAdapter = Adapter.lora(
  LoRAConfiguration(rank: 5, alpha: 7, targets: Set(LoRATarget.allCases), layers: 2..<4))

func options(
  _ adapter: Adapter, accumulationSteps: Int = 1, alignmentWeight: Float = 0,
  recomputes: Bool = false, seed: UInt64 = 11
) -> FineTuningOptions {
  FineTuningOptions(
    adapter: adapter, epochs: 2, batchSize: 4, accumulationSteps: accumulationSteps,
    learningRate: 3e-3, warmupFraction: 0.2, gradientClip: 1, alignmentWeight: alignmentWeight,
    seed: seed, recomputesActivations: recomputes)
}

extension FineTuner {
  /// All trainable values, tensor by tensor.
  var allValues: [Float] { tensorNames.flatMap { value($0) ?? [] } }
}
