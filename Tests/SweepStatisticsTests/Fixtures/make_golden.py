#!/usr/bin/env python3
"""Reference values of the statistics, from SciPy, scikit-learn and statsmodels.

python3 make_golden.py > golden.json     (pip install numpy scipy scikit-learn statsmodels)
"""

import json
import platform
import sys

import numpy
import scipy
import scipy.stats
import sklearn
import statsmodels
from sklearn.metrics.pairwise import rbf_kernel
from statsmodels.stats.multitest import multipletests

random = numpy.random.default_rng(20240217)


def rounded(values, digits=3):
    return [round(float(value), digits) for value in values]


def sign_flip(values):
    answer = scipy.stats.permutation_test(
        (numpy.array(values),), numpy.sum, permutation_type="samples", n_resamples=numpy.inf)
    return {"values": values, "p": float(answer.pvalue)}


def clustered_sign_flip(values, clusters):
    """SciPy flips the signs of single observations: here one for each cluster, all of them 1 at
    first, so that whole clusters flip. All arrangements."""
    values, clusters = numpy.array(values), numpy.array(clusters)
    answer = scipy.stats.permutation_test(
        (numpy.ones(clusters.max() + 1),),
        lambda signs, axis: (signs[..., clusters] * values).mean(axis=axis),
        vectorized=True, permutation_type="samples", n_resamples=numpy.inf)
    return {
        "values": values.tolist(), "clusters": clusters.tolist(), "p": float(answer.pvalue)}


def label_permutation(first, second):
    """All ways to give the labels to the values. Two-sided is by the size of the difference: where
    the groups differ in size, twice the smaller tail, SciPy's own, is another p."""
    answer = scipy.stats.permutation_test(
        (numpy.array(first), numpy.array(second)),
        lambda x, y, axis: numpy.abs(numpy.mean(x, axis=axis) - numpy.mean(y, axis=axis)),
        vectorized=True, alternative="greater", n_resamples=numpy.inf)
    return {"first": first, "second": second, "p": float(answer.pvalue)}


def permutations():
    """Tests by permutation. Their draws have a generator of their own, so that the values of other
    cases stay as they are."""
    random = numpy.random.default_rng(20240219)
    uneven = [0, 0, 0, 1, 2, 2, 3, 4, 4, 4, 4, 5, 6, 6, 7]
    # Halves are exact, so that arrangements tie; the sum of the third cluster is 0.
    tied = [0.5, 1.0, -1.0, 0.5, 0.5, -0.5, 1.0, 1.0, 0.5]
    shifted = [
        numpy.round(random.normal(shift, 1, count), 3).tolist()
        for shift, count in ((-0.6, 6), (0.6, 4), (1.2, 2), (0, 8), (0.2, 5), (0, 5))]
    return {
        "clustered_sign_flip": [
            clustered_sign_flip(rounded(random.normal(0.4, 1, len(uneven))), uneven),
            clustered_sign_flip(tied, [0, 0, 1, 1, 2, 2, 3, 3, 4]),
            clustered_sign_flip([1.0, 2.0, 4.0, 0.5], [0, 0, 0, 1]),
            # So many clusters that the study draws arrangements.
            clustered_sign_flip(
                rounded(random.normal(0.25, 1, 45)), sorted(index % 18 for index in range(45)))],
        "label_permutation": [
            label_permutation(shifted[0], shifted[1]), label_permutation(shifted[2], shifted[3]),
            label_permutation(shifted[4], shifted[5]),
            label_permutation([0.5, 1.0, 1.0, 2.0], [0.5, 1.0, 0.0])],
    }


def rank_correlation(x, y):
    exact = scipy.stats.permutation_test(
        (numpy.array(x),), lambda permuted: scipy.stats.spearmanr(permuted, y).statistic,
        permutation_type="pairings", n_resamples=numpy.inf) if len(x) <= 7 else None
    return {
        "x": x, "y": y, "rho": float(scipy.stats.spearmanr(x, y).statistic),
        "p": float(exact.pvalue) if exact else None}


def line(x, y):
    fit = scipy.stats.linregress(x, y)
    return {"x": x, "y": y, "slope": float(fit.slope), "intercept": float(fit.intercept)}


def discrepancy(a, b):
    """Gretton et al. 2012, equation 3, with the median heuristic; p by all ways to choose the first
    sample from both, of the same with scikit-learn's kernel."""
    pooled = numpy.vstack([a, b])
    distances = scipy.spatial.distance.cdist(pooled, pooled, "sqeuclidean")
    median = numpy.median(scipy.spatial.distance.pdist(pooled, "sqeuclidean"))
    kernel = numpy.exp(-distances / (2 * median))
    m, n = len(a), len(b)
    first, second, cross = kernel[:m, :m], kernel[m:, m:], kernel[:m, m:]
    gaussian = rbf_kernel(pooled, gamma=1 / (2 * median))
    numpy.fill_diagonal(gaussian, 0)

    def mean_within(side):
        return gaussian[numpy.ix_(side, side)].sum() / (len(side) * (len(side) - 1))

    answer = scipy.stats.permutation_test(
        (numpy.arange(m), numpy.arange(m, m + n)),
        lambda x, y: mean_within(x) + mean_within(y) - 2 * gaussian[numpy.ix_(x, y)].mean(),
        vectorized=False, alternative="greater", n_resamples=numpy.inf)
    return {
        "a": a.tolist(), "b": b.tolist(), "bandwidth": float(median ** 0.5),
        "value": float(
            (first.sum() - numpy.trace(first)) / (m * (m - 1))
            + (second.sum() - numpy.trace(second)) / (n * (n - 1)) - 2 * cross.mean()),
        "mean_distance": float(numpy.linalg.norm(a.mean(0) - b.mean(0))),
        "p": float(answer.pvalue)}


