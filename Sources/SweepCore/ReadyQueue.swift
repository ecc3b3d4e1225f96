import HeapModule

/// Shards that may be leased now, in buckets of shards that are alike for a worker: equal class,
/// data and cost. There are as many buckets as ratios, domains and biases make, however many
/// shards a sweep has; so the best shard for a worker is found by looking at the buckets' heads.
struct ReadyQueue: Sendable {
  struct Bucket: Sendable {
    let shardClass: ShardClass
    let cost: Double
    /// Number of the data that the bucket's shards share; see `dataGroup`.
    let data: Int
    /// Whether other shards wait for these.
    let unblocks: Bool
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

  init(_ shards: [Shard]) {
    struct Key: Hashable {
      let shardClass: ShardClass
      let cost: Double
      let data: Int
      let unblocks: Bool
    }
    let needed = Set(shards.compactMap(\.dependency))
    var dataNumbers: [String: Int] = [:]
    var numbers: [Key: Int] = [:]
    var bucketOf: [Int] = []
    for shard in shards {
      let group = Self.dataGroup(shard)
      let data = dataNumbers[group, default: dataNumbers.count]
      dataNumbers[group] = data
      let key = Key(
        shardClass: ShardClass(shard), cost: shard.cost, data: data,
        unblocks: needed.contains(shard.id))
      if numbers[key] == nil {
        numbers[key] = buckets.count
        buckets.append(
          Bucket(
            shardClass: key.shardClass, cost: key.cost, data: data, unblocks: key.unblocks))
      }
      bucketOf.append(numbers[key, default: 0])
    }
    self.bucketOf = bucketOf
  }

  /// What shards must share for a worker to gain from running one after the other: the augmented
  /// data, or without such the domain's original data with their cached activations.
  private static func dataGroup(_ shard: Shard) -> String {
    shard.dependency?.description ?? "\(ShardClass(shard).domain.rawValue)"
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
