"""Does a confirmation keep its promises? `python -m analysis.calibrate_confirm` simulates some whose truth is known.

A network's true accuracy is 0.90 plus its training's luck, normal with a standard deviation of 1 point; it is measured on
3,430 validation and 3,347 evaluation images (binomial noise). Of `tuned` configurations one is chosen by its mean validation
accuracy, and the evaluation of the same networks judges it. They are like the default, or better by `shift` points.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np

from .stats.paired import paired

LUCK, ACCURACY, IMAGES = 0.01, 0.90, (3430, 3347)


class Outcome(NamedTuple):
    """Shares of the simulated confirmations. `claimed`: the interval for all configurations together leaves out zero;
    `holds`: it holds the truth; `claimed_alone`: what an interval for the chosen one alone would claim."""

    shift: float
    tuned: int
    seeds: int
    claimed: float
    holds: float
    claimed_alone: float


def simulate(shift: float, tuned: int, seeds: int, confirmations: int, seed: int) -> Outcome:
    """`shift` in points of accuracy, for every tuned configuration."""
    rng = np.random.default_rng([seed, tuned, seeds, round(100 * shift)])
    checks = np.array([_check(rng, shift / 100, tuned, seeds) for _ in range(confirmations)])  # (confirmations, 3) bool
    return Outcome(shift, tuned, seeds, *(float(share) for share in checks.mean(axis=0)))


def _check(rng: np.random.Generator, moved: float, tuned: int, seeds: int) -> tuple[bool, bool, bool]:
    truth = ACCURACY + LUCK * rng.normal(size=(tuned + 1, seeds))  # the default in row 0
    truth[1:] += moved
    truth = np.clip(truth, 0, 1)
    validation, evaluation = (rng.binomial(n, truth) / n for n in IMAGES)
    chosen = 1 + int(validation[1:].mean(axis=1).argmax())
    differences = list(evaluation[chosen] - evaluation[0])
    together, alone = paired(differences, tuned), paired(differences)
    if together is None or together.low is None or alone is None or alone.low is None:
        return False, False, False
    return (
        not together.low <= 0 <= together.high,
        together.low <= moved <= together.high,
        not alone.low <= 0 <= alone.high,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m analysis.calibrate_confirm", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--confirmations", type=int, default=2000, help="simulated for each row (2000)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(
        "| better by (points) | tuned configurations | seeds | claimed | interval holds | claimed for the chosen alone |"
    )
    print("|---|---|---|---|---|---|")
    for shift in (0.0, 1.0, 2.0):
        for tuned in (1, 3, 6):
            for seeds in (3, 5, 10):
                found = simulate(shift, tuned, seeds, options.confirmations, options.seed)
                cells = [f"{100 * share:.1f} %" for share in found[3:]]
                print(f"| {shift:g} | {tuned} | {seeds} | {' | '.join(cells)} |", flush=True)
    print(f"n = {options.confirmations} confirmations a row, seed {options.seed}")


if __name__ == "__main__":
    main()
