"""Which trial trained which cell of a plan, in whichever of its NNI experiments, and which cells are still missing."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..reading.logs import failure_reason
from ..reading.records import ENDED, Experiment, Trial
from .cells import Configuration, Plan, key_of, typed

CANCELLED = ("USER_CANCELED", "SYS_CANCELED")


class Cell(NamedTuple):
    """One configuration under one seed. `state`: succeeded, failed, or missing (to be trained, again where it was cut off);
    `trial` is the one that counts, `experiment` its id."""

    configuration: Configuration
    seed: int
    state: str
    trial: Trial | None
    experiment: str


def cells_of(plan: Plan, experiments: Sequence[Experiment]) -> list[Cell]:
    """Every cell of the plan, in its order, with the first trial that succeeded in it, in whichever experiment.

    A trial is known by the parameters it really ran with. One without an end was cut off, and a cancelled one may have
    been, by a person or by want of memory, which NNI records alike: its cell is trained once more. Cancelled twice, or
    ended without a finite result, it has failed."""
    trials = _by_parameters(experiments, plan.fields)
    found = []
    for seed, configuration in itertools.product(plan.seeds, plan.configurations):
        tried = trials.get(key_of({**configuration.parameters, "seed": seed}), [])
        found.append(Cell(configuration, seed, *_state(tried)))
    return found


def trained(
    cells: Sequence[dict[str, Any]], fields: dict[str, dict[str, Any]], experiments: Sequence[Experiment]
) -> list[tuple[str, Trial | None, str]]:
    """State, trial and experiment of each cell, as `Cell` has them; `cells` are parameters, `fields` those of the trial."""
    trials = _by_parameters(experiments, fields)
    return [_state(trials.get(key_of(cell), [])) for cell in cells]


def why_failed(trial: Trial | None) -> str:
    """In a line, of a cell that has failed."""
    if trial is None or trial.state == "SUCCEEDED":
        return "succeeded without a finite result"
    return failure_reason(trial)


def _by_parameters(
    experiments: Sequence[Experiment], fields: dict[str, dict[str, Any]]
) -> dict[str, list[tuple[Trial, str]]]:
    trials: dict[str, list[tuple[Trial, str]]] = defaultdict(list)
    for experiment in experiments:
        for trial in experiment.trials:
            trials[key_of(typed(trial.parameters, fields))].append((trial, experiment.id))
    return trials


def _state(tried: list[tuple[Trial, str]]) -> tuple[str, Trial | None, str]:
    for trial, experiment in tried:
        if trial.score is not None:
            return ("succeeded", trial, experiment)
    ended = [(trial, experiment) for trial, experiment in tried if trial.state in ENDED]
    if any(trial.state not in CANCELLED for trial, _ in ended) or len(ended) > 1:
        return ("failed", *ended[-1])
    return ("missing", *(ended[-1] if ended else (None, "")))
