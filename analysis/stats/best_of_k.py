"""What k random trials would find: expected best and its spread, from n independent trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from ..reading.records import ENDED, Experiment

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

    unbiased: mean over all subsets of k trials, sum_i C(i-1, k-1) / C(n, k) y_(i) (Tang et al. 2020, arXiv 2004.13705).
    plugin: k draws with replacement, sum_i ((i/n)^k - ((i-1)/n)^k) y_(i) (Dodge et al. 2019, arXiv 1909.03004), biased towards the worse. Both hold for independent draws only, so for random search and a tuner's
    start-up, never for trials that a tuner chose. Draws of k failed trials have no best and are left out.
    """
    found = np.array(sorted((score for score in scores if score is not None), reverse=not maximise), dtype=float)
    n, failed = len(scores), len(scores) - len(found)
    below = np.arange(failed, n + 1)  # trials no better than the i-th result, from none of them to all
    result = BestOfK([], [], [], [], [], n)
    for k in _steps(n // 2):
        without = np.where(below >= k, np.exp(_log_choose(np.maximum(below, k), k) - _log_choose(n, k)), 0.0)
        quantiles = [_quantile(found, without, level) for level in (0.025, 0.975)]
        columns = (k, _mean(found, without), _mean(found, (below / n) ** k), min(quantiles), max(quantiles))
        for column, value in zip(result, columns):
            column.append(value)
    return result


def _steps(last: int) -> list[int]:
    """1 to 50 each, then about 4 % apart: a curve of thousands of trials has some 150 points."""
    steps = list(range(1, min(last, 50) + 1))
    while steps and steps[-1] < last:
        steps.append(min(last, round(1.04 * steps[-1])))
    return steps


def _log_choose(n: np.ndarray | int, k: int) -> np.ndarray:
    return special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)


def _mean(values: np.ndarray, cumulated: np.ndarray) -> float:
    """`cumulated` has one entry more than `values`: its first is the share of draws without any result."""
    steps = np.diff(cumulated)
    return float(np.sum(steps * values) / np.sum(steps))


def _quantile(values: np.ndarray, cumulated: np.ndarray, level: float) -> float:
    share = cumulated[0] + level * (cumulated[-1] - cumulated[0])
    return float(values[np.argmax(cumulated[1:] >= share - 1e-9)])


def pooled_startup(experiments: Sequence[Experiment]) -> tuple[list[float | None], str]:
    """Scores of all arms together, and "" or the reason why the curve is refused."""
    if any(experiment.chosen is None for experiment in experiments):
        return [], "it is not known which trials the tuner chose"
    chosen = sum(sum(experiment.chosen) for experiment in experiments)
    if chosen:
        return [], f"the tuner chose {chosen} of the trials from earlier results, so they are not independent draws"
    if any(experiment.design.size for experiment in experiments):
        return [], "first trials are set by the experiment files, so not all are independent random draws"
    if len({experiment.optimise_mode for experiment in experiments}) > 1:
        return [], "some tuners maximise and others minimise"
    if any(e.config.get("searchSpace") != experiments[0].config.get("searchSpace") for e in experiments):
        return [], "the search spaces differ"
    scores = [trial.score for e in experiments for trial in e.trials if trial.state in ENDED]
    finite = sum(score is not None for score in scores)
    if finite < FEWEST:
        return [], f"{finite} trials with a result are too few, {FEWEST} are needed"
    return scores, ""
