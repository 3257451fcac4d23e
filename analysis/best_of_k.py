"""What k random trials would find: expected best and its spread, from n independent trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from .records import ENDED, Experiment

FEWEST = 6


class BestOfK(NamedTuple):
    """For k = 1..n//2: `unbiased` (Tang et al.), `plugin` (Dodge et al.), and the 2.5 and 97.5 % quantiles `low` and
    `high` of the best of k: where one such search ends, not how well the mean is known."""

    k: list[int]
    unbiased: list[float]
    plugin: list[float]
    low: list[float]
    high: list[float]
    n: int


def best_of_k(scores: Sequence[float | None], maximise: bool) -> BestOfK:
    """Expected best of k of the `scores`, None for a trial that yielded nothing and counts as worst.

    unbiased: mean over all subsets of k trials, sum_i C(i-1, k-1) / C(n, k) y_(i) (Tang et al. 2020, arXiv 2004.13705,
    eq. 4). plugin: k draws with replacement, sum_i ((i/n)^k - ((i-1)/n)^k) y_(i) (Dodge et al. 2019, arXiv 1909.03004,
    eq. 7), biased towards the worse. Both hold for independent draws only, so for random search and a tuner's
    start-up, never for trials that a tuner chose. Draws of k failed trials have no best and are left out.
    """
    found = sorted((score for score in scores if score is not None), reverse=not maximise)
    n, failed = len(scores), len(scores) - len(found)
    result = BestOfK([], [], [], [], [], n)
    for k in range(1, n // 2 + 1):
        without = [math.comb(i, k) / math.comb(n, k) for i in range(failed, n + 1)]  # P(best is at most the i-th)
        replaced = [(i / n) ** k for i in range(failed, n + 1)]
        quantiles = (_quantile(found, without, 0.025), _quantile(found, without, 0.975))
        columns = (k, _mean(found, without), _mean(found, replaced), min(quantiles), max(quantiles))
        for column, value in zip(result, columns):
            column.append(value)
    return result


def _mean(values: list[float], cumulated: list[float]) -> float:
    """`cumulated` has one entry more than `values`: its first is the share of draws without any result."""
    steps = [later - earlier for earlier, later in zip(cumulated, cumulated[1:])]
    return math.fsum(step * value for step, value in zip(steps, values)) / math.fsum(steps)


def _quantile(values: list[float], cumulated: list[float], level: float) -> float:
    share = cumulated[0] + level * (cumulated[-1] - cumulated[0])
    return next(value for value, total in zip(values, cumulated[1:]) if total >= share - 1e-12)


def pooled_startup(experiments: Sequence[Experiment]) -> tuple[list[float | None], str]:
    """Scores of all arms together, and "" or the reason why the curve is refused."""
    if any(experiment.chosen is None for experiment in experiments):
        return [], "it is not known which trials the tuner chose"
    chosen = sum(sum(experiment.chosen) for experiment in experiments)
    if chosen:
        return [], f"the tuner chose {chosen} of the trials from earlier results, so they are not independent draws"
    if len({experiment.optimise_mode for experiment in experiments}) > 1:
        return [], "some tuners maximise and others minimise"
    if any(e.config.get("searchSpace") != experiments[0].config.get("searchSpace") for e in experiments):
        return [], "the search spaces differ"
    scores = [trial.score for e in experiments for trial in e.trials if trial.state in ENDED]
    finite = sum(score is not None for score in scores)
    if finite < FEWEST:
        return [], f"{finite} trials with a result are too few, {FEWEST} are needed"
    return scores, ""
