"""Compares experiments: facts of each and of each arm, the differences of their bests, the verdict in words."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import Any

from ..reading import startup
from ..reading.locate import AnalysisError
from ..reading.provenance import best_result, made_of
from ..reading.records import Experiment, Trial
from ..render.formats import validation_n
from . import verdict
from .contest import comparison, overall
from .grouping import Arm, group
from .selection import optimism_of


def compare(*experiments: Experiment, named: Sequence[str] = ()) -> dict[str, Any]:
    """The content of summary.json: `experiments` and `arms` (facts of each), `comparison`, and `comparisons`, one for
    each pair of arms. `named` are the texts of --group.

    Scores are as reported (accuracies are fractions); `difference` is the second arm's best less the first's. What
    cannot be estimated is None. Raises AnalysisError for an experiment compared with itself.
    """
    for first, second in itertools.combinations(experiments, 2):
        if first.id == second.id and first.folder == second.folder:
            raise AnalysisError(f"experiment {first.id} was named twice; name two different experiments")
    arms = group(experiments, named)
    pairs = list(itertools.combinations(arms, 2))
    found = [comparison(*pair, tests=len(pairs)) for pair in pairs]
    return {
        "experiments": [facts(experiment) for experiment in experiments],
        "arms": [arm_facts(arm) for arm in arms],
        "comparison": found[0] if len(found) == 1 else overall(arms, found),
        "comparisons": found,
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
    """What one experiment did, as plain JSON values; `made` is how its best trial was."""
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


def _finite(value: Any) -> float | int | None:
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None
