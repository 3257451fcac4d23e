"""Compares two experiments: facts of each, the difference of their bests, and the verdict in words."""

from __future__ import annotations

import math
import shlex
from typing import Any

from . import startup, verdict
from .locate import AnalysisError
from .records import ENDED, Experiment, Trial
from .statement import judge
from .words import arm_names, validation_n


def compare(first: Experiment, second: Experiment) -> dict[str, Any]:
    """The content of summary.json: `experiments` (facts of each) and `comparison`.

    Scores are as reported (accuracies are fractions); `difference` is best(second) - best(first). What cannot
    be estimated is None. Raises AnalysisError for an experiment compared with itself.
    """
    if first.id == second.id and first.folder == second.folder:
        raise AnalysisError(f"experiment {first.id} was named twice; name two different experiments")
    return {
        "experiments": [facts(first), facts(second)],
        "comparison": comparison(first, second),
    }


def facts(experiment: Experiment) -> dict[str, Any]:
    """What one experiment did, as plain JSON values."""
    chosen = experiment.chosen
    return {
        "id": experiment.id,
        "name": experiment.name,
        "tuner": startup.label(experiment.tuner),
        "state": experiment.state,
        "trials": dict(experiment.counts),
        "chosen_by_tuner": None if chosen is None else sum(chosen),
        "best": None if experiment.best is None else best_facts(experiment.best),
        "trial_seconds": experiment.trial_seconds,
        "wall_seconds": experiment.wall_seconds,
        "optimise_mode": experiment.optimise_mode,
        "startup_trials": _finite(startup.startup_trials(experiment.tuner, experiment.class_args)),
        "warnings": list(experiment.warnings),
    }


def best_facts(trial: Trial) -> dict[str, Any]:
    """`validation_interval` is the Wilson interval of the images; `evaluation` None where not reported."""
    n = validation_n(trial)
    return {
        "trial_id": trial.trial_id,
        "val_accuracy": trial.score,
        "params": trial.parameters,
        "evaluation": evaluation(trial),
        "validation_n": n,
        "validation_interval": None if n is None else list(verdict.wilson(trial.score or 0.0, n)),
        "parameters_source": trial.parameters_source,
    }


def evaluation(trial: Trial) -> dict[str, Any] | None:
    """Accuracy of this trial's weights on the evaluation split, which steered nothing; None where absent."""
    final = trial.final if isinstance(trial.final, dict) else {}
    values = {key: _finite(final.get(f"evaluation_{key}")) for key in ("top1", "top3", "macro", "n")}
    if values["top1"] is None:
        return None
    return values | {"n": None if values["n"] is None else int(values["n"])}


def comparison(first: Experiment, second: Experiment) -> dict[str, Any]:
    """Difference, null band and verdict; `statement` says it in words, its first sentence is a headline."""
    obstacles = obstacles_between(first, second)
    bests = (first.best, second.best)
    comparable = not obstacles and bests[0] is not None and bests[1] is not None
    difference = bests[1].score - bests[0].score if comparable else None
    band = verdict.null_band(scores(first), scores(second), first.optimise_mode == "maximize") if comparable else None
    word, statement = judge((first, second), obstacles, difference, band)
    return {
        "difference": difference,
        "interval": None,  # one experiment an arm: there is no spread between runs to build it from
        "p_value": None,
        "verdict": word,
        "statement": statement,
        "null_band": None if band is None else band._asdict() | {"exact": True},
        "repeats_needed": verdict.repeats_needed() if word == verdict.NOT_ESTIMABLE else None,
        "notes": notes_between(first, second),
    }


def scores(experiment: Experiment) -> list[float | None]:
    """One entry a trial, failed ones as None. Trials that still run are no failures and are left out."""
    waiting = experiment.state == "RUNNING"
    return [trial.score for trial in experiment.trials if trial.state in ENDED or not waiting]


def obstacles_between(first: Experiment, second: Experiment) -> list[str]:
    """Reasons why a difference of the bests says nothing about the tuners."""
    found = []
    if first.config.get("searchSpace") != second.config.get("searchSpace"):
        found.append("their search spaces differ")
    if first.optimise_mode != second.optimise_mode:
        found.append(f"one tuner is told to {first.optimise_mode} and the other to {second.optimise_mode}")
    commands = [shlex.split(str(arm.config.get("trialCommand", "")), posix=False) for arm in (first, second)]
    if commands[0] != commands[1]:
        found.append(f"their trials run different commands ({' '.join(commands[0])} / {' '.join(commands[1])})")
    for arm, name in zip((first, second), arm_names([first, second]), strict=True):
        if arm.best is None:
            found.append(f"none of the {len(arm.trials)} trials of {name} ended with a result")
    return found


def notes_between(first: Experiment, second: Experiment) -> list[str]:
    """Circumstances that a reader should know beside the verdict."""
    notes = []
    for arm, name in zip((first, second), arm_names([first, second]), strict=True):
        if arm.state == "RUNNING":
            notes.append(f"{name} is still running: its figures are preliminary")
        if arm.chosen is None:
            notes.append(f"how many trials of {name} the tuner chose is not known: {arm.tuner} is not known here")
        if arm.state == "STOPPED":
            ended = sum(trial.state in ENDED for trial in arm.trials)
            limit = f" of {arm.max_trials}" if arm.max_trials else ""
            notes.append(f"{name} stopped after {ended}{limit} trials had ended")
        if any(trial.last_session for trial in arm.trials):
            notes.append(f"{name} was resumed: TPE is told the earlier results again, Evolution starts anew")
    if len(first.trials) != len(second.trials):
        notes.append(f"{len(first.trials)} and {len(second.trials)} trials: the larger arm had more draws")
    concurrency = [arm.config.get("trialConcurrency") for arm in (first, second)]
    if concurrency[0] != concurrency[1]:
        notes.append(f"{concurrency[0]} and {concurrency[1]} trials at a time: wall-clock times do not compare")
    return notes


def _finite(value: Any) -> float | int | None:
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None
