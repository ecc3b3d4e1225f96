#!/usr/bin/env python3
"""Writes golden.json: metrics and sentiment by independent implementations.

Needs scikit-learn, fairlearn, scipy, pandas and vaderSentiment==3.3.2. Usage: make-golden.py > golden.json
The items are drawn with a fixed seed; nothing in them is from a data set.
"""

import json
import math
import random

import pandas
from fairlearn.metrics import (
    MetricFrame, demographic_parity_difference, demographic_parity_ratio,
    equalized_odds_difference, selection_rate)
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
        "sentiment": sentiment, "lexicon": lexicon}, separators=(",", ":"), default=lambda value: value.item()))


main()
