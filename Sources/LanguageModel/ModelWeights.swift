#if canImport(Darwin)
  import Darwin
#else
  import Glibc
#endif

/// Where each parameter tensor lies in one flat Float32 region, in elements.
///
/// Weights, gradients and optimizer moments of full fine-tuning all use this layout, so that a
/// tensor is found at the same offset in each of them. Query, key and value rows are adjacent, and
/// so are gate and up rows: each group is one matrix for GEMM. Every tensor starts at a multiple of
/// 16 elements (64 bytes).
package struct ParameterLayout: Sendable, Hashable {
  /// Offsets of the tensors of one decoder layer.
  package struct Layer: Sendable, Hashable {
    /// (hidden)
    package var attentionNorm: Int
    /// (queryWidth + 2 · keyValueWidth, hidden): the rows of q, then k, then v.
    package var queryKeyValue: Int
    /// (hidden, queryWidth)
    package var attentionOutput: Int
    /// (hidden)
    package var feedForwardNorm: Int
    /// (2 · feedForward, hidden): the rows of gate, then up.
    package var gateUp: Int
    /// (hidden, feedForward)
    package var down: Int
    /// (queryWidth + 2 · keyValueWidth); nil for models without these biases.
    package var queryKeyValueBias: Int?
    /// (headDimension) each; nil for models whose heads are not normalised.
    package var headNorms: HeadNorms?
  }

  /// Offsets of the weights that normalise the heads of one layer.
  package struct HeadNorms: Sendable, Hashable {
    package var query: Int
    package var key: Int
  }

  /// (vocabulary, hidden)
  package let embedding: Int
  package let layers: [Layer]
  /// (hidden)
  package let finalNorm: Int
  /// (vocabulary, hidden); equals `embedding` when the head is tied.
  package let head: Int
  /// Number of elements of the whole region, alignment gaps included.
  package let elementCount: Int

  package init(_ configuration: LlamaConfiguration) {
    var next = 0
    func place(_ count: Int) -> Int {
      let offset = next
      next += (count + 15) / 16 * 16
      return offset
    }
    let hidden = configuration.hiddenSize
    let queryKeyValueRows = configuration.queryWidth + 2 * configuration.keyValueWidth
    embedding = place(configuration.vocabularySize * hidden)
    layers = (0..<configuration.layerCount).map { _ in
      Layer(
        attentionNorm: place(hidden),
        queryKeyValue: place(queryKeyValueRows * hidden),
        attentionOutput: place(hidden * configuration.queryWidth),
        feedForwardNorm: place(hidden),
        gateUp: place(2 * configuration.feedForwardSize * hidden),
        down: place(hidden * configuration.feedForwardSize),
        queryKeyValueBias: configuration.hasQueryKeyValueBias ? place(queryKeyValueRows) : nil,
        headNorms: configuration.normalizesHeads
          ? HeadNorms(
            query: place(configuration.headDimension), key: place(configuration.headDimension))
          : nil)
    }
    finalNorm = place(hidden)
    head =
      configuration.tiesEmbeddings ? embedding : place(configuration.vocabularySize * hidden)
    elementCount = next
  }

  /// Where the weights lie that fine-tuning the layers from `lowest` on changes: theirs and the
  /// final normalisation.
  func upperLayers(from lowest: Int) -> Range<Int> {
    layers[lowest].attentionNorm..<(head > finalNorm ? head : elementCount)
  }
}

/// Weights in place of those in a part of the base model's region.
struct ChangedWeights {
  /// The part of the region, in elements of `ParameterLayout`.
  let range: Range<Int>
  /// `range.count` elements.
  let base: UnsafePointer<Float>
}

/// The weights of a decoder in Float32, read-only and shared by every thread (and, when mapped from
/// a file, by every process of the machine).
package final class ModelWeights: @unchecked Sendable {
  package let configuration: LlamaConfiguration
  package let layout: ParameterLayout
  /// SHA-256 (hex) of the file or files that the weights came from.
  package let digest: String
  /// `layout.elementCount` elements. Immutable for the lifetime of the object, hence Sendable.
  package let base: UnsafePointer<Float>
  /// The matrices among them in fewer bits, for forward passes; nil when there are none.
  package let compressed: CompressedWeights?
  /// Whether the region is a file mapped read-only.
  private let isMapped: Bool
  private let release: @Sendable () -> Void

  /// - Parameters:
  ///   - compressed: expands to the same weights.
  ///   - isMapped: whether the region is a file mapped read-only and shared.
  ///   - release: frees or unmaps the region behind `base`; called once.
  package init(
    configuration: LlamaConfiguration, digest: String, base: UnsafePointer<Float>,
    compressed: CompressedWeights? = nil, isMapped: Bool = false,
    release: @escaping @Sendable () -> Void
  ) {
    self.configuration = configuration
    self.layout = ParameterLayout(configuration)
    self.digest = digest
    self.base = base
    self.compressed = compressed
    self.isMapped = isMapped
    self.release = release
  }

  deinit { release() }

  /// Says that `range` of the region will not be read soon, because there is a copy: pages of a mapped
  /// file then count for this process no longer. Reading them later brings them back.
  func releasePages(of range: Range<Int>) {
    guard isMapped else { return }
    let page = Int(sysconf(Int32(_SC_PAGESIZE)))
    let first = (UInt(bitPattern: base + range.lowerBound) + UInt(page) - 1) / UInt(page)
    let end = UInt(bitPattern: base + range.upperBound) / UInt(page)
    guard first < end, let start = UnsafeMutableRawPointer(bitPattern: first * UInt(page)) else {
      return
    }
    madvise(start, Int(end - first) * page, Int32(MADV_DONTNEED))
  }

  /// The same weights with their compressed form.
  func with(_ compressed: CompressedWeights?) -> ModelWeights {
    ModelWeights(
      configuration: configuration, digest: digest, base: base, compressed: compressed,
      isMapped: isMapped, release: { withExtendedLifetime(self) {} })
  }
}
