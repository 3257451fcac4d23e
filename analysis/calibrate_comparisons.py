"""Comparisons whose truth is known: how often `stats.decision` claims a difference, and how often its intervals hold the truth.

An experiment is the best of 15 trials by the accuracy on 3,430 validation images (binomial noise), with true accuracies
0.93 - 0.10 Beta(1, 3); its network is then measured on 3,347 evaluation images. `Case` says what differs from that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .stats import two_sample
from .stats.decision import Question, decide
from .stats.statement import DIFFERENCE

IMAGES, BEST, WIDTH = (3430, 3347), 0.93, 0.10
BESTS_SD = 0.0040
"""Standard deviation of the bests of such experiments: the unit of `Case.shift` and of the effects."""
REFERENCE = 20_000  # experiments per arm that the truth is computed from

Bests = tuple[list[float | None], list[float | None]]  # validation, evaluation


@dataclass(frozen=True)
class Case:
    """Two arms; pairs of values are (first arm, second arm). `shift`: the second is better by so much, in `BESTS_SD`; so are
    `luck`, the standard deviation of what a run does to all its trials, `arm_luck`, of what an arm does to all its runs (they
    share seeds), and `pair_luck`, of what run k of both arms share. `diverged` and `lost`: shares of runs at chance accuracy, and
    without a result. `tries`: accuracies that each trial keeps the best of, its epochs."""

    name: str
    sizes: tuple[int, int] = (8, 8)
    shift: float = 0.0
    trials: tuple[int, int] = (15, 15)
    tries: tuple[int, int] = (1, 1)
    width: float = WIDTH
    luck: tuple[float, float] = (0.0, 0.0)
    arm_luck: float = 0.0
    pair_luck: float = 0.0
    diverged: tuple[float, float] = (0.0, 0.0)
    lost: tuple[float, float] = (0.0, 0.0)
    question: Question = Question()


class Rates(NamedTuple):
    """Shares of the simulated comparisons: a difference `claimed`, that the worse arm is better (`wrong`; where neither is, as
    `claimed`), by p of the validation scores alone; intervals that hold the difference of means (of those that have one, if half do) and
    the probability of improvement; a difference shown to be below 1 point (`small`)."""

    claimed: float
    wrong: float
    by_validation: float
    mean_holds: float | None
    probability_holds: float | None
    small: float


def rates(case: Case, times: int, seed: int) -> Rates:
    """Of `times` comparisons."""
    rng = np.random.default_rng([seed, *case.name.encode()])
    difference, probability = _truth(case, rng)
    better = two_sample.direction(0.5 if case.shift == 0 else probability)
    rows = []
    for _ in range(times):
        arms = _arms(case, rng)
        numbers = decide(*arms, case.question)
        is_claimed = numbers["verdict"] == DIFFERENCE
        way = two_sample.direction(numbers.get("probability_of_improvement"))
        p_value, small = numbers["p_value"], numbers["equivalence"]
        row = [is_claimed, is_claimed and way != better, p_value is not None and p_value <= case.question.level]
        row += [_holds(numbers["interval"], difference), _holds(numbers.get("probability_interval"), probability)]
        rows.append([*map(float, row), bool(small and small["holds"])])
    table = np.array(rows)
    means = [float(np.nanmean(column)) if np.isnan(column).mean() < 0.5 else None for column in table.T]
    return Rates(*means)


def _holds(interval: Sequence[float] | None, truth: float) -> float:
    return np.nan if interval is None else interval[0] <= truth <= interval[1]


def _truth(case: Case, rng: np.random.Generator) -> tuple[float, float]:
    """Difference of the mean bests, and P(an experiment of the second arm is better), without the luck of arms."""
    first, second = (_runs(case, arm, REFERENCE, np.zeros(REFERENCE), rng)[0] for arm in (0, 1))
    lost = [rng.random(REFERENCE) < share for share in case.lost]
    difference = float(second[~lost[1]].mean() - first[~lost[0]].mean())
    ranked = [np.where(gone, -1.0, bests) for gone, bests in zip(lost, (first, second))]
    return difference, float(np.mean((ranked[1] > ranked[0]) + (ranked[1] == ranked[0]) / 2))


def _arms(case: Case, rng: np.random.Generator) -> list[Bests]:
    pairs = case.pair_luck * BESTS_SD * rng.normal(size=max(case.sizes))
    arms = []
    for arm, size in enumerate(case.sizes):
        common = pairs[:size] + case.arm_luck * BESTS_SD * rng.normal()
        columns = _runs(case, arm, size, common, rng)
        gone = rng.random(size) < case.lost[arm]
        arms.append(tuple([None if out else value for out, value in zip(gone, own.tolist())] for own in columns))
    return arms


def _runs(
    case: Case, arm: int, runs: int, common: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Validation and evaluation accuracy of the best network of each run, (runs,); `common` is added to all its trials."""
    own = common + case.luck[arm] * BESTS_SD * rng.normal(size=runs) + arm * case.shift * BESTS_SD
    truth = BEST - case.width * rng.beta(1, 3, size=(runs, case.trials[arm])) + own[:, None]  # (runs, trials)
    truth = np.where(rng.random(runs)[:, None] < case.diverged[arm], 1 / 11, truth)
    seen = rng.binomial(IMAGES[0], np.clip(truth, 0, 1)[:, :, None], size=(*truth.shape, case.tries[arm])).max(axis=2)
    chosen = seen.argmax(axis=1)[:, None]  # (runs, 1)
    best, accuracy = (np.take_along_axis(table, chosen, 1)[:, 0] for table in (seen, np.clip(truth, 0, 1)))
    return best / IMAGES[0], rng.binomial(IMAGES[1], accuracy) / IMAGES[1]


