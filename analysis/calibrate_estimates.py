"""Estimates of a page whose truth is known: selection bias, intervals of the chosen network, importance, best of k, patience.

A search is 15 trials, measured on 228 or 3,430 validation images and, its chosen network, on as many evaluation images; the
distributions of true accuracies are `KINDS`, one number per trial or, with epochs, one per epoch of each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .stats import best_of_n, early_stopping, importance, two_sample
from .stats.paired import holm

TRIALS = 15
REPEATED = 20  # measurements of one search's networks, of which the mean excess is the truth of the bias


def _one_kind(rng: np.random.Generator) -> np.ndarray:
    return 0.93 - 0.10 * rng.beta(1, 3, size=(TRIALS, 1))


def _two_kinds(rng: np.random.Generator) -> np.ndarray:
    good = rng.random((TRIALS, 1)) < 0.5
    return np.where(good, rng.normal(0.92, 0.005, good.shape), rng.normal(0.6, 0.05, good.shape))


def _equal(rng: np.random.Generator) -> np.ndarray:
    return np.full((TRIALS, 1), 0.9)


def _with_epochs(kind: Callable[[np.random.Generator], np.ndarray], epochs: int) -> Callable:
    """They rise to the trial's accuracy within a few epochs and then vary by 0.3 points."""

    def curves(rng: np.random.Generator) -> np.ndarray:
        rise = 1 - 0.5 * np.exp(-np.arange(1, epochs + 1) / rng.uniform(1, 4, (TRIALS, 1)))
        return np.clip(kind(rng) * rise + 0.003 * rng.normal(size=(TRIALS, epochs)), 0.0, 1.0)

    return curves


KINDS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "equal": _equal,
    "one kind": _one_kind,
    "two kinds": _two_kinds,
    "one kind, best of 10 epochs": _with_epochs(_one_kind, 10),
    "one kind, best of 25 epochs": _with_epochs(_one_kind, 25),
    "two kinds, best of 10 epochs": _with_epochs(_two_kinds, 10),
}


class Bias(NamedTuple):
    """Selection bias, in fractions: its mean `truth`; mean estimate over truth, `ratio`, with its Monte Carlo `error` and the
    standard deviation `sd` of one estimate, both over the truth too. Shares of Wilson intervals of the chosen network that hold
    its true accuracy: by `validation` and by `evaluation`."""

    truth: float
    ratio: float
    error: float
    sd: float
    validation: float
    evaluation: float


def bias(kind: str, images: int, times: int, seed: int) -> Bias:
    rng = np.random.default_rng([seed, images, *kind.encode()])
    excess, estimates, holds = [], [], []
    for _ in range(times):
        truth = KINDS[kind](rng)
        for _ in range(REPEATED):
            correct = rng.binomial(images, truth)
            best = int(correct.argmax())
            seen, own = correct.flat[best] / images, truth.flat[best]
            other = rng.binomial(images, own) / images
            excess.append(seen - own)
            holds.append([low <= own <= high for low, high in (two_sample.wilson(x, images) for x in (seen, other))])
        estimates.append(best_of_n.optimism((correct / images).tolist(), images).bias)
    mean, spread = float(np.mean(excess)), float(np.std(estimates, ddof=1))
    rates = np.mean(holds, axis=0).tolist()
    return Bias(mean, float(np.mean(estimates)) / mean, spread / times**0.5 / mean, spread / mean, *rates)


class Importances(NamedTuple):
    """Shares of searches in which any of three hyperparameters is claimed: by p alone, by Holm's p, by the intervals; and the one
    that explains `share` of the variance by Holm's p, with how often its interval holds that share."""

    alone: float
    by_holm: float
    by_interval: float
    found: float
    holds: float


def importances(share: float, times: int, seed: int, trials: int = 30) -> Importances:
    """`share` of the variance is the first hyperparameter's, of three of three values each; 0: nothing matters."""
    rng, rows = np.random.default_rng([seed, round(100 * share)]), []
    for _ in range(times):
        groups = [rng.permutation(np.arange(trials) % 3) for _ in range(3)]
        effect = (groups[0] - 1) * (1.5 * share) ** 0.5  # of variance `share`
        scores = list(effect + (1 - share) ** 0.5 * rng.normal(size=trials))
        estimates = [importance.rank_share(scores, list(own), 1 - 0.05 / 3) for own in groups]
        p_values = [p for _, _, p in estimates]
        adjusted, intervals = holm(p_values), [interval for _, interval, _ in estimates]
        low, high = intervals[0]
        claims = [min(p_values) < 0.05, min(adjusted) < 0.05, any(ends[0] > 0 for ends in intervals)]
        rows.append([*claims, adjusted[0] < 0.05, low <= share <= high])
    return Importances(*np.mean(rows, axis=0).tolist())


def new_searches(k: int, times: int, seed: int, trials: int = 30) -> tuple[float, float]:
    """Shares of new searches of k trials whose best is in the band of best-of-k, and what the band says of it."""
    rng, inside = np.random.default_rng([seed, k]), []
    for _ in range(times):
        curve = best_of_n.best_of_k((0.93 - 0.1 * rng.beta(1, 3, trials)).tolist(), True)
        place = curve.k.index(k)
        inside.append(curve.low[place] <= 0.93 - 0.1 * rng.beta(1, 3, k).min() <= curve.high[place])
    return float(np.mean(inside)), curve.covers[place]


class Patience(NamedTuple):
    """Points of accuracy lost by another patience, mean over searches: `observed` and `true`; `shown`: share of searches whose
    loss exceeds its error, so that the page has it."""

    observed: float
    true: float
    shown: float


def patience(epochs: int, images: int, times: int, seed: int, is_steady: bool = False) -> Patience:
    """`is_steady`: all ten epochs of a trial are truly alike, and nothing can be lost."""
    rng, rows = np.random.default_rng([seed, epochs, images]), []
    for _ in range(times):
        truth = np.repeat(_one_kind(rng), 10, axis=1) if is_steady else KINDS["one kind, best of 10 epochs"](rng)
        seen = rng.binomial(images, truth) / images
        curves = [early_stopping.Curve(values, len(values), images) for values in seen.tolist()]
        (line,) = early_stopping.counterfactual(curves, True, [epochs])
        stops = [early_stopping.stop_at(curve, epochs, True) for curve in curves]
        kept = [(own.argmax(), own[:stop].argmax()) for own, stop in zip(seen, stops)]
        lost = np.mean([own[whole] - own[part] for own, (whole, part) in zip(truth, kept)])
        rows.append([100 * line.lost, 100 * lost, line.lost > line.error])
    return Patience(*np.mean(rows, axis=0).tolist())
