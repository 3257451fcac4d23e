"""Compares experiments: which are repeats of one arm, facts of each arm, and for each pair difference, null band or test, verdict."""

from __future__ import annotations

import itertools
import json
import math
import shlex
import statistics
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

from ..reading import startup
from ..reading.locate import AnalysisError
from ..reading.records import ENDED, Experiment, Trial, arm_names, best_result, made_of, shared_photos, validation_n
from . import statement, two_sample
from .best_of_n import optimism_of


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


INTERVAL_METHOD = "Welch t interval of the difference of means"
P_METHOD = "two-sided exact Mann-Whitney test with mid-ranks"
IMPROVEMENT_METHOD = "Newcombe 2006, method 5"


def compare(*experiments: Experiment, named: Sequence[str] = ()) -> dict[str, Any]:
    """The content of summary.json: `experiments` and `arms` (facts of each), `comparison`, and `comparisons`, one for
    each pair of arms. `named` are the texts of --group.

    Scores are as reported (accuracies are fractions); `difference` is the second arm's best less the first's. What
    cannot be estimated is None. Raises AnalysisError for fewer than two and for an experiment compared with itself.
    """
    if len(experiments) < 2:
        raise AnalysisError("compare needs two or more experiments, one was named; name the one to compare it with")
    for first, second in itertools.combinations(experiments, 2):
        if first.id == second.id and first.folder == second.folder:
            raise AnalysisError(f"experiment {first.id} was named twice; name two different experiments")
    arms = group(experiments, named)
    pairs = list(itertools.combinations(arms, 2))
    comparisons = [_compare_arms(*pair, tests=len(pairs)) for pair in pairs]
    return {
        "experiments": [facts(experiment) for experiment in experiments],
        "arms": [arm_facts(arm) for arm in arms],
        "comparison": comparisons[0] if len(comparisons) == 1 else _overall(arms, comparisons),
        "comparisons": comparisons,
    }


def arm_facts(arm: Arm) -> dict[str, Any]:
    """The repeats of one arm; `sd` is None for a single one."""
    bests, chosen = arm.bests, [experiment.chosen for experiment in arm.experiments]
    return {
        "name": arm.name,
        "tuner": startup.label(arm.experiments[0].tuner),
        "experiments": [experiment.id for experiment in arm.experiments],
        "bests": bests,
        "mean": statistics.fmean(bests) if bests else None,
        "sd": statistics.stdev(bests) if len(bests) > 1 else None,
        "trials": sum(len(experiment.trials) for experiment in arm.experiments),
        "chosen_by_tuner": None if None in chosen else sum(map(sum, chosen)),
    }


def facts(experiment: Experiment) -> dict[str, Any]:
    """What one experiment did, as plain JSON values; `made` is how its best trial was trained."""
    chosen = experiment.chosen
    return {
        "id": experiment.id,
        "name": experiment.name,
        "tuner": startup.label(experiment.tuner),
        "state": experiment.state,
        "trials": dict(experiment.counts),
        "chosen_by_tuner": None if chosen is None else sum(chosen),
        "best": None if experiment.best is None else best_facts(experiment.best),
        "optimism": None if (bias := optimism_of(experiment)) is None else bias._asdict(),
        "trial_seconds": experiment.trial_seconds,
        "wall_seconds": experiment.wall_seconds,
        "optimise_mode": experiment.optimise_mode,
        "startup_trials": _finite(startup.startup_trials(experiment.tuner, experiment.class_args)),
        "warnings": list(experiment.warnings),
        "made": made_of(best_result(experiment.best)),
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
        "validation_interval": None if n is None else list(two_sample.wilson(trial.score or 0.0, n)),
        "parameters_source": trial.parameters_source,
    }


def evaluation(trial: Trial) -> dict[str, Any] | None:
    """Accuracy of this trial's weights on the evaluation split, which steered nothing; None where absent."""
    final = trial.final if isinstance(trial.final, dict) else {}
    values = {key: _finite(final.get(f"evaluation_{key}")) for key in ("top1", "top3", "macro", "n")}
    if values["top1"] is None:
        return None
    return values | {"n": None if values["n"] is None else int(values["n"])}


