"""Compares experiments: which are repeats of one arm, facts of each arm, and for each pair numbers and verdict."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from ..reading import startup
from ..reading.locate import AnalysisError
from ..reading.records import ENDED, Experiment, Trial, arm_names, best_result, is_percent, made_of, validation_n
from . import comparable, statement, two_sample
from .best_of_n import optimism_of
from .comparable import Arm, Sharing
from .decision import Question, decide
from .equivalence import MARGIN

ALL_TRIALS, BEST_TRIALS = "all trials", "best trials"
"""Of which the page shows the accuracy on the evaluation split: `evaluation_shown` in summary.json."""


@dataclass(frozen=True)
class Choices:
    """What the user decides about a comparison. `named` are the texts of --group; `margin` is in points of accuracy, or in units
    of another score: None for 1 point and for none of other scores; `has_handicap`: unequal budgets are no obstacle;
    `shows_evaluation`: of every trial, not of the best alone; `earlier`: the summary.json that the same folder held before."""

    named: Sequence[str] = ()
    margin: float | None = None
    has_handicap: bool = False
    shows_evaluation: bool = False
    earlier: dict[str, Any] | None = None


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


def compare(*experiments: Experiment, choices: Choices = Choices()) -> dict[str, Any]:
    """The content of summary.json: `experiments` and `arms` (facts of each), `comparison`, and `comparisons`, one for
    each pair of arms.

    Scores are as reported (accuracies are fractions); `difference` is the second arm's best less the first's. What
    cannot be estimated is None. Raises AnalysisError for fewer than two and for an experiment compared with itself.
    """
    if len(experiments) < 2:
        raise AnalysisError("compare needs two or more experiments, one was named; name the one to compare it with")
    for first, second in combinations(experiments, 2):
        if first.id == second.id and first.folder == second.folder:
            raise AnalysisError(f"experiment {first.id} was named twice; name two different experiments")
    if choices.margin is not None and not choices.margin > 0:
        raise AnalysisError(f"--margin {choices.margin:g}: expected a number above 0, such as 1 point of accuracy")
    arms = group(experiments, choices.named)
    pairs, looks = list(combinations(arms, 2)), earlier_looks(arms, choices.earlier)
    comparisons = [_compare_arms(*pair, Circumstances(choices, len(pairs), looks)) for pair in pairs]
    return {
        "experiments": [facts(experiment) for experiment in experiments],
        "arms": [arm_facts(arm) for arm in arms],
        "comparison": comparisons[0] if len(comparisons) == 1 else _overall(arms, comparisons),
        "comparisons": comparisons,
        "looks": looks,
        "evaluation_shown": ALL_TRIALS
        if choices.shows_evaluation or _was_shown(experiments, choices.earlier)
        else BEST_TRIALS,
    }


def _was_shown(experiments: Sequence[Experiment], earlier: dict[str, Any] | None) -> bool:
    """Whether an earlier page of this folder showed the evaluation accuracy of every trial of any of these experiments."""
    if not isinstance(earlier, dict) or earlier.get("evaluation_shown") != ALL_TRIALS:
        return False
    return not {e.id for e in experiments}.isdisjoint(e["id"] for e in earlier.get("experiments", []))


def earlier_looks(arms: list[Arm], earlier: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The tests of fewer repeats of these arms that were looked at before: those that the earlier summary lists, and its own.
    None where it is of other experiments, or was no test."""
    try:
        before = {arm["name"]: set(arm["experiments"]) for arm in earlier["arms"]} if earlier else {}
        now = {arm.name: {experiment.id for experiment in arm.experiments} for arm in arms}
        if not before or before.keys() != now.keys() or not all(before[name] <= now[name] for name in now):
            return []
        looks = [dict(look) for look in earlier.get("looks", [])]
        tested = [pair["p_value"] for pair in earlier["comparisons"] if pair["p_value"] is not None]
    except (KeyError, TypeError, AttributeError):  # of an earlier version, or no summary
        return []
    if tested and before != now:
        looks.append({"repeats": [len(before[arm.name]) for arm in arms], "p_value": min(tested)})
    return looks


