"""Several arms against one reference, the seeds as blocks: Dunnett's test with the residual that all arms share.

A training's accuracy is that of its arm, plus what its seed does to all arms, plus a residual. Where all arms scatter alike,
the residual of all of them estimates one spread: three arms of three seeds have 4 degrees of freedom where a pair of arms has 2.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, special, stats

from ..render.formats import FEWEST_FREEDOM
from .equivalence import Equivalence, equivalence
from .paired import Paired, by_seed, paired

LEVEL = 0.05
UNEQUAL_P = 0.10
"""Below this p of equal spreads (`equal_spread_p`) the residual is not pooled."""

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(61)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()  # of a standard normal variable


class Contrast(NamedTuple):
    """An arm less the reference over `n` pairs. `low` and `high` hold together with 95 % for all arms of the family, each
    alone at `level`; `p_t` is the two-sided p of this one, `p_adjusted` that of the family, `p_flip` the exact sign-flip test's.
    `pooled`: the residual is that of all arms. What one pair or a spread of zero do not allow is None."""

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    level: float
    df: int
    p_t: float | None
    p_flip: float
    p_adjusted: float
    standard_error: float | None
    pooled: bool

    @property
    def claims(self) -> bool:
        """Whether a difference is shown: p < 0.05 in the family, by at least `FEWEST_FREEDOM` degrees of freedom; where all
        differences are equal, by the sign-flip test."""
        return self.p_adjusted < LEVEL and (self.p_t is None or self.df >= FEWEST_FREEDOM)


def contrasts(
    reference: Mapping[int, float], arms: Sequence[Mapping[int, float]], families: int = 1
) -> list[Contrast | None]:
    """Of each arm, {seed: value}, less the reference; None for an arm without a pair.

    `families` such lists share the 5 % level (Bonferroni). The residual is that of the seeds that all arms have, two at least.
    Where one arm is far noisier than the others, each interval is the wider of two: with the pooled residual, and with the
    spread of its own differences. Assumes independent seeds and about normal residuals."""
    counted = [arm for arm in arms if len(by_seed(dict(arm), dict(reference))) > 1]
    shared = sorted(set(reference).intersection(*counted)) if counted else []
    table = np.array([[values[seed] for values in (reference, *counted)] for seed in shared])  # (seeds, arms + 1)
    pool = _Pool(table, len(arms), families) if len(counted) > 1 and len(shared) > 1 else None
    return [_contrast(list(by_seed(dict(arm), dict(reference)).values()), len(arms), families, pool) for arm in arms]


class _Pool:
    """The residual of all arms: its standard deviation and degrees of freedom, and whether it stands for each of them."""

    def __init__(self, table: np.ndarray, arms: int, families: int) -> None:
        self.sd, self.df = residual_sd(table)
        self.is_sound = equal_spread_p(table) >= UNEQUAL_P
        self.arms, self.families = arms, families
        self.critical = critical_value(arms, self.df, LEVEL / families)


def _contrast(differences: list[float], arms: int, families: int, pool: _Pool | None) -> Contrast | None:
    own = paired(differences, arms * families)
    if own is None:
        return None
    flip = min(1.0, arms * families * own.p_flip)
    if own.p_t is None and (pool is None or not pool.sd):
        level = own.level
        return Contrast(own.n, own.mean, own.sd, None, None, level, own.df, None, own.p_flip, flip, None, False)
    alone = None if own.p_t is None else _from_own(own, arms * families)
    if pool is None or own.n < 2:
        return alone or Contrast(*own, flip, None, False)
    together = _from_pool(own, pool)
    if pool.is_sound or alone is None:
        return together
    return max(together, alone, key=lambda row: row.high - row.low)


def _from_own(own: Paired, comparisons: int) -> Contrast:
    """By the spread of its own differences."""
    p = min(1.0, comparisons * own.p_t)
    return Contrast(*own, p_adjusted=p, standard_error=own.sd / math.sqrt(own.n), pooled=False)


def _from_pool(own: Paired, pool: _Pool) -> Contrast:
    error = pool.sd * math.sqrt(2 / own.n)
    t, half = abs(own.mean) / error, pool.critical * error
    p_t = 2 * float(stats.t.sf(t, pool.df))
    level = 1 - 2 * float(stats.t.sf(pool.critical, pool.df))
    p = min(1.0, pool.families * (1 - coverage(t, pool.arms, pool.df)))
    ends = (own.mean - half, own.mean + half)
    return Contrast(own.n, own.mean, own.sd, *ends, level, pool.df, p_t, own.p_flip, p, error, True)


def residual_sd(table: np.ndarray) -> tuple[float, int]:
    """Of (seeds, arms): the standard deviation of what neither seed nor arm explains, and its degrees of freedom."""
    seeds, arms = table.shape
    df = (seeds - 1) * (arms - 1)
    sd = math.sqrt(float((_residuals(table) ** 2).sum()) / df)
    return (sd if sd > 1e-12 else 0.0), df  # equal but for rounding


def pooled_sd(arms: Sequence[Mapping[int, float]]) -> float | None:
    """`residual_sd` over the seeds that all arms have; None of fewer than two."""
    shared = sorted(set(arms[0]).intersection(*arms[1:]))
    if len(shared) < 2 or len(arms) < 2:
        return None
    return residual_sd(np.array([[values[seed] for values in arms] for seed in shared]))[0]


def _residuals(table: np.ndarray) -> np.ndarray:
    """Of (..., seeds, arms), the same shape."""
    return table - table.mean(-1, keepdims=True) - table.mean(-2, keepdims=True) + table.mean((-2, -1), keepdims=True)


def equal_spread_p(table: np.ndarray) -> float:
    """How often arms of equal spread would have one with as large a share of the residual's sum of squares, of (seeds, arms).

    The share is Cochran's C (1941, Ann. Eugen. 11, 47-52) of residuals, its distribution that of 10,000 normal tables."""
    total = _largest_share(table[None])[0]
    return 1.0 if math.isnan(total) else float(np.mean(_shares_of_equal_spread(*table.shape) >= total - 1e-12))


