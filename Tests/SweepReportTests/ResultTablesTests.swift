import SweepCore
import SweepLedger
import SweepReport
import SweepTestKit
import Testing

/// From rows of the ledger to tables.
struct ResultTablesTests {
  private static let bias = "contextual-single-explicit"

  private func spec(_ changes: (String, String)...) throws -> SweepSpec {
    var sketch = """
      name: small
      tasks: [occupation]
      biases: [contextual-single-explicit]
      ratios: [0.5, 0, 0.1]
      mitigations: [none, mask]
      seeds: [1, 2]
      """
    for (old, new) in changes { sketch = sketch.replacing(old, with: new) }
    return try SampleSweep(sketch: sketch).spec
  }

  private func row(
    _ metric: String, _ ratio: Double, _ mitigation: String, seed: Int64, _ value: Double
  ) -> TrialResultRow {
    TrialResultRow(
      trial: "t", task: "occupation", bias: Self.bias, ratio: ratio, mitigation: mitigation,
      seed: seed, metric: metric, value: value)
  }

  /// Everything but ratio 0.1 of `mask`, and seed 2 of ratio 0.1.
  private var rows: [TrialResultRow] {
    ["none", "mask"].flatMap { mitigation in
      [
        row("accuracy", 0, mitigation, seed: 1, 0.50),
        row("accuracy", 0, mitigation, seed: 2, 0.54),
        row("accuracy", 0.5, mitigation, seed: 1, 0.40),
        row("accuracy", 0.5, mitigation, seed: 2, 0.50),
      ]
    } + [row("accuracy", 0.1, "none", seed: 1, 0.51)]
  }

  @Test func cellsAreMeansWithChangesPairedBySeed() throws {
    let tables = ResultTables(spec: try spec(), rows: rows)
    #expect(tables.ratios == [0, 0.1, 0.5])
    #expect(tables.mitigations == ["none", "mask"])
    let table = try #require(tables.tables(task: "occupation", bias: Self.bias).first)
    let none = table.cells[0]
    let original = try #require(none[0])
    #expect(original.mean == 0.52 && original.change == nil && original.seeds == 2)
    #expect(original.minimum == 0.5 && original.maximum == 0.54)
    let half = try #require(none[2])
    #expect(abs(half.mean - 0.45) < 1e-12)
    #expect(abs(try #require(half.change) - -0.07) < 1e-12)
    // One seed only: its change is against the same seed, not against the mean.
    let tenth = try #require(none[1])
    #expect(tenth.seeds == 1)
    #expect(abs(try #require(tenth.change) - 0.01) < 1e-12)
    #expect(table.cells[1][1] == nil)
  }

  @Test func changeNeedsRatioZero() throws {
    let tables = ResultTables(
      spec: try spec(("0.5, 0, 0.1", "0.5")), rows: rows.filter { $0.ratio == 0.5 })
    #expect(tables.tables[0].cells.allSatisfy { $0[0]?.change == nil })
    #expect(!tables.text().contains("change from ratio 0"))
  }

  @Test func orderOfRowsDoesNotMatter() throws {
    let spec = try spec()
    let forward = ResultTables(spec: spec, rows: rows)
    let backward = ResultTables(spec: spec, rows: rows.reversed())
    #expect(forward.csv() == backward.csv())
    #expect(forward.text() == backward.text())
  }

