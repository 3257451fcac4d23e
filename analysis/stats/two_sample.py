"""Statistics of two independent samples, and of one proportion.

Of arms with repeats, `first` and `second` are the bests, one number per experiment; everything is about second against
first. One experiment per arm has no spread between runs, so no test and no interval of the tuners' difference exists:
what can be computed is where the difference of the bests falls if the arms' labels meant nothing (`null_band`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, special, stats

Z_95 = 1.959963984540054


def welch(first: Sequence[float], second: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """mean(second) - mean(first) and its 95 % interval by Welch's t (1947, Biometrika 34, 28-35).

    It assumes means that are about normal; of two constant arms the interval has no width.
    """
    difference = float(np.mean(second) - np.mean(first))
    if np.var(first) + np.var(second) == 0:
        return difference, (difference, difference)
    error, freedom = welch_scale(first, second)
    half = float(special.stdtrit(freedom, 0.975)) * error
    return difference, (difference - half, difference + half)


def welch_scale(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Standard error of the difference of means and Welch's degrees of freedom; both arms have two or more, and not all are
    equal. scipy's `ttest_ind` is equal and takes ten times as long, which simulations feel."""
    parts = [float(np.var(arm, ddof=1)) / len(arm) for arm in (first, second)]
    freedom = sum(parts) ** 2 / sum(part**2 / (len(arm) - 1) for part, arm in zip(parts, (first, second)))
    return math.sqrt(sum(parts)), freedom


def mann_whitney_p(first: Sequence[float], second: Sequence[float], alternative: str = "two-sided") -> float:
    """p of the exact Mann-Whitney test (1947, Ann. Math. Stat. 18, 50-60), exact with ties too; `alternative` as in scipy:
    "greater" is that `second` is.

    All permutations of the labels over the mid-ranks are counted by their rank sum: the share at least as far from the
    middle as observed. Without ties it is scipy's `mannwhitneyu(method="exact")`, which is not exact with ties;
    `permutation_test` would enumerate 600 million permutations for 16 against 16.
    """
    ranks = [round(2 * rank) for rank in stats.rankdata([*first, *second])]  # doubled mid-ranks are whole
    size, total = len(first), sum(ranks)
    counts = np.zeros(
        (size + 1, total + 1)
    )  # permutations by number of ranks in `first` and their sum; exact up to 2^53
    counts[0, 0] = 1
    for rank in ranks:
        counts[1:, rank:] += counts[:-1, : total + 1 - rank].copy()
    apart = np.arange(total + 1) * len(ranks) - total * size  # from the middle, times the number of all to stay whole
    towards = {"two-sided": np.abs(apart), "greater": -apart, "less": apart}[
        alternative
    ]  # a low sum of `first` is "greater"
    far = counts[size][towards >= towards[sum(ranks[:size])]].sum()
    return float(far / math.comb(len(ranks), size))


def smallest_p(n_first: int, n_second: int) -> float:
    """Smallest two-sided p of the exact Mann-Whitney test: 2 / C(m + n, m)."""
    return min(1.0, 2 / math.comb(n_first + n_second, n_first))


def repeats_needed(level: float = 0.05) -> int:
    """Fewest experiments per arm with which a difference could be shown at all; 4 at the 5 % level."""
    repeats = 1
    while smallest_p(repeats, repeats) > level:
        repeats += 1
    return repeats


def probability_of_improvement(first: Sequence[float], second: Sequence[float], maximise: bool) -> float:
    """P(second better than first) over all pairs, ties half (Bouthillier et al. 2021, arXiv 2103.03098)."""
    differences = np.subtract.outer(second, first) * (1 if maximise else -1)
    return float(np.mean(np.where(differences == 0, 0.5, differences > 0)))


def direction(probability: float | None) -> int:
    """1 where the second arm is better more often than not, -1 where the first is, 0 where neither: what the rank test is about,
    while the means may differ the other way."""
    return 0 if probability is None else (probability > 0.5) - (probability < 0.5)