def _largest_share(tables: np.ndarray) -> np.ndarray:
    squares = (_residuals(tables) ** 2).sum(-2)  # (n, arms)
    total = squares.sum(-1)
    return np.where(total > 1e-20, squares.max(-1) / np.where(total > 1e-20, total, 1.0), np.nan)


@functools.lru_cache
def _shares_of_equal_spread(seeds: int, arms: int) -> np.ndarray:
    return _largest_share(np.random.default_rng(0).standard_normal((10_000, seeds, arms)))


@functools.lru_cache
def critical_value(arms: int, df: int, level: float = LEVEL) -> float:
    """Dunnett's two-sided critical value (1955, J. Am. Stat. Assoc. 50, 1096-1121) of `arms` beside the reference, all with
    as many trainings; Student's of one arm."""
    return float(optimize.brentq(lambda value: coverage(value, arms, df) - (1 - level), 0.0, 1000.0))


def coverage(value: float, arms: int, df: int) -> float:
    """P(all |t| < value) of `arms` t statistics that share the reference, whose correlation is 0.5 (multivariate t).

    Given the reference and the pooled spread they are independent: an integral over both. scipy's `multivariate_t` gives the
    same by sampling, a thousand times as slowly."""
    if arms == 1:
        return 1 - 2 * float(stats.t.sf(value, df))
    spreads, weights = _spreads(df)
    half = math.sqrt(2) * value * spreads[:, None]  # (spreads, 1)
    inside = special.ndtr(half - _NODES) - special.ndtr(-half - _NODES)  # (spreads, nodes)
    return float(weights @ (inside**arms @ _WEIGHTS))


@functools.lru_cache
def _spreads(df: int) -> tuple[np.ndarray, np.ndarray]:
    """Values of estimated over true standard deviation, (300,), and the weights that they have in an integral over it."""
    nodes, weights = np.polynomial.legendre.leggauss(300)
    end = math.sqrt(stats.chi2.isf(1e-16, df))
    chi = (nodes + 1) / 2 * end
    density = weights * stats.chi.pdf(chi, df)
    return chi / math.sqrt(df), density / density.sum()


def detectable(seeds: int, arms: int = 1, families: int = 1, power: float = 0.8) -> float | None:
    """The true difference that would be shown with this power, in standard deviations of a training of one arm (what its seed
    does to all arms aside); None where so few seeds can claim nothing."""
    df = (seeds - 1) * arms
    if df < FEWEST_FREEDOM:
        return None
    spreads, weights = _spreads(df)
    bounds = critical_value(arms, df, LEVEL / families) * spreads  # (spreads,)

    def excess(shift: float) -> float:
        return float(weights @ (special.ndtr(shift - bounds) + special.ndtr(-shift - bounds))) - power

    return float(optimize.brentq(excess, 0.0, 100.0)) * math.sqrt(2 / seeds)


def equivalence_of(contrast: Mapping[str, Any], margin: float, comparisons: int) -> Equivalence | None:
    """Whether the difference of a contrast, as a dictionary, is shown to be within the margin; None of too few trainings."""
    if not contrast["standard_error"] or contrast["df"] < FEWEST_FREEDOM:
        return None
    return equivalence(contrast["mean"], contrast["standard_error"], contrast["df"], margin, comparisons)


def lost_pairs(own: Mapping[int, float], reference: Mapping[int, float], seeds: Sequence[int]) -> list[float] | None:
    """The paired differences with a failed training counted against its arm: its pair is as far apart as the farthest of the
    others, in the other arm's favour; 0 where both failed. None where nothing failed, or no pair has ended."""
    apart = by_seed(dict(own), dict(reference))
    if len(apart) == len(seeds) or not apart:
        return None
    largest = max(abs(value) for value in apart.values())
    lost = {seed: largest * ((seed in own) - (seed in reference)) for seed in seeds if str(seed) not in apart}
    return [*apart.values(), *lost.values()]


def is_shown_with_failures(mean: float, lost: Paired | None) -> bool:
    """Whether a difference is still shown, and the same, with the failed trainings of `lost_pairs` counted."""
    if lost is None:
        return True
    return lost.low is not None and not lost.low <= 0 <= lost.high and lost.mean * mean > 0
