/// A Llama-family language model: weights, tokenizer and chat template. Immutable, and used by any
/// number of threads at once.
package final class LanguageModel: Sendable {
  /// The name of its file without extension, or of its directory.
  package let name: String
  package let weights: ModelWeights
  package let tokenizer: Tokenizer
  package let chatTemplate: ChatTemplate

  package var configuration: LlamaConfiguration { weights.configuration }

  /// - Throws: `ModelFileError` when the tokenizer and the weights do not fit together.
  init(name: String, weights: ModelWeights, vocabulary: TokenizerVocabulary) throws {
    self.name = name
    self.weights = weights
    tokenizer = try Tokenizer(vocabulary)
    guard tokenizer.tokenCount <= weights.configuration.vocabularySize else {
      throw ModelFileError.malformed(
        path: vocabulary.path, place: .file,
        problem: """
          the tokenizer has \(tokenizer.tokenCount) tokens, the model rows for \
          \(weights.configuration.vocabularySize)
          """)
    }
    chatTemplate = try ChatTemplate(
      source: vocabulary.chatTemplate, tokenizer: tokenizer, path: vocabulary.path)
  }

  /// A model of given weights, such as random ones, with the tokenizer of another.
  ///
  /// - Parameter path: a `.gguf` file, or a directory with `tokenizer.json`.
  /// - Throws: `ModelFileError`.
  package convenience init(
    name: String, weights: ModelWeights, tokenizerFrom path: String
  ) throws {
    try self.init(name: name, weights: weights, vocabulary: try TokenizerVocabulary(path: path))
  }

  /// Loads a model. The first time its weights are converted to Float32 and kept in
  /// `cacheDirectory`; from then on all processes map that file.
  ///
  /// - Parameter path: a `.gguf` file, or a Hugging Face directory (`config.json`,
  ///   `tokenizer.json`, safetensors).
  /// - Throws: `ModelFileError`.
  package static func load(from path: String, cacheDirectory: String) throws -> LanguageModel {
    let source = try ModelSource(path: path)
    return try LanguageModel(
      name: source.name, weights: try source.weights(cacheDirectory: cacheDirectory),
      vocabulary: try source.vocabulary())
  }

  /// The shape of a model, without loading its weights.
  ///
  /// - Throws: `ModelFileError`.
  package static func configuration(at path: String) throws -> LlamaConfiguration {
    try ModelSource(path: path).configuration
  }
}
