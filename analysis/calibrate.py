"""Do the verdicts keep their promises? `python -m analysis.calibrate` simulates comparisons and confirmations whose truth is
known, and prints how often a difference is claimed and how often each 95 % interval holds the truth.

Comparisons: an experiment is the best of 15 trials with true accuracies 0.93 - 0.10 Beta(1, 3), measured on 3,430 images
(binomial noise); the second arm is the same, or better by `shift` standard deviations of such bests.

Confirmations: a network's true accuracy is 0.90 plus the chance of its training, normal with a standard deviation of 1
point, measured on 3,430 validation and 3,347 evaluation images. Of `tuned` configurations one is chosen by its mean
validation accuracy, and the evaluation of the same networks judges it. They are like the default, or better by `shift` points.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np

from .stats import two_sample
from .stats.paired import paired

TRIALS, IMAGES, LEVEL = 15, (3430, 3347), 0.05
REFERENCE = 200_000  # experiments that the truth of P(second better) is computed from
TRAINING_SD, ACCURACY = 0.01, 0.90


class _Comparisons(NamedTuple):
    """Shares of the simulated comparisons. `claimed`: a difference shown (with one repeat: outside the null band, which
    is never claimed, only shown); `welch`, `improvement`: intervals that hold the truth."""

    claimed: float
    welch: float | None
    improvement: float | None


class _Confirmations(NamedTuple):
    """Shares of the simulated confirmations. `claimed`: the interval for all configurations together leaves out zero;
    `holds`: it holds the truth; `claimed_alone`: what an interval for the chosen one alone would claim."""

    claimed: float
    holds: float
    claimed_alone: float


def sample_trials(rng: np.random.Generator, experiments: int) -> np.ndarray:
    """Accuracies as measured, (experiments, 15)."""
    truth = 0.93 - 0.10 * rng.beta(1, 3, size=(experiments, TRIALS))
    return rng.binomial(IMAGES[0], truth) / IMAGES[0]


def compare(shift: float, n: int, comparisons: int, seed: int) -> _Comparisons:
    """`comparisons` of n against n experiments; `shift` in standard deviations of the bests."""
    rng = np.random.default_rng([seed, n, round(100 * shift)])
    moved = shift * float(sample_trials(rng, 20_000).max(axis=1).std())
    if n == 1:
        pairs = [(sample_trials(rng, 1)[0], sample_trials(rng, 1)[0] + moved) for _ in range(comparisons)]
        return _Comparisons(sum(_outside_band(*pair) for pair in pairs) / comparisons, None, None)
    first, second = (sample_trials(rng, REFERENCE).max(axis=1) for _ in range(2))
    truth = float(np.mean(second + moved > first) + np.mean(second + moved == first) / 2)
    checks = np.array([_check(rng, n, moved, truth) for _ in range(comparisons)])  # (comparisons, 3) bool
    return _Comparisons(*(float(share) for share in checks.mean(axis=0)))


def _outside_band(first: np.ndarray, second: np.ndarray) -> bool:
    band = two_sample.null_band(list(first), list(second), True)
    return not band.contains(float(second.max() - first.max()))


def _check(rng: np.random.Generator, n: int, moved: float, probability: float) -> tuple[bool, bool, bool]:
    first, second = (list(sample_trials(rng, n).max(axis=1)) for _ in range(2))
    second = [best + moved for best in second]
    low, high = two_sample.welch(first, second)[1]
    better = two_sample.probability_of_improvement(first, second, True)
    least, most = two_sample.improvement_interval(better, n, n)
    return two_sample.mann_whitney_p(first, second) < LEVEL, low <= moved <= high, least <= probability <= most


def confirm(shift: float, tuned: int, seeds: int, confirmations: int, seed: int) -> _Confirmations:
    """`shift` in points of accuracy, for every tuned configuration."""
    rng = np.random.default_rng([seed, tuned, seeds, round(100 * shift)])
    checks = np.array(
        [_confirm(rng, shift / 100, tuned, seeds) for _ in range(confirmations)]
    )  # (confirmations, 3) bool
    return _Confirmations(*(float(share) for share in checks.mean(axis=0)))


def _confirm(rng: np.random.Generator, moved: float, tuned: int, seeds: int) -> tuple[bool, bool, bool]:
    truth = ACCURACY + TRAINING_SD * rng.normal(size=(tuned + 1, seeds))  # the default in row 0
    truth[1:] += moved
    truth = np.clip(truth, 0, 1)
    validation, evaluation = (rng.binomial(n, truth) / n for n in IMAGES)
    chosen = 1 + int(validation[1:].mean(axis=1).argmax())
    difference = paired(list(evaluation[chosen] - evaluation[0]), tuned)
    if difference is None or difference.low is None:
        return False, False, False
    claimed = not difference.low <= 0 <= difference.high
    return claimed, difference.low <= moved <= difference.high, difference.p_t < LEVEL


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m analysis.calibrate", description=__doc__, allow_abbrev=False)
    parser.add_argument("--comparisons", type=int, default=2000, help="simulated for each row (2000)")
    parser.add_argument("--confirmations", type=int, default=2000, help="simulated for each row (2000)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    _header("shift (sd of bests)", "repeats per arm", "difference claimed", "Welch t holds", "P holds")
    for shift in (0.0, 1.0, 2.0):
        for n in (1, 4, 8, 16):
            row([f"{shift:g}", n], compare(shift, n, options.comparisons, options.seed))
    print(f"n = {options.comparisons} comparisons per row, seed {options.seed}\n")
    _header("better by (points)", "tuned", "seeds", "claimed", "interval holds", "claimed for the chosen alone")
    for shift in (0.0, 1.0, 2.0):
        for tuned in (1, 3, 6):
            for seeds in (3, 5, 10):
                row([f"{shift:g}", tuned, seeds], confirm(shift, tuned, seeds, options.confirmations, options.seed))
    print(f"n = {options.confirmations} confirmations per row, seed {options.seed}")


def _header(*columns: str) -> None:
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


def row(case: list[str | int], shares: _Comparisons | _Confirmations) -> None:
    cells = ["-" if share is None else f"{100 * share:.1f} %" for share in shares]
    print(f"| {' | '.join([*map(str, case), *cells])} |", flush=True)


if __name__ == "__main__":
    main()