def arm_facts(arm: Arm) -> dict[str, Any]:
    """The repeats of one arm. `bests` are None for those without a result, and mean and `sd` then too; `sd` also for a single
    one. `evaluations` are of the same networks."""
    bests, chosen = arm.bests, [experiment.chosen for experiment in arm.experiments]
    return {
        "name": arm.name,
        "tuner": startup.label(arm.experiments[0].tuner),
        "experiments": [experiment.id for experiment in arm.experiments],
        "bests": bests,
        "mean": None if None in bests else statistics.fmean(bests),
        "sd": None if None in bests or len(bests) < 2 else statistics.stdev(bests),
        "evaluations": [_evaluation_of(experiment) for experiment in arm.experiments],
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


def _evaluation_of(experiment: Experiment) -> float | None:
    accuracy = None if experiment.best is None else evaluation(experiment.best)
    return None if accuracy is None else accuracy["top1"]


@dataclass(frozen=True)
class Circumstances:
    """Of one pair of arms: the user's choices, how many pairs are compared in all, and earlier looks at the same arms."""

    choices: Choices
    tests: int
    looks: list[dict[str, Any]]


def _compare_arms(first: Arm, second: Arm, circumstances: Circumstances) -> dict[str, Any]:
    """Numbers and verdict; `headline` and `details` say it in words, `statement` is both. One experiment each: the
    null band. More: `decision.decide`."""
    has_handicap = circumstances.choices.has_handicap
    obstacles = comparable.obstacles_between(first, second, has_handicap)
    shared = comparable.Sharing() if obstacles else comparable.sharing(first, second)
    handicap = comparable.budget_difference(first, second) if has_handicap and not obstacles else ""
    experiments = [*first.experiments, *second.experiments]
    if obstacles:
        result = _not_comparable(first, second, obstacles)
    elif len(experiments) == 2:
        result = _single(first, second, handicap)
    else:
        result = _repeated(first, second, shared, handicap, circumstances)
    notes = [
        *comparable.sharing_notes(first, second, shared),
        *comparable.seed_notes(first, second),
        *statement.look_notes(circumstances.looks),
        *comparable.notes_between(experiments),
    ]
    return {"arms": [first.name, second.name], **result, "handicap": handicap or None, "notes": notes}


NOTHING: dict[str, Any] = {
    "difference": None,
    "interval": None,
    "p_value": None,
    "null_band": None,
    "repeats_needed": None,
}


def _not_comparable(first: Arm, second: Arm, obstacles: list[str]) -> dict[str, Any]:
    return {**NOTHING, **statement.fields(statement.of_obstacles((first, second), obstacles)), "obstacles": obstacles}


def _single(first: Arm, second: Arm, handicap: str) -> dict[str, Any]:
    """One experiment per arm: no spread between runs, so neither interval nor p."""
    pair = (first.experiments[0], second.experiments[0])
    difference = pair[1].best.score - pair[0].best.score
    band = two_sample.null_band(scores(pair[0]), scores(pair[1]), first.maximises)
    accuracies = (_evaluation_of(pair[0]), _evaluation_of(pair[1]))
    numbers = {"difference": difference, "evaluation": accuracies, "band": band}
    conclusion = statement.of_single_experiments(pair, numbers, comparable.luck(first, second), handicap)
    return {
        **NOTHING,
        "difference": difference,
        **statement.fields(conclusion),
        "null_band": None if band is None else band._asdict() | {"exact": True},
        "repeats_needed": two_sample.repeats_needed() if conclusion.verdict == statement.NOT_ESTIMABLE else None,
    }


def _repeated(first: Arm, second: Arm, shared: Sharing, handicap: str, circumstances: Circumstances) -> dict[str, Any]:
    """Where no tuner chose a trial and all else is equal, a difference is chance whatever p says."""
    arms = tuple(Arm(arm.name, _in_pairs(arm, k, shared)) for k, arm in enumerate((first, second)))
    numbers = decide(
        *((arm.bests, list(map(_evaluation_of, arm.experiments))) for arm in arms),
        _question(arms, shared, circumstances),
    )
    luck = "" if handicap else comparable.luck(first, second)
    if luck == "chance":
        numbers |= {"verdict": statement.NO_DIFFERENCE, "repeats_needed": None, "equivalence": None}
    conclusion = statement.of_repeats(arms, numbers, luck, handicap)
    pairs = [[one.id, other.id] for one, other in zip(*(arm.experiments for arm in arms))] if shared.pairs else None
    return {**NOTHING, **numbers, "pairs": pairs, **statement.fields(conclusion)}


def _in_pairs(arm: Arm, place: int, shared: Sharing) -> tuple[Experiment, ...]:
    """The arm's experiments, in the order of the pairs where there are any."""
    return tuple(arm.experiments[pair[place]] for pair in shared.pairs) or arm.experiments


def _question(arms: Sequence[Arm], shared: Sharing, circumstances: Circumstances) -> Question:
    is_accuracy = is_percent([experiment for arm in arms for experiment in arm.experiments])
    margin = circumstances.choices.margin
    if is_accuracy:
        margin = MARGIN if margin is None else margin / 100
    return Question(
        maximise=arms[0].maximises,
        paired=bool(shared.pairs),
        tests=circumstances.tests,
        looks=len(circumstances.looks),
        margin=margin,
        reaches=1.0 if is_accuracy else None,
    )


def _overall(arms: list[Arm], comparisons: list[dict[str, Any]]) -> dict[str, Any]:
    """Of three or more arms: a difference is shown where any pair shows one, else the most frequent verdict."""
    words = [pair["verdict"] for pair in comparisons]
    word = statement.DIFFERENCE if statement.DIFFERENCE in words else Counter(words).most_common(1)[0][0]
    notes = dict.fromkeys(note for pair in comparisons for note in pair["notes"])
    needed = [pair["repeats_needed"] for pair in comparisons if pair["repeats_needed"]]
    return {
        "arms": [arm.name for arm in arms],
        **NOTHING,
        **statement.fields(statement.of_many(arms, comparisons, word)),
        "repeats_needed": max(needed, default=None),
        "notes": list(notes),
    }


def scores(experiment: Experiment) -> list[float | None]:
    """One entry per trial, failed ones as None. Trials that still run are no failures and are left out."""
    waiting = experiment.state == "RUNNING"
    return [trial.score for trial in experiment.trials if trial.state in ENDED or not waiting]


def _finite(value: Any) -> float | int | None:
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None
