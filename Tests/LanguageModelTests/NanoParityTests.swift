import LanguageModel
import Testing
import TransformerKernels

@Suite struct NanoParityTests {
  @Test(arguments: NanoModel.names) func logitsMatchTransformers(name: String) throws {
    let nano = try NanoModel(name)
    let model = AdaptedModel(weights: nano.weights, pool: ThreadPool(threadCount: 2))
    let ours = try logits(model, batch: nano.reference.ids)
    let difference = maximumDifference(ours, nano.logits)
    measured("\(name), logits", difference)
    #expect(difference < 1e-5)
  }

  @Test(arguments: NanoModel.names) func gradientsOfAllWeightsMatchTorch(name: String) throws {
    let nano = try NanoModel(name)
    let tuner = try FineTuner(
      weights: nano.weights, options: nano.options(), pool: ThreadPool(threadCount: 2))
    let loss = tuner.accumulateGradients(nano.sequences)
    #expect(abs(loss - nano.reference.losses_before_each_of_6_steps[0]) < 2e-6)
    #expect(Set(tuner.tensorNames) == Set(nano.gradients.names))
    var worst: Float = 0
    for tensor in tuner.tensorNames {
      let ours = try #require(tuner.gradient(tensor))
      let theirs = try nano.gradients.floats(tensor)
      let largest = theirs.reduce(0) { max($0, abs($1)) }
      let difference = maximumDifference(ours, theirs)
      worst = max(worst, difference / largest)
      #expect(difference < 1e-6 + 1e-4 * largest, "\(tensor)")
    }
    measured("\(name), gradients, of a tensor's largest", worst)
  }

  @Test(arguments: NanoModel.names) func lossesOverSixAdamWStepsMatchTorch(name: String) throws {
    let nano = try NanoModel(name)
    let tuner = try FineTuner(
      weights: nano.weights, options: nano.options(), pool: ThreadPool(threadCount: 2))
    var worst = 0.0
    defer { measured("\(name), losses of six AdamW steps", worst) }
    for (step, expected) in nano.reference.losses_before_each_of_6_steps.enumerated() {
      let loss = try tuner.takeStep(nano.sequences, learningRate: nano.reference.adamw.lr)
      worst = max(worst, abs(Double(loss) - expected))
      #expect(abs(Double(loss) - expected) < 2e-5, "step \(step)")
      guard step == 0, let weightsAfterStep1 = nano.weightsAfterStep1 else { continue }
      for tensor in tuner.tensorNames {
        let gradient = try nano.gradients.floats(tensor)
        let ours = try #require(tuner.value(tensor))
        let theirs = try weightsAfterStep1.floats(tensor)
        // Where the gradient is next to nothing, the first Adam step may go either way.
        let difference = zip(gradient, zip(ours, theirs)).reduce(Float(0)) {
          abs($1.0) > 1e-5 ? max($0, abs($1.1.0 - $1.1.1)) : $0
        }
        #expect(difference < 2e-5, "\(tensor)")
      }
    }
  }

  @Test func everyEncodingGivesTheLogitsOfTransformers() throws {
    let expected = try SafetensorsFile(path: fixture("mixed.safetensors").path)
    let path = try fixture("mixed.gguf").path
    let file = try GGUFFile(path: path)
    // Of each encoding one tensor as the gguf package decodes it.
    for (encoding, tensor) in [
      ("Q4_K", "blk.0.attn_q"), ("Q6_K", "blk.0.attn_k"), ("Q5_0", "blk.0.attn_v"),
      ("Q8_0", "blk.0.attn_output"), ("Q4_0", "blk.1.attn_q"), ("Q4_1", "blk.1.attn_k"),
    ] {
      let ours = try file.floats(tensor + ".weight")
      #expect(maximumDifference(ours, try expected.floats(encoding)) < 1e-7, "\(encoding)")
    }
    let weights = try ModelWeights.load(from: path, cacheDirectory: nil)
    let model = AdaptedModel(weights: weights, pool: ThreadPool(threadCount: 2))
    let ids = try expected.floats("ids").map { Int32($0) }
    let difference = maximumDifference(try logits(model, ids), try expected.floats("logits"))
    measured("mixed.gguf, logits", difference)
    #expect(difference < 1e-5)
  }
}