def improvement_interval(probability: float, n_first: int, n_second: int) -> tuple[float, float]:
    """95 % score interval of P(second better than first), method 5 of Newcombe 2006 (Stat. Med. 25, 559-573).

    Solves |theta - p| = z sqrt(V(theta)) with Hanley and McNeil's variance, n* = (m + n) / 2 - 1. It stays inside 0 to 1
    and has a width where all of one arm are above the other, where a bootstrap has none.
    """
    mean_size = (n_first + n_second) / 2 - 1

    def excess(theta: float) -> float:
        spread = 1 + mean_size * (1 - theta) / (2 - theta) + mean_size * theta / (1 + theta)
        return (theta - probability) ** 2 - Z_95**2 * theta * (1 - theta) * spread / (n_first * n_second)

    inside = min(max(probability, 1e-9), 1 - 1e-9)  # at 0 and 1 `excess` is 0 too, and is not the end looked for
    low = optimize.brentq(excess, 0.0, inside) if excess(0.0) > 0 else 0.0
    high = optimize.brentq(excess, inside, 1.0) if excess(1.0) > 0 else 1.0
    return float(low), float(high)


class NullBand(NamedTuple):
    """95 % band of best(second) - best(first) over all permutations of the arm labels: exact, no seed."""

    low: float
    high: float
    share: float  # of the permutations that differ at least as much as observed
    n_first: int
    n_second: int

    def contains(self, difference: float) -> bool:
        return self.low <= difference <= self.high


def null_band(first: Sequence[float | None], second: Sequence[float | None], maximise: bool) -> NullBand | None:
    """The band for two lists of final scores, one entry per trial, None for a trial without a score.
    None where fewer than two trials have a score, or an arm has none."""
    best = max if maximise else min
    scored = [[score for score in arm if score is not None] for arm in (first, second)]
    if not scored[0] or not scored[1]:
        return None
    values, weights = permuted_differences(len(first), len(second), scored[0] + scored[1], maximise)
    observed = abs(best(scored[1]) - best(scored[0]))
    share = math.fsum(weight for value, weight in zip(values, weights, strict=True) if abs(value) >= observed - 1e-12)
    low, high = (_quantile(values, weights, level) for level in (0.025, 0.975))
    return NullBand(low, high, min(1.0, share), len(first), len(second))


def permuted_differences(
    n_first: int, n_second: int, scores: Sequence[float], maximise: bool
) -> tuple[list[float], list[float]]:
    """The exact distribution of best(second) - best(first) under permuted labels: values, probabilities.

    `scores` are those of both arms together; trials without a score count in `n_first` and `n_second` and
    are permuted too. With scores sorted from the best, the first k fall into one arm and the next into
    the other: the difference is then s[k] - s[0], and its probability that of sampling without
    replacement. Labels that leave one arm without any score have no difference and are left out.
    """
    ordered = sorted(scores, reverse=maximise)
    values: list[float] = []
    weights: list[float] = []
    for own, other, sign in ((n_first, n_second, 1.0), (n_second, n_first, -1.0)):
        probability = 1.0  # that the best k scores are all in `own`
        for k in range(1, len(ordered)):
            left = own + other - k  # trials without a label, after these k
            probability *= max(0, own - k + 1) / (left + 1)
            if probability == 0.0:
                break
            values.append(sign * (ordered[k] - ordered[0]))
            weights.append(probability * other / left)
    total = math.fsum(weights)
    return values, [weight / total for weight in weights] if total else []


def _quantile(values: Sequence[float], weights: Sequence[float], level: float) -> float:
    """The smallest value whose cumulated probability reaches `level`."""
    total = 0.0
    pairs = sorted(zip(values, weights, strict=True))
    for value, weight in pairs:
        total += weight
        if total >= level - 1e-12:
            return value
    return pairs[-1][0]


def wilson(proportion: float, n: int) -> tuple[float, float]:
    """95 % interval of a proportion of `n` (Wilson 1927, J. Am. Stat. Assoc. 22, 209-212).

    It covers the sampling of the `n` images only: neither the selection of the best of many trials nor the spread
    between seeds. scipy's `binomtest` is equal and takes whole counts only; other trials may report rounded fractions.
    """
    centre = (proportion + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(proportion * (1 - proportion) / n + Z_95**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)
