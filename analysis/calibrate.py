"""Do the verdicts keep their promises? `python -m analysis.calibrate` simulates comparisons and confirmations whose truth is
known, and prints how often a difference is claimed and how often each 95 % interval holds the truth.

Comparisons: an experiment is the best of 15 trials with true accuracies 0.93 - 0.10 Beta(1, 3), measured on 3,430 images
(binomial noise); the second arm is the same, or better by `shift` standard deviations of such bests.

Claims: what `stats.decision.decide` says of arms whose truth is known, in cases that break an assumption of the first table.

Confirmations: a network's true accuracy is 0.90 plus the chance of its training, normal with a standard deviation of 1
point, measured on 3,430 validation and 3,347 evaluation images. Of `tuned` configurations one is chosen by its mean
validation accuracy, and the evaluation of the same networks judges it. They are like the default, or better by `shift` points.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np

from .stats import two_sample
from .stats.decision import LEVEL, Question, decide
from .stats.paired import paired
from .stats.statement import DIFFERENCE

TRIALS, IMAGES = 15, (3430, 3347)
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


class Arms(NamedTuple):
    """Two arms as `stats.decision.decide` takes them, (validation, evaluation) each, and the question."""

    first: tuple[list[float | None], list[float | None]]
    second: tuple[list[float | None], list[float | None]]
    question: Question


def searched(
    rng: np.random.Generator, n: int, shift: float = 0.0, truth: np.ndarray | None = None
) -> tuple[list, list]:
    """n experiments: the best of 15 trials by measured validation accuracy, and the same network's evaluation accuracy. `truth`:
    true accuracies (n, trials), by default those of `sample_trials` plus `shift`."""
    truth = 0.93 - 0.10 * rng.beta(1, 3, size=(n, TRIALS)) + shift if truth is None else truth
    validation = rng.binomial(IMAGES[0], np.clip(truth, 0, 1)) / IMAGES[0]
    rows, best = np.arange(n), validation.argmax(axis=1)
    evaluation = rng.binomial(IMAGES[1], np.clip(truth[rows, best], 0, 1)) / IMAGES[1]
    return list(validation[rows, best]), list(evaluation)


def _equal(rng: np.random.Generator, n: int = 8, m: int = 8, shift: float = 0.0) -> Arms:
    return Arms(searched(rng, n), searched(rng, m, shift), Question())


def _more_at_the_optimum(rng: np.random.Generator) -> Arms:
    """All networks that are chosen are truly equal; the second arm tries such a network 15 times, the first twice."""
    rare = np.where(np.arange(TRIALS) < 2, 0.90, 0.80) * np.ones((8, 1))
    return Arms(searched(rng, 8, truth=rare), searched(rng, 8, truth=np.full((8, TRIALS), 0.90)), Question())


def _unequal_spread(rng: np.random.Generator, n: int = 8, m: int = 8, ratio: float = 3.0) -> Arms:
    """Means and medians are equal; the second arm's networks vary `ratio` times as much."""
    scores = rng.normal(0.85, 0.005, size=n), rng.normal(0.85, ratio * 0.005, size=m)
    first, second = (tuple(list(truth + rng.normal(0, 0.005, size=len(truth))) for _ in IMAGES) for truth in scores)
    return Arms(first, second, Question())


def _lost(rng: np.random.Generator, share: float = 0.25) -> Arms:
    """Equal arms of which this share of experiments ends without a result."""
    arms = []
    for _ in range(2):
        lost = rng.random(8) < share
        arms.append(tuple([None if gone else score for gone, score in zip(lost, own)] for own in searched(rng, 8)))
    return Arms(arms[0], arms[1], Question())


def _pairs(rng: np.random.Generator, is_paired: bool, shift: float = 0.0) -> Arms:
    """Eight pairs whose bests correlate by 0.5, normal with a standard deviation of 1 point; `shift` in points."""
    shared = rng.normal(0, 0.5**0.5, size=8)
    truth = [0.85 + 0.01 * (shared + rng.normal(0, 0.5**0.5, size=8)) for _ in range(2)]
    arms = [list(own + k * shift / 100) for k, own in enumerate(truth)]
    return Arms((arms[0], arms[0]), (arms[1], arms[1]), Question(paired=is_paired))


