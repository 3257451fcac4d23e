"""How much too good the best of n trials looks, because it was chosen by the number that is shown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..reading.records import Experiment
from ..render.formats import validation_n

DRAWS, SEED = 10_000, 0


class Optimism(NamedTuple):
    """`bias`: expected excess of the best validation accuracy over the true accuracy of that trial; `se`: binomial
    standard error of one accuracy; `spread`: standard deviation of the trials with that noise taken out."""

    bias: float
    se: float
    spread: float
    n_trials: int
    n_images: int


def optimism(accuracies: Sequence[float], n_images: int) -> Optimism | None:
    """Selection bias of max(accuracies), by a parametric bootstrap; None for fewer than 3 trials.

    Model: accuracy_i = true_i + noise_i, noise binomial of `n_images`. The observed accuracies spread by both, so
    they are first drawn together to the spread that is left when the mean noise variance is taken out
    (method of moments, as James and Stein 1961; their shape, skew included, is kept). From these as truth, all trials
    are measured anew, the best is chosen, and what it shows beyond its truth is averaged over 10,000 seeded draws:
    the bootstrap of a selected minimum of Tibshirani and Tibshirani 2009 (Ann. Appl. Stat. 3, 822-829), with the
    binomial in place of the folds. With no true spread it is the order statistic, 1.74 standard errors of 15 trials.

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
    draws = min(DRAWS, max(200, 2_000_000 // len(truth)))  # memory; of many trials the maximum varies less
    measured = rng.binomial(n_images, truth, size=(draws, len(truth))) / n_images  # (draws, n)
    chosen = measured.argmax(axis=1)
    bias = float(np.mean(measured.max(axis=1) - truth[chosen]))
    return Optimism(bias, noise**0.5, left**0.5, len(observed), n_images)


def optimism_of(experiment: Experiment) -> Optimism | None:
    """Of an experiment that maximises an accuracy with a known number of images; None for any other."""
    found = [(trial.score, validation_n(trial)) for trial in experiment.trials if trial.score is not None]
    images = {n for _, n in found}
    if experiment.optimise_mode != "maximize" or None in images or not images:
        return None
    return optimism([score for score, _ in found], int(statistics.median(n for _, n in found)))
