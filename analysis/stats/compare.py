"""Compares experiments: facts of each and of each arm, and for each pair of arms difference, null band or test, verdict."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..reading import startup
from ..reading.locate import AnalysisError
from ..reading.provenance import best_result, made_of
from ..reading.records import ENDED, Experiment, Trial, validation_n
from . import statement, two_sample, verdict
from .arms import Arm, group, notes_between, obstacles_between, shared_design
from .best_of_n import optimism_of

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
    comparisons = [compare_arms(*pair, tests=len(pairs)) for pair in pairs]
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


def compare_arms(first: Arm, second: Arm, tests: int = 1) -> dict[str, Any]:
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
        "repeats_needed": two_sample.repeats_needed() if conclusion.verdict == verdict.NOT_ESTIMABLE else None,
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
        word, numbers["repeats_needed"] = verdict.NOT_ESTIMABLE, needed
    else:
        is_shown = not random and numbers["p_value"] < 0.05
        word = verdict.DIFFERENCE if is_shown else verdict.NO_DIFFERENCE
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
    word = verdict.DIFFERENCE if verdict.DIFFERENCE in words else Counter(words).most_common(1)[0][0]
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
