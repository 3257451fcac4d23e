"""Statistics on the bests of two experiments, and what may be said about them.

One experiment an arm has no spread between runs, so no test and no interval of the tuners' difference
exists. What can be computed is where the observed difference falls if the arms' labels meant nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

Z_95 = 1.959963984540054
DIFFERENCE, NO_DIFFERENCE = "difference_shown", "no_difference_shown"
NOT_ESTIMABLE, NOT_COMPARABLE = "not_estimable", "not_comparable"


class NullBand(NamedTuple):
    """95 % band of best(second) - best(first) over all permutations of the arm labels: exact, no seed."""

    low: float
    high: float
    share: float  # of the permutations that differ at least as much as observed
    n_first: int
    n_second: int

    def contains(self, difference: float) -> bool:
        return self.low <= difference <= self.high


def permuted_differences(
    n_first: int, n_second: int, scores: Sequence[float], maximise: bool
) -> tuple[list[float], list[float]]:
    """The exact distribution of best(second) - best(first) under permuted labels: values, probabilities.

    `scores` are those of both arms together; trials without a score count in `n_first` and `n_second` and
    are permuted too. With scores sorted from the best, the first k fall into one arm and the next into
    the other: the difference is then s[k] - s[0], and its probability a product of draws without
    replacement. Labels that leave one arm without any score have no difference and are left out.
    """
    ordered = sorted(scores, reverse=maximise)
    values: list[float] = []
    weights: list[float] = []
    for own, other, sign in ((n_first, n_second, 1.0), (n_second, n_first, -1.0)):
        chance = 1.0  # that the best k scores all went to `own`
        for k in range(1, len(ordered)):
            left = own + other - k  # trials not yet dealt, after these k
            chance *= max(0, own - k + 1) / (left + 1)
            if chance == 0.0:
                break
            values.append(sign * (ordered[k] - ordered[0]))
            weights.append(chance * other / left)
    total = math.fsum(weights)
    return values, [weight / total for weight in weights] if total else []


def null_band(first: Sequence[float | None], second: Sequence[float | None], maximise: bool) -> NullBand | None:
    """The band for two lists of final scores, one entry a trial, None for a trial that yielded nothing.
    None where fewer than two trials have a score, or an arm has none."""
    best = max if maximise else min
    scored = [[score for score in arm if score is not None] for arm in (first, second)]
    if not scored[0] or not scored[1]:
        return None
    values, weights = permuted_differences(len(first), len(second), scored[0] + scored[1], maximise)
    observed = abs(best(scored[1]) - best(scored[0]))
    share = math.fsum(weight for value, weight in zip(values, weights, strict=True) if abs(value) >= observed - 1e-12)
    return NullBand(
        low=_quantile(values, weights, 0.025),
        high=_quantile(values, weights, 0.975),
        share=min(1.0, share),
        n_first=len(first),
        n_second=len(second),
    )


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
    """95 % interval of a proportion out of `n` (Wilson 1927, J. Am. Stat. Assoc. 22, 209-212).

    It covers the sampling of the `n` images only: neither the choice of the best of many trials nor the
    spread between seeds."""
    centre = (proportion + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(proportion * (1 - proportion) / n + Z_95**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def smallest_p(repeats: int) -> float:
    """Smallest two-sided p of the exact Mann-Whitney test with `repeats` experiments an arm: 2 / C(2k, k)."""
    return min(1.0, 2 / math.comb(2 * repeats, repeats))


def repeats_needed(level: float = 0.05) -> int:
    """Fewest experiments an arm with which a difference could be shown at all; 4 at the 5 % level."""
    repeats = 1
    while smallest_p(repeats) >= level:
        repeats += 1
    return repeats
