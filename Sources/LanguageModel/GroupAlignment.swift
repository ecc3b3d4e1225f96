/// The alignment term λ·‖m_o − m_a‖² between original and augmented items.
///
/// m_g is the mean over the batch's items of group g of φ(item), the mean of the item's final hidden
/// states. Where a batch holds n < 4 items of a group, a running mean fills up:
/// m = (n · batch mean + (4 − n) · running mean) / 4. The running mean is a constant in the gradient.
struct GroupAlignment: Sendable, Hashable {
  /// Items of a group from which on its mean stands for itself.
  static let itemsEnough = 4
  /// Share of the old value in each update of a running mean.
  static let inertia: Float = 0.9

  /// λ
  let weight: Float
  /// Running means of φ, by group; nil until a batch held an item of the group.
  private(set) var originalMean: [Float]?
  private(set) var augmentedMean: [Float]?

  init(weight: Float, originalMean: [Float]? = nil, augmentedMean: [Float]? = nil) {
    self.weight = weight
    self.originalMean = originalMean
    self.augmentedMean = augmentedMean
  }

  /// An item of a batch: its rows, which it may share with others, and its group.
  typealias Item = (rows: ArraySlice<Range<Int>>, group: Group)

  /// Memory of `apply`, used again by each call.
  struct Memory {
    /// Means over the items of a batch.
    fileprivate var original: [Float] = []
    fileprivate var augmented: [Float] = []
    /// m_o − m_a
    fileprivate var difference: [Float] = []
  }

  /// Value of the term for the items of a batch, whose final hidden states are `hidden`
  /// (rows, width); adds its gradient times `gradientScale` to `gradient` (rows, width), if given.
  ///
  /// With `updating`, the running means take in the batch afterwards.
  mutating func apply(
    items: [Item], hidden: UnsafePointer<Float>, width: Int,
    gradient: UnsafeMutablePointer<Float>?, gradientScale: Float = 1, updating: Bool = true,
    memory: inout Memory
  ) -> Double {
    let original = Part(
      items, .original, hasRunning: originalMean != nil, hidden: hidden, width: width,
      mean: &memory.original)
    let augmented = Part(
      items, .augmented, hasRunning: augmentedMean != nil, hidden: hidden, width: width,
      mean: &memory.augmented)
    let isDefined = original.hasMean && augmented.hasMean
    if isDefined {
      memory.difference.removeAll(keepingCapacity: true)
      for column in 0..<width {
        memory.difference.append(
          original.mean(column, batch: memory.original, running: originalMean)
            - augmented.mean(column, batch: memory.augmented, running: augmentedMean))
      }
    }
    if updating {
      original.update(&originalMean, with: memory.original)
      augmented.update(&augmentedMean, with: memory.augmented)
    }
    guard isDefined else { return 0 }
    if let gradient {
      // Groups one after the other: items of both may share rows.
      original.addGradient(
        items, .original, 2 * weight * gradientScale, memory.difference, to: gradient)
      augmented.addGradient(
        items, .augmented, -2 * weight * gradientScale, memory.difference, to: gradient)
    }
    let value = memory.difference.reduce(0.0) { $0 + Double($1) * Double($1) }
    return Double(weight) * value
  }

  private static func rowCount(_ rows: ArraySlice<Range<Int>>) -> Int {
    rows.reduce(0) { $0 + $1.count }
  }

  /// One group's share in a batch.
  private struct Part {
    let itemCount: Int
    let hasRunning: Bool

    /// Writes the mean of φ over the group's items to `mean`, if there are any.
    init(
      _ items: [Item], _ group: Group, hasRunning: Bool, hidden: UnsafePointer<Float>, width: Int,
      mean: inout [Float]
    ) {
      itemCount = items.count(where: { $0.group == group })
      self.hasRunning = hasRunning
      mean.removeAll(keepingCapacity: true)
      guard itemCount > 0 else { return }
      for _ in 0..<width { mean.append(0) }
      for item in items where item.group == group {
        let share = 1 / (Float(itemCount) * Float(GroupAlignment.rowCount(item.rows)))
        for row in item.rows.joined() {
          for column in 0..<width { mean[column] += share * hidden[row * width + column] }
        }
      }
    }

    /// Weight of the running mean, in items.
    private var filling: Float {
      hasRunning ? Float(max(0, GroupAlignment.itemsEnough - itemCount)) : 0
    }

    var denominator: Float { Float(itemCount) + filling }

    /// Whether an item of the group was ever seen.
    var hasMean: Bool { itemCount > 0 || hasRunning }

    /// An element of m of the group.
    func mean(_ column: Int, batch: [Float], running: [Float]?) -> Float {
      guard let running else { return batch[column] }
      if itemCount == 0 { return running[column] }
      if filling == 0 { return batch[column] }
      return (Float(itemCount) * batch[column] + filling * running[column]) / denominator
    }

    /// Adds the gradient of `scale` / 2 · ‖difference‖² through the group's mean.
    func addGradient(
      _ items: [Item], _ group: Group, _ scale: Float, _ difference: [Float],
      to gradient: UnsafeMutablePointer<Float>
    ) {
      let width = difference.count
      for item in items where item.group == group {
        let factor = scale / (denominator * Float(GroupAlignment.rowCount(item.rows)))
        for row in item.rows.joined() {
          let to = gradient + row * width
          for column in 0..<width { to[column] += factor * difference[column] }
        }
      }
    }

    /// Takes the batch's mean into the running one.
    func update(_ running: inout [Float]?, with batch: [Float]) {
      guard itemCount > 0 else { return }
      guard var mean = running else {
        // A copy: the batch's memory is used again.
        running = batch.map { $0 }
        return
      }
      // Taken out, so that it is changed in place.
      running = nil
      for column in batch.indices {
        mean[column] =
          GroupAlignment.inertia * mean[column] + (1 - GroupAlignment.inertia) * batch[column]
      }
      running = mean
    }
  }
}
