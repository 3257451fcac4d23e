"""Is a difference shown to be small? Two one-sided tests against a margin."""

from __future__ import annotations

from typing import NamedTuple

from scipy import stats

MARGIN = 0.01
"""1 point of accuracy: about two standard errors of an accuracy of 0.9 on Food-11's 3,347 evaluation images."""


class Equivalence(NamedTuple):
    """`low` and `high` are the interval that lies within -`margin` to `margin` exactly where `holds`; 90 % of one comparison."""

    margin: float
    low: float
    high: float
    p: float
    holds: bool


def equivalence(
    difference: float, standard_error: float, df: float, margin: float = MARGIN, comparisons: int = 1
) -> Equivalence:
    """Whether the true difference is shown to be smaller than `margin`, at the 5 % level for all `comparisons` together.

    Both one-sided t tests have to reject (Schuirmann 1987, J. Pharmacokinet. Biopharm. 15, 657-680); p is the larger of
    theirs, times `comparisons` (Bonferroni). Units are those of the difference. The standard error is above 0.
    """
    inner = min(margin - difference, margin + difference) / standard_error
    p = min(1.0, comparisons * float(stats.t.sf(inner, df)))
    half = float(stats.t.ppf(1 - 0.05 / comparisons, df)) * standard_error
    return Equivalence(margin, difference - half, difference + half, p, p < 0.05)
