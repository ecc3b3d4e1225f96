import Foundation
import LanguageModel
import Testing
import TransformerKernels

/// Values that transformers and PEFT computed for SmolLM2-135M-Instruct.
private struct Reference: Decodable {
  struct Prompt: Decodable {
    let ids: [Int32]
    let logits_pos0_first20: [Float]
    let logits_pos0_last20: [Float]
    let logits_last_first20: [Float]
    let logits_last_last20: [Float]
    let token_logprobs: [Double]
    let loss_fp64: Double
    let greedy24: [Int32]
  }
  struct LoRA: Decodable {
    struct Results: Decodable {
      struct Attention: Decodable {
        struct Course: Decodable {
          let losses_before_each_of_4_steps: [Double]
          let grad_norm: [Double]
        }
        let fp64: Course
      }
      let attn: Attention
    }
    let batch: [[Int32]]
    let results: Results
  }
  struct Full: Decodable {
    let losses_before_each_of_4_steps: [Double]
  }
  let prompts: [Prompt]
  let lora: LoRA
  let full: Full

  init() throws {
    self = try JSONDecoder().decode(
      Self.self, from: Data(contentsOf: fixture("smollm2_reference.json")))
  }
}

/// The default model and what to compare it with.
private enum SmolLM2 {
  static let weights = Result {
    try ModelWeights.load(
      from: DefaultModel.path, cacheDirectory: DefaultModel.cacheDirectory)
  }

  /// Directory of the reference files that are too large to be part of the package.
  static let parityDirectory: String? = {
    let directory = ProcessInfo.processInfo.environment["BIASSWEEP_PARITY"]
    if directory == nil {
      print("skipping tests of LoRA against PEFT: $BIASSWEEP_PARITY names no directory")
    }
    return directory
  }()
}

@Suite(.enabled(if: DefaultModel.isPresent), .serialized) struct SmolLM2ParityTests {
  private let weights: ModelWeights
  private let reference: Reference
  private let pool = ThreadPool(threadCount: 2)

  init() throws {
    weights = try SmolLM2.weights.get()
    reference = try Reference()
  }

  @Test func logitsAndLossesMatchTransformers() throws {
    let model = AdaptedModel(weights: weights, pool: pool)
    let vocabulary = weights.configuration.vocabularySize
    var worst = (logits: Float(0), scores: 0.0, loss: 0.0)
    for prompt in reference.prompts {
      let all = try logits(model, prompt.ids)
      let last = (prompt.ids.count - 1) * vocabulary
      let expected = [
        (0, prompt.logits_pos0_first20), (vocabulary - 20, prompt.logits_pos0_last20),
        (last, prompt.logits_last_first20),
        (last + vocabulary - 20, prompt.logits_last_last20),
      ]
      for (offset, values) in expected {
        let difference = maximumDifference(Array(all[offset..<offset + 20]), values)
        worst.logits = max(worst.logits, difference)
        #expect(difference < 5e-4)
      }
      let scores = try model.score(
        prompt.ids.indices.dropFirst().map {
          AdaptedModel.ScoringRequest(
            prompt: Array(prompt.ids[..<$0]), continuations: [[prompt.ids[$0]]])
        }
      ).map { $0[0].logProbability }
      for (ours, theirs) in zip(scores, prompt.token_logprobs) {
        worst.scores = max(worst.scores, abs(ours - theirs))
        #expect(abs(ours - theirs) < 5e-4)
      }
      let loss = -scores.reduce(0, +) / Double(scores.count)
      worst.loss = max(worst.loss, abs(loss - prompt.loss_fp64))
      #expect(abs(loss - prompt.loss_fp64) < 5e-5)
    }
    measured("SmolLM2, logits", worst.logits)
    measured("SmolLM2, log-probabilities of tokens", worst.scores)
    measured("SmolLM2, losses against fp64", worst.loss)
  }

  @Test func greedyTextsMatchTransformers() throws {
    let model = AdaptedModel(weights: weights, pool: pool)
    let texts = try model.generate(
      reference.prompts.map(\.ids), seeds: reference.prompts.map { _ in 0 },
      options: .init(temperature: 0, maximumTokens: 24, stopTokens: [2]))
    for (text, prompt) in zip(texts, reference.prompts) {
      #expect(text == Array(prompt.greedy24.prefix { $0 != 2 }))
    }
  }

  @Test(.enabled(if: SmolLM2.parityDirectory != nil))
  func adapterGradientsAndLossesMatchPEFT() throws {
    let directory = try #require(SmolLM2.parityDirectory)
    let start = try SafetensorsFile(path: directory + "/lora_attn_init.safetensors")
    let gradients = try SafetensorsFile(path: directory + "/lora_attn_grad_step1.safetensors")
    let tuner = try FineTuner(
      weights: weights,
      options: FineTuningOptions(
        adapter: .lora(
          LoRAConfiguration(
            rank: 8, alpha: 16, targets: [.query, .key, .value, .output], layers: 0..<30)),
        epochs: 1, batchSize: 3, learningRate: 1e-3, weightDecay: 0.01, gradientClip: nil,
        seed: 1), pool: pool)
    #expect(Set(tuner.tensorNames) == Set(start.names))
    for name in tuner.tensorNames {
      #expect(tuner.set(name, to: try start.floats(name)), "\(name)")
    }
    let sequences = reference.lora.batch.map(wholeSequence)
    let course = reference.lora.results.attn.fp64
    var worst = (loss: 0.0, norm: 0.0, gradient: Float(0))
    for (step, expected) in course.losses_before_each_of_4_steps.enumerated() {
      let loss = try tuner.takeStep(sequences, learningRate: 1e-3)
      worst.loss = max(worst.loss, abs(Double(loss) - expected))
      #expect(abs(Double(loss) - expected) < (step == 0 ? 5e-5 : 2e-4), "step \(step)")
      if step < course.grad_norm.count {
        let difference = abs(tuner.gradientNorm() / course.grad_norm[step] - 1)
        worst.norm = max(worst.norm, difference)
        #expect(difference < 2e-4)
      }
      guard step == 0 else { continue }
      for name in tuner.tensorNames {
        let ours = try #require(tuner.gradient(name))
        let theirs = try gradients.floats(name)
        let largest = theirs.reduce(0) { max($0, abs($1)) }
        let difference = maximumDifference(ours, theirs)
        worst.gradient = max(worst.gradient, difference / largest)
        #expect(difference < 1e-6 + 1e-3 * largest, "\(name)")
      }
    }
    measured("SmolLM2, LoRA losses over four steps against fp64", worst.loss)
    measured("SmolLM2, LoRA gradient norms, relative", worst.norm)
    measured("SmolLM2, LoRA gradients, of a tensor's largest", worst.gradient)
  }

  @Test func lossesOfFullFineTuningMatchTorch() throws {
    let tuner = try FineTuner(
      weights: weights,
      options: FineTuningOptions(
        adapter: .full, epochs: 1, batchSize: 3, learningRate: 1e-4, weightDecay: 0.01,
        gradientClip: nil, seed: 1, paddingToken: 2), pool: pool)
    let sequences = reference.lora.batch.map(wholeSequence)
    var worst = 0.0
    defer { measured("SmolLM2, losses of full fine-tuning over four steps", worst) }
    for (step, expected) in reference.full.losses_before_each_of_4_steps.enumerated() {
      let loss = try tuner.takeStep(sequences, learningRate: 1e-4)
      worst = max(worst, abs(Double(loss) - expected))
      #expect(abs(Double(loss) - expected) < (step == 0 ? 5e-5 : 1e-3), "step \(step)")
    }
  }
}
