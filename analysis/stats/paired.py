"""Statistics on paired differences: one number a seed, the same seeds under both configurations."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

MOST_PAIRS = 20
"""Up to here all 2^n sign patterns are counted."""


class Paired(NamedTuple):
    """Differences over `n` pairs. `low` and `high` are the t interval at `level`, `p_t` its two-sided p, `p_flip` that
    of the exact sign-flip test; what `n` or a spread of zero does not allow is None. Units are those of the differences."""

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    level: float
    df: int
    p_t: float | None
    p_flip: float


def paired(differences: Sequence[float], comparisons: int = 1) -> Paired | None:
    """Paired t (Student 1908, Biometrika 6, 1-25) and the exact sign-flip test; None without a pair.

    The interval's level is 1 - 0.05 / `comparisons`, so that so many intervals hold together with 95 % or more
    (Bonferroni; Dunn 1961, J. Am. Stat. Assoc. 56, 52-64); the p values are those of one comparison (see `holm`).
    Assumes independent differences, for the interval also about normal ones.
    """
    n, level = len(differences), 1 - 0.05 / comparisons
    if n == 0:
        return None
    mean = math.fsum(differences) / n
    sd = float(np.std(differences, ddof=1)) if n > 1 else None
    if sd is None or sd < 1e-12:  # equal but for rounding: no spread to build an interval from
        return Paired(n, mean, sd, None, None, level, n - 1, None, sign_flip_p(differences))
    error = sd / math.sqrt(n)
    half = float(stats.t.ppf(0.5 + level / 2, n - 1)) * error
    p_t = 2 * float(stats.t.sf(abs(mean) / error, n - 1))
    return Paired(n, mean, sd, mean - half, mean + half, level, n - 1, p_t, sign_flip_p(differences))


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p of the exact sign-flip test (Fisher 1935, The Design of Experiments, section 21): the share of all
    2^n sign patterns whose sum is at least as far from zero as observed. Raises ValueError beyond `MOST_PAIRS`."""
    if len(differences) > MOST_PAIRS:
        raise ValueError(f"{len(differences)} pairs, at most {MOST_PAIRS} are counted exactly")
    sums = np.zeros(1)  # (2^k,) after k differences
    for difference in differences:
        sums = np.concatenate([sums + difference, sums - difference])
    observed = abs(math.fsum(differences))
    return float(np.mean(np.abs(sums) >= observed - 1e-9 * max(1.0, observed)))


def smallest_flip_p(n: int) -> float:
    """The smallest p that the sign-flip test can reach with `n` pairs: 2 / 2^n; 0.0625 with five."""
    return min(1.0, 2 / 2**n)


def seeds_needed(found: Paired, comparisons: int) -> int | None:
    """Fewest pairs whose interval would leave out zero if mean and spread stayed as found; None above `MOST_PAIRS` or
    without a spread. With so many, a true difference of this size is shown about every second time."""
    for n in range(2, MOST_PAIRS + 1) if found.sd else ():
        half = float(stats.t.ppf(1 - 0.025 / comparisons, n - 1)) * found.sd / math.sqrt(n)
        if half < abs(found.mean):
            return n
    return None


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values, in the order given: the family-wise error stays at the level that they are held to, whatever
    their dependence (Holm 1979, Scand. J. Stat. 6, 65-70)."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def by_seed(values: dict[int, float], others: dict[int, float]) -> dict[str, float]:
    """Differences of the seeds that both have, as {seed as text: values less others}."""
    return {str(seed): values[seed] - others[seed] for seed in values if seed in others}


def spread(values: dict[int, float]) -> dict[str, Any]:
    """Of one number a seed: n, mean, standard deviation, 95 % t interval of the mean, and the numbers themselves. What n or
    a spread of zero does not allow is None."""
    found = list(values.values())
    return {
        "by_seed": {str(seed): value for seed, value in values.items()},
        "n": len(found),
        "mean": statistics.fmean(found) if found else None,
        "sd": statistics.stdev(found) if len(found) > 1 else None,
        "interval": mean_interval(found),
    }


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % t interval of one mean; None for fewer than two values or no spread."""
    found = paired(values) if len(values) > 1 else None
    return None if found is None or found.low is None or found.high is None else (found.low, found.high)
