/// What is wrong with a task file.
package struct InvalidTaskFile: Error, Sendable, CustomStringConvertible {
  package let file: String
  package let problems: [SpecProblem]

  package init(file: String, problems: [SpecProblem]) {
    self.file = file
    self.problems = InvalidSpec(problems: problems).problems
  }

  package var description: String {
    "\(problems.count) problem\(problems.count == 1 ? "" : "s") in the task file \(file):\n"
      + problems.map { problem in
        let place = problem.position
        let position = place.line > 0 ? ":\(place.line):\(place.column)" : ""
        let path = problem.path.isEmpty ? "document" : problem.path
        return "  \(file)\(position): \(path): \(problem.message)"
      }.joined(separator: "\n")
  }
}

extension TaskDefinition {
  /// Longest lists in a task file.
  private static let listMax = 1000

  /// - Parameters:
  ///   - file: how errors name the document.
  ///   - resolve: content of the user's data file at a path relative to the task file; it may say
  ///     what is wrong with it.
  /// - Throws: `InvalidTaskFile` with every problem.
  package init(
    document: SpecNode, file: String,
    resolve: (String) throws(SpecProblem) -> ContentDigest
  ) throws(InvalidTaskFile) {
    var root = SpecDecoder(document, path: "")
    let id = root.string("id")
    if !id.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-") }) {
      root.report("id", "may hold letters, digits and '-' only")
    }
    self.id = id
    version = root.integer("version", in: 1...1_000_000, default: 1)
    summary = root.string("summary")
    domain = root.requiredChoice("domain", fallback: .gender)
    kind = root.requiredChoice("kind", fallback: .classification)
    relation = root.requiredChoice("relation", fallback: .direct)
    prompt = root.string("prompt")

    var section = root.section("data")
    data = Self.data(&section, resolve: resolve)
    root.absorb(section)
    section = root.section("answers")
    answers = Self.answers(&section, kind: kind)
    root.absorb(section)

    contentFree = []
    for (index, node) in root.elements("content_free").enumerated() {
      contentFree.append(root.namedTexts(node, at: "content_free[\(index)]"))
    }
    forms = []
    for (name, node) in root.namedValues("forms") {
      forms.append(TaskForm(name: name, fields: root.namedTexts(node, at: "forms.\(name)")))
    }
    groups = root.texts("groups", limit: Self.listMax)
    favoured = root.optionalString("favoured")
    preference = nil
    if root.has("preference") {
      section = root.section("preference")
      preference = TaskPreference(
        prompt: section.string("prompt"), stereotype: section.string("stereotype"),
        antiStereotype: section.string("anti_stereotype"), unrelated: section.string("unrelated"))
      root.absorb(section)
    }
    metrics = root.list(
      "metrics", of: "metrics (\(SpecDecoder.names(TaskMetric.self)))", limit: Self.listMax,
      parse: { TaskMetric(rawValue: $0) })
    headlines = []
    for (index, node) in root.elements("headlines").enumerated() {
      var section = root.section(node, at: "headlines[\(index)]")
      headlines.append(
        Headline(
          metric: section.string("metric"), items: section.optionalString("items"),
          role: section.requiredChoice("role", fallback: .skill),
          chance: section.optionalNumber("chance", "a number"),
          direction: section.requiredChoice("direction", fallback: .neither)))
      root.absorb(section)
    }
    references = [:]
    for (name, node) in root.namedValues("references") {
      guard case .scalar(let text, _) = node, let value = Double(text), value.isFinite else {
        root.report("references.\(name)", at: node, "expected a number, found \(node.kind)")
        continue
      }
      references[name] = value
    }
    section = root.section("origin")
    origin = TaskOrigin(
      source: section.string("source"), licence: section.string("licence"),
      citation: section.string("citation"))
    root.absorb(section)
    section = root.section("expected_tokens")
    expectedTokens = ExpectedTokens(
      prompt: section.integer("prompt", in: 1...100_000, default: 45),
      answer: section.integer("answer", in: 1...100_000, default: 2))
    root.absorb(section)

