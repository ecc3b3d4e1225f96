/// What operators see of the workers.
extension Scheduler {
  /// A worker that takes part in the sweep now.
  package struct Presence: Sendable {
    /// False while its connection is broken and its leases still stand.
    package let isConnected: Bool
    /// Its shards, in the order of their leases.
    package let leases: [(shard: ShardID, lease: Lease)]
  }

  /// Workers that are connected or awaited, by their names.
  package var presences: [String: Presence] {
    workers.mapValues { worker in
      Presence(
        isConnected: worker.connection != nil,
        leases: worker.leases.sorted().compactMap { token in
          live[token].map { (records[$0.ordinal].shard.id, $0.lease) }
        })
    }
  }
}
