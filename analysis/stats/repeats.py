"""Statistics on repeats: the bests of several experiments of each arm. `first` and `second` are the arms' bests, one
number an experiment, and everything is about second against first; at least 4 each where an interval is asked for."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy import optimize, stats

from .verdict import Z_95

FEWEST = 4
"""Below it the exact test cannot reach p < 0.05 (`verdict.repeats_needed`)."""
DRAWS, SEED = 10_000, 0


def mean_difference(first: Sequence[float], second: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """mean(second) - mean(first) and its 95 % interval by Welch's t (1947, Biometrika 34, 28-35).

    It assumes means that are about normal. The percentile bootstrap covers too seldom at 4 to 8 repeats (docs/log.md).
    """
    sizes = (len(first), len(second))
    parts = [float(np.var(arm, ddof=1)) / n for arm, n in zip((first, second), sizes)]
    difference, variance = float(np.mean(second) - np.mean(first)), sum(parts)
    if variance == 0:
        return difference, (difference, difference)
    freedom = variance**2 / sum(part**2 / (n - 1) for part, n in zip(parts, sizes))
    half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(variance)
    return difference, (difference - half, difference + half)


def bootstrap_difference(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the difference of means: 10,000 seeded draws, each arm by itself."""
    rng = np.random.default_rng(SEED)
    means = [rng.choice(np.asarray(arm), (DRAWS, len(arm))).mean(axis=1) for arm in (first, second)]  # (draws,) each
    low, high = np.quantile(means[1] - means[0], [0.025, 0.975])
    return float(low), float(high)


def improvement(first: Sequence[float], second: Sequence[float], maximise: bool) -> float:
    """P(second better than first) over all pairs, ties half (Bouthillier et al. 2021, arXiv 2103.03098)."""
    sign = 1 if maximise else -1
    pairs = [sign * (b - a) for a, b in itertools.product(first, second)]
    return sum(1.0 if pair > 0 else 0.5 if pair == 0 else 0.0 for pair in pairs) / len(pairs)


def improvement_interval(probability: float, n_first: int, n_second: int) -> tuple[float, float]:
    """95 % score interval of P(second better than first), method 5 of Newcombe 2006 (Stat. Med. 25, 559-573).

    Solves |theta - p| = z sqrt(V(theta)) with Hanley and McNeil's variance, n* = (m + n) / 2 - 1. It stays inside 0 to 1
    and has a width where all of one arm lie above the other, where a bootstrap has none.
    """
    mean_size = (n_first + n_second) / 2 - 1

    def excess(theta: float) -> float:
        spread = 1 + mean_size * (1 - theta) / (2 - theta) + mean_size * theta / (1 + theta)
        return (theta - probability) ** 2 - Z_95**2 * theta * (1 - theta) * spread / (n_first * n_second)

    inside = min(max(probability, 1e-9), 1 - 1e-9)  # at 0 and 1 `excess` is 0 too, and is not the end looked for
    low = optimize.brentq(excess, 0.0, inside) if excess(0.0) > 0 else 0.0
    high = optimize.brentq(excess, inside, 1.0) if excess(1.0) > 0 else 1.0
    return float(low), float(high)


def exact_p(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p of the exact Mann-Whitney test (1947, Ann. Math. Stat. 18, 50-60), exact with ties too.

    All deals of the mid-ranks are counted by their sum: the share of deals at least as far from the middle as
    observed. Without ties it is scipy's `mannwhitneyu(method="exact")`.
    """
    ranks = [round(2 * rank) for rank in stats.rankdata([*first, *second])]  # doubled mid-ranks are whole
    size, total = len(first), sum(ranks)
    deals: list[Counter[int]] = [Counter({0: 1})] + [Counter() for _ in range(size)]  # by size, sum -> number
    for seen, rank in enumerate(ranks, start=1):
        for taken in range(min(seen, size), 0, -1):
            for value, count in deals[taken - 1].items():
                deals[taken][value + rank] += count
    middle = total * size  # times the number of all, to stay whole
    observed = abs(sum(ranks[:size]) * len(ranks) - middle)
    far = sum(count for value, count in deals[size].items() if abs(value * len(ranks) - middle) >= observed)
    return far / math.comb(len(ranks), size)
