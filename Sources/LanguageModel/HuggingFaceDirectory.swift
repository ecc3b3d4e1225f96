import Foundation

/// A Llama, Qwen2 or Qwen3 model in Hugging Face's layout: `config.json`, safetensors (one file, or several with an
/// index), and the tokenizer's files.
package struct HuggingFaceDirectory: Sendable {
  package let path: String
  package let configuration: LlamaConfiguration
  /// Safetensors files by name, in the order of their names.
  private let shards: [(name: String, file: SafetensorsFile)]
  /// Index into `shards` for every tensor.
  private let shardOfTensor: [String: Int]

  /// Reads the configuration and the headers of the weight files.
  ///
  /// - Throws: `ModelFileError`.
  package init(path: String) throws {
    self.path = path
    configuration = try HuggingFaceConfiguration.read(path + "/config.json")
    let index = path + "/model.safetensors.index.json"
    if FileManager.default.fileExists(atPath: index) {
      let weightMap = try decodeJSONFile(ShardIndex.self, at: index).weightMap
      let names = Set(weightMap.values).sorted()
      for name in names where name.contains("/") || name.isEmpty || name.hasPrefix(".") {
        throw ModelFileError.malformed(
          path: index, place: .key("weight_map"), problem: "\(name) is not a plain file name")
      }
      let shards = try names.map { (name: $0, file: try SafetensorsFile(path: "\(path)/\($0)")) }
      self.shards = shards
      shardOfTensor = try weightMap.reduce(into: [:]) { result, entry in
        let shard = names.firstIndex(of: entry.value)!
        guard shards[shard].file.shape(of: entry.key) != nil else {
          throw ModelFileError.missing(path: shards[shard].file.path, place: .tensor(entry.key))
        }
        result[entry.key] = shard
      }
    } else {
      let name = "model.safetensors"
      let file = try SafetensorsFile(path: "\(path)/\(name)")
      shards = [(name, file)]
      shardOfTensor = Dictionary(uniqueKeysWithValues: file.names.map { ($0, 0) })
    }
  }

  func parameterSource() throws -> ParameterSource {
    let directory = self
    return try ParameterSource(
      path: path, configuration: configuration, naming: .huggingFace,
      names: Array(shardOfTensor.keys)
    ) { name in
      guard let shard = directory.shardOfTensor[name] else {
        throw ModelFileError.missing(path: directory.path, place: .tensor(name))
      }
      let file = directory.shards[shard].file
      return (file.file, try file.storedTensor(name))
    }
  }

  /// The files that decide what the model computes, by name; the tokenizer's where they exist.
  var fileNames: [String] {
    let optional = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
    let present = optional.filter { FileManager.default.fileExists(atPath: "\(path)/\($0)") }
    return (["config.json"] + present + shards.map(\.name)).sorted()
  }

  /// All files that are needed to read the model: `fileNames`, and the index of several shards.
  var allFileNames: [String] {
    let index = "model.safetensors.index.json"
    let isThere = FileManager.default.fileExists(atPath: "\(path)/\(index)")
    return fileNames + (isThere ? [index] : [])
  }

  private struct ShardIndex: Decodable {
    var weightMap: [String: String]

    enum CodingKeys: String, CodingKey { case weightMap = "weight_map" }
  }
}
