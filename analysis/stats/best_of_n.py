"""The best of n trials: what the best of k random trials would be, and how much selection inflates the best's accuracy."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from ..reading.records import ENDED, Experiment, Trial, validation_n
from ..reading.values import score
from .statement import NOT_COMPARABLE

FEWEST = 6
SAMPLES, SEED = 2_000, 0
GRID, STEPS = 150, 400  # possible true accuracies, and steps of the fit


class BestOfK(NamedTuple):
    """For k = 1..n//2: the expected best of k as `mean`, a band from `low` to `high` for the best of a *new* search of k such
    trials, and the probability `covers` that it ends there: 0.95 where n trials can say so, else what they can."""

    k: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]
    covers: list[float]
    n: int


def best_of_k(scores: Sequence[float | None], maximise: bool) -> BestOfK:
    """Expected best of k of the `scores`; None is a trial without a score and counts as worst.

    Unbiased: mean over all subsets of k trials, sum_i C(i-1, k-1) / C(n, k) y_(i) (Tang et al. 2020, arXiv 2004.13705).
    Subsets of failed trials alone have no best and are left out.

    The band is a prediction interval between two of the scores. The best of k new trials is no better than y_(i) of n with
    probability E[U_(i)^k] = C(i+k-1, k) / C(n+k, k), U_(i) the i-th of n uniform numbers, whatever the distribution of the
    scores (Wilks 1942, Ann. Math. Stat. 13, 400-409). It is better than all n with k / (n + k): no band of theirs covers that.

    All of it holds for independent trials only, so for random search and a tuner's start-up, never for trials that a tuner chose.
    """
    ordered = np.array(sorted((score for score in scores if score is not None), reverse=not maximise), dtype=float)
    n, failed = len(scores), len(scores) - len(ordered)
    below = np.arange(failed, n + 1)  # trials no better than the i-th result, from none of them to all
    ranks = np.arange(failed + 1, n + 1)
    result = BestOfK([], [], [], [], [], n)
    for k in _steps(n // 2):
        cumulated = np.where(below >= k, np.exp(_log_choose(np.maximum(below, k), k) - _log_choose(n, k)), 0.0)
        reached = np.exp(_log_choose(ranks + k - 1, k) - _log_choose(n + k, k))  # P(best of k new <= y_(i))
        first, last = max(0, int(np.sum(reached <= 0.025)) - 1), min(int(np.sum(reached < 0.975)), len(ordered) - 1)
        ends = sorted((float(ordered[first]), float(ordered[last])))
        covers = float(reached[last] - reached[first])
        for column, value in zip(result, (k, _mean(ordered, cumulated), *ends, covers)):
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


def pooled_startup(experiments: Sequence[Experiment], verdict: str = "") -> tuple[list[float | None], str]:
    """Scores of all arms together, each training once, and "" or the reason why there is no curve of the best of k.
    `verdict` is that of their comparison, where there is one."""
    if verdict == NOT_COMPARABLE:
        return [], "these experiments cannot be compared, so their trials are not of one kind"
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
    scores = [trial.score for trials in distinct_trials(experiments) for trial in trials if trial.state in ENDED]
    finite = sum(score is not None for score in scores)
    if finite < FEWEST:
        return [], f"{finite} trials with a result are too few, {FEWEST} are needed"
    return scores, ""


def distinct_trials(experiments: Sequence[Experiment]) -> list[list[Trial]]:
    """The trials of each experiment without the copies of an earlier experiment's: the same hyperparameters, seed, curve and
    result are one training, whose number of experiments says nothing more about it."""
    known: Counter[str] = Counter()  # of one training, how often a single experiment has it
    kept = []
    for experiment in experiments:
        own: Counter[str] = Counter()
        kept.append([])
        for trial in experiment.trials:
            key = _training(trial)
            own[key] += 1
            if trial.score is None or own[key] > known[key]:
                kept[-1].append(trial)
        known |= own
    return kept


def _training(trial: Trial) -> str:
    curve = [score(result.value) for result in trial.intermediates]
    return json.dumps([trial.parameters, trial.effective.get("seed"), trial.score, curve], sort_keys=True, default=str)


class _Optimism(NamedTuple):
    """`bias`: expected excess of the best validation accuracy over the true accuracy of those weights (selection bias);
    `se`: binomial standard error of one accuracy; `spread`: standard deviation of the trials' scores with that noise taken
    out; `n_accuracies`: of all epochs of the `n_trials`, from which the best was chosen."""

    bias: float
    se: float
    spread: float
    n_trials: int
    n_images: int
    n_accuracies: int


def optimism(trials: Sequence[Sequence[float]], n_images: int) -> _Optimism | None:
    """Selection bias of the best of all accuracies of `trials`; None for fewer than 3. Each has those that its own was
    chosen from: of every epoch where the best epoch is kept, else one.

    Model: accuracies are true ones with binomial noise of `n_images`. The true ones' distribution is the nonparametric
    maximum likelihood estimate of a binomial mixture (Laird 1978, J. Am. Stat. Assoc. 73, 805-811), so trials of two kinds or
    with a tail of bad ones keep their shape. As many quantiles of it as there are accuracies are the truth of a parametric
    bootstrap: all are measured anew, the best is selected, and what it shows beyond its truth is averaged. In simulations
    the mean estimate is 0.90 to 1.07 of the truth, a single one has a standard deviation of 0.2 to 0.4 of it (docs/log.md).

    Assumes independent noise. Trials share their validation images, and epochs most of their weights, so part of the noise
    moves all alike and cannot be selected on: there it is too large.
    """
    if len(trials) < 3:
        return None
    accuracies = np.array([value for values in trials for value in values], dtype=float)
    scores = np.array([max(values) for values in trials], dtype=float)
    noise = float(np.mean(scores * (1 - scores))) / n_images
    spread = max(0.0, float(scores.var(ddof=1)) - noise) ** 0.5
    truth = _true_accuracies(np.rint(accuracies * n_images).astype(int), n_images)  # (n_accuracies,), from the lowest
    in_reach = truth[
        truth > truth[-1] - 8 * (truth[-1] * (1 - truth[-1]) / n_images) ** 0.5
    ]  # no other will be the best
    rng = np.random.default_rng(SEED)
    samples = min(SAMPLES, max(200, 1_000_000 // len(in_reach)))  # memory; of many trials the maximum varies less
    measured = rng.binomial(n_images, in_reach, size=(samples, len(in_reach))) / n_images  # (samples, in reach)
    bias = float(np.mean(measured.max(axis=1) - in_reach[measured.argmax(axis=1)]))
    return _Optimism(bias, noise**0.5, spread, len(trials), n_images, len(accuracies))


def _true_accuracies(correct: np.ndarray, n_images: int) -> np.ndarray:
    """The (j - 1/2) / m quantiles, from the lowest, of the distribution of true accuracies behind m counts of correct images."""
    counts, times = np.unique(correct, return_counts=True)
    if len(counts) == 1:
        return np.full(len(correct), counts[0] / n_images)
    grid = np.clip(np.linspace(counts[0], counts[-1], GRID) / n_images, 1e-9, 1 - 1e-9)
    likelihood = stats.binom.pmf(counts[:, None], n_images, grid)  # (counts, grid)
    weights = np.full(GRID, 1 / GRID)
    for _ in range(STEPS):  # expectation maximisation
        weights *= (times / (likelihood @ weights)) @ likelihood / len(correct)
    return np.interp((np.arange(len(correct)) + 0.5) / len(correct), np.cumsum(weights), grid)


def optimism_of(experiment: Experiment) -> _Optimism | None:
    """Of an experiment that maximises an accuracy with a known number of images; None for any other."""
    scored = [(trial, validation_n(trial)) for trial in experiment.trials if trial.score is not None]
    images = {n for _, n in scored}
    if experiment.optimise_mode != "maximize" or None in images or not images:
        return None
    return optimism([_chosen_from(trial) for trial, _ in scored], int(statistics.median(n for _, n in scored)))


def _chosen_from(trial: Trial) -> list[float]:
    """The accuracies of all epochs where the trial reports the best of them, else its result alone."""
    curve = [score(result.value) for result in trial.intermediates]
    is_best = bool(curve) and None not in curve and max(curve) == trial.score and min(curve) >= 0
    return curve if is_best else [trial.score]
