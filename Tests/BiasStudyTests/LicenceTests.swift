import BiasStudy
import StudyDocuments
import SweepCore
import Testing

/// What `biassweep tasks` says of licences against what the data manifest says of files.
struct LicenceTests {
  private static let licences = [
    "MIT", "Apache-2.0", "GPL-3.0", "GFDL-1.2-or-later", "CC-BY-4.0", "CC-BY-SA-4.0",
  ]

  /// The files whose text or numbers stand in the items of a task, or that its metrics read.
  private static func files(of task: TaskDefinition) -> [DataManifest.File] {
    var places: [(dataset: String, file: String)] = []
    switch task.data.source {
    case .dataset(let name, let file): places.append((name, file))
    case .collection(let name):
      places += TaskCollection(rawValue: name)?.files ?? []
      if ["people", "salaries"].contains(name) { places.append(("names", "nam_dict.txt")) }
    case .file: break
    }
    if task.metrics.contains(.sentiment) { places.append(("vader", "vader_lexicon.txt")) }
    return places.compactMap { DataManifest.entry($0.dataset, $0.file) }
  }

  @Test(arguments: TaskCatalogue.builtIn.definitions.map(\.id))
  func tasksNameTheLicencesOfTheirFiles(id: String) throws {
    let task = try #require(TaskCatalogue.builtIn[id])
    let files = Self.files(of: task)
    #expect(!files.isEmpty || id == "value-survey")
    for file in files {
      let own = Self.licences.filter { file.licence.contains($0) }
      #expect(!own.isEmpty, "\(file.licence)")
      for licence in own {
        #expect(task.origin.licence.contains(licence), "\(file.dataset)/\(file.file): \(licence)")
      }
    }
  }

  @Test func namesAndSentimentAreNamed() throws {
    let story = try #require(TaskCatalogue.builtIn["story"]).origin
    #expect(story.licence.contains("MIT (Faker, VADER)") && !story.licence.contains("GPL"))
    #expect(story.source.contains("Faker") && story.source.contains("vaderSentiment"))
    for id in ["story", "salary", "stance"] {
      let origin = try #require(TaskCatalogue.builtIn[id]).origin
      #expect(origin.licence.contains("GFDL-1.2-or-later (nam_dict.txt)"), "\(id)")
      #expect(origin.source.contains("nam_dict.txt"), "\(id)")
    }
  }
}
