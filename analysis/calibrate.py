"""Does the verdict keep its promises? `python -m analysis.calibrate` simulates comparisons whose truth is known.

An experiment is the best of 15 trials: true accuracies 0.93 - 0.10 Beta(1, 3), measured on 3,430 images (binomial
noise). The second arm is the same, or better by `shift` standard deviations of such bests. Reported are, for each number
of repeats, the share of claimed differences, and how often each 95 % interval holds the truth.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np

from .stats import repeats, verdict

TRIALS, IMAGES, LEVEL = 15, 3430, 0.05
REFERENCE = 200_000  # experiments that the truth of P(second better) is computed from


class Outcome(NamedTuple):
    """Shares of the simulated comparisons. `claimed`: a difference shown (at one repeat: outside the null band, which
    is never claimed, only shown); `welch`, `bootstrap`, `improvement`: intervals that hold the truth."""

    shift: float
    repeats: int
    claimed: float
    welch: float | None
    bootstrap: float | None
    improvement: float | None
    comparisons: int


def draw_trials(rng: np.random.Generator, experiments: int) -> np.ndarray:
    """Accuracies as measured, (experiments, 15)."""
    truth = 0.93 - 0.10 * rng.beta(1, 3, size=(experiments, TRIALS))
    return rng.binomial(IMAGES, truth) / IMAGES


def simulate(shift: float, n: int, comparisons: int, seed: int) -> Outcome:
    """`comparisons` of n against n experiments; `shift` in standard deviations of the bests."""
    rng = np.random.default_rng([seed, n, round(100 * shift)])
    many = draw_trials(rng, 20_000).max(axis=1)
    moved = shift * float(many.std())
    if n == 1:
        pairs = [(draw_trials(rng, 1)[0], draw_trials(rng, 1)[0] + moved) for _ in range(comparisons)]
        return Outcome(shift, 1, sum(map(_outside_band, pairs)) / comparisons, None, None, None, comparisons)
    probability = improvement_truth(rng, moved)
    checks = np.array([_check(rng, n, moved, probability) for _ in range(comparisons)])  # (comparisons, 4) bool
    return Outcome(shift, n, *(float(share) for share in checks.mean(axis=0)), comparisons)


def improvement_truth(rng: np.random.Generator, moved: float) -> float:
    first, second = (draw_trials(rng, REFERENCE).max(axis=1) for _ in range(2))
    second = second + moved
    return float(np.mean(second > first) + np.mean(second == first) / 2)


def _outside_band(pair: tuple[np.ndarray, np.ndarray]) -> bool:
    band = verdict.null_band(list(pair[0]), list(pair[1]), True)
    return not band.contains(float(pair[1].max() - pair[0].max()))


def _check(rng: np.random.Generator, n: int, moved: float, probability: float) -> tuple[bool, bool, bool, bool]:
    first, second = (list(draw_trials(rng, n).max(axis=1)) for _ in range(2))
    second = [best + moved for best in second]
    intervals = (
        repeats.mean_difference(first, second)[1],
        repeats.bootstrap_difference(first, second),
        repeats.improvement_interval(repeats.improvement(first, second, True), n, n),
    )
    held = [low <= truth <= high for (low, high), truth in zip(intervals, (moved, moved, probability))]
    return (repeats.exact_p(first, second) < LEVEL, *held)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m analysis.calibrate", description=__doc__, allow_abbrev=False)
    parser.add_argument("--comparisons", type=int, default=2000, help="simulated for each row (2000)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| shift (sd of bests) | repeats an arm | difference claimed | Welch t holds | bootstrap holds | P holds |")
    print("|---|---|---|---|---|---|")
    for shift in (0.0, 1.0, 2.0):
        for n in (1, 4, 8, 16):
            found = simulate(shift, n, options.comparisons, options.seed)
            cells = ["-" if share is None else f"{100 * share:.1f} %" for share in found[2:6]]
            print(f"| {shift:g} | {n} | {' | '.join(cells)} |", flush=True)
    print(f"n = {options.comparisons} comparisons a row, seed {options.seed}")


if __name__ == "__main__":
    main()
