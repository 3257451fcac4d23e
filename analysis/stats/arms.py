"""Which experiments are repeats of one configuration, and what prevents a comparison of arms or should be known beside it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

from ..reading import startup
from ..reading.locate import AnalysisError
from ..reading.provenance import best_result, shared_photos
from ..reading.records import ENDED, Experiment, arm_names


class Arm(NamedTuple):
    """One configuration and its repeats, in the order in which they were named."""

    name: str
    experiments: tuple[Experiment, ...]

    @property
    def bests(self) -> list[float]:
        """The best score of each experiment that has one."""
        return [e.best.score for e in self.experiments if e.best is not None and e.best.score is not None]

    @property
    def maximises(self) -> bool:
        return self.experiments[0].optimise_mode == "maximize"


def configuration(experiment: Experiment) -> tuple[str, str]:
    """Tuner and arguments, the seeds aside: what makes two experiments repeats of each other."""
    arguments = {key: value for key, value in experiment.class_args.items() if key not in ("seed", "initial_seed")}
    return startup.label(experiment.tuner), json.dumps(arguments, sort_keys=True, ensure_ascii=False)


def group(experiments: Sequence[Experiment], named: Sequence[str] = ()) -> list[Arm]:
    """Arms in the order of their first experiment. `named` are texts NAME=ID,ID: these experiments form the arm
    NAME, whatever their tuner; the others are grouped by configuration. Two experiments without `named` are
    always two arms. Raises AnalysisError for a text of another form, an id that is not among the
    experiments or is claimed twice, and for fewer than two arms.
    """
    claimed = _claims(experiments, named)
    if len(experiments) == 2 and not claimed:
        return [Arm(name, (e,)) for name, e in zip(arm_names(list(experiments)), experiments)]
    members: dict[tuple[str, ...], list[Experiment]] = {}
    for experiment in experiments:
        key = (claimed[experiment.id],) if experiment.id in claimed else configuration(experiment)
        members.setdefault(key, []).append(experiment)
    if len(members) < 2:
        raise AnalysisError(
            f"the {len(experiments)} experiments are one arm ({', '.join(next(iter(members)))}), expected two or more; "
            "add an experiment of another tuner, or split them with --group NAME=ID,ID"
        )
    return [Arm(name, tuple(arm)) for name, arm in zip(_names(members), members.values())]


def _claims(experiments: Sequence[Experiment], named: Sequence[str]) -> dict[str, str]:
    """Experiment id -> name of its arm."""
    ids, claimed = [experiment.id for experiment in experiments], {}
    for text in named:
        name, equals, members = text.partition("=")
        if not (name.strip() and equals and members.strip(",")):
            raise AnalysisError(f"--group {text!r} is not of the form NAME=ID,ID; for example --group tpe={ids[0]}")
        for member in filter(None, (part.strip() for part in members.split(","))):
            if member not in ids:
                raise AnalysisError(f"--group {name}: {member!r} is not compared here; choose of {', '.join(ids)}")
            if member in claimed:
                raise AnalysisError(
                    f"experiment {member} is in two groups ({claimed[member]} and {name}); name it once"
                )
            claimed[member] = name.strip()
    return claimed


def _names(members: dict[tuple[str, ...], list[Experiment]]) -> list[str]:
    """The given name; the name of a lone experiment; else the tuner's, with its arguments where two arms share it."""
    tuners = [key[0] for key in members]
    names = []
    for key, experiments in members.items():
        if len(key) == 1:
            names.append(key[0])
        elif len(experiments) == 1 and experiments[0].name:
            names.append(experiments[0].name)
        else:
            names.append(key[0] if tuners.count(key[0]) == 1 else f"{key[0]} {key[1]}")
    if len(set(names)) == len(names):
        return names
    return [f"{name} ({experiments[0].id})" for name, experiments in zip(names, members.values())]


def obstacles_between(experiments: list[Experiment]) -> list[str]:
    """Reasons why a difference of the bests says nothing about the tuners."""
    reasons, first = [], experiments[0]
    if any(other.config.get("searchSpace") != first.config.get("searchSpace") for other in experiments):
        reasons.append("their search spaces differ")
    modes = list(dict.fromkeys(experiment.optimise_mode for experiment in experiments))
    if len(modes) > 1:
        reasons.append(f"their optimize_mode differs ({' and '.join(modes)})")
    commands = dict.fromkeys(
        tuple(shlex.split(str(e.config.get("trialCommand", "")), posix=False)) for e in experiments
    )
    if len(commands) > 1:
        reasons.append(f"their trials run different commands ({' / '.join(' '.join(words) for words in commands)})")
    for arm, name in zip(experiments, arm_names(experiments), strict=True):
        if arm.best is None:
            reasons.append(f"none of the {len(arm.trials)} trials of {name} ended with a result")
    return reasons


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
        notes.append(f"{_listed(sizes)} trials: the larger arm had more trials to select its best from")
    concurrency = list(dict.fromkeys(arm.config.get("trialConcurrency") for arm in experiments))
    if len(concurrency) > 1:
        notes.append(f"{_listed(concurrency)} trials at a time: wall-clock times do not compare")
    return notes


def _after_resume(tuner: str) -> str:
    """What the tuner remembers then (NNI 3.0's `import_data` of each, and `experiments/tuners`)."""
    if startup.key_of(tuner) in startup.SEEDED:
        return "its tuner continues from the earlier results"
    return "TPE gets the earlier results again, Evolution starts anew"


def _listed(values: list[Any]) -> str:
    return f"{', '.join(map(str, values[:-1]))} and {values[-1]}"


def shared_design(first: Sequence[Experiment], second: Sequence[Experiment]) -> list[str]:
    """Two arms that begin with the same trials are not independent: what then holds of band and test.

    Permuting all labels freely also puts both copies of a shared trial into one arm, which never happened: that spreads
    the bests more than the tuners can. With one design for all, the bests of the repeats are exchangeable given it, so
    the test keeps its level. With a design per pair of repeats it claims too little, with repeated designs that differ
    between the arms too much (docs/log.md has the figures).
    """
    designs = [[experiment.design for experiment in arm] for arm in (first, second)]
    every = [*designs[0], *designs[1]]
    shared = max(startup.shared_trials(one, other) for one in designs[0] for other in designs[1])
    note = f"the arms share their first {shared} trials by design and are not independent: "
    if len(every) == 2:
        return [f"{note}the band permutes shared trials too and is rather too wide"] if shared else []
    if shared and all(design == every[0] for design in every):
        return [f"{note}the test holds, for these first trials alone"]
    if any(startup.same_random_trials(one, other) for arm in designs for one, other in combinations(arm, 2)):
        return [
            "repeats of one arm begin with the same random trials, so that a lucky start can pass for a better tuner: give "
            "each repeat an initial_seed of its own, the same in both arms"
        ]
    return [f"{note}the test takes them for independent, which costs it power but no false claims"] if shared else []
