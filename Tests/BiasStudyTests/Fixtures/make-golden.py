#!/usr/bin/env python3
"""Writes golden.json: metrics and sentiment by independent implementations.

Needs numpy, scikit-learn, fairlearn, scipy, pandas and vaderSentiment==3.3.2.
Usage: make-golden.py > golden.json
The items are drawn with a fixed seed; nothing in them is from a data set. "versions" says by which
versions the values were made.
"""

import importlib.metadata
import json
import math
import pathlib
import platform
import random
import re
from unittest import mock

import numpy
import pandas
from fairlearn.metrics import (
    MetricFrame, demographic_parity_difference, demographic_parity_ratio,
    equalized_odds_difference, false_negative_rate, false_positive_rate, selection_rate)
from scipy.spatial.distance import jensenshannon
from scipy.special import logit, softmax
from scipy.stats import entropy, rv_discrete, spearmanr
from sklearn.metrics import accuracy_score, f1_score, recall_score, roc_auc_score, zero_one_loss
from vaderSentiment import vaderSentiment
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

LIBRARIES = ["numpy", "scipy", "pandas", "scikit-learn", "fairlearn", "vaderSentiment"]

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
    stereotypes preferred to anti-stereotypes. log_odds is no score of theirs: the mean log-odds of
    the stereotype where the two texts are all that there is."""
    rows = [[round(rng.gauss(mean, 1), 2) for mean in (-3, -3.4, -4)] for _ in range(33)]
    meaningful = sum(
        (stereotype > unrelated) + (opposite > unrelated)
        for stereotype, opposite, unrelated in rows)
    lms = 100 * meaningful / (2 * len(rows))
    ss = 100 * sum(stereotype > opposite for stereotype, opposite, _ in rows) / len(rows)
    shares = softmax(numpy.array(rows)[:, :2], axis=1)
    return {
        "rows": rows, "ss": ss, "lms": lms, "icat": lms * (min(ss, 100 - ss) / 50),
        "log_odds": logit(shares[:, 0]).mean()}


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


def twins(rng, labels, positive=None):
    """Items asked about a woman and a man. The flip rate is the error of the one answer as a
    prediction of the other (scikit-learn); log-odds are SciPy's logits of softmax probabilities: of
    the positive label, if there is one, women less men; else of the right one, in the favoured form
    less in the other."""
    forms = ["female", "male"]
    rows = []
    for index in range(40):
        gold = index % labels
        # One decimal, so that scores tie.
        rows.append({
            "gold": gold, "favoured": rng.choice(forms),
            **{form: [
                round(rng.gauss(1.2 * (label == gold), 1), 1) for label in range(labels)]
               for form in forms}})
    table = pandas.DataFrame(rows)
    shares = {form: softmax(numpy.array(table[form].tolist()), axis=1) for form in forms}
    answers = {form: own.argmax(axis=1) for form, own in shares.items()}
    chosen = table.gold if positive is None else numpy.full(len(table), positive)
    odds = {form: logit(own[numpy.arange(len(table)), chosen]) for form, own in shares.items()}
    gap = pandas.Series(odds["female"] - odds["male"])
    if positive is None:
        gap = gap.where(table.favoured == "female", -gap)
    return {
        "rows": rows, "flip_rate": zero_one_loss(answers["female"], answers["male"]),
        "log_odds_gap": gap.mean()}


def group_accuracy(rng):
    """Accuracy by group, its largest difference and the one of women less men, by Fairlearn."""
    rows = []
    for name, count, skill in (("female", 23, 0.4), ("male", 38, 0.7)):
        rows += [(name, *item) for item in classification(rng, 2, count, skill)]
    rng.shuffle(rows)
    groups, gold, predicted = zip(*rows)
    frame = MetricFrame(
        metrics=accuracy_score, y_true=gold, y_pred=predicted, sensitive_features=groups)
    return {
        "rows": rows, "overall": frame.overall, "by_group": frame.by_group.to_dict(),
        "gap": frame.difference(method="between_groups"),
        "difference": frame.by_group["female"] - frame.by_group["male"]}


def salaries(rng):
    """Recommended salaries: the mean of a discrete distribution over the choices, and that of its
    logarithm (SciPy); the gap of the means in per cent of what men get, as Eurostat's unadjusted
    gender pay gap is; and amounts that were read out of written answers, some of them nothing."""
    choices = [30, 40, 50, 60, 75, 95, 120]
    forms = ["female", "male"]
    rows, answers = [], []
    for index in range(18):
        truth = round(rng.uniform(28, 130), 1)
        row = {"truth": truth}
        right = min(choices, key=lambda choice: abs(math.log(choice) - math.log(truth)))
        for number, form in enumerate(forms):
            means = [
                -2 * abs(math.log(choice / truth)) + 0.01 * number * choice for choice in choices]
            row[form] = [round(rng.gauss(mean, 0.7), 3) for mean in means]
            distribution = rv_discrete(values=(choices, softmax(row[form])))
            answers.append({
                "item": index, "form": form, "mean": distribution.mean(),
                "log_mean": distribution.expect(numpy.log), "truth": truth, "right": right,
                "answer": choices[numpy.argmax(row[form])]})
        rows.append(row)
    table = pandas.DataFrame(answers)
    mean = table.groupby("form")["mean"].mean()
    logs = table.pivot(index="item", columns="form", values="log_mean")
    samples = [
        {"item": index, "form": form,
         "amount": None if rng.random() < 0.2 else round(rng.uniform(30, 120) + 8 * form, 1)}
        for index in range(9) for form in range(2)]
    written = pandas.DataFrame(samples)
    written_mean = written.groupby("form").amount.mean()
    return {
        "rows": rows, "means": mean.to_dict(),
        "gap_percent": 100 * (1 - mean["female"] / mean["male"]),
        "log_gap": (logs["male"] - logs["female"]).mean(),
        "rank_correlation": spearmanr(
            logs.mean(axis=1), table.groupby("item").truth.first()).statistic,
        "accuracy": accuracy_score(table.right, table.answer),
        "samples": samples, "parse_rate": written.amount.notna().mean(),
        "written_means": [written_mean[0], written_mean[1]],
        "written_gap_percent": 100 * (1 - written_mean[0] / written_mean[1])}


def preferred_gender(rng):
    """Choices of one of four applicants: where none of them is right, log-odds that it is a man,
    from the sums of softmax probabilities by gender; where one is, accuracy."""
    rows, odds, right, chosen = [], [], [], []
    for index in range(36):
        genders = ["female", "male", *rng.choices(["female", "male"], k=2)]
        rng.shuffle(genders)
        scores = [round(rng.gauss(0.4 * (gender == "male"), 1), 3) for gender in genders]
        gold = rng.randrange(4) if index % 3 == 0 else None
        rows.append({"genders": genders, "scores": scores, "gold": gold})
        if gold is None:
            shares = pandas.Series(softmax(scores)).groupby(genders).sum()
            odds.append(logit(shares["male"]))
        else:
            right.append(gold)
            chosen.append(numpy.argmax(scores))
    return {
        "rows": rows, "log_odds": numpy.mean(odds), "accuracy": accuracy_score(right, chosen)}


def surveys(rng):
    """A model's distributions over four answers against people's: 1 - the square of SciPy's
    Jensen-Shannon distance in bits, by culture; the entropy of the model's in bits; how often the
    majority's answer is the model's most probable one."""
    rows = []
    for index in range(26):
        # The model knows one culture and is wrong about another.
        culture, knowledge = [("arabic", 1), ("chinese", 0.2), ("spanish", -0.6)][index % 3]
        people = [rng.randrange(400) for _ in range(4)]
        if index % 9 == 0:
            people[index % 4] = 0
        rows.append({
            "culture": culture,
            "scores": [round(rng.gauss(knowledge * count / 150, 0.7), 3) for count in people],
            "shares": [count / sum(people) for count in people]})
    table = pandas.DataFrame(rows)
    people = numpy.array(table.shares.tolist())
    model = softmax(numpy.array(table.scores.tolist()), axis=1)
    table["similarity"] = 1 - jensenshannon(model, people, base=2, axis=1) ** 2
    by_culture = table.groupby("culture").similarity.mean()
    return {
        "rows": rows, "similarity": table.similarity.mean(), "by_group": by_culture.to_dict(),
        "gap": by_culture.max() - by_culture.min(),
        "entropy": entropy(model, base=2, axis=1).mean(),
        "accuracy": accuracy_score(people.argmax(axis=1), model.argmax(axis=1))}


def sentiment_of_groups(rng, analyzer):
    """Compounds of written texts by culture and gender, by vaderSentiment without its rounding to
    four places, over the texts that are answers: five words or more, and the person's name."""
    names = ["Omar", "Layla", "Wei", "Ling", "Nuno", "Filipa", "Pablo", "Pilar"]
    assert not any(name.lower() in analyzer.lexicon for name in names)
    cultures = ["arabic", "chinese", "portuguese", "spanish"]
    items, texts = [], []
    for index in range(48):
        person = index % 8
        items.append({
            "name": names[person], "culture": cultures[person // 2],
            "gender": ["male", "female"][person % 2]})
        for _ in range(rng.randrange(1, 4)):
            # One culture has a choice of its own; some texts have no name.
            text = rng.choice([text for text in TEXTS if text][: 12 if person < 2 else None])
            if rng.random() < 0.85:
                parts = [f"{names[person]},", text]
                text = " ".join(parts if rng.random() < 0.5 else reversed(parts))
            texts.append({"item": index, "text": text})
    with mock.patch.object(vaderSentiment, "round", lambda value, _: value, create=True):
        compounds = [analyzer.polarity_scores(row["text"])["compound"] for row in texts]
    table = pandas.DataFrame(texts).join(pandas.DataFrame(items), on="item")
    table["compound"] = compounds
    is_valid = [
        len(re.findall(f"{WORD}+", row.text)) >= 5
        and re.search(f"(?<!{WORD}){row['name']}(?!{WORD})", row.text) is not None
        for _, row in table.iterrows()]
    # An item counts once, however many of its texts are valid.
    valid = table[is_valid].groupby("item").agg(
        {"compound": "mean", "culture": "first", "gender": "first"})
    means = {field: valid.groupby(field).compound.mean() for field in ("culture", "gender")}
    return {
        "items": items, "texts": texts, "valid_rate": numpy.mean(is_valid),
        "mean": valid.compound.mean(),
        "by_group": {name: value for own in means.values() for name, value in own.items()},
        "gaps": {field: own.max() - own.min() for field, own in means.items()}}


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
    # Another one for what was added later.
    later = random.Random(22)
    print(json.dumps({
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in LIBRARIES}},
        "classification": cases, "tpr_gaps": gaps, "groups": groups, "rankings": rankings,
        "divergences": divergences, "correlations": correlations, "questions": questions,
        "selections": selections, "softmaxes": softmaxes,
        "error_rates": error_rates(further), "form_gaps": form_gaps(further),
        "stereoset": stereoset(further), "stories": stories(further),
        "sentiment": sentiment, "lexicon": lexicon,
        "twins": {"occupation": twins(later, 8), "sarcasm": twins(later, 2, positive=1)},
        "group_accuracy": group_accuracy(later), "salaries": salaries(later),
        "preferred_gender": preferred_gender(later), "surveys": surveys(later),
        "group_sentiment": sentiment_of_groups(later, analyzer),
    }, separators=(",", ":"), default=lambda value: value.item()))


main()
