#!/usr/bin/env python3
"""Writes golden.json: metrics and sentiment by independent implementations.

Needs scikit-learn, fairlearn and vaderSentiment==3.3.2. Usage: make-golden.py > golden.json
The items are drawn with a fixed seed; nothing in them is from a data set.
"""

import json
import math
import random

from fairlearn.metrics import equalized_odds_difference
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
    analyzer = SentimentIntensityAnalyzer()
    sentiment = [
        {"text": text, "compound": analyzer.polarity_scores(text)["compound"]} for text in TEXTS]
    words = {
        token.lower() for text in TEXTS for raw in text.split()
        for token in (raw, raw.strip("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"))}
    lexicon = {word: analyzer.lexicon[word] for word in sorted(words) if word in analyzer.lexicon}
    print(json.dumps({
        "classification": cases, "tpr_gaps": gaps, "groups": groups, "rankings": rankings,
        "sentiment": sentiment, "lexicon": lexicon}, separators=(",", ":")))


main()