def looking(times: int, seed: int, sizes: Sequence[int] = range(4, 13)) -> tuple[float, float]:
    """Shares of arms without a difference that show one at any of these sizes, looked at one after another: with every look held
    to 5 %, and with the levels that later looks are held to."""
    rng = np.random.default_rng([seed, len(sizes)])
    case, claims = Case("looking", (max(sizes), max(sizes))), []
    for _ in range(times):
        arms = _arms(case, rng)
        verdicts = [
            [decide(*_first(arms, size), Question(looks=looks if counts else 0))["verdict"] for counts in (False, True)]
            for looks, size in enumerate(sizes)
        ]
        claims.append([DIFFERENCE in column for column in zip(*verdicts)])
    naive, levelled = np.mean(claims, axis=0).tolist()
    return naive, levelled


def _first(arms: Sequence[Bests], size: int) -> list[Bests]:
    return [(validation[:size], evaluation[:size]) for validation, evaluation in arms]


CASES = (
    *(Case(f"equal, {n} v {n}", (n, n)) for n in (4, 8, 12)),
    *(Case(f"better by 1 SD, {n} v {n}", (n, n), shift=1.0) for n in (4, 8, 12)),
    *(Case(f"better by 2 SD, {n} v {n}", (n, n), shift=2.0) for n in (4, 8)),
    Case("equal, 3 v 12", (3, 12)),
    Case("spreads 1 : 3, 8 v 8", luck=(0.3, 3.0)),
    Case("spreads 1 : 3, 12 v 4", (12, 4), luck=(0.3, 3.0)),
    Case("1 in 8 diverges, both", diverged=(0.125, 0.125)),
    Case("better by 2 SD, 1 in 8 of it diverges", shift=2.0, diverged=(0.0, 0.125)),
    Case("runs of an arm share something (ICC 0.1)", arm_luck=1 / 3),
    Case("pairs (r = 0.5), equal", pair_luck=1.0, question=Question(paired=True)),
    Case("pairs (r = 0.5), better by 1 SD", shift=1.0, pair_luck=1.0, question=Question(paired=True)),
    Case("the same, not taken as pairs", shift=1.0, pair_luck=1.0),
    Case("10 v 20 trials (--handicap)", trials=(10, 20)),
    Case("3 in 20 without a result, both", lost=(0.15, 0.15)),
    Case("better by 2 SD, 2 in 5 of it without a result", shift=2.0, lost=(0.0, 0.4)),
    Case("equal networks, best of 1 v 4 epochs", width=0.0, tries=(1, 4)),
    Case("three pairs share the level", question=Question(tests=3)),
    Case("apart by the margin of 1 point, 12 v 12", (12, 12), shift=0.01 / BESTS_SD),
)
