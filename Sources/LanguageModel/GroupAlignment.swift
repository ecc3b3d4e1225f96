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

  /// Value of the term for the items of a batch, whose final hidden states are `hidden`
  /// (rows, width); adds its gradient times `gradientScale` to `gradient` (rows, width), if given.
  ///
  /// With `updating`, the running means take in the batch afterwards.
  mutating func apply(
    items: [Item], hidden: UnsafePointer<Float>, width: Int,
    gradient: UnsafeMutablePointer<Float>?, gradientScale: Float = 1, updating: Bool = true
  ) -> Double {
    let original = Part(items, .original, running: originalMean, hidden: hidden, width: width)
    let augmented = Part(items, .augmented, running: augmentedMean, hidden: hidden, width: width)
    if updating {
      originalMean = original.updatedRunningMean
      augmentedMean = augmented.updatedRunningMean
    }
    guard let first = original.mean, let second = augmented.mean else { return 0 }
    let difference = zip(first, second).map { $0 - $1 }
    let value = difference.reduce(0.0) { $0 + Double($1) * Double($1) }
    if let gradient {
      for (part, sign) in [(original, Float(1)), (augmented, Float(-1))] {
        for rows in part.items {
          let count = rows.reduce(0) { $0 + $1.count }
          let factor = sign * 2 * weight * gradientScale / (part.denominator * Float(count))
          for row in rows.joined() {
            let to = gradient + row * width
            for column in 0..<width { to[column] += factor * difference[column] }
          }
        }
      }
    }
    return Double(weight) * value
  }

  /// One group's share in a batch.
  private struct Part {
    let items: [ArraySlice<Range<Int>>]
    /// Mean of φ over `items`; nil if there are none.
    let batchMean: [Float]?
    let running: [Float]?

    init(
      _ all: [Item], _ group: Group, running: [Float]?,
      hidden: UnsafePointer<Float>, width: Int
    ) {
      items = all.filter { $0.group == group }.map(\.rows)
      self.running = running
      guard !items.isEmpty else {
        batchMean = nil
        return
      }
      var mean = [Float](repeating: 0, count: width)
      for rows in items {
        let count = rows.reduce(0) { $0 + $1.count }
        let share = 1 / (Float(items.count) * Float(count))
        for row in rows.joined() {
          for column in 0..<width { mean[column] += share * hidden[row * width + column] }
        }
      }
      batchMean = mean
    }

    /// Weight of the running mean, in items.
    private var filling: Float {
      running == nil ? 0 : Float(max(0, GroupAlignment.itemsEnough - items.count))
    }

    var denominator: Float { Float(items.count) + filling }

    /// m of the group; nil while no item of it was seen.
    var mean: [Float]? {
      guard let batchMean else { return running }
      guard let running, filling > 0 else { return batchMean }
      return zip(batchMean, running).map {
        (Float(items.count) * $0 + filling * $1) / denominator
      }
    }

    var updatedRunningMean: [Float]? {
      guard let batchMean else { return running }
      guard let running else { return batchMean }
      return zip(running, batchMean).map {
        GroupAlignment.inertia * $0 + (1 - GroupAlignment.inertia) * $1
      }
    }
  }
}
