import HeapModule

/// Shards that may be leased now, in buckets of shards that are alike for a worker: equal class,
/// data and cost. There are as many buckets as ratios, domains and biases make, however many
/// shards a sweep has; so the best shard for a worker is found by looking at the buckets' heads.
struct ReadyQueue: Sendable {
  struct Bucket: Sendable {
    let shardClass: ShardClass
    let cost: Double
    /// Number of the data that the bucket's shards share.
    let data: Int
    /// Length of the longest chain of shards that wait for these, one for the other.
    let followers: Int
    fileprivate(set) var entries = Heap<Entry>()
  }

  struct Entry: Comparable, Sendable {
    let priority: Int
    let ordinal: Int
    /// More important first, then in the order of the plan.
    static func < (left: Entry, right: Entry) -> Bool {
      (right.priority, left.ordinal) < (left.priority, right.ordinal)
    }
  }

  private(set) var buckets: [Bucket] = []
  private let bucketOf: [Int]
  /// Buckets that have entries, which may be outdated.
  private(set) var occupied: Set<Int> = []

  /// What shards must share for a worker to gain from running one after the other.
  private enum DataGroup: Hashable {
    /// The augmented data that the shard of that ordinal makes.
    case product(of: Int)
    /// The domain's original data, with their cached activations.
    case original(Domain)
  }

  /// - Parameter dependencies: ordinals of the shards that each shard waits for; nil for none.
  init(_ shards: [Shard], dependencies: [Int?]) {
    struct Key: Hashable {
      let shardClass: ShardClass
      let cost: Double
      let data: Int
      let followers: Int
    }
    let followers = Self.followers(dependencies)
    var users = Array(repeating: 0, count: shards.count)
    for case let needed? in dependencies { users[needed] += 1 }
    var dataNumbers: [DataGroup: Int] = [:]
    var numbers: [Key: Int] = [:]
    var bucketOf: [Int] = []
    bucketOf.reserveCapacity(shards.count)
    for (ordinal, shard) in shards.enumerated() {
      let shardClass = ShardClass(shard)
      // From the second round on nobody shares a set; then there would be a bucket for every shard.
      let shared = dependencies[ordinal].flatMap { users[$0] > 1 ? $0 : nil }
      let group = shared.map { DataGroup.product(of: $0) } ?? .original(shardClass.domain)
      let data = dataNumbers[group, default: dataNumbers.count]
      dataNumbers[group] = data
      let key = Key(
        shardClass: shardClass, cost: shard.cost, data: data, followers: followers[ordinal])
      let number = numbers[key, default: buckets.count]
      if number == buckets.count {
        numbers[key] = number
        buckets.append(
          Bucket(shardClass: shardClass, cost: key.cost, data: data, followers: key.followers))
      }
      bucketOf.append(number)
    }
    self.bucketOf = bucketOf
  }

  /// The longest chain that waits for each shard. A shard comes after the one that it waits for, so
  /// going backwards meets the end of every chain first.
  private static func followers(_ dependencies: [Int?]) -> [Int] {
    var followers = Array(repeating: 0, count: dependencies.count)
    for ordinal in dependencies.indices.reversed() {
      guard let needed = dependencies[ordinal] else { continue }
      precondition(needed < ordinal, "shard \(ordinal) waits for a later one, \(needed)")
      followers[needed] = max(followers[needed], followers[ordinal] + 1)
    }
    return followers
  }

  var isEmpty: Bool { occupied.isEmpty }

  /// The data that a shard's bucket shares.
  func data(of ordinal: Int) -> Int { buckets[bucketOf[ordinal]].data }

  mutating func insert(_ ordinal: Int, priority: Int) {
    let bucket = bucketOf[ordinal]
    buckets[bucket].entries.insert(Entry(priority: priority, ordinal: ordinal))
    occupied.insert(bucket)
  }

  mutating func removeAll() {
    for bucket in occupied { buckets[bucket].entries = Heap() }
    occupied = []
  }

  func head(of bucket: Int) -> Entry? { buckets[bucket].entries.min }

  mutating func popHead(of bucket: Int) {
    buckets[bucket].entries.removeMin()
    if buckets[bucket].entries.isEmpty { occupied.remove(bucket) }
  }

  /// Takes an entry that `head` gave, or one near it.
  mutating func remove(_ entry: Entry, from bucket: Int) {
    var before: [Entry] = []
    while let head = head(of: bucket), head < entry {
      before.append(head)
      popHead(of: bucket)
    }
    if head(of: bucket) == entry { popHead(of: bucket) }
    for other in before { insert(other.ordinal, priority: other.priority) }
  }

  /// All ordinals in the queue, for checks.
  var ordinals: [Int] { buckets.flatMap { $0.entries.unordered.map(\.ordinal) } }
}
