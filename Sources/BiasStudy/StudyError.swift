/// Why the study cannot be carried out.
package enum StudyError: Error, Equatable, CustomStringConvertible {
  /// A data file is not in the cache.
  case missingFile(path: String, dataset: String)
  /// A user's data file is not in the cache.
  case missingTaskFile(path: String, name: String)
  /// A user's data file in the cache does not have its digest.
  case damagedTaskFile(path: String, name: String)
  /// A task names a file that the data manifest does not have.
  case unknownFile(dataset: String, file: String)
  /// A task names a collection that there is not.
  case unknownCollection(name: String, task: String)
  /// A data file is there but cannot be read.
  case unreadableFile(path: String, reason: String)
  /// A data file is not the one that the manifest names.
  case wrongDigest(path: String, dataset: String, expected: String, found: String)
  /// A line of a data file or of a resource is not as its format asks.
  case malformed(file: String, line: Int, problem: String)
  /// A data set has fewer usable items than the sweep asks for.
  case tooFewItems(what: String, available: Int, needed: Int, key: String)
  /// A trial names a task that this version does not implement.
  case unknownTask(id: String)
  /// The generator wrote nothing usable for an item of augmented data.
  case nothingGenerated(item: Int, request: String, attempts: Int)
  /// A chat model named no choice for the label of an item of augmented data.
  case noLabel(item: Int, choices: [String], reply: String, attempts: Int)
  /// The sweep's generator is a server, but this process has no connection to it.
  case noEndpoint
  /// The fine-tune that writes a D_a left no parameters, or a worker got none.
  case noParameters(fineTune: String)
  /// The parameters of the fine-tune that writes a D_a cannot be used.
  case unusableParameters(fineTune: String, reason: String)
  /// Augmented data are missing or fewer than the ratio needs.
  case tooFewAugmented(available: Int, needed: Int)
  /// The caller asked to stop.
  case cancelled

  package var description: String {
    switch self {
    case .missingFile(let path, let dataset):
      "The data file \(path) is missing. Run `scripts/fetch-data \(dataset)` to fetch it."
    case .missingTaskFile(let path, let name):
      "The data file \(name) of a task is not at \(path). Start the sweep once more with the same "
        + "--tasks directory, which puts it there."
    case .damagedTaskFile(let path, let name):
      "The copy \(path) of the data file \(name) is damaged. Delete it, and start the sweep once "
        + "more with the same --tasks directory."
    case .unknownFile(let dataset, let file):
      "A task reads \(dataset)/\(file), which is not in the data manifest (`scripts/fetch-data "
        + "--list` shows what is)."
    case .unknownCollection(let name, let task):
      "The task \(task) reads the collection \(name); there are "
        + TaskCollection.allCases.map(\.rawValue).joined(separator: ", ") + "."
    case .unreadableFile(let path, let reason):
      "The data file \(path) cannot be read: \(reason). Check its permissions."
    case .wrongDigest(let path, let dataset, let expected, let found):
      "The data file \(path) has SHA-256 \(found), expected \(expected): it is damaged or of "
        + "another version. Run `scripts/fetch-data --verify \(dataset)` to fetch it again."
    case .malformed(let file, let line, let problem):
      "\(file), line \(line): \(problem)."
    case .tooFewItems(let what, let available, let needed, let key):
      "The sweep needs \(needed) \(what), but the data have \(available). Lower `\(key)`."
    case .unknownTask(let id):
      "The task \(id) is unknown to this version of BiasSweep. Use the same version everywhere."
    case .nothingGenerated(let item, let request, let attempts):
      "The generator wrote no usable text for augmented item \(item) in \(attempts) attempts "
        + "(asked: \(request)). Use a stronger model, or raise augmentation.maximum_tokens."
    case .noLabel(let item, let choices, let reply, let attempts):
      "Asked for one of \"\(choices.joined(separator: "\", \""))\" as the label of augmented item "
        + "\(item), the generator named none in \(attempts) attempts (its last reply: "
        + "\"\(reply.prefix(80))\"). Use a stronger model."
    case .noEndpoint:
      "The sweep's generator is a server (augmentation.generator: endpoint), which this program "
        + "does not connect to. Generate with `biassweep run` or `biassweep worker`."
    case .noParameters(let fineTune):
      "The augmented data are to be written by the fine-tune \(fineTune), but its trained parameters "
        + "are not there. They are the artifact of that shard."
    case .unusableParameters(let fineTune, let reason):
      "The trained parameters of \(fineTune), which is to write augmented data, cannot be used: "
        + "\(reason)."
    case .tooFewAugmented(let available, let needed):
      "The fine-tune needs \(needed) augmented items, but the artifact holds \(available). "
        + "The artifact belongs to another sweep; generate it again."
    case .cancelled:
      "The shard was stopped on request."
    }
  }
}