def _compare_arms(first: Arm, second: Arm, tests: int = 1) -> dict[str, Any]:
    """Difference and verdict; `headline` and `details` say it in words, `statement` is both. One experiment each: the
    null band. More: of the means of their bests. `tests` pairs are compared in all: p is multiplied by it (Bonferroni)."""
    experiments = [*first.experiments, *second.experiments]
    obstacles = obstacles_between(experiments)
    single = len(experiments) == 2
    comparison = _single(first, second, obstacles) if single or obstacles else _repeated(first, second, tests)
    notes = [*shared_design(first.experiments, second.experiments), *notes_between(experiments)]
    return {"arms": [first.name, second.name], **comparison, "notes": notes}


def _single(first: Arm, second: Arm, obstacles: list[str]) -> dict[str, Any]:
    pair = (first.experiments[0], second.experiments[0])
    bests = (pair[0].best, pair[1].best)
    comparable = not obstacles and bests[0] is not None and bests[1] is not None
    difference = bests[1].score - bests[0].score if comparable else None
    band = two_sample.null_band(scores(pair[0]), scores(pair[1]), first.maximises) if comparable else None
    conclusion = statement.of_single_experiments(pair, obstacles, difference, band)
    return {
        "difference": difference,
        "interval": None,  # one experiment per arm: there is no spread between runs to build it from
        "p_value": None,
        **statement.fields(conclusion),
        "null_band": None if band is None else band._asdict() | {"exact": True},
        "repeats_needed": two_sample.repeats_needed() if conclusion.verdict == statement.NOT_ESTIMABLE else None,
    }


def _repeated(first: Arm, second: Arm, tests: int) -> dict[str, Any]:
    """2 or 3 experiments per arm give a difference of means and nothing to judge it by; 4 give a test, more are needed
    where several pairs share its level."""
    sizes = (len(first.bests), len(second.bests))
    numbers: dict[str, Any] = {"interval": None, "p_value": None, "null_band": None, "repeats_needed": None}
    numbers |= {"repeats": list(sizes), "difference": sum(second.bests) / sizes[1] - sum(first.bests) / sizes[0]}
    random = all(e.chosen is not None and not any(e.chosen) for arm in (first, second) for e in arm.experiments)
    needed = two_sample.repeats_needed(0.05 / tests)
    if min(sizes) >= two_sample.FEWEST:
        numbers |= _tested(first.bests, second.bests, first.maximises) | {"tests": tests}
        numbers["p_value"] = min(1.0, tests * numbers["p_value"])
    if min(sizes) < needed and not random:
        word, numbers["repeats_needed"] = statement.NOT_ESTIMABLE, needed
    else:
        is_shown = not random and numbers["p_value"] < 0.05
        word = statement.DIFFERENCE if is_shown else statement.NO_DIFFERENCE
    return {**numbers, **statement.fields(statement.of_repeats((first, second), numbers, word, random))}


def _tested(first: list[float], second: list[float], maximise: bool) -> dict[str, Any]:
    difference, interval = two_sample.welch(first, second)
    better = two_sample.probability_of_improvement(first, second, maximise)
    return {
        "difference": difference,
        "interval": list(interval),
        "interval_method": INTERVAL_METHOD,
        "p_value": two_sample.mann_whitney_p(first, second),
        "p_method": P_METHOD,
        "probability_of_improvement": better,
        "probability_interval": list(two_sample.improvement_interval(better, len(first), len(second))),
        "probability_method": IMPROVEMENT_METHOD,
    }


def _overall(arms: list[Arm], comparisons: list[dict[str, Any]]) -> dict[str, Any]:
    """Of three or more arms: a difference is shown where any pair shows one, else the most frequent verdict."""
    words = [pair["verdict"] for pair in comparisons]
    word = statement.DIFFERENCE if statement.DIFFERENCE in words else Counter(words).most_common(1)[0][0]
    notes = dict.fromkeys(note for pair in comparisons for note in pair["notes"])
    needed = [pair["repeats_needed"] for pair in comparisons if pair["repeats_needed"]]
    return {
        "arms": [arm.name for arm in arms],
        "difference": None,
        "interval": None,
        "p_value": None,
        **statement.fields(statement.of_many(arms, comparisons, word)),
        "null_band": None,
        "repeats_needed": max(needed, default=None),
        "notes": list(notes),
    }


def scores(experiment: Experiment) -> list[float | None]:
    """One entry per trial, failed ones as None. Trials that still run are no failures and are left out."""
    waiting = experiment.state == "RUNNING"
    return [trial.score for trial in experiment.trials if trial.state in ENDED or not waiting]


def _finite(value: Any) -> float | int | None:
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None