    check(&root)
    root.finish()
    guard root.problems.isEmpty else {
      throw InvalidTaskFile(file: file, problems: root.problems)
    }
  }

  private static func data(
    _ section: inout SpecDecoder, resolve: (String) throws(SpecProblem) -> ContentDigest
  ) -> TaskData {
    let places = ["dataset", "collection", "path"].filter { section.has($0) }
    var source = TaskData.Source.collection("")
    switch places {
    case ["dataset"]:
      source = .dataset(name: section.string("dataset"), file: section.string("file"))
    case ["collection"]:
      source = .collection(section.string("collection"))
    case ["path"]:
      let path = section.string("path")
      if !path.hasSuffix(".jsonl"), !path.hasSuffix(".csv") {
        section.report("path", "must end in .jsonl (JSON lines) or .csv")
      } else {
        do {
          let name = path.split(separator: "/").last.map(String.init) ?? path
          source = .file(name: name, sha256: try resolve(path))
        } catch {
          section.report("path", error.message)
        }
      }
    default:
      section.report(
        "",
        places.isEmpty
          ? "names no data; give `path` (a file of yours), `dataset` with `file`, or `collection`"
          : "names \(places.joined(separator: " and ")); keep one of them")
      for place in places { _ = section.string(place) }
      _ = section.optionalString("file")
    }
    var keep: [String: [String]] = [:]
    var filter = section.section("keep")
    for name in filter.keys { keep[name] = filter.texts(name, limit: listMax) }
    section.absorb(filter)
    return TaskData(
      source: source, keep: keep, cluster: section.string("cluster"),
      splitField: section.optionalString("split"),
      balance: section.texts("balance", limit: listMax),
      testItemsMax: section.integer(
        "test_items_max", in: 1...1_000_000, orNilFor: "none", default: nil))
  }

  private static func answers(_ section: inout SpecDecoder, kind: Kind) -> TaskAnswers {
    TaskAnswers(
      choices: section.texts("choices", limit: listMax),
      choicesField: section.optionalString("choices_field"),
      listedField: section.optionalString("listed_field"),
      label: section.optionalString("label"), shares: section.optionalString("shares"),
      truth: section.optionalString("truth"), positive: section.optionalString("positive"),
      orders: section.integer("orders", in: 1...24, default: 1),
      mention: section.optionalString("mention"),
      sampledItems: section.integer("sampled_items", in: 0...1_000_000, default: 0),
      hasFormatExamples: section.choice("format_examples", default: Switch.yes) == .yes)
  }

  private enum Switch: String, CaseIterable {
    case yes, no
  }

  // MARK: Parts that need each other

  private func check(_ root: inout SpecDecoder) {
    let allowed = Self.metrics(of: kind)
    for metric in metrics where !allowed.contains(metric) {
      root.report(
        "metrics",
        "\(metric.rawValue) is not a metric of the kind \(kind.rawValue), which has "
          + allowed.map(\.rawValue).joined(separator: ", "))
    }
    checkAnswers(&root)
    for metric in metrics { checkNeeds(of: metric, &root) }
    let names = forms.map(\.name)
    if Set(names).count != names.count || names.count == 1 {
      root.report("forms", "needs two or more forms with names of their own, or none")
    }
    if answers.orders > 1, !prompt.contains("{options}") {
      root.report(
        "answers.orders", "needs {options} in the prompt, or else the order changes nothing")
    }
    for role in Headline.Role.allCases where !headlines.contains(where: { $0.role == role }) {
      root.report(
        "headlines", "needs a metric of the role \(role.rawValue) (a metric that stands for it)")
    }
  }

  private func checkAnswers(_ root: inout SpecDecoder) {
    let hasChoices = !answers.choices.isEmpty
    let hasField = answers.choicesField != nil
    switch kind {
    case .classification, .survey, .selection:
      if hasChoices == hasField {
        root.report("answers", "needs either `choices` (the same for all items) or `choices_field`")
      }
    case .number:
      let values = answers.choices.map { Double($0) ?? .nan }
      if values.count < 2 || !values.allSatisfy({ $0 > 0 && $0.isFinite })
        || values != values.sorted()
      {
        root.report("answers.choices", "needs two or more numbers above 0 in rising order")
      }
    case .text:
      if hasChoices || hasField { root.report("answers", "a task of the kind text has no choices") }
    }
    if hasChoices, answers.choices.count < 2 {
      root.report("answers.choices", "needs two or more choices")
    }
    if answers.label == nil, kind == .classification || answers.hasFormatExamples {
      root.report(
        "answers.label",
        "is missing: the field with the right answer (also that of the format examples; "
          + "`format_examples: no` if there are none)")
    }
    if kind == .survey, answers.shares == nil {
      root.report("answers.shares", "is missing: the field with the shares of real answers")
    }
    if kind == .number, answers.truth == nil {
      root.report("answers.truth", "is missing: the field with the true number")
    }
    if let positive = answers.positive, hasChoices, !answers.choices.contains(positive) {
      root.report("answers.positive", "\"\(positive)\" is not among the choices")
    }
  }

  private func checkNeeds(of metric: TaskMetric, _ root: inout SpecDecoder) {
    let name = metric.rawValue
    switch metric {
    case .auroc, .errorRates:
      if answers.positive == nil || answers.choices.count != 2 {
        root.report("metrics", "\(name) needs two `choices` and the `positive` one of them")
      }
    case .groupAccuracy, .selections:
      if groups.isEmpty { root.report("metrics", "\(name) needs a field in `groups`") }
    case .tprGaps, .twins, .amounts:
      if forms.count != 2 { root.report("metrics", "\(name) needs two `forms`") }
      if metric == .tprGaps, answers.choices.isEmpty {
        root.report("metrics", "\(name) needs `choices` that are the same for all items")
      }
    case .preference:
      if preference == nil { root.report("metrics", "\(name) needs a section `preference`") }
    case .macroF1:
      if answers.choices.isEmpty {
        root.report("metrics", "\(name) needs `choices` that are the same for all items")
      }
    case .accuracy, .questionBias, .similarity, .sentiment, .adjectives, .distinct2: break
    }
  }

  /// The metrics that a kind of task can have.
  package static func metrics(of kind: Kind) -> [TaskMetric] {
    switch kind {
    case .classification:
      [
        .accuracy, .macroF1, .auroc, .groupAccuracy, .errorRates, .tprGaps, .twins, .questionBias,
        .preference,
      ]
    case .survey: [.accuracy, .similarity]
    case .text: [.sentiment, .adjectives, .distinct2]
    case .number: [.amounts]
    case .selection: [.accuracy, .selections]
    }
  }
}

extension SpecDecoder {
  func has(_ key: String) -> Bool { keys.contains(key) }

  static func names<Value: RawRepresentable & CaseIterable>(_ type: Value.Type) -> String
  where Value.RawValue == String {
    Value.allCases.map(\.rawValue).joined(separator: ", ")
  }
}
