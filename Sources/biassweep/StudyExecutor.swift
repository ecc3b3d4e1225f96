import BiasStudy
import ChatEndpoint
import Foundation
import LanguageModel
import Logging
import SweepCore
import SweepWorker
import Synchronization
import TransformerKernels

/// Connects a worker to the study: loads model and data once, and keeps one runner for each slot.
final class StudyExecutor: Sendable {
  private let threads: Int
  private let slots: Int
  private let trunkBytes: Int
  private let logger: Logger
  private let kept: KeptFineTunes
  private let runners = Mutex<[Runner]>([])
  /// Fine-tunes whose parameters are kept, because a later round or somebody needs them; known once
  /// the spec is.
  private let keptShards = Mutex<Set<ShardID>>([])
  /// The server that writes D_a, if one does: one for all slots, as its limits are the worker's.
  private let chat = Mutex<ChatEndpoint?>(nil)
  /// Version and spec: a checkpoint of others is not continued from.
  private let work = Mutex("")

  /// A runner is used by one shard at a time: it is out of the list meanwhile.
  private struct Runner: @unchecked Sendable {
    let runner: ShardRunner
  }

  /// - Parameters:
  ///   - threads: of each shard.
  ///   - slots: shards at once.
  ///   - trunkBytes: most disk space for outputs of frozen layers, 0 for none.
  ///   - kept: fine-tunes whose parameters become artifacts besides those that a later round needs.
  init(threads: Int, slots: Int, trunkBytes: Int, kept: KeptFineTunes, logger: Logger) {
    self.threads = threads
    self.slots = slots
    self.trunkBytes = trunkBytes
    self.kept = kept
    self.logger = logger
  }

  var shardExecutor: ShardExecutor {
    ShardExecutor(
      prepare: { try self.prepare($0, $1) },
      execute: { try self.execute($0, $1) })
  }

  private func prepare(
    _ spec: SweepSpec, _ source: InputSource
  ) throws -> [String: String] {
    let inputs = StudyInputs(spec: spec)
    let model = try LanguageModel.load(
      from: try inputs.modelPath(from: source), cacheDirectory: Cache.root)
    let tasks = spec.definedTasks.map(\.task)
    let trunkCache = ShardRunner.trunkCache(store: trunkStore)
    let store = try inputs.dataStore(from: source)
    let digest = try spec.digest()
    // A missing key is known before the first shard.
    let endpoint = try spec.augmentation.endpoint.map { try chatEndpoint($0) }
    chat.withLock { $0 = endpoint }
    work.withLock { $0 = "BiasSweep \(BiasSweep.version) \(digest)" }
    let loaded = try (0..<slots).map { _ in
      Runner(
        runner: try ShardRunner(
          spec: spec, tasks: tasks, model: model, store: store, threads: threads,
          trunkCache: trunkCache))
    }
    runners.withLock { $0 = loaded }
    let plan = ShardPlan(spec: spec, tasks: tasks)
    let chosen = plan.shards.filter { !$0.trials.isEmpty }.prefix(kept.limit).map(\.id)
    keptShards.withLock { $0 = plan.writers.union(chosen) }
    return [
      "arithmetic": MultiplicationBackend.arithmetic,
      "model": model.weights.digest,
      "data": DataManifest.digest(of: spec.definedTasks).description,
    ]
  }

  private var trunkStore: TrunkStore? {
    guard trunkBytes > 0 else { return nil }
    return TrunkStore(directory: Cache.trunk, byteLimit: trunkBytes) { [logger] reason in
      logger.warning("trunk cache not writable", metadata: ["reason": "\(reason)"])
    }
  }

