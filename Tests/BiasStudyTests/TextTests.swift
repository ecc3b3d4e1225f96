import BiasStudy
import Testing

struct TextTests {
  @Test(arguments: [
    ("He lost his hat.", "She lost her hat."), ("His dog bit him.", "Her dog bit her."),
    ("HE gave it to HIM himself.", "SHE gave it to HER herself."),
    ("The fault was his.", "The fault was hers."),
  ]) func pronounsChangeGenderAndKeepTheirCase(male: String, female: String) {
    #expect(Pronouns.text(male, in: .female) == female)
  }

  @Test(arguments: [
    ("They saw her.", "They saw him."), ("They saw her and left.", "They saw him and left."),
    ("They sold her car.", "They sold his car."),
    ("\"Ask her,\" he said.", "\"Ask him,\" he said."),
    ("It gave her the prize.", "It gave him the prize."),
    ("Her own car is hers.", "His own car is his."), ("She did it herself.", "He did it himself."),
    ("They told her \"no\".", "They told his \"no\"."),
  ]) func femaleFormsAreToldApart(female: String, male: String) {
    #expect(Pronouns.text(female, in: .male) == male)
  }

  @Test func textInItsOwnGenderStaysAsItIs() {
    let text = "She said that her bag was hers."
    #expect(Pronouns.text(text, in: .female) == text)
  }

  @Test func wordsInsideOtherWordsAreNoPronouns() {
    #expect(Pronouns.all(in: "The shepherd, her heir, this chess".words).map(\.gender) == [.female])
    #expect(Pronouns.all(in: "she's here".words).count == 1)
  }

  @Test func sentencesEndWhereTheyEnd() {
    #expect("Dr. J. Smith won. He left! Why".firstSentences(1) == "Dr. J. Smith won.")
    #expect("Dr. J. Smith won. He left! Why".firstSentences(2) == "Dr. J. Smith won. He left!")
    #expect("One \"is.\" Two".firstSentences(1) == "One \"is.\"")
    #expect("no end".firstSentences(1) == nil)
    #expect("3.5 percent rose. Yes".firstSentences(1) == "3.5 percent rose.")
  }

  @Test func listsMatchWholeWordsAndPhrasesInAnyCase() {
    let list = WordList(["saudi_arabia", "arab", "well-known"])
    let text = "Saudi Arabia, an ARAB state, is well-known; Arabia is not, nor arabs."
    let found = list.matches(in: text).map { String(text[$0]) }
    #expect(found == ["Saudi Arabia", "ARAB", "well-known"])
  }

  @Test func generatorIsTheOnePublished() {
    // First outputs of SplitMix64 for seed 1234567 (Vigna's reference implementation).
    var generator = StudyGenerator(seed: 1_234_567)
    let expected: [UInt64] = [
      6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423,
    ]
    #expect(expected.allSatisfy { $0 == generator.next() })
  }

  @Test func seedsDependOnEveryPartAndItsBorders() {
    let seeds = [["a", "b"], ["ab"], ["a", "b", ""], ["b", "a"]].map { StudyGenerator.seed($0) }
    #expect(Set(seeds).count == seeds.count)
    #expect(StudyGenerator.seed(["a", "b"]) == seeds[0])
  }

  @Test func shufflingKeepsAllElementsAndIsEven() {
    var generator = StudyGenerator(seed: 3)
    var firsts = [Int](repeating: 0, count: 5)
    for _ in 0..<5000 {
      let shuffled = generator.shuffled(Array(0..<5))
      #expect(shuffled.sorted() == Array(0..<5))
      firsts[shuffled[0]] += 1
    }
    #expect(firsts.allSatisfy { (900...1100).contains($0) })
  }
}
