"""How many of an experiment's trials the tuner chose, and how many it drew at random.

Read from NNI 3.0's own code, `nni/algorithms/hpo`; `chosen` tells it trial by trial. The seeded tuners of
`experiments/tuners` are known by their class names. Standard library only, so that a check before a launch
costs nothing.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

ALL = math.inf
"""Start-up of a tuner that never learns: every trial is a random draw."""

_LABELS = {
    "tpe": "TPE",
    "evolution": "Evolution",
    "random": "Random",
    "gridsearch": "GridSearch",
    "batch": "Batch",
    "seeded_tpe.seededtpe": "TPE (seeded)",
    "seeded_evolution.seededevolution": "Evolution (seeded)",
}
TPES, EVOLUTIONS = ("tpe", "seeded_tpe.seededtpe"), ("evolution", "seeded_evolution.seededevolution")
SEEDED = (TPES[1], EVOLUTIONS[1])


class Design(NamedTuple):
    """The first trials that an experiment file sets: those it gives, then a number of draws from a seed of their own."""

    given: list[dict[str, Any]]
    drawn: int
    seed: int

    @property
    def size(self) -> int:
        return len(self.given) + self.drawn


def design(tuner: str, class_args: dict[str, Any] | None) -> Design:
    """Of size 0 for NNI's own tuners, which take no first trials."""
    args = (class_args or {}) if key_of(tuner) in SEEDED else {}
    drawn = int(args.get("initial") or 0)
    return Design(list(args.get("first") or []), drawn, int(args.get("initial_seed") or 0) if drawn else 0)


def shared_trials(one: Design, other: Design) -> int:
    """Number of first trials that both have in one search space, whatever their tuners."""
    pairs = list(zip(one.given, other.given))
    given = next((index for index, (a, b) in enumerate(pairs) if a != b), len(pairs))
    return given + (min(one.drawn, other.drawn) if same_draws(one, other) else 0)


def same_draws(one: Design, other: Design) -> bool:
    return one.drawn > 0 and other.drawn > 0 and one.seed == other.seed


def label(tuner: str) -> str:
    """NNI's own spelling of a built-in tuner's name; any other name comes back as it is."""
    return _LABELS.get(key_of(tuner), tuner)


def startup_trials(tuner: str, class_args: dict[str, Any] | None) -> int | float | None:
    """Number of first trials that the tuner draws at random, those that the experiment file gives among them.

    `tuner` is NNI's name (any case), `class_args` the tuner arguments of the experiment file.
    Returns `ALL` (math.inf) for Random, 0 for GridSearch and Batch (no draw is random, and none learns),
    None for a tuner whose start-up is not known here.
    """
    args = class_args or {}
    key = key_of(tuner)
    if key in TPES:
        return max(int((args.get("tpe_args") or {}).get("n_startup_jobs", 20)), design(tuner, args).size)
    if key in EVOLUTIONS:
        return int(args.get("population_size", 32))
    return {"random": ALL, "gridsearch": 0, "batch": 0}.get(key)


def explain(tuner: str, class_args: dict[str, Any] | None, max_trials: int | None) -> str:
    """One line for a person: how many of `max_trials` the tuner will choose, and why.

    `max_trials` is None where the experiment has no limit. Assumes that no trial fails: each failure puts
    one more random trial before the tuner's first own choice.
    """
    name, first = label(tuner), startup_trials(tuner, class_args)
    total = "all" if max_trials is None else str(max_trials)
    if first is None:
        return f"it is not known how many of {total} trials the tuner chooses: {name} is not a tuner known here"
    if first == 0:
        return f"{total} of {total} trials are set by the tuner: {name} walks a list and learns from no result"
    if first == ALL:
        return f"0 of {total} trials are chosen by the tuner: {name} never learns"
    given = len(design(tuner, class_args).given)
    told = f", but for {given} given" if given else ""
    if max_trials is None:
        return f"every trial after the first {first} is chosen by the tuner: {name} draws those at random{told}"
    return f"{max(0, max_trials - first)} of {total} trials are chosen by the tuner: {name} draws the first {first} at random{told}"


def key_of(tuner: str) -> str:
    """NNI accepts any case, and for some tuners the class name too (`BatchTuner`)."""
    key = tuner.lower()
    return key.removesuffix("tuner")
