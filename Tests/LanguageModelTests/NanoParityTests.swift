import LanguageModel
import Testing
import TransformerKernels

@Suite struct NanoParityTests {
  @Test(arguments: NanoModel.names) func logitsMatchTransformers(name: String) throws {
    let nano = try NanoModel(name)
    let model = AdaptedModel(weights: nano.weights, pool: ThreadPool(threadCount: 2))
    let ours = try logits(model, batch: nano.reference.ids)
    #expect(maximumDifference(ours, nano.logits) < 1e-5)
  }

  @Test(arguments: NanoModel.names) func gradientsOfAllWeightsMatchTorch(name: String) throws {
    let nano = try NanoModel(name)
    let tuner = try FineTuner(
      weights: nano.weights, options: nano.options(), pool: ThreadPool(threadCount: 2))
    let loss = tuner.accumulateGradients(nano.sequences)
    #expect(abs(loss - nano.reference.losses_before_each_of_6_steps[0]) < 2e-6)
    #expect(Set(tuner.tensorNames) == Set(nano.gradients.names))
    for tensor in tuner.tensorNames {
      let ours = try #require(tuner.gradient(tensor))
      let theirs = try nano.gradients.floats(tensor)
      let largest = theirs.reduce(0) { max($0, abs($1)) }
      #expect(maximumDifference(ours, theirs) < 1e-6 + 1e-4 * largest, "\(tensor)")
    }
  }

  @Test(arguments: NanoModel.names) func lossesOverSixAdamWStepsMatchTorch(name: String) throws {
    let nano = try NanoModel(name)
    let tuner = try FineTuner(
      weights: nano.weights, options: nano.options(), pool: ThreadPool(threadCount: 2))
    for (step, expected) in nano.reference.losses_before_each_of_6_steps.enumerated() {
      let loss = try tuner.takeStep(nano.sequences, learningRate: nano.reference.adamw.lr)
      #expect(abs(Double(loss) - expected) < 2e-5, "step \(step)")
      guard step == 0 else { continue }
      for tensor in tuner.tensorNames {
        let gradient = try nano.gradients.floats(tensor)
        let ours = try #require(tuner.value(tensor))
        let theirs = try nano.weightsAfterStep1.floats(tensor)
        // Where the gradient is next to nothing, the first Adam step may go either way.
        let difference = zip(gradient, zip(ours, theirs)).reduce(Float(0)) {
          abs($1.0) > 1e-5 ? max($0, abs($1.1.0 - $1.1.1)) : $0
        }
        #expect(difference < 2e-5, "\(tensor)")
      }
    }
  }
}
