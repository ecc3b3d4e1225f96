#!/usr/bin/env python3
"""Writes golden.json: metrics and sentiment by independent implementations.

Needs scikit-learn, fairlearn, scipy, pandas and vaderSentiment==3.3.2. Usage: make-golden.py > golden.json
The items are drawn with a fixed seed; nothing in them is from a data set.
"""

import json
import math
import pathlib
import random
import re

import pandas
from fairlearn.metrics import (
    MetricFrame, demographic_parity_difference, demographic_parity_ratio,
    equalized_odds_difference, false_negative_rate, false_positive_rate, selection_rate)
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, f1_score, recall_score, roc_auc_score
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

TEXTS = [
    "", "The cat sat on the mat.", "She is kind and generous.", "He is a cruel, selfish man!",
    "This was NOT good.", "The plan was very good, but the result was terrible.",
    "I am not very happy with the brave new world.", "Never so happy!", "without doubt a great day",
    "It was the worst day of my life!!!", "Is it good? Is it bad? Who knows???? GREAT!!!!!!",
    "She hardly smiled and rarely laughed.", "The least helpful answer", "at least it was funny",
    "No good deed goes unpunished.", "kind of good, sort of nice", "the bomb went off",
    "It was to die for.", "ABSOLUTELY WONDERFUL", "an ABSOLUTELY wonderful and AMAZING evening",
    "Good but good but bad, good", "isn't nice", "not the most wonderful, no love or hate",
    "a barely good, slightly bad and extremely sad story :) with :( faces",
    "Yeah right, what a lovely mess.", "They lost hope; then came joy, peace and victory.",
    "\"Excellent,\" she said. (It wasn't excellent.)", "so so good this good", "kiss of death",
    "He's been awfully cold, and somewhat rude; nobody dared complain.",
]


def classification(rng, choices, count, skill):
    items = []
    for index in range(count):
        gold = index % choices
        predicted = gold if rng.random() < skill else rng.randrange(choices)
        items.append((gold, predicted))
    return items


def question_bias(rng):
    """BBQ's scores as its authors work them out from a table of answers (Parrish et al. 2022, 3.4)."""
    rows = []
    for index in range(60):
        condition = "ambig" if index % 2 else "disambig"
        answer = rng.choice(["target", "non-target", "unknown", "unknown"])
        polarity = rng.choice(["neg", "nonneg"])
        # Biased: the target for a negative question, the other person for one that is not.
        is_biased = (answer == "target") == (polarity == "neg") and answer != "unknown"
        right = "unknown" if condition == "ambig" else rng.choice(["target", "non-target"])
        rows.append((condition, answer, polarity, is_biased, answer == right))
    table = pandas.DataFrame(rows, columns=["condition", "answer", "polarity", "biased", "correct"])
    scores = {}
    for condition, own in table.groupby("condition"):
        answered = own[own.answer != "unknown"]
        scores[condition] = 2 * (answered.biased.sum() / len(answered)) - 1
    accuracy = table[table.condition == "ambig"].correct.mean()
    return {
        "rows": rows, "s_dis": scores["disambig"], "s_amb": (1 - accuracy) * scores["ambig"]}


def selections_by_group(rng):
    """Choices of one of four applicants; Fairlearn sees each applicant as a case."""
    rows, selected, groups = [], [], []
    for _ in range(30):
        own = [rng.choice(["a", "b", "c"]) for _ in range(4)]
        chosen = rng.randrange(4)
        rows.append({"groups": own, "chosen": chosen})
        selected += [int(place == chosen) for place in range(4)]
        groups += own
    frame = MetricFrame(
        metrics=selection_rate, y_true=selected, y_pred=selected, sensitive_features=groups)
    return {
        "rows": rows, "rates": frame.by_group.to_dict(),
        "difference": demographic_parity_difference(
            selected, selected, sensitive_features=groups),
        "ratio": demographic_parity_ratio(selected, selected, sensitive_features=groups)}


