"""How much each hyperparameter explains of the trials' ranks, with an interval, or why it cannot be estimated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, special, stats

from ..reading.records import Experiment, Trial
from .best_of_n import distinct_trials
from .paired import holm
from .statement import NOT_COMPARABLE

FEWEST = 20
PARTS = 3  # a number of many values is cut into terciles: a best value in the middle counts as well as one at an end
FEWEST_IN_PART = 4


class Importance(NamedTuple):
    """`share` of the variance of the scores' ranks, 0 where the hyperparameter does nothing; its interval, which holds together
    with those of the other hyperparameters in 95 % (Bonferroni); `p` of the Kruskal-Wallis test and `p_adjusted` for all
    hyperparameters looked at (Holm); `n` trials in `parts` groups. Of a refusal only `name` and `reason` count."""

    name: str
    share: float | None
    interval: tuple[float, float] | None
    p: float | None
    n: int
    parts: int
    reason: str
    p_adjusted: float | None = None


def rank_share(
    scores: Sequence[float], groups: Sequence[Hashable], level: float = 0.95
) -> tuple[float, tuple[float, float], float]:
    """Epsilon squared of ranks over groups (Kelley 1935, PNAS 21, 554-559), its interval at `level`, p.

    share = 1 - MS_within / MS_total, unbiased, and set to 0 where that is below it. The interval inverts the noncentral F
    distribution (Steiger 2004, Psychol. Methods 9, 164-182); it takes ranks within groups for about normal and alike
    in spread. p: Kruskal and Wallis 1952, chi-squared approximation.
    """
    ranks, labels = stats.rankdata(scores), sorted(set(groups), key=str)
    parts = [ranks[[label == other for other in groups]] for label in labels]
    n, k = len(ranks), len(parts)
    within = float(sum(((part - part.mean()) ** 2).sum() for part in parts))
    total = float(((ranks - ranks.mean()) ** 2).sum())
    if total == 0:
        return 0.0, (0.0, 0.0), 1.0
    share, p = max(0.0, 1 - within / (n - k) / (total / (n - 1))), float(stats.kruskal(*parts).pvalue)
    if within == 0:
        return share, (share, 1.0), p
    ratio = (total - within) / (k - 1) / (within / (n - k))
    ends = (_noncentrality(ratio, (k - 1, n - k), (1 + side * level) / 2) for side in (1, -1))
    low, high = (shift / (shift + n) for shift in ends)
    return min(max(share, low), high), (low, high), p


def _noncentrality(ratio: float, freedom: tuple[int, int], level: float) -> float:
    """The noncentrality under which F is below `ratio` with probability `level`; 0 where none is."""
    if stats.f.cdf(ratio, *freedom) <= level:
        return 0.0
    top = 1.0
    while _noncentral_f(ratio, freedom, top) > level:
        top *= 2
    return float(optimize.brentq(lambda shift: _noncentral_f(ratio, freedom, shift) - level, 0.0, top))


def _noncentral_f(ratio: float, freedom: tuple[int, int], shift: float) -> float:
    """P(F <= ratio) as a Poisson mixture of beta distributions (Johnson, Kotz and Balakrishnan 1995, chapter 30); scipy's
    own `ncf.cdf` gives NaN in places that the search passes."""
    middle, reach = shift / 2, 10 * (shift / 2) ** 0.5 + 30
    count = np.arange(max(0, int(middle - reach)), int(middle + reach) + 1)
    share = freedom[0] * ratio / (freedom[0] * ratio + freedom[1])
    return float(
        np.sum(stats.poisson.pmf(count, middle) * special.betainc(freedom[0] / 2 + count, freedom[1] / 2, share))
    )


def importances(experiments: Sequence[Experiment], verdict: str = "") -> list[Importance]:
    """One per hyperparameter, over the randomly sampled trials of all arms that have a result, each training once.

    Trials that a tuner chose are concentrated where results were good, so that hyperparameters are correlated; they are
    left out. Refused: fewer than 20 such trials, or no two groups of at least 4 trials, and experiments that cannot be
    compared, by the `verdict` of their comparison where there is one.
    """
    trials = [t for e, kept in zip(experiments, distinct_trials(experiments)) for t in _random(e, kept)]
    names = list(dict.fromkeys(name for experiment in experiments for t in experiment.trials for name in t.parameters))
    if verdict == NOT_COMPARABLE:
        return [_refused(name, 0, 0, "these experiments cannot be compared") for name in names]
    groups = [_groups(name, trials) for name in names]
    looked_at = sum(not one.reason for one in groups)
    estimates = [_importance(one, 1 - 0.05 / looked_at) if not one.reason else _refused(*one[:4]) for one in groups]
    adjusted = iter(holm([one.p for one in estimates if one.p is not None]))
    return [one if one.p is None else one._replace(p_adjusted=next(adjusted)) for one in estimates]


def _random(experiment: Experiment, trials: Sequence[Trial]) -> list[Trial]:
    """Those of the experiment's `trials` that have a score and were sampled at random."""
    flags = experiment.chosen or [experiment.chosen is None] * len(experiment.trials)
    chosen = {trial.trial_id for trial, flag in zip(experiment.trials, flags) if flag}
    return [t for t in trials if t.score is not None and t.trial_id not in chosen and not experiment.was_given(t)]


class _Groups(NamedTuple):
    """Scores of the `n` trials in groups of 4 or more, each with its group; `reason` where that is not enough."""

    name: str
    n: int
    parts: int
    reason: str
    scores: list[float]
    labels: list[Hashable]


def _groups(name: str, trials: Sequence[Trial]) -> _Groups:
    own = [trial for trial in trials if name in trial.parameters]
    labels = parts_of([trial.parameters[name] for trial in own]) if own else []
    sizes = Counter(labels)
    counted = [(t.score, label) for t, label in zip(own, labels) if sizes[label] >= FEWEST_IN_PART]
    n, parts = len(counted), len({label for _, label in counted})
    reason = ""
    if len(own) < FEWEST:
        n, parts, reason = len(own), 0, f"{len(own)} random trials with a result are too few, {FEWEST} are needed"
    elif n < FEWEST or parts < 2:
        reason = f"too few trials share a value: {n} in groups of {FEWEST_IN_PART} or more"
    return _Groups(name, n, parts, reason, [value for value, _ in counted], [label for _, label in counted])


def _importance(groups: _Groups, level: float) -> Importance:
    share, interval, p = rank_share(groups.scores, groups.labels, level)
    return Importance(groups.name, share, interval, p, groups.n, groups.parts, "")


def _refused(name: str, n: int, parts: int, reason: str) -> Importance:
    return Importance(name, None, None, None, n, parts, reason)


def parts_of(values: Sequence[Any]) -> list[Hashable]:
    """The group of each value: terciles of a number with more than six values, else the value itself."""
    numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    if not numeric or len(set(values)) <= 2 * PARTS:
        return [value if isinstance(value, Hashable) else str(value) for value in values]
    edges = np.quantile(values, [part / PARTS for part in range(1, PARTS)])
    return [int(part) for part in np.searchsorted(edges, values)]
