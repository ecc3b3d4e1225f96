import RandomStreams
import TransformerKernels

/// The parameters that a fine-tune changes, their gradients and AdamW moments, each in one flat
/// region with a common layout.
final class TrainableParameters {
  /// A tensor within the regions, by the name it has in files of the Hugging Face ecosystem.
  struct Tensor: Sendable, Hashable {
    let name: String
    let shape: [Int]
    let offset: Int

    var count: Int { shape.reduce(1, *) }
  }

  let tensors: [Tensor]
  let values: FloatBuffer
  let gradients: FloatBuffer
  let firstMoments: FloatBuffer
  let secondMoments: FloatBuffer

  /// Low-rank adapters: A uniform within ±1/√(inputs), which is Kaiming's initialisation with
  /// a = √5, as in PEFT; B zero. Each A depends on nothing but `seed` and its name.
  init(_ layout: LoRALayout, seed: UInt64) {
    tensors = layout.tensors.map {
      Tensor(name: $0.name, shape: [$0.rows, $0.columns], offset: $0.offset)
    }
    values = FloatBuffer(count: layout.elementCount, zeroed: true)
    gradients = FloatBuffer(count: layout.elementCount, zeroed: true)
    firstMoments = FloatBuffer(count: layout.elementCount, zeroed: true)
    secondMoments = FloatBuffer(count: layout.elementCount, zeroed: true)
    for tensor in layout.tensors where tensor.isA {
      var stream = RandomStream(seed: seed, purpose: "initial \(tensor.name)")
      let bound = 1 / Double(tensor.columns).squareRoot()
      for index in 0..<tensor.rows * tensor.columns {
        values.base[tensor.offset + index] = Float((2 * stream.uniform() - 1) * bound)
      }
    }
  }

  /// A copy of the weights in `range` of their region.
  init(copying weights: ModelWeights, _ range: Range<Int>) {
    tensors = weights.layout.tensors(of: weights.configuration, in: range)
    values = FloatBuffer(copying: weights.base + range.lowerBound, count: range.count)
    gradients = FloatBuffer(count: range.count, zeroed: true)
    firstMoments = FloatBuffer(count: range.count, zeroed: true)
    secondMoments = FloatBuffer(count: range.count, zeroed: true)
  }

  /// The tensor called `name` from one of the regions.
  func read(_ name: String, from region: FloatBuffer) -> [Float]? {
    tensors.first { $0.name == name }.map {
      Array(UnsafeBufferPointer(start: region.base + $0.offset, count: $0.count))
    }
  }
}

extension ParameterLayout {
  /// The tensors that lie in `range`, their offsets counted from its beginning.
  func tensors(
    of model: LlamaConfiguration, in range: Range<Int>
  ) -> [TrainableParameters.Tensor] {
    tensors(of: model).filter { range.contains($0.offset) }.map {
      TrainableParameters.Tensor(
        name: $0.name, shape: $0.shape, offset: $0.offset - range.lowerBound)
    }
  }

  /// All tensors under their Hugging Face names. A tied head appears once, as the embedding.
  func tensors(of model: LlamaConfiguration) -> [TrainableParameters.Tensor] {
    typealias Tensor = TrainableParameters.Tensor
    let hidden = model.hiddenSize
    var all = [
      Tensor(
        name: "model.embed_tokens.weight", shape: [model.vocabularySize, hidden], offset: embedding)
    ]
    for (index, layer) in layers.enumerated() {
      func add(_ name: String, _ shape: [Int], _ offset: Int, kind: String = "weight") {
        all.append(
          Tensor(name: "model.layers.\(index).\(name).\(kind)", shape: shape, offset: offset))
      }
      add("input_layernorm", [hidden], layer.attentionNorm)
      add("self_attn.q_proj", [model.queryWidth, hidden], layer.queryKeyValue)
      let keys = layer.queryKeyValue + model.queryWidth * hidden
      add("self_attn.k_proj", [model.keyValueWidth, hidden], keys)
      add(
        "self_attn.v_proj", [model.keyValueWidth, hidden], keys + model.keyValueWidth * hidden)
      add("self_attn.o_proj", [hidden, model.queryWidth], layer.attentionOutput)
      add("post_attention_layernorm", [hidden], layer.feedForwardNorm)
      add("mlp.gate_proj", [model.feedForwardSize, hidden], layer.gateUp)
      add(
        "mlp.up_proj", [model.feedForwardSize, hidden],
        layer.gateUp + model.feedForwardSize * hidden)
      add("mlp.down_proj", [hidden, model.feedForwardSize], layer.down)
      if let bias = layer.queryKeyValueBias {
        let keys = bias + model.queryWidth
        add("self_attn.q_proj", [model.queryWidth], bias, kind: "bias")
        add("self_attn.k_proj", [model.keyValueWidth], keys, kind: "bias")
        add("self_attn.v_proj", [model.keyValueWidth], keys + model.keyValueWidth, kind: "bias")
      }
      if let norms = layer.headNorms {
        add("self_attn.q_norm", [model.headDimension], norms.query)
        add("self_attn.k_norm", [model.headDimension], norms.key)
      }
    }
    all.append(Tensor(name: "model.norm.weight", shape: [hidden], offset: finalNorm))
    if !model.tiesEmbeddings {
      all.append(
        Tensor(name: "lm_head.weight", shape: [model.vocabularySize, hidden], offset: head))
    }
    return all
  }
}