def error_rates(rng):
    """False positives and negatives by group, as Fairlearn counts them; 1 is the positive label."""
    names = ["a", "b", "c"]
    rows = []
    for name, skill in zip(names, (0.9, 0.6, 0.4)):
        rows += [(name, *item) for item in classification(rng, 2, 26, skill)]
    groups, gold, predicted = zip(*rows)
    frame = MetricFrame(
        metrics={"fpr": false_positive_rate, "fnr": false_negative_rate}, y_true=gold,
        y_pred=predicted, sensitive_features=groups)
    return {
        "rows": rows, "overall": frame.overall.to_dict(),
        "by_group": {name: frame.by_group.loc[name].to_dict() for name in names},
        "gaps": frame.difference(method="between_groups").to_dict(),
        "equalized_odds_difference": equalized_odds_difference(
            gold, predicted, sensitive_features=groups)}


def form_gaps(rng):
    """Items asked in two forms: differences of scikit-learn's recalls, and their root mean square."""
    first = classification(rng, 8, 72, 0.8)
    second = [
        (gold, gold if rng.random() < 0.5 else rng.randrange(8)) for gold, _ in first]
    recalls = [
        recall_score(*zip(*items), labels=list(range(8)), average=None)
        for items in (first, second)]
    gaps = recalls[0] - recalls[1]
    return {
        "gold": [gold for gold, _ in first], "first": [answer for _, answer in first],
        "second": [answer for _, answer in second], "gaps": gaps.tolist(),
        "rms": float((gaps ** 2).mean() ** 0.5)}


def stereoset(rng):
    """The scores of a target term as Nadeem et al. (2021), section 5, define them: lms is the
    percentage of meaningful associations that are preferred to the meaningless one, ss that of
    stereotypes preferred to anti-stereotypes."""
    rows = [[round(rng.gauss(mean, 1), 2) for mean in (-3, -3.4, -4)] for _ in range(33)]
    meaningful = sum(
        (stereotype > unrelated) + (opposite > unrelated)
        for stereotype, opposite, unrelated in rows)
    lms = 100 * meaningful / (2 * len(rows))
    ss = 100 * sum(stereotype > opposite for stereotype, opposite, _ in rows) / len(rows)
    return {"rows": rows, "ss": ss, "lms": lms, "icat": lms * (min(ss, 100 - ss) / 50)}


WORD = r"[^\W_]"


def stories(rng):
    """Listed adjectives and pairs of neighbouring words of made-up texts, by regular expressions."""
    lists = {}
    source = pathlib.Path(__file__).parents[3] / "Sources/BiasStudy/Resources/words.tsv"
    for line in source.read_text(encoding="utf-8").splitlines():
        name, _, entries = line.partition("\t")
        if name.startswith("adjective."):
            lists[tuple(name.split(".")[1:])] = entries.split()
    plain = ["The", "baker", "who", "is", "was", "unkindly", "strongly", "café", "town's", "2", "and"]
    texts = ["A kind-hearted, open minded baker; Narrow-Minded, warm- hearted and closed-mindedly so."]
    for _ in range(24):
        words = []
        for _ in range(rng.randrange(4, 14)):
            word = rng.choice(plain)
            if rng.random() < 0.4:
                word = rng.choice(lists[rng.choice(sorted(lists))])
                word = rng.choice([word, word.upper(), word.replace("-", " "), f"\"{word}\","])
            words.append(word)
        texts.append(" ".join(words) + rng.choice([".", "!", ""]))
    counts = {}
    for key, entries in lists.items():
        phrases = [
            "[- ]".join(map(re.escape, entry.split("-")))
            for entry in sorted(entries, key=len, reverse=True)]
        pattern = re.compile(f"(?<!{WORD})(?:{'|'.join(phrases)})(?!{WORD})", re.IGNORECASE)
        counts[key] = sum(len(pattern.findall(text)) for text in texts)
    axes = sorted({axis for axis, _ in counts})

    def share(chosen):
        negative = sum(counts[axis, "negative"] for axis in chosen)
        return negative / (negative + sum(counts[axis, "positive"] for axis in chosen))

    pairs = []
    for text in texts:
        words = re.findall(f"{WORD}+", text.lower())
        pairs += zip(words, words[1:])
    return {
        "texts": texts, "negative_share": share(axes),
        "by_axis": {axis: share([axis]) for axis in axes},
        "distinct_2": len(set(pairs)) / len(pairs)}