  @Test func textIsAlignedAndMarksWhatIsMissing() throws {
    let tables = ResultTables(spec: try spec(), rows: rows)
    #expect(
      tables.text() == """
        Mean over 2 seeds and change from ratio 0 (paired by seed). – stands for no result.
        ↑ higher is better, ↓ higher is more bias, →0 farther from 0 is more bias.

        occupation · contextual-single-explicit
                              γ 0               γ 0.1           γ 0.5
          accuracy ↑  none  0.520  0.510 (+0.010) n=1  0.450 (−0.070)
                      mask  0.520                   –  0.450 (−0.070)

        """)
  }

  @Test func narrowTextContinuesBelow() throws {
    let text = ResultTables(spec: try spec(), rows: rows).text(width: 45)
    #expect(
      text.contains(
        """
                              γ 0               γ 0.1
          accuracy ↑  none  0.520  0.510 (+0.010) n=1
                      mask  0.520                   –
                                     γ 0.5
          accuracy ↑  none  0.450 (−0.070)
                      mask  0.450 (−0.070)

        """))
  }

  @Test func otherMetricsAreShownOnDemand() throws {
    let more = rows + rows.map { self.row("macro_f1", $0.ratio, $0.mitigation, seed: $0.seed, 0.3) }
    let tables = ResultTables(spec: try spec(), rows: more)
    // Accuracy is a headline of the task, macro-F1 is not.
    #expect(!tables.text().contains("macro-F1"))
    #expect(tables.text().contains("biassweep report"))
    let all = tables.text(allMetrics: true)
    let places = ["accuracy", "macro-F1"].map { all.range(of: $0)?.lowerBound }
    #expect(try #require(places[0]) < #require(places[1]))
    #expect(!all.contains("biassweep report"))
  }

  @Test func noResultsAreSaidToBeNone() throws {
    let tables = ResultTables(spec: try spec(), rows: [])
    #expect(tables.text() == "No results yet.\n")
    #expect(tables.csv().split(separator: "\r\n").count == 1)
  }

  @Test func markdownIsATablePerTaskAndBias() throws {
    let text = ResultTables(spec: try spec(), rows: rows).markdown()
    #expect(
      text.hasSuffix(
        """
        ### occupation, contextual-single-explicit

        | metric | mitigation | γ = 0 | γ = 0.1 | γ = 0.5 |
        | :-- | :-- | --: | --: | --: |
        | accuracy (higher is better) | none | 0.520 | 0.510 (+0.010) n=1 | 0.450 (−0.070) |
        | accuracy (higher is better) | mask | 0.520 | – | 0.450 (−0.070) |

        """))
  }

  @Test func csvHasAllDigitsAndEveryCell() throws {
    let one = [row("odd, \"name\"", 0, "none", seed: 1, 0.1 + 0.2)]
    let lines = ResultTables(spec: try spec(), rows: one).csv()
      .split(separator: "\r\n").map(String.init)
    #expect(lines.count == 1 + 6)
    #expect(
      lines[1] == "occupation,\(Self.bias),\"odd, \"\"name\"\"\",none,0.0,1,"
        + "0.30000000000000004,0.30000000000000004,0.30000000000000004,,,")
    #expect(lines[2] == "occupation,\(Self.bias),\"odd, \"\"name\"\"\",none,0.1,0,,,,,,")
  }
}

struct MetricDescriptionTests {
  @Test func headlinesComeFirstThenKnownThenOther() {
    let order = MetricDescription.ordered(
      ["zeta", "accuracy_male", "twin_log_odds_gap", "accuracy", "alpha", "macro_f1"],
      leading: ["macro_f1", "rms_tpr_gap", "twin_log_odds_gap"])
    #expect(
      order.map(\.name)
        == ["macro_f1", "twin_log_odds_gap", "accuracy", "accuracy_male", "alpha", "zeta"])
    #expect(
      MetricDescription.headlineCount(
        of: order, leading: ["macro_f1", "rms_tpr_gap", "twin_log_odds_gap"]) == 2)
  }

  @Test func withoutHeadlinesTheFirstMetricLeads() {
    let order = MetricDescription.ordered(["b", "a"], leading: [])
    #expect(order.map(\.name) == ["a", "b"])
    #expect(MetricDescription.headlineCount(of: order, leading: []) == 1)
    #expect(MetricDescription.headlineCount(of: [], leading: []) == 0)
  }

  @Test(arguments: [
    ("fpr_gap", "FPR gap", MetricDescription.Meaning.bias),
    ("fpr_black_people", "false positive rate, black people", .description),
    ("compound_arabic", "VADER compound, arabic", .description),
    ("accuracy_female", "accuracy, female", .skill),
    ("my_own_metric", "my own metric", .description),
    ("", "", .description), ("_", " ", .description),
  ])
  func anyNameHasADescription(name: String, label: String, meaning: MetricDescription.Meaning) {
    let description = MetricDescription(name: name)
    #expect(description.name == name)
    #expect(description.label == label)
    #expect(description.meaning == meaning)
  }
}