def bootstrap(statistic, *samples, paired=False):
    """The percentile interval of so many resamples that their own error hardly counts."""
    answer = scipy.stats.bootstrap(
        [numpy.array(sample) for sample in samples], statistic, paired=paired, vectorized=True,
        n_resamples=RESAMPLES, batch=20_000, confidence_level=0.95, method="percentile",
        random_state=numpy.random.default_rng(7))
    return {
        "lower": float(answer.confidence_interval.low),
        "upper": float(answer.confidence_interval.high), "error": float(answer.standard_error)}


def bootstraps():
    """Cases that SciPy can resample as the study does. Their draws have a generator of their own, so
    that the values of other cases stay as they are."""
    random = numpy.random.default_rng(20240218)
    values = rounded(random.exponential(1, 30))
    first, second = rounded(random.normal(0, 1, 40)), rounded(random.normal(0.3, 1, 40))
    seeds, items = rounded(random.normal(0, 0.5, 6)), rounded(random.normal(0, 1, 25))
    clusters = [rounded(random.normal(mean, 0.3, 3)) for mean in random.normal(0, 1, 20)]
    return {
        "resamples": RESAMPLES,
        "mean": {
            "values": values,
            "interval": bootstrap(lambda x, axis: numpy.mean(x, axis=axis), values)},
        "paired": {
            "first": first, "second": second,
            "interval": bootstrap(
                lambda x, y, axis: numpy.mean(x, axis=axis) - numpy.mean(y, axis=axis),
                first, second, paired=True)},
        # Values that are sums of an effect of the seed and one of the item.
        "crossed": {
            "seeds": seeds, "items": items,
            "interval": bootstrap(
                lambda x, y, axis: numpy.mean(x, axis=axis) + numpy.mean(y, axis=axis),
                seeds, items)},
        # Of clusters of one size, drawn whole, the mean is that of the clusters' means.
        "clustered": {
            "clusters": clusters,
            "interval": bootstrap(
                lambda x, axis: numpy.mean(x, axis=axis),
                [sum(cluster) / 3 for cluster in clusters])},
    }


RESAMPLES = 200_000
sample = rounded(random.normal(0.2, 1, 9))
families = [rounded(random.uniform(0, 0.2, 6)), [0.01, 0.04, 0.03, 0.005], [0.5, 0.5, 0.02], [1.0]]
json.dump({
    "versions": {
        "python": platform.python_version(), "numpy": numpy.__version__,
        "scipy": scipy.__version__, "scikit-learn": sklearn.__version__,
        "statsmodels": statsmodels.__version__},
    "sample": {
        "values": sample, "deviation": float(numpy.std(sample, ddof=1)),
        "standard_error": float(scipy.stats.sem(sample)),
        "quantiles": [[q, float(numpy.quantile(sample, q))] for q in (0, 0.025, 0.3, 0.5, 0.975, 1)],
    },
    "ranks": [
        {"values": values, "ranks": scipy.stats.rankdata(values).tolist()}
        for values in ([3.0, 1.0, 2.0], [2.0, 2.0, 1.0, 5.0, 2.0], [1.0, 1.0], [7.0])],
    "sign_flip": [
        sign_flip(values) for values in (
            sample, [1.0, 1.0, 1.0], [0.5, -0.5, 0.25, 2.0], [1.0, -1.0, 1.0, 1.0, 0.5, 0.5],
            rounded(random.normal(0.8, 1, 12), 1))],
    "holm": [
        {"p": family, "adjusted": multipletests(family, method="holm")[1].tolist()}
        for family in families],
    "rank_correlation": [
        rank_correlation([1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 4.0, 3.0, 5.0]),
        rank_correlation([1.0, 1.0, 2.0, 3.0], [4.0, 3.0, 3.0, 1.0]),
        rank_correlation(rounded(random.normal(size=20)), rounded(random.normal(size=20)))],
    "line": [line([0.0, 0.05, 0.1, 0.2, 0.5], rounded(random.normal(size=5)))],
    "discrepancy": [
        discrepancy(
            numpy.round(random.normal(0, 1, (7, 3)), 2), numpy.round(random.normal(1, 1, (5, 3)), 2)),
        discrepancy(
            numpy.round(random.normal(0, 1, (6, 2)), 2), numpy.round(random.normal(0, 1, (6, 2)), 2))],
    "bootstrap": bootstraps(),
    **permutations(),
}, sys.stdout, indent=1)
print()
