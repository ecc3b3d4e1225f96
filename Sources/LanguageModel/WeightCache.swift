/// Dequantised weights on disk: one file per model, mapped read-only and so shared by all processes
/// of a machine.
///
/// File `<directory>/<digest>-v1.f32` (see `DigestedFile`): the Float32 elements in the order of
/// `ParameterLayout`, little-endian. Opening a file checks header, size and block digests; `verify`
/// also the elements.
package struct WeightCache: Sendable {
  /// Created when needed.
  package let directory: String

  package init(directory: String) { self.directory = directory }

  /// The file that holds the weights of a model.
  ///
  /// - Parameter digest: SHA-256 (hex) of the model's source.
  package func path(digest: String) -> String { "\(directory)/\(Self.name(digest))" }

  /// Maps the cached weights, after building the file if it is absent, damaged or foreign. Of
  /// several processes that need it at once one builds it, the others wait.
  ///
  /// - Parameter write: hands all tensors to its argument, with their offsets in elements.
  /// - Throws: `ModelFileError`, or what `write` throws.
  package func weights(
    digest: String, configuration: LlamaConfiguration,
    write: ((Int, UnsafeBufferPointer<Float>) throws -> Void) throws -> Void
  ) throws -> ModelWeights {
    let mapping = try file(digest, configuration).mappedOrBuilt(verifying: false) { sink in
      try write { offset, values in try sink(4 * offset, UnsafeRawBufferPointer(values)) }
    }
    return weights(mapping, digest, configuration)
  }

  /// Maps the cached weights; nil when the file is absent, or is not what it should be.
  ///
  /// - Throws: `ModelFileError.system` when the file cannot be read.
  package func cached(digest: String, configuration: LlamaConfiguration) throws -> ModelWeights? {
    try file(digest, configuration).mapped(verifying: false).map {
      weights($0, digest, configuration)
    }
  }

  /// Reads the whole file and compares every block with its digest. Takes a second for 500 MB.
  ///
  /// - Throws: `ModelFileError.notFound` when there is no file, `.malformed` with the offset of the
  ///   first damaged block. Deleting the file makes the next start rebuild it.
  package func verify(digest: String, configuration: LlamaConfiguration) throws {
    try file(digest, configuration).verify()
  }

  private static func name(_ digest: String) -> String { "\(digest)-v1.f32" }

  private func file(_ digest: String, _ configuration: LlamaConfiguration) -> DigestedFile {
    let elementCount = ParameterLayout(configuration).elementCount
    return DigestedFile(
      directory: directory, name: Self.name(digest),
      header: """
        biassweep weights 1
        source \(digest)
        \(configuration.shapeLines)
        elements \(elementCount) float32
        """, byteCount: 4 * elementCount)
  }

  private func weights(
    _ mapping: DigestedFile.Mapping, _ digest: String, _ configuration: LlamaConfiguration
  ) -> ModelWeights {
    ModelWeights(
      configuration: configuration, digest: digest,
      base: mapping.base.assumingMemoryBound(to: Float.self), isMapped: true,
      release: { withExtendedLifetime(mapping) {} })
  }
}

extension LlamaConfiguration {
  /// The shape in the headers of cache files: what tells weights of one layout from another.
  var shapeLines: String {
    """
    vocabulary \(vocabularySize)
    hidden \(hiddenSize)
    layers \(layerCount)
    heads \(headCount) \(keyValueHeadCount) \(headDimension)
    feed-forward \(feedForwardSize)
    tied \(tiesEmbeddings)
    """
  }
}
