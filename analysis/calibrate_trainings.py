"""Studies and confirmations whose truth is known: how often they claim a difference, with the statistics of the pages.

A training's accuracy is 0.90 plus what its seed does to all arms and what it does to this training, normal with standard
deviations of 1 point each, measured on 3,430 validation and 3,347 evaluation images (binomial noise). `make calibrate` prints
the rows; every function gives the same shares again for the same seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .stats.blocked import LEVEL, contrasts, equivalence_of, is_shown_with_failures, lost_pairs
from .stats.paired import holm, paired

IMAGES, ACCURACY, SEED_SD, TRAINING_SD = (3430, 3347), 0.90, 0.01, 0.01
Table = np.ndarray  # (seeds, arms), the reference first


class Studies(NamedTuple):
    """Shares of the simulated studies: any difference `claimed`, one of the first arm beside the reference (`found`), the same
    by each pair of arms alone (`found_alone`: paired t, Bonferroni), and a difference of that arm shown to be `small`."""

    claimed: float
    found: float
    found_alone: float
    small: float


class Confirmations(NamedTuple):
    """Shares of the simulated confirmations: a difference `claimed`, and `found`: for a configuration that is better."""

    claimed: float
    found: float


def studies(shift: float, arms: int, seeds: int, times: int, seed: int, spreads: Sequence[float] = ()) -> Studies:
    """Of `arms` arms with the reference among them; the first beside it is better by `shift` points. `spreads` are the arms'
    standard deviations of a training where they are not 1 point."""
    rng = np.random.default_rng([seed, arms, seeds, round(100 * shift)])
    scale = np.array(spreads or [1.0] * arms) * TRAINING_SD
    checks = []
    for _ in range(times):
        truth = ACCURACY + SEED_SD * rng.normal(size=(seeds, 1)) + scale * rng.normal(size=(seeds, arms))
        truth[:, 1] += shift / 100
        checks.append(_study(_measured(rng, truth, IMAGES[1])))
    return Studies(*np.mean(checks, axis=0).tolist())


def _study(table: Table) -> tuple[bool, bool, bool, bool]:
    reference, *others = _by_seed(table)
    rows = contrasts(reference, others)
    alone = paired([others[0][seed] - reference[seed] for seed in reference], len(others))
    is_found_alone = alone.low is not None and not alone.low <= 0 <= alone.high
    small = equivalence_of(rows[0]._asdict(), 0.01, len(others))
    return any(row.claims for row in rows), rows[0].claims, is_found_alone, small is not None and small.holds


def confirmations(shifts: Sequence[float], screen: int, seeds: int, times: int, seed: int) -> Confirmations:
    """Of configurations that are better than the default by `shifts` points: `screen` seeds of each choose one, which `seeds`
    others judge beside the default; with `screen` 0 the same seeds choose and judge."""
    rng = np.random.default_rng([seed, len(shifts), screen, seeds, round(100 * sum(shifts))])
    better = np.array([0.0, *shifts]) / 100
    checks = []
    for _ in range(times):
        kept = np.arange(len(better))
        if screen:
            truth = _trained(rng, screen, better)
            kept = np.array([0, 1 + int(_measured(rng, truth[:, 1:], IMAGES[0]).mean(0).argmax())])
        truth = _trained(rng, seeds, better[kept])
        chosen = 1 + int(_measured(rng, truth[:, 1:], IMAGES[0]).mean(0).argmax())
        reference, *tuned = _by_seed(_measured(rng, truth, IMAGES[1]))
        row = contrasts(reference, tuned)[chosen - 1]
        checks.append((row.claims, row.claims and row.mean > 0 and better[kept[chosen]] > 0))
    return Confirmations(*np.mean(checks, axis=0).tolist())


class Failures(NamedTuple):
    """Shares that claim a difference: by the pairs that ended alone, and with failed trainings counted too."""

    by_ended: float
    claimed: float


def failing(shift: float, failures: float, seeds: int, times: int, seed: int) -> Failures:
    """One configuration that is better by `shift` points where its training ends, and fails in this share of trainings."""
    rng = np.random.default_rng([seed, seeds, round(100 * shift), round(100 * failures)])
    claims = []
    for _ in range(times):
        default, tuned = _by_seed(_measured(rng, _trained(rng, seeds, np.array([0.0, shift / 100])), IMAGES[1]))
        tuned = {number: value for number, value in tuned.items() if rng.random() >= failures}
        (row,) = contrasts(default, [tuned])
        lost = lost_pairs(tuned, default, range(seeds))
        counted = paired(lost) if lost else None
        claims.append(
            (
                row is not None and row.claims,
                row is not None and row.claims and is_shown_with_failures(row.mean, counted),
            )
        )
    return Failures(*np.mean(claims, axis=0).tolist())


def report_pages(times: int, seed: int, seeds: int = 5) -> tuple[float, float]:
    """Shares of pages of six studies without any difference that show one: each study by itself, and as one family (Holm).
    Four have two arms, two have three; all have the same reference trainings."""
    rng = np.random.default_rng([seed, seeds])
    checks = []
    for _ in range(times):
        table = _measured(rng, _trained(rng, seeds, np.zeros(9)), IMAGES[1])
        reference, *others = _by_seed(table)
        arms = [others[:1], others[1:2], others[2:3], others[3:4], others[4:6], others[6:8]]
        smallest = [min(row.p_adjusted for row in contrasts(reference, own)) for own in arms]
        checks.append((min(smallest) < LEVEL, min(holm(smallest)) < LEVEL))
    alone, together = np.mean(checks, axis=0).tolist()
    return alone, together


def error_of(share: float, times: int) -> float:
    """Monte Carlo standard error of a share."""
    return math.sqrt(share * (1 - share) / times)


def _trained(rng: np.random.Generator, seeds: int, better: np.ndarray) -> Table:
    common = SEED_SD * rng.normal(size=(seeds, 1))
    return ACCURACY + better + common + TRAINING_SD * rng.normal(size=(seeds, len(better)))


def _measured(rng: np.random.Generator, truth: Table, images: int) -> Table:
    return rng.binomial(images, np.clip(truth, 0, 1)) / images


def _by_seed(table: Table) -> list[dict[int, float]]:
    return [dict(enumerate(column)) for column in table.T.tolist()]