  private func execute(
    _ assignment: ShardAssignment, _ control: ShardControl
  ) throws -> ShardProduct {
    guard let runner = runners.withLock({ $0.popLast() }) else {
      throw InfrastructureError(description: "more shards at once than this worker has slots")
    }
    defer { runners.withLock { $0.append(runner) } }
    let progress = { (progress: ShardProgress) in
      control.report(fraction: progress.fraction, tokens: progress.tokens)
    }
    let checkpoint = checkpoint(assignment, control)
    do {
      switch assignment.shard.work {
      case .augmentation(let key, let items):
        let (jsonl, facts) = try runner.runner.augment(
          key, items: items, writtenBy: assignment.input, chat: chat.withLock { $0 },
          checkpoint: checkpoint, progress: progress, shouldStop: { control.isCancelled })
        return ShardProduct(artifact: jsonl, facts: facts)
      case .fineTune(let key, _):
        var parameters: [UInt8]?
        let keeps = keptShards.withLock { $0.contains(assignment.shard.id) }
        let facts = try runner.runner.fineTune(
          key, augmentation: assignment.input, trials: assignment.trials,
          checkpoint: checkpoint, progress: progress, shouldStop: { control.isCancelled },
          keep: keeps ? { parameters = try $0.encoded() } : nil
        ) { result in
          control.complete(
            result.trial, metrics: result.metrics, notes: result.notes, items: result.items)
        }
        return ShardProduct(artifact: parameters, facts: facts)
      }
    } catch StudyError.cancelled {
      throw CancellationError()
    }
  }

  private func chatEndpoint(_ settings: SweepSpec.Augmentation.Endpoint) throws -> ChatEndpoint {
    try ChatEndpoint(
      settings: settings, environment: ProcessInfo.processInfo.environment
    ) { [logger] failed in
      logger.debug(
        "request to the generator failed",
        metadata: [
          "endpoint.url": "\(settings.url)", "failure": "\(failed.failure)",
          "retry.seconds": "\(failed.delaySeconds.map { "\($0)" } ?? "none")",
          "try": "\(failed.number)",
        ])
    }
  }

  private func checkpoint(
    _ assignment: ShardAssignment, _ control: ShardControl
  ) -> ShardCheckpoint? {
    assignment.checkpoint.map { files in
      ShardCheckpoint(
        path: files.path, alternatives: files.alternatives, interval: files.interval,
        purpose: "\(work.withLock { $0 }) \(assignment.shard.id)"
      ) { event in
        switch event {
        case .written:
          control.checkpointed(files.path)
        case .resumed(let done, let path):
          control.log(
            "resumed from a checkpoint",
            ["done": "\(done)", "of": assignment.shard.checkpointUnit, "path": path])
        case .unusable(let reason):
          control.log("checkpoint unusable, not continued from", ["reason": reason])
        case .notWritten(let reason):
          control.log("checkpoint not written", ["reason": reason])
        }
      }
    }
  }
}

extension Shard {
  /// What a checkpoint of the shard counts.
  fileprivate var checkpointUnit: String {
    switch work {
    case .augmentation: "texts"
    case .fineTune: "steps"
    }
  }
}

/// Where models, weights and data are kept: `$BIASSWEEP_CACHE`, or the user's cache directory.
enum Cache {
  static func directory(_ part: String) -> String { root + "/" + part }

  /// Outputs of frozen layers, shared by all workers of the machine.
  static var trunk: String { directory("trunk") }

  static var root: String {
    let environment = ProcessInfo.processInfo.environment
    func value(_ name: String) -> String? { environment[name].flatMap { $0.isEmpty ? nil : $0 } }
    return value("BIASSWEEP_CACHE")
      ?? (value("XDG_CACHE_HOME") ?? NSHomeDirectory() + "/.cache") + "/biassweep"
  }
}

/// The file or directory that a spec's `model` stands for.
struct ModelLocation {
  let path: String

  /// - Throws: `InfrastructureError` when there is none.
  init(_ name: String) throws {
    let candidates =
      name.contains("/") ? [name] : try Self.inCache(name).map { Cache.directory("models/\($0)") }
    guard let path = candidates.first(where: { FileManager.default.fileExists(atPath: $0) }) else {
      throw InfrastructureError(
        description: name.contains("/")
          ? "There is no model at \(name). The spec's `model` is a name in the cache or the path "
            + "of a GGUF file or Hugging Face directory."
          : "The model \(name) is not in \(Cache.directory("models")). Fetch it with "
            + "`scripts/fetch-model`, or give the path of a GGUF file or Hugging Face directory.")
    }
    self.path = path
  }

  /// Names in the cache that start with the model's: `NAME`, `NAME.gguf`, `NAME.Q4_1.gguf`.
  private static func inCache(_ name: String) throws -> [String] {
    let all =
      (try? FileManager.default.contentsOfDirectory(atPath: Cache.directory("models"))) ?? []
    return all.filter { $0 == name || ($0.hasPrefix(name + ".") && $0.hasSuffix(".gguf")) }.sorted()
  }
}
