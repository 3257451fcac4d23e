"""Two arms against each other: difference, null band or test, verdict; and all pairs of several arms."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..reading.records import ENDED, Experiment
from . import repeats, statement, verdict
from .circumstances import notes_between, obstacles_between, shared_design
from .grouping import Arm

INTERVAL_METHOD = "Welch t interval of the difference of means"
P_METHOD = "two-sided exact Mann-Whitney test with mid-ranks"
IMPROVEMENT_METHOD = "Newcombe 2006, method 5"
BOOTSTRAP_METHOD = "percentile bootstrap, each arm by itself, 10,000 draws, seed 0"


def comparison(first: Arm, second: Arm, tests: int = 1) -> dict[str, Any]:
    """Difference and verdict; `headline` and `details` say it in words, `statement` is both. One experiment each: the
    null band. More: of the means of their bests. `tests` pairs are compared in all: p is multiplied by it (Bonferroni)."""
    experiments = [*first.experiments, *second.experiments]
    obstacles = obstacles_between(experiments)
    single = len(experiments) == 2
    found = _single(first, second, obstacles) if single or obstacles else _repeated(first, second, tests)
    return {
        "arms": [first.name, second.name],
        **found,
        "notes": [*shared_design(first.experiments, second.experiments), *notes_between(experiments)],
    }


def _single(first: Arm, second: Arm, obstacles: list[str]) -> dict[str, Any]:
    pair = (first.experiments[0], second.experiments[0])
    bests = (pair[0].best, pair[1].best)
    comparable = not obstacles and bests[0] is not None and bests[1] is not None
    difference = bests[1].score - bests[0].score if comparable else None
    band = verdict.null_band(scores(pair[0]), scores(pair[1]), _maximises(first)) if comparable else None
    judged = statement.of_single_experiments(pair, obstacles, difference, band)
    return {
        "difference": difference,
        "interval": None,  # one experiment an arm: there is no spread between runs to build it from
        "p_value": None,
        **statement.fields(judged),
        "null_band": None if band is None else band._asdict() | {"exact": True},
        "repeats_needed": verdict.repeats_needed() if judged.verdict == verdict.NOT_ESTIMABLE else None,
    }


def _repeated(first: Arm, second: Arm, tests: int) -> dict[str, Any]:
    """2 or 3 experiments an arm give a difference of means and nothing to judge it by; 4 give a test, more are needed
    where several pairs share its level."""
    sizes = (len(first.bests), len(second.bests))
    found: dict[str, Any] = {"interval": None, "p_value": None, "null_band": None, "repeats_needed": None}
    found |= {"repeats": list(sizes), "difference": sum(second.bests) / sizes[1] - sum(first.bests) / sizes[0]}
    random = all(e.chosen is not None and not any(e.chosen) for arm in (first, second) for e in arm.experiments)
    needed = verdict.repeats_needed(0.05 / tests)
    if min(sizes) >= repeats.FEWEST:
        found |= _tested(first.bests, second.bests, _maximises(first)) | {"tests": tests}
        found["p_value"] = min(1.0, tests * found["p_value"])
    if min(sizes) < needed and not random:
        word, found["repeats_needed"] = verdict.NOT_ESTIMABLE, needed
    else:
        shown = not random and found["p_value"] < 0.05
        word = verdict.DIFFERENCE if shown else verdict.NO_DIFFERENCE
    return {**found, **statement.fields(statement.of_repeats((first, second), found, word, random))}


def _tested(first: list[float], second: list[float], maximise: bool) -> dict[str, Any]:
    difference, interval = repeats.mean_difference(first, second)
    better = repeats.improvement(first, second, maximise)
    return {
        "difference": difference,
        "interval": list(interval),
        "interval_method": INTERVAL_METHOD,
        "bootstrap_interval": list(repeats.bootstrap_difference(first, second)),
        "bootstrap_method": BOOTSTRAP_METHOD,
        "p_value": repeats.exact_p(first, second),
        "p_method": P_METHOD,
        "probability_of_improvement": better,
        "probability_interval": list(repeats.improvement_interval(better, len(first), len(second))),
        "probability_method": IMPROVEMENT_METHOD,
    }


def overall(arms: list[Arm], found: list[dict[str, Any]]) -> dict[str, Any]:
    """Of three or more arms: a difference is shown where any pair shows one, else the most frequent verdict."""
    words = [pair["verdict"] for pair in found]
    word = verdict.DIFFERENCE if verdict.DIFFERENCE in words else Counter(words).most_common(1)[0][0]
    notes = dict.fromkeys(note for pair in found for note in pair["notes"])
    needed = [pair["repeats_needed"] for pair in found if pair["repeats_needed"]]
    return {
        "arms": [arm.name for arm in arms],
        "difference": None,
        "interval": None,
        "p_value": None,
        **statement.fields(statement.of_many(arms, found, word)),
        "null_band": None,
        "repeats_needed": max(needed, default=None),
        "notes": list(notes),
    }


def _maximises(arm: Arm) -> bool:
    return arm.experiments[0].optimise_mode == "maximize"


def scores(experiment: Experiment) -> list[float | None]:
    """One entry a trial, failed ones as None. Trials that still run are no failures and are left out."""
    waiting = experiment.state == "RUNNING"
    return [trial.score for trial in experiment.trials if trial.state in ENDED or not waiting]
