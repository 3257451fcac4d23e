"""What stands in the way of a comparison, and what a reader should know beside it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from ..reading import startup
from ..reading.provenance import best_result, shared_photos
from ..reading.records import ENDED, Experiment
from ..render.formats import arm_names


def obstacles_between(experiments: list[Experiment]) -> list[str]:
    """Reasons why a difference of the bests says nothing about the tuners."""
    found, first = [], experiments[0]
    if any(other.config.get("searchSpace") != first.config.get("searchSpace") for other in experiments):
        found.append("their search spaces differ")
    other = next((e for e in experiments if e.optimise_mode != first.optimise_mode), None)
    if other is not None:
        found.append(f"one tuner is told to {first.optimise_mode} and the other to {other.optimise_mode}")
    commands = dict.fromkeys(
        tuple(shlex.split(str(e.config.get("trialCommand", "")), posix=False)) for e in experiments
    )
    if len(commands) > 1:
        found.append(f"their trials run different commands ({' / '.join(' '.join(words) for words in commands)})")
    for arm, name in zip(experiments, arm_names(experiments), strict=True):
        if arm.best is None:
            found.append(f"none of the {len(arm.trials)} trials of {name} ended with a result")
    return found


def notes_between(experiments: list[Experiment]) -> list[str]:
    """Circumstances that a reader should know beside the verdict."""
    notes = []
    for arm, name in zip(experiments, arm_names(experiments), strict=True):
        if arm.state == "RUNNING":
            notes.append(f"{name} is still running: its figures are preliminary")
        if arm.chosen is None:
            notes.append(f"how many trials of {name} the tuner chose is not known: {arm.tuner} is not known here")
        if arm.state == "STOPPED":
            ended = sum(trial.state in ENDED for trial in arm.trials)
            limit = f" of {arm.max_trials}" if arm.max_trials else ""
            notes.append(f"{name} stopped after {ended}{limit} trials had ended")
        if any(trial.last_session for trial in arm.trials):
            notes.append(f"{name} was resumed: {_after_resume(arm.tuner)}")
    notes += dict.fromkeys(note for arm in experiments for note in shared_photos(best_result(arm.best)))
    sizes = list(dict.fromkeys(len(arm.trials) for arm in experiments))
    if len(sizes) > 1:
        notes.append(f"{_listed(sizes)} trials: the larger arm had more draws")
    concurrency = list(dict.fromkeys(arm.config.get("trialConcurrency") for arm in experiments))
    if len(concurrency) > 1:
        notes.append(f"{_listed(concurrency)} trials at a time: wall-clock times do not compare")
    return notes


def _after_resume(tuner: str) -> str:
    """What the tuner remembers then (NNI 3.0's `import_data` of each, and `experiments/tuners`)."""
    if startup.key_of(tuner) in startup.SEEDED:
        return "its tuner goes on from the earlier results"
    return "TPE is told the earlier results again, Evolution starts anew"


def _listed(values: list[Any]) -> str:
    return f"{', '.join(map(str, values[:-1]))} and {values[-1]}"


def shared_design(first: Sequence[Experiment], second: Sequence[Experiment]) -> list[str]:
    """Two arms that begin with the same trials are no independent draws: what then holds of band and test.

    Dealing all trials freely also deals twins to one arm, which never happened: that spreads the bests more than the
    tuners can. With one design for all, the bests of the repeats are exchangeable given it, so the test keeps its level.
    With a design a pair of repeats it claims too little, with repeated designs that differ between the arms too much
    (docs/log.md has the figures).
    """
    designs = [[experiment.design for experiment in arm] for arm in (first, second)]
    every = [*designs[0], *designs[1]]
    shared = max(startup.shared_trials(one, other) for one in designs[0] for other in designs[1])
    note = f"the arms share their first {shared} trials by design and are not independent draws: "
    if len(every) == 2:
        return [f"{note}the band deals shared trials too and is rather too wide"] if shared else []
    if shared and all(design == every[0] for design in every):
        return [f"{note}the test holds, for these first trials alone"]
    if any(startup.same_draws(one, other) for arm in designs for one, other in combinations(arm, 2)):
        return [
            "repeats of one arm begin with the same random trials, so that a lucky start can pass for a better tuner: give "
            "each repeat an initial_seed of its own, the same in both arms"
        ]
    return [f"{note}the test takes them for independent, which costs it power but no false claims"] if shared else []
