"""How much each hyperparameter explains of the trials' ranks, with an interval, or why it cannot be estimated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, special, stats

from ..reading.records import Experiment, Trial

FEWEST = 20
PARTS = 3  # a number of many values is cut into terciles: a best value in the middle counts as well as one at an end
FEWEST_IN_PART = 4


class Importance(NamedTuple):
    """`share` of the variance of the scores' ranks, about 0 where the hyperparameter does nothing; its 95 % interval;
    `p` of the Kruskal-Wallis test; `n` trials in `parts` groups. Of a refusal only `name` and `reason` count."""

    name: str
    share: float | None
    interval: tuple[float, float] | None
    p: float | None
    n: int
    parts: int
    reason: str


def rank_share(scores: Sequence[float], groups: Sequence[Hashable]) -> tuple[float, tuple[float, float], float]:
    """Epsilon squared of ranks over groups (Kelley 1935, PNAS 21, 554-559), 95 % interval, p.

    share = 1 - MS_within / MS_total, unbiased about 0 and so at times below it. The interval inverts the noncentral F
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
    share = 1 - within / (n - k) / (total / (n - 1))
    if within == 0:
        return share, (share, 1.0), float(stats.kruskal(*parts).pvalue)
    ratio = (total - within) / (k - 1) / (within / (n - k))
    low, high = (_noncentrality(ratio, (k - 1, n - k), level) for level in (0.975, 0.025))
    return share, (low / (low + n), high / (high + n)), float(stats.kruskal(*parts).pvalue)


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


def importances(experiments: Sequence[Experiment]) -> list[Importance]:
    """One per hyperparameter, over the randomly sampled trials of all arms that have a result.

    Trials that a tuner chose are concentrated where results were good, so that hyperparameters are correlated; they are
    left out. Refused: fewer than 20 such trials, or no two groups of at least 4 trials.
    """
    trials = [trial for experiment in experiments for trial in _random(experiment)]
    names = dict.fromkeys(name for experiment in experiments for t in experiment.trials for name in t.parameters)
    return [_importance(name, [trial for trial in trials if name in trial.parameters]) for name in names]


def _random(experiment: Experiment) -> list[Trial]:
    flags = experiment.chosen or [experiment.chosen is None] * len(experiment.trials)
    return [
        trial
        for trial, chosen in zip(experiment.trials, flags)
        if trial.score is not None and not chosen and not experiment.was_given(trial)
    ]


def _importance(name: str, trials: list[Trial]) -> Importance:
    if len(trials) < FEWEST:
        reason = f"{len(trials)} random trials with a result are too few, {FEWEST} are needed"
        return Importance(name, None, None, None, len(trials), 0, reason)
    groups = parts_of([trial.parameters[name] for trial in trials])
    sizes = Counter(groups)
    counted = [(trial, group) for trial, group in zip(trials, groups) if sizes[group] >= FEWEST_IN_PART]
    n, parts = len(counted), len({group for _, group in counted})
    if n < FEWEST or parts < 2:
        return Importance(
            name, None, None, None, n, parts, f"too few trials share a value: {n} in groups of {FEWEST_IN_PART} or more"
        )
    share, interval, p = rank_share([trial.score for trial, _ in counted], [group for _, group in counted])
    return Importance(name, share, interval, p, n, parts, "")


def parts_of(values: Sequence[Any]) -> list[Hashable]:
    """The group of each value: terciles of a number with more than six values, else the value itself."""
    numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    if not numeric or len(set(values)) <= 2 * PARTS:
        return [value if isinstance(value, Hashable) else str(value) for value in values]
    edges = np.quantile(values, [part / PARTS for part in range(1, PARTS)])
    return [int(part) for part in np.searchsorted(edges, values)]