def _apart(rng: np.random.Generator, apart: float, n: int = 8) -> Arms:
    """Arms whose means differ by exactly `apart` points; standard deviation of a best 0.5 points."""
    first, second = (
        tuple(list(rng.normal(mean, 0.005, size=n)) for _ in IMAGES) for mean in (0.85, 0.85 + apart / 100)
    )
    return Arms(first, second, Question())


CLAIMS = {
    "equal arms, 8 against 8": _equal,
    "equal arms, 3 against 12": lambda rng: _equal(rng, 3, 12),
    "better by 1 SD of the bests, 8 against 8": lambda rng: _equal(rng, shift=0.0055),
    "better by 2 SD of the bests, 8 against 8": lambda rng: _equal(rng, shift=0.011),
    "equal networks, one arm tries them more often": _more_at_the_optimum,
    "spreads 1 to 3, 8 against 8": _unequal_spread,
    "spreads 1 to 3, 12 against 4": lambda rng: _unequal_spread(rng, 12, 4),
    "a quarter without a result": _lost,
    "pairs that correlate by 0.5, equal": lambda rng: _pairs(rng, True),
    "the same, 1 point better, in pairs": lambda rng: _pairs(rng, True, 1.0),
    "the same, 1 point better, not in pairs": lambda rng: _pairs(rng, False, 1.0),
    "truly 1 point apart, SD 0.5 points": lambda rng: _apart(rng, 1.0),
    "truly equal, SD 0.5 points": lambda rng: _apart(rng, 0.0),
}


class _Claims(NamedTuple):
    """Shares of simulated comparisons: p of the validation scores at most the level; `difference_shown`, which evaluation has to
    confirm; equivalence within 1 point claimed."""

    validation: float
    shown: float
    equivalent: float


def claims(case: str, comparisons: int, seed: int) -> _Claims:
    rng = np.random.default_rng([seed, list(CLAIMS).index(case)])
    counts = np.zeros(3)
    for _ in range(comparisons):
        arms = CLAIMS[case](rng)
        numbers = decide(arms.first, arms.second, arms.question)
        equivalence = numbers["equivalence"]
        counts += (
            numbers["p_value"] <= LEVEL,
            numbers["verdict"] == DIFFERENCE,
            equivalence is not None and equivalence["holds"],
        )
    return _Claims(*(float(share) for share in counts / comparisons))


def looks(last: int, comparisons: int, seed: int, holds_level: bool = True) -> float:
    """Share of equal arms that grow from 4 to `last` experiments, and are tested after each, of which any test claims a
    difference of the validation scores; `holds_level`: later looks are held to a smaller level, as `decide` does."""
    rng, claimed = np.random.default_rng([seed, last]), 0
    for _ in range(comparisons):
        first, second = (searched(rng, last)[0] for _ in range(2))
        for k, n in enumerate(range(4, last + 1)):
            level = Question(looks=k).level if holds_level else LEVEL
            if two_sample.mann_whitney_p(first[:n], second[:n]) <= level:
                claimed += 1
                break
    return claimed / comparisons


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
    _header("comparison", "p at most 0.05", "difference shown", "none above 1 point")
    for case in CLAIMS:
        row([case], claims(case, options.comparisons, options.seed))
    print(f"n = {options.comparisons} comparisons per row, seed {options.seed}\n")
    _header("looks after each repeat from 4 on", "5 % at each", "smaller levels later")
    for last in (8, 12):
        shares = [looks(last, options.comparisons, options.seed, held) for held in (False, True)]
        print(f"| to {last} | {' | '.join(f'{100 * share:.1f} %' for share in shares)} |", flush=True)
    print(f"n = {options.comparisons} pairs of arms per row, seed {options.seed}\n")
    _header("better by (points)", "tuned", "seeds", "claimed", "interval holds", "claimed for the chosen alone")
    for shift in (0.0, 1.0, 2.0):
        for tuned in (1, 3, 6):
            for seeds in (3, 5, 10):
                row([f"{shift:g}", tuned, seeds], confirm(shift, tuned, seeds, options.confirmations, options.seed))
    print(f"n = {options.confirmations} confirmations per row, seed {options.seed}")


def _header(*columns: str) -> None:
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


def row(case: list[str | int], shares: _Comparisons | _Confirmations | _Claims) -> None:
    cells = ["-" if share is None else f"{100 * share:.1f} %" for share in shares]
    print(f"| {' | '.join([*map(str, case), *cells])} |", flush=True)


if __name__ == "__main__":
    main()
