"""The best of n trials: what the best of k random trials would be, and how much selection inflates the best's accuracy."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from ..reading.records import ENDED, Experiment, validation_n

FEWEST = 6
SAMPLES, SEED = 10_000, 0


class BestOfK(NamedTuple):
    """For k = 1..n//2: the expected best of k as `mean`, and its 2.5 and 97.5 % quantiles `low` and `high`: where one
    such search ends, not how well the mean is known."""

    k: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]
    n: int


def best_of_k(scores: Sequence[float | None], maximise: bool) -> BestOfK:
    """Expected best of k of the `scores`; None is a trial without a score and counts as worst.

    Unbiased: mean over all subsets of k trials, sum_i C(i-1, k-1) / C(n, k) y_(i) (Tang et al. 2020, arXiv 2004.13705).
    It holds for independent trials only, so for random search and a tuner's start-up, never for trials that a tuner chose.
    Subsets of failed trials alone have no best and are left out.
    """
    ordered = np.array(sorted((score for score in scores if score is not None), reverse=not maximise), dtype=float)
    n, failed = len(scores), len(scores) - len(ordered)
    below = np.arange(failed, n + 1)  # trials no better than the i-th result, from none of them to all
    result = BestOfK([], [], [], [], n)
    for k in _steps(n // 2):
        cumulated = np.where(below >= k, np.exp(_log_choose(np.maximum(below, k), k) - _log_choose(n, k)), 0.0)
        quantiles = [_quantile(ordered, cumulated, level) for level in (0.025, 0.975)]
        for column, value in zip(result, (k, _mean(ordered, cumulated), min(quantiles), max(quantiles))):
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
    """`cumulated` has one entry more than `values`: its first is the share of subsets without any result."""
    steps = np.diff(cumulated)
    return float(np.sum(steps * values) / np.sum(steps))


def _quantile(values: np.ndarray, cumulated: np.ndarray, level: float) -> float:
    share = cumulated[0] + level * (cumulated[-1] - cumulated[0])
    return float(values[np.argmax(cumulated[1:] >= share - 1e-9)])


def pooled_startup(experiments: Sequence[Experiment]) -> tuple[list[float | None], str]:
    """Scores of all arms together, and "" or the reason why there is no curve of the best of k."""
    if any(experiment.chosen is None for experiment in experiments):
        return [], "it is not known which trials the tuner chose"
    chosen = sum(sum(experiment.chosen) for experiment in experiments)
    if chosen:
        return [], f"the tuner chose {chosen} of the trials from earlier results, so they are not independent"
    if any(experiment.design.size for experiment in experiments):
        return [], "first trials are set by the experiment files, so not all are sampled independently at random"
    if len({experiment.optimise_mode for experiment in experiments}) > 1:
        return [], "some tuners maximise and others minimise"
    if any(e.config.get("searchSpace") != experiments[0].config.get("searchSpace") for e in experiments):
        return [], "the search spaces differ"
    scores = [trial.score for e in experiments for trial in e.trials if trial.state in ENDED]
    finite = sum(score is not None for score in scores)
    if finite < FEWEST:
        return [], f"{finite} trials with a result are too few, {FEWEST} are needed"
    return scores, ""


class _Optimism(NamedTuple):
    """`bias`: expected excess of the best validation accuracy over the true accuracy of that trial (selection bias);
    `se`: binomial standard error of one accuracy; `spread`: standard deviation of the trials with that noise taken out."""

    bias: float
    se: float
    spread: float
    n_trials: int
    n_images: int


def optimism(accuracies: Sequence[float], n_images: int) -> _Optimism | None:
    """Selection bias of max(accuracies), by a parametric bootstrap; None for fewer than 3 trials.

    Model: accuracy_i = true_i + noise_i, noise binomial of `n_images`. The observed accuracies spread by both, so
    they are first shrunk to the spread that is left when the mean noise variance is taken out (method of moments, as
    James and Stein 1961; their shape, skew included, is kept). From these as truth, all trials are measured anew, the
    best is selected, and what it shows beyond its truth is averaged over 10,000 seeded samples: the bootstrap of a
    selected minimum of Tibshirani and Tibshirani 2009 (Ann. Appl. Stat. 3, 822-829), with the binomial in place of the
    folds. With no true spread it is the order statistic, 1.74 standard errors of 15 trials.

    Assumes independent noise. The trials share their validation images, so part of it moves all alike and
    cannot be selected on: there it is too large. That each trial also keeps its best epoch is left out: there
    it is too small. It is a size, not a correction to three digits.
    """
    if len(accuracies) < 3:
        return None
    observed = np.asarray(accuracies, dtype=float)  # (n,)
    noise = float(np.mean(observed * (1 - observed))) / n_images
    left = max(0.0, float(observed.var(ddof=1)) - noise)
    shrink = (left / observed.var(ddof=1)) ** 0.5 if left else 0.0
    truth = np.clip(observed.mean() + shrink * (observed - observed.mean()), 0.0, 1.0)  # (n,)
    rng = np.random.default_rng(SEED)
    samples = min(SAMPLES, max(200, 2_000_000 // len(truth)))  # memory; of many trials the maximum varies less
    measured = rng.binomial(n_images, truth, size=(samples, len(truth))) / n_images  # (samples, n)
    selected = measured.argmax(axis=1)
    bias = float(np.mean(measured.max(axis=1) - truth[selected]))
    return _Optimism(bias, noise**0.5, left**0.5, len(observed), n_images)


def optimism_of(experiment: Experiment) -> _Optimism | None:
    """Of an experiment that maximises an accuracy with a known number of images; None for any other."""
    scored = [(trial.score, validation_n(trial)) for trial in experiment.trials if trial.score is not None]
    images = {n for _, n in scored}
    if experiment.optimise_mode != "maximize" or None in images or not images:
        return None
    return optimism([score for score, _ in scored], int(statistics.median(n for _, n in scored)))
