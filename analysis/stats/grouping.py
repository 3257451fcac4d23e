"""Experiments to arms: repeats of one configuration belong together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from ..reading import startup
from ..reading.locate import AnalysisError
from ..reading.records import Experiment
from ..render.formats import arm_names


class Arm(NamedTuple):
    """One configuration and its repeats, in the order in which they were named."""

    name: str
    experiments: tuple[Experiment, ...]

    @property
    def bests(self) -> list[float]:
        """The best score of each experiment that has one."""
        return [e.best.score for e in self.experiments if e.best is not None and e.best.score is not None]


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
    return [Arm(name, tuple(found)) for name, found in zip(_names(members), members.values())]


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
    for key, found in members.items():
        if len(key) == 1:
            names.append(key[0])
        elif len(found) == 1 and found[0].name:
            names.append(found[0].name)
        else:
            names.append(key[0] if tuners.count(key[0]) == 1 else f"{key[0]} {key[1]}")
    if len(set(names)) == len(names):
        return names
    return [f"{name} ({found[0].id})" for name, found in zip(names, members.values())]
