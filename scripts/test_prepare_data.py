"""Tests of prepare_data.py on small inputs made up here: what stands in one split never stands in
the other, whatever a task is split by. scripts/test runs them.

  python3 scripts/test_prepare_data.py
"""

import collections
import csv
import io
import json
import sys
import unittest

sys.dont_write_bytecode = True  # a test leaves nothing behind in the project
import prepare_data  # noqa: E402


def table(*rows):
    """CSV as bytes: a header, then rows."""
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    return file.getvalue().encode()


def lines(records):
    return "\n".join(json.dumps(record) for record in records).encode()


def splits(items, key):
    """The splits in which items with the same key stand."""
    found = collections.defaultdict(set)
    for item in items:
        found[key(item)].add(item["split"])
    return found


class SplitTest(unittest.TestCase):
    def assert_apart(self, items, key):
        """Both splits have items, and no key stands in both."""
        self.assertEqual({item["split"] for item in items}, {"training", "test"})
        both = [one for one, found in splits(items, key).items() if len(found) > 1]
        self.assertEqual(both, [])


class SplitOf(SplitTest):
    def test_stays_what_it_is(self):
        # Another value would move items of prepared data from one split to the other.
        for purpose, tested in (("stance", "abd"), ("hate", "abdeg")):
            found = [name for name in "abcdefgh"
                     if prepare_data.split_of(name, purpose) == "test"]
            self.assertEqual("".join(found), tested)

    def test_halves_the_clusters_and_differs_by_purpose(self):
        names = [f"cluster {number}" for number in range(2000)]
        first = [prepare_data.split_of(name, "one") for name in names]
        other = [prepare_data.split_of(name, "two") for name in names]
        self.assertEqual(set(first), {"training", "test"})
        self.assertAlmostEqual(first.count("test") / len(names), 0.5, delta=0.05)
        same = sum(one == two for one, two in zip(first, other))
        self.assertAlmostEqual(same / len(names), 0.5, delta=0.05)


class Stance(SplitTest):
    """Speeches, by speaker."""

    NAMES = b"M  Adam\nF  Beth\n"

    def items(self, *speeches):
        rows = [("party", "speaker", "text"), *speeches]
        return prepare_data.stance(table(*rows), self.NAMES)

    def test_all_sentences_of_a_speaker_stand_in_one_split(self):
        # Two speeches each, and a speaker whose name is spaced differently in the second one.
        speeches = [
            ("democrat" if number % 2 else "republican",
             f"{'ADAM' if number % 3 else 'BETH'}{' ' if speech else '  '}SMITH{number}",
             " ".join(
                 f"This is sentence {sentence} of speech {speech} and it is given by {number}."
                 for sentence in range(3)))
            for number in range(24) for speech in range(2)]
        items = self.items(*speeches)
        self.assertEqual(len(items), 24 * 2 * 3)
        self.assert_apart(items, lambda item: item["cluster"])
        # Not only by the name that the item is given, but by the number that its sentence tells.
        self.assert_apart(items, lambda item: item["sentence"].split()[-1])
        for item in items:
            self.assertEqual(item["split"], prepare_data.split_of(item["cluster"], "stance"))
            self.assertEqual(item["gender"], "male" if item["cluster"][0] == "A" else "female")

    def test_a_sentence_of_two_speakers_stands_once_or_not_at_all(self):
        said = "We all know that the work of this great country is never done."
        speakers = {}
        for number in range(40):
            name = f"ADAM NUMBER{number}"
            speakers.setdefault(prepare_data.split_of(name, "stance"), name)
        one, other = speakers["training"], speakers["test"]
        same = self.items(("democrat", one, said), ("democrat", other, said))
        self.assertEqual([item["split"] for item in same], ["training"])
        self.assertEqual(self.items(("democrat", one, said), ("republican", other, said)), [])

    def test_names_that_would_give_the_party_away_are_masked(self):
        items = self.items(
            ("democrat", "ADAM JONES",
             "I am Adam Jones, and I stand here tonight for Barack Obama's great plan."))
        self.assertEqual(
            [item["sentence"] for item in items],
            ["I am someone, and I stand here tonight for someone great plan."])


class Stereotype(SplitTest):
    """StereoSet, by target."""

    @staticmethod
    def document(*targets):
        return json.dumps({"data": {"intersentence": [], "intrasentence": [
            {"id": f"{name}{number:030}", "bias_type": "race", "target": target,
             "context": "A BLANK.",
             "sentences": [
                 {"gold_label": label, "sentence": f"{target} {number} {name} {label}"}
                 for label in ("stereotype", "anti-stereotype", "unrelated")]}
            for number, (name, target) in enumerate(targets)]}}).encode()

    def test_a_target_of_the_test_part_is_taken_out_of_training(self):
        items = prepare_data.stereotype(
            self.document(("t", "Turkey"), ("u", "norwegian"), ("v", "schoolgirl ")),
            self.document(("w", "Norwegian"), ("x", "Schoolgirl"), ("y", "Bolivia")))
        self.assert_apart(items, lambda item: item["target"].lower())
        self.assertEqual(
            {item["target"] for item in items if item["split"] == "training"}, {"Turkey"})
        self.assertEqual(
            {item["target"] for item in items if item["split"] == "test"},
            {"Norwegian", "Schoolgirl", "Bolivia"})

    def test_the_texts_of_a_pair_stand_together(self):
        items = prepare_data.stereotype(
            self.document(("t", "Turkey"), ("u", "Ghana")), self.document(("w", "Bolivia")))
        self.assertEqual(len(items), 6)
        self.assert_apart(items, lambda item: item["cluster"])
        self.assert_apart(items, lambda item: frozenset((item["sentence"], item["other"])))


