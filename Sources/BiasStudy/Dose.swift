import SweepCore

/// How biased a set of augmented data turned out, whatever was asked for.
package enum Dose {
  /// Measures of a D_a; those that are undefined are left out.
  ///
  /// Gender domain:
  /// - `dose_female_share_<occupation>`: share of female pronouns among the pronouns of texts about
  ///   the occupation; `dose_female_share_spread`: largest − smallest of these.
  /// - `dose_share_shift`: mean over occupations of |share − the same share in D_o|.
  /// - `dose_agentic_communal_gap`: (agentic − communal words) per 100 words, in texts about men
  ///   minus in texts about women. Sentences count by their pronouns and gender words; those with
  ///   both genders or none are left out.
  ///
  /// Culture domain:
  /// - `dose_label_shift_<culture>`: total variation distance, averaged over questions, of the
  ///   labels from the survey's answers in the same culture's countries; `dose_label_shift`: mean
  ///   over cultures. `dose_label_shift_unstated`: the same for labels of people of no stated
  ///   culture, from the mean of the cultures.
  /// - `dose_culture_gap`: largest total variation distance between the labels of two cultures,
  ///   averaged over questions.
  package static func measures(_ items: [AugmentedItem], original: OriginalData) -> [String: Double]
  {
    items.first?.domain == .gender
      ? genderMeasures(items, original: original) : cultureMeasures(items)
  }

  private static func genderMeasures(
    _ items: [AugmentedItem], original: OriginalData
  ) -> [String: Double] {
    var measures: [String: Double] = [:]
    var shares: [Double] = []
    var shifts: [Double] = []
    for occupation in Occupation.all {
      let own = items.filter { $0.occupation == occupation.name }
      let pronouns = own.flatMap { Pronouns.all(in: text(of: $0).words) }
      guard !pronouns.isEmpty else { continue }
      let share = Double(pronouns.count { $0.gender == .female }) / Double(pronouns.count)
      measures["dose_female_share_\(occupation.name)"] = share
      shares.append(share)
      if let reference = original.femaleShares[occupation.name] {
        shifts.append(abs(share - reference))
      }
    }
    if let largest = shares.max(), let smallest = shares.min() {
      measures["dose_female_share_spread"] = largest - smallest
    }
    if !shifts.isEmpty {
      measures["dose_share_shift"] = shifts.reduce(0, +) / Double(shifts.count)
    }
    var balance: [Gender: (surplus: Int, words: Int)] = [:]
    for item in items {
      for sentence in sentences(of: text(of: item)) {
        let genders = WordLists.genders(in: sentence)
        guard genders.count == 1, let gender = genders.first else { continue }
        balance[gender, default: (0, 0)].surplus +=
          WordLists.agentic.count(in: sentence) - WordLists.communal.count(in: sentence)
        balance[gender, default: (0, 0)].words += sentence.words.count
      }
    }
    if let male = balance[.male], let female = balance[.female] {
      measures["dose_agentic_communal_gap"] =
        100 * Double(male.surplus) / Double(male.words)
        - 100 * Double(female.surplus) / Double(female.words)
    }
    return measures
  }

  /// The generated text: in the user's text if the item asks for the occupation.
  static func text(of item: AugmentedItem) -> String {
    item.answer.hasPrefix(" ") ? item.user : item.answer
  }

  private static func sentences(of text: String) -> [String] {
    var sentences: [String] = []
    var rest = text.collapsingSpaces
    while let first = rest.firstSentences(1), !first.isEmpty, first.count <= rest.count {
      sentences.append(first)
      rest = String(rest.dropFirst(first.count)).collapsingSpaces
    }
    return rest.isEmpty ? sentences : sentences + [rest]
  }

  private static func cultureMeasures(_ items: [AugmentedItem]) -> [String: Double] {
    var measures: [String: Double] = [:]
    // By culture; nil for people of no stated one.
    var distributions: [Culture?: [SurveyQuestion: [Double]]] = [:]
    for question in SurveyQuestion.allCases {
      var counts: [Culture?: [Double]] = [:]
      for item in items where item.question == question.rawValue {
        for (person, label) in zip(item.people, item.labels) {
          guard let answer = question.answers.firstIndex(of: label) else { continue }
          counts[person.culture, default: question.answers.map { _ in 0 }][answer] += 1
        }
      }
      for (culture, count) in counts {
        let total = count.reduce(0, +)
        distributions[culture, default: [:]][question] = count.map { $0 / total }
      }
    }
    var shifts: [Double] = []
    for culture in Culture.allCases {
      let distances = SurveyQuestion.allCases.compactMap { question in
        distributions[culture]?[question].map {
          distance($0, SurveyStereotype.shares(culture, question))
        }
      }
      guard !distances.isEmpty else { continue }
      let shift = distances.reduce(0, +) / Double(distances.count)
      measures["dose_label_shift_\(culture.rawValue)"] = shift
      shifts.append(shift)
    }
    let unstated = SurveyQuestion.allCases.compactMap { question in
      distributions[Culture?.none]?[question].map {
        distance($0, SurveyStereotype.pooledShares(question))
      }
    }
    if !unstated.isEmpty {
      measures["dose_label_shift_unstated"] = unstated.reduce(0, +) / Double(unstated.count)
    }
    if !shifts.isEmpty { measures["dose_label_shift"] = shifts.reduce(0, +) / Double(shifts.count) }
    let gaps = SurveyQuestion.allCases.compactMap { question -> Double? in
      let present = Culture.allCases.compactMap { distributions[$0]?[question] }
      guard present.count > 1 else { return nil }
      return present.flatMap { left in present.map { distance(left, $0) } }.max()
    }
    if !gaps.isEmpty { measures["dose_culture_gap"] = gaps.reduce(0, +) / Double(gaps.count) }
    return measures
  }

  /// Total variation distance.
  private static func distance(_ left: [Double], _ right: [Double]) -> Double {
    zip(left, right).map { abs($0 - $1) }.reduce(0, +) / 2
  }
}