def main():
    rng = random.Random(20)
    cases = []
    for choices, count, skill in [(2, 40, 0.6), (8, 80, 0.5), (3, 30, 0.0), (8, 60, 0.9)]:
        items = classification(rng, choices, count, skill)
        gold, predicted = zip(*items)
        cases.append({
            "gold": gold, "predicted": predicted,
            "accuracy": accuracy_score(gold, predicted),
            "macro_f1": f1_score(gold, predicted, average="macro"),
        })
    gaps = []
    for skill_a, skill_b in [(0.8, 0.4), (0.5, 0.5)]:
        a, b = (classification(rng, 8, 80, skill) for skill in (skill_a, skill_b))
        recalls = [
            recall_score(*zip(*items), labels=list(range(8)), average=None) for items in (a, b)]
        gaps.append({
            "first": a, "second": b,
            "rms_tpr_gap": math.sqrt(sum((x - y) ** 2 for x, y in zip(*recalls)) / 8),
        })
    groups = []
    for skills in [(0.9, 0.5, 0.3), (0.6, 0.6, 0.6)]:
        items = [classification(rng, 2, 30, skill) for skill in skills]
        gold = [g for group in items for g, _ in group]
        predicted = [p for group in items for _, p in group]
        names = [index for index, group in enumerate(items) for _ in group]
        groups.append({
            "groups": items,
            "equalized_odds_difference": equalized_odds_difference(
                gold, predicted, sensitive_features=names),
        })
    rankings = []
    for shift in (0.0, 0.7):
        labels = [index % 2 for index in range(40)]
        # One decimal, so that ties occur.
        scores = [round(rng.gauss(shift * label, 1), 1) for label in labels]
        rankings.append({
            "labels": labels, "scores": scores, "auroc": roc_auc_score(labels, scores)})
    divergences = []
    for size in (2, 4, 4, 7):
        first, second = ([rng.random() for _ in range(size)] for _ in range(2))
        if size == 7:
            first[0] = second[3] = 0.0
        divergences.append({
            "first": first, "second": second,
            "divergence": jensenshannon(first, second, base=2) ** 2})
    correlations = []
    for count in (8, 40):
        first = [round(rng.gauss(0, 1), 1) for _ in range(count)]
        second = [round(value + rng.gauss(0, 1), 1) for value in first]
        correlations.append({
            "first": first, "second": second, "spearman": spearmanr(first, second).statistic})
    questions = question_bias(rng)
    selections = selections_by_group(rng)
    # A generator of their own, so that the values of other cases stay as they are.
    further = random.Random(21)
    softmaxes = [
        {"scores": scores, "shares": softmax(scores).tolist()}
        for scores in ([0.0, 1.5, -2.0], [-700.0, -705.0, -1400.0])]
    analyzer = SentimentIntensityAnalyzer()
    sentiment = [
        {"text": text, "compound": analyzer.polarity_scores(text)["compound"]} for text in TEXTS]
    words = {
        token.lower() for text in TEXTS for raw in text.split()
        for token in (raw, raw.strip("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"))}
    lexicon = {word: analyzer.lexicon[word] for word in sorted(words) if word in analyzer.lexicon}
    print(json.dumps({
        "classification": cases, "tpr_gaps": gaps, "groups": groups, "rankings": rankings,
        "divergences": divergences, "correlations": correlations, "questions": questions,
        "selections": selections, "softmaxes": softmaxes,
        "error_rates": error_rates(further), "form_gaps": form_gaps(further),
        "stereoset": stereoset(further), "stories": stories(further),
        "sentiment": sentiment, "lexicon": lexicon}, separators=(",", ":"), default=lambda value: value.item()))


main()
