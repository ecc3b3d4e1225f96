import Foundation

/// How much memory this process may use.
enum MachineMemory {
  /// In bytes: the machine's, or the smallest limit of the control groups (version 2) that the
  /// process is in, as containers and batch systems set it.
  static var usableBytes: Int {
    let machine = Int(clamping: ProcessInfo.processInfo.physicalMemory)
    return controlGroups.compactMap { limit(in: $0) }.reduce(machine, min)
  }

  /// The process's control group and those around it.
  private static var controlGroups: [String] {
    let mount = "/sys/fs/cgroup"
    guard let text = try? String(contentsOfFile: "/proc/self/cgroup", encoding: .utf8),
      let line = text.split(separator: "\n").first(where: { $0.hasPrefix("0::/") })
    else { return [mount] }
    var path = mount
    var groups = [mount]
    for part in line.dropFirst(4).split(separator: "/") {
      path += "/\(part)"
      groups.append(path)
    }
    return groups
  }

  private static func limit(in group: String) -> Int? {
    let text = try? String(contentsOfFile: "\(group)/memory.max", encoding: .utf8)
    return text.flatMap { Int($0.trimmingCharacters(in: .whitespacesAndNewlines)) }
  }
}
