import Foundation

/// The sweeps that come with the program.
package enum Preset: String, CaseIterable, Sendable {
  case smoke, quick, paper

  package var yaml: String {
    let bytes =
      switch self {
      case .smoke: PackageResources.smoke_yaml
      case .quick: PackageResources.quick_yaml
      case .paper: PackageResources.paper_yaml
      }
    return String(decoding: bytes, as: UTF8.self)
  }
}