class SocialBiasQA(SplitTest):
    """BBQ, by the index of the question."""

    INDICES = 12

    def records(self, category, indices=INDICES):
        for number in range(indices * 4):
            yield {
                "category": category, "example_id": number, "question_index": str(number // 4 + 1),
                "question_polarity": "neg" if number % 2 else "nonneg",
                "context_condition": "ambig" if number // 2 % 2 else "disambig",
                "context": f"Context {number}.", "question": f"Who was it, in case {number // 4}?",
                "ans0": "Ada", "ans1": "Unknown", "ans2": "Bea", "label": 1,
                "answer_info": {"ans0": ["Ada", "x"], "ans1": ["Unknown", "unknown"],
                                "ans2": ["Bea", "y"]}}

    @staticmethod
    def metadata(records):
        """The stereotype is about the first answer; of example 0 that is not known."""
        return table(("category", "example_id", "target_loc"), *(
            (record["category"], record["example_id"], "0.0" if record["example_id"] else "NA")
            for record in records))

    def items(self, *categories):
        records = [list(self.records(category)) for category in categories]
        return prepare_data.social_bias_qa(
            self.metadata(sum(records, [])), *(lines(part) for part in records))

    def test_all_forms_of_a_question_stand_in_one_split(self):
        items = self.items("Nationality")
        self.assertEqual(len(items), self.INDICES * 4 - 1)
        # By the question's index, which is told here by the text of the question too.
        self.assert_apart(items, lambda item: item["cluster"])
        self.assert_apart(items, lambda item: item["question"])
        self.assertEqual(
            {item["cluster"] for item in items},
            {f"Nationality/{index + 1}" for index in range(self.INDICES)})

    def test_race_by_gender_is_for_testing_alone(self):
        items = self.items("Nationality", "Race_x_gender")
        of_race = [item for item in items if item["category"] == "Race_x_gender"]
        self.assertEqual({item["split"] for item in of_race}, {"test"})
        self.assert_apart(items, lambda item: item["cluster"])

    def test_the_biased_answer_is_the_target_of_negative_questions_only(self):
        for item in self.items("Nationality"):
            self.assertEqual(item["target"], "Ada")
            self.assertEqual(item["biased"], "Ada" if item["polarity"] == "negative" else "Bea")
            self.assertEqual((item["label"], item["unknown"]), ("Unknown", "Unknown"))


class Texts(SplitTest):
    """Tasks that are split by their text, by their source, or by a template."""

    def test_twins_of_a_headline_are_one_item(self):
        items = prepare_data.sarcasm(lines(
            {"input": [{"content": f"man says he lost his hat for the {number} time"}],
             "ideal": str(number % 2)} for number in range(40)))
        self.assertEqual(len(items), 40)
        self.assert_apart(items, lambda item: item["headline_female"])
        self.assert_apart(items, lambda item: item["headline_male"])
        self.assertEqual(items[3]["headline_female"], "woman says she lost her hat for the 3 time")

    def test_a_post_of_both_parts_stands_once_or_not_at_all(self):
        items = prepare_data.stress(
            table(("text", "label"), ("one post", "1"), ("two  posts", "0"), ("three posts", "1")),
            table(("text", "label"), ("two posts", "0"), ("three posts", "0"), ("four posts", "1")))
        self.assertEqual(
            [(item["post"], item["split"]) for item in items],
            [("one post", "training"), ("two posts", "training"), ("four posts", "test")])

    def test_cases_of_a_template_stand_together(self):
        header = ("case_id", "templ_id", "test_case", "target_ident", "functionality", "label_gold")
        items = prepare_data.hate(table(header, *(
            (str(number), str(number // 5), f"Text {number}.", "women", "derogation", "hateful")
            for number in range(100))))
        self.assertEqual(len(items), 100)
        self.assert_apart(items, lambda item: int(item["id"]) // 5)

    def test_labels_that_contradict_each_other_leave_none(self):
        items = prepare_data.without_contradictions(
            [{"text": "a", "label": 1}, {"text": "b", "label": 1}, {"text": "a", "label": 0},
             {"text": "b", "label": 1}], lambda item: item["text"])
        self.assertEqual(items, [{"text": "b", "label": 1}])


class Prepared(unittest.TestCase):
    def test_an_id_of_two_items_is_an_error(self):
        def hated(*names):
            return [table(
                ("case_id", "templ_id", "test_case", "target_ident", "functionality", "label_gold"),
                *((name, "1", f"Text {place}.", "women", "slur", "hateful")
                  for place, name in enumerate(names)))]
        self.assertEqual(len(prepare_data.prepared("hate", hated("1", "2")).splitlines()), 2)
        with self.assertRaisesRegex(ValueError, "1 ids stand for two items, such as 1"):
            prepare_data.prepared("hate", hated("1", "1"))


if __name__ == "__main__":
    unittest.main()
